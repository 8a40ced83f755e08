//! Key bytes that wipe themselves.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::CryptoError;
use super::random::fill_random;

/// Length of every symmetric key in Cairn, in bytes.
pub(crate) const KEY_LEN: usize = 32;

/// 32 secret bytes. They live on the heap, so that moving the owner leaves no copy behind, are wiped on drop, and
/// neither print nor compare in variable time.
#[derive(Clone)]
pub(crate) struct SecretKey(Box<[u8; KEY_LEN]>);

impl SecretKey {
    /// Makes a fresh key.
    pub(crate) fn generate() -> Result<SecretKey, CryptoError> {
        let mut key = SecretKey(Box::new([0; KEY_LEN]));
        fill_random(key.0.as_mut_slice())?;
        Ok(key)
    }

    /// Copies a key out of `bytes`, which stay the caller's to wipe; `None` unless there are exactly 32.
    pub(crate) fn from_slice(bytes: &[u8]) -> Option<SecretKey> {
        if bytes.len() != KEY_LEN {
            return None;
        }
        let mut key = SecretKey(Box::new([0; KEY_LEN]));
        key.0.copy_from_slice(bytes);
        Some(key)
    }

    /// Lets `fill` write the key in place, so that no copy of it passes over the stack.
    pub(crate) fn filled_by(fill: impl FnOnce(&mut [u8; KEY_LEN])) -> SecretKey {
        let mut key = SecretKey(Box::new([0; KEY_LEN]));
        fill(&mut key.0);
        key
    }

    /// The secret itself.
    pub(crate) fn expose(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

impl PartialEq for SecretKey {
    /// Looks at every byte, whatever the first ones say.
    fn eq(&self, other: &SecretKey) -> bool {
        let difference = self.0.iter().zip(other.0.iter()).fold(0, |sum, (left, right)| sum | (left ^ right));
        std::hint::black_box(difference) == 0
    }
}

impl Eq for SecretKey {}

impl fmt::Debug for SecretKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SecretKey(..)")
    }
}

impl Drop for SecretKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl ZeroizeOnDrop for SecretKey {}
