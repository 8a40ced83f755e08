//! The identities that seals are bound to.

use std::fmt;

use super::CryptoError;
use super::random::fill_random;

/// The identity of a cluster: 16 random bytes, made at its first start and by every restore into a new cluster.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterId(pub [u8; 16]);

impl ClusterId {
    /// Makes a fresh identity.
    ///
    /// # Errors
    /// [`CryptoError::Random`] when the operating system gives no random bytes.
    pub fn generate() -> Result<ClusterId, CryptoError> {
        let mut bytes = [0; 16];
        fill_random(&mut bytes)?;
        Ok(ClusterId(bytes))
    }

    /// Reads an identity from exactly 16 bytes; `None` for any other length.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<ClusterId> {
        bytes.try_into().ok().map(ClusterId)
    }

    /// The 16 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(formatter, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ClusterId({self})")
    }
}

/// A tenant's number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TenantId(pub u64);

impl TenantId {
    /// The system itself: owns what belongs to no tenant.
    pub const SYSTEM: TenantId = TenantId(0);
    /// The tenant that every cluster begins with, named `default`.
    pub const DEFAULT: TenantId = TenantId(1);
}

impl fmt::Display for TenantId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// The version of a tenant's data key, starting at 1 and growing by 1 with each rotation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct KeyId(pub u32);

impl fmt::Display for KeyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}
