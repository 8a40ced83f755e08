//! Key-encryption keys, and the wrapping of a tenant's keys under them.
//!
//! A wrapped key is a sealed value (byte map in `crypto/record.rs`) of 32 bytes, 78 bytes in all, whose key version is
//! that of the key-encryption key. Its associated data names `data-key` or `lookup-key` as the family and, as the key:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 16 | cluster id |
//! | 16 | 8 | tenant, u64 little-endian |
//! | 24 | 4 | version of the data key, u32 little-endian |

use cairn_proto::storage::WrappedTenantKeys;
use zeroize::Zeroizing;

use super::KeyringError;
use crate::crypto::{Aad, ClusterId, Compression, CryptoError, KeyId, Purpose, RecordCipher, SecretKey, TenantId};

const WRAP_FORMAT: u8 = 1;
const DATA_KEY: &str = "data-key";
const LOOKUP_KEY: &str = "lookup-key";

/// A tenant's keys in the clear.
pub(super) struct OpenedKeys {
    pub(super) data_key: SecretKey,
    pub(super) lookup_key: SecretKey,
}

impl OpenedKeys {
    /// The data key with its version, ready for use.
    pub(super) fn data_key(&self, wrapped: &WrappedTenantKeys) -> RecordCipher {
        RecordCipher::new(&self.data_key, KeyId(wrapped.data_key_version))
    }
}

/// The key-encryption keys, by version, oldest first. New keys are wrapped under the last one. Never empty.
#[derive(Clone)]
pub(super) struct Keks(Vec<(u32, SecretKey)>);

impl Keks {
    /// The first key-encryption key of a new cluster.
    pub(super) fn generate() -> Result<Keks, CryptoError> {
        Ok(Keks(vec![(1, SecretKey::generate()?)]))
    }

    /// Takes keys as they stand in the file; `None` unless there is one at least and versions rise.
    pub(super) fn from_sorted(keys: Vec<(u32, SecretKey)>) -> Option<Keks> {
        let rising = keys.windows(2).all(|pair| pair[0].0 < pair[1].0);
        (rising && !keys.is_empty()).then_some(Keks(keys))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &SecretKey)> {
        self.0.iter().map(|(version, key)| (*version, key))
    }

    /// The cipher of the newest key.
    pub(super) fn newest(&self) -> RecordCipher {
        let (version, key) = &self.0[self.0.len() - 1];
        RecordCipher::new(key, KeyId(*version))
    }

    /// The cipher of the key `version`.
    pub(super) fn version(&self, version: u32) -> Option<RecordCipher> {
        let (_, key) = self.0.iter().find(|(known, _)| *known == version)?;
        Some(RecordCipher::new(key, KeyId(version)))
    }

    /// The keys of both; refused when they differ under one version.
    pub(super) fn union(&self, other: &Keks) -> Result<Keks, KeyringError> {
        let mut keys = self.0.clone();
        for (version, key) in &other.0 {
            match keys.iter().find(|(known, _)| known == version) {
                Some((_, known)) if known == key => {}
                Some(_) => {
                    let what = "another key-encryption key of the same version";
                    return Err(KeyringError::Refused { tenant: TenantId::SYSTEM, what });
                }
                None => keys.push((*version, key.clone())),
            }
        }
        keys.sort_by_key(|(version, _)| *version);
        Ok(Keks(keys))
    }

    /// Makes a fresh data key and wraps it, with the lookup key given, under the newest key-encryption key.
    pub(super) fn new_tenant_keys(
        &self,
        cluster_id: ClusterId,
        tenant: TenantId,
        data_key_version: KeyId,
        lookup_key: &SecretKey,
    ) -> Result<WrappedTenantKeys, KeyringError> {
        let kek = self.newest();
        let place = place(cluster_id, tenant, data_key_version);
        let wrap = |family, key: &SecretKey| -> Result<Vec<u8>, CryptoError> {
            let mut wrapped = Vec::new();
            let aad = Aad { format: WRAP_FORMAT, family, key: &place };
            kek.seal_into(Purpose::TenantKey, Compression::Skip, &aad, key.expose(), &mut wrapped)?;
            Ok(wrapped)
        };
        Ok(WrappedTenantKeys {
            tenant_id: tenant.0,
            kek_version: kek.key_id().0,
            data_key_version: data_key_version.0,
            data_key: wrap(DATA_KEY, &SecretKey::generate()?)?.into(),
            lookup_key: wrap(LOOKUP_KEY, lookup_key)?.into(),
        })
    }

    /// Opens wrapped keys.
    pub(super) fn unwrap(&self, cluster_id: ClusterId, wrapped: &WrappedTenantKeys) -> Result<OpenedKeys, CryptoError> {
        let kek = self.version(wrapped.kek_version).ok_or(CryptoError::UnknownKey(KeyId(wrapped.kek_version)))?;
        let place = place(cluster_id, TenantId(wrapped.tenant_id), KeyId(wrapped.data_key_version));
        let unwrap = |family, sealed: &[u8]| {
            let aad = Aad { format: WRAP_FORMAT, family, key: &place };
            let opened = Zeroizing::new(kek.open(Purpose::TenantKey, &aad, sealed)?);
            SecretKey::from_slice(&opened).ok_or(CryptoError::Malformed("a wrapped key is not 32 bytes long"))
        };
        Ok(OpenedKeys {
            data_key: unwrap(DATA_KEY, &wrapped.data_key)?,
            lookup_key: unwrap(LOOKUP_KEY, &wrapped.lookup_key)?,
        })
    }
}

fn place(cluster_id: ClusterId, tenant: TenantId, data_key_version: KeyId) -> [u8; 28] {
    let mut place = [0; 28];
    place[..16].copy_from_slice(cluster_id.as_bytes());
    place[16..24].copy_from_slice(&tenant.0.to_le_bytes());
    place[24..].copy_from_slice(&data_key_version.0.to_le_bytes());
    place
}
