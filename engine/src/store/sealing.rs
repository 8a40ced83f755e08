//! Plaintext rows to stored values and back.
//!
//! ```text
//! plain kinds   [version u8 = 1][bytes]
//! sealed kinds  a sealed value of [`crate::crypto`], bound to the family `rows` and the row's key
//! ```

use std::sync::Arc;

use crate::crypto::{Aad, Compression, FreshNonce, Nonces, SEALED_OVERHEAD_MAX, TenantId};
use crate::error::{Error, Result};
use crate::keyring::{KeyError, Keyring, TenantKeys};
use crate::position::GroupId;
use crate::store::keys::{Key, LookupDomain, LookupId, Protection};

/// The version of all rows that are not sealed.
const PLAIN_VERSION: u8 = 1;
/// The format of the messages and byte maps inside sealed rows.
const ROW_FORMAT: u8 = 1;
/// The format of a sealed mutation.
const COMMAND_FORMAT: u8 = 1;
/// The format of a sealed page token.
const TOKEN_FORMAT: u8 = 1;

/// Where commands, names in commands, and page tokens are bound to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// A tenant's mutation.
    Command,
    /// A tenant's name in the command that makes it.
    TenantName,
    /// A page token.
    PageToken,
}

/// Seals and opens rows, commands and tokens with the keys of the keyring.
#[derive(Clone)]
pub(crate) struct Sealer {
    keyring: Arc<Keyring>,
    group: GroupId,
}

impl Sealer {
    pub(crate) fn new(keyring: Arc<Keyring>, group: GroupId) -> Self {
        Self { keyring, group }
    }

    pub(crate) fn keyring(&self) -> &Arc<Keyring> {
        &self.keyring
    }

    pub(crate) fn group(&self) -> GroupId {
        self.group
    }

    /// The keys of a tenant, for a caller. A tenant that is not there, or not any more, is NOT_FOUND.
    pub(crate) fn tenant_of_caller(&self, tenant: TenantId) -> Result<Arc<TenantKeys>> {
        self.keyring.tenant(tenant).map_err(|_| Error::not_found("tenant", &tenant.to_string()))
    }

    /// The keys of a tenant whose rows are there. That they are missing is an error of this node.
    fn tenant(&self, tenant: u64) -> Result<Arc<TenantKeys>> {
        self.keyring.tenant(TenantId(tenant)).map_err(|e| match e {
            KeyError::Destroyed(_) => Error::not_found("tenant", &tenant.to_string()),
            KeyError::Unknown(_) => {
                Error::internal(format!("the keyring lacks the keys of tenant {tenant}")).with_source(e)
            }
        })
    }

    /// The lookup id of a string of a tenant; tenant 0: the system.
    pub(crate) fn lookup_id(&self, tenant: u64, domain: LookupDomain, parts: &[&[u8]]) -> Result<LookupId> {
        let keys = if tenant == 0 { self.keyring.system() } else { self.tenant(tenant)? };
        Ok(keys.lookup_id_of_parts(domain as u8, parts))
    }

    /// The stored value of a row that is written by itself.
    pub(crate) fn seal_row(&self, key: &Key, plain: &[u8]) -> Result<Vec<u8>> {
        self.seal_row_of_batch(key, plain, Compression::Try, &mut self.nonces()?)
    }

    /// The nonces of a batch of rows.
    pub(crate) fn nonces(&self) -> Result<Nonces> {
        Nonces::draw().map_err(|e| Error::internal("nothing can be sealed").with_source(e))
    }

    /// The stored value of a row of a batch.
    pub(crate) fn seal_row_of_batch(
        &self,
        key: &Key,
        plain: &[u8],
        compression: Compression,
        nonces: &mut Nonces,
    ) -> Result<Vec<u8>> {
        let keys = match key.kind().protection() {
            Protection::Plain => {
                let mut value = Vec::with_capacity(1 + plain.len());
                value.push(PLAIN_VERSION);
                value.extend_from_slice(plain);
                return Ok(value);
            }
            Protection::System => self.keyring.system(),
            Protection::Tenant => self.tenant(key.tenant())?,
        };
        let key_bytes = key.encode(self.group);
        let aad = Aad { format: ROW_FORMAT, family: "rows", key: key_bytes.as_ref() };
        let mut value = Vec::with_capacity(plain.len() + SEALED_OVERHEAD_MAX);
        let sealed = keys.seal_with_nonce(compression, nonces.fresh(), &aad, plain, &mut value);
        sealed.map_err(|e| Error::internal(format!("a {} row cannot be sealed", key.kind().name())).with_source(e))?;
        Ok(value)
    }

    /// The plaintext of a stored value.
    pub(crate) fn open_row(&self, key: &Key, value: &[u8]) -> Result<Vec<u8>> {
        let keys = match key.kind().protection() {
            Protection::Plain => {
                return match value.split_first() {
                    Some((&PLAIN_VERSION, plain)) => Ok(plain.to_vec()),
                    _ => Err(Error::corruption(format!("a {} row has an unknown version", key.kind().name()))),
                };
            }
            Protection::System => self.keyring.system(),
            Protection::Tenant => self.tenant(key.tenant())?,
        };
        let key_bytes = key.encode(self.group);
        let aad = Aad { format: ROW_FORMAT, family: "rows", key: key_bytes.as_ref() };
        keys.open(&aad, value).map_err(|e| {
            Error::corruption(format!("a {} row is not what was written", key.kind().name())).with_source(e)
        })
    }

    /// Seals what is not a row; tenant 0: under the system's key.
    pub(crate) fn seal(&self, place: Place, tenant: u64, plain: &[u8]) -> Result<(u32, Vec<u8>)> {
        self.seal_packed(place, tenant, plain, 0)
    }

    /// As [`seal`](Self::seal), of a value of which so many bytes are packed already, or do not shrink otherwise.
    pub(crate) fn seal_packed(
        &self,
        place: Place,
        tenant: u64,
        plain: &[u8],
        packed_bytes: usize,
    ) -> Result<(u32, Vec<u8>)> {
        let keys = if tenant == 0 { self.keyring.system() } else { self.tenant_of_caller(TenantId(tenant))? };
        let mut sealed = Vec::with_capacity(plain.len() + SEALED_OVERHEAD_MAX);
        let tenant = tenant.to_be_bytes();
        let aad = place.aad(&tenant);
        let compression = Compression::worth_trying(plain.len(), packed_bytes);
        FreshNonce::draw()
            .and_then(|nonce| keys.seal_with_nonce(compression, nonce, &aad, plain, &mut sealed))
            .map_err(|e| Error::internal("a value cannot be sealed").with_source(e))?;
        Ok((keys.key_id().0, sealed))
    }

    /// Opens what [`seal`](Self::seal) made. A tenant whose keys were destroyed is NOT_FOUND; bytes that do not open are
    /// CORRUPTION.
    pub(crate) fn open(&self, place: Place, tenant: u64, sealed: &[u8]) -> Result<Vec<u8>> {
        let keys = if tenant == 0 { self.keyring.system() } else { self.tenant(tenant)? };
        keys.open(&place.aad(&tenant.to_be_bytes()), sealed)
            .map_err(|e| Error::corruption("a sealed value is not what was written").with_source(e))
    }
}

impl Place {
    fn aad(self, tenant: &[u8; 8]) -> Aad<'_> {
        let (format, family) = match self {
            Self::Command => (COMMAND_FORMAT, "command"),
            Self::TenantName => (COMMAND_FORMAT, "tenant_name"),
            Self::PageToken => (TOKEN_FORMAT, "page_token"),
        };
        Aad { format, family, key: tenant }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crypto::ClusterId;
    use crate::error::ErrorKind;
    use crate::keyring::RootKey;
    use crate::store::keys::{MetaItem, SpaceRef};

    fn sealer() -> (tempfile::TempDir, Sealer) {
        let dir = tempfile::TempDir::new().unwrap();
        let root = RootKey::from_bytes(&[7; 32]);
        let keyring = Keyring::create(&dir.path().join("keyring"), &root, ClusterId([9; 16])).unwrap();
        let keys = keyring.new_tenant_keys(TenantId(1)).unwrap();
        keyring.install_tenant_keys(&keys).unwrap();
        (dir, Sealer::new(Arc::new(keyring), GroupId(0)))
    }

    fn keys() -> [Key; 4] {
        let space = SpaceRef { tenant: 1, space: 1 };
        [
            Key::Meta(MetaItem::Applied),
            Key::Tenant { tenant: 1 },
            Key::Memory { space, memory: [1; 16] },
            Key::Vector { space, embedding: 0, memory: [1; 16] },
        ]
    }

    #[test]
    fn rows_open_only_in_their_own_place() {
        let (_dir, sealer) = sealer();
        for key in keys() {
            let value = sealer.seal_row(&key, b"plain").unwrap();
            assert_eq!(sealer.open_row(&key, &value).unwrap(), b"plain");
        }
        let space = SpaceRef { tenant: 1, space: 1 };
        let value = sealer.seal_row(&Key::Memory { space, memory: [1; 16] }, b"plain").unwrap();
        let moved = sealer.open_row(&Key::Memory { space, memory: [2; 16] }, &value).unwrap_err();
        assert_eq!(*moved.kind(), ErrorKind::Corruption);
    }

    #[test]
    fn arbitrary_values_never_panic_and_never_open() {
        let (_dir, sealer) = sealer();
        proptest!(|(value: Vec<u8>)| {
            for key in keys() {
                let opened = sealer.open_row(&key, &value);
                prop_assert!(opened.is_err() || key.kind().protection() == Protection::Plain);
            }
            prop_assert!(sealer.open(Place::Command, 1, &value).is_err());
        });
    }
}
