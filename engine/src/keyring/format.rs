//! The keyring file.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | format: 1 |
//! | 1 | 16 | id of the root key (see [`super::RootKey`]) |
//! | 17 | 16 | cluster id |
//! | 33 | 4 | `k`: length of the next field in bytes, u32 little-endian |
//! | 37 | `k` | the key-encryption keys: a sealed value under the root key, bound to bytes 0..37 |
//! | 37 + `k` | `b` | the body: a sealed value under the newest key-encryption key, bound to bytes 0..37 + `k` |
//! | 37 + `k` + `b` | 4 | CRC-32 of all bytes before it, u32 little-endian; in every format the last four bytes |
//!
//! The key-encryption keys, opened: for each, ascending by version,
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | version, u32 little-endian |
//! | 4 | 32 | the key |
//!
//! The body, opened, is a `cairn.storage.v1.KeyringBody`, whose keys are wrapped once more. Sealed values: see
//! `crypto/record.rs`.
//!
//! The checksum is no protection, the seals are; it tells chance damage from a wrong root key and from a newer format,
//! so that each gets the message that helps.

use cairn_proto::storage::{KeyringBody, TenantTombstone, WrappedTenantKeys};
use prost::Message;
use zeroize::Zeroizing;

use super::wrap::Keks;
use super::{KeyringError, RootKey};
use crate::crypto::{Aad, ClusterId, Compression, CryptoError, KEY_LEN, Purpose, SecretKey};

const FORMAT: u8 = 1;
const ROOT_KEY_ID_AT: usize = 1;
const CLUSTER_ID_AT: usize = 17;
const KEKS_LEN_AT: usize = 33;
const HEADER_LEN: usize = 37;
const CHECKSUM_LEN: usize = 4;
const KEK_LEN: usize = 4 + KEY_LEN;

/// What the file says, with the key-encryption keys opened and the tenants' keys still wrapped.
pub(super) struct Contents {
    pub(super) cluster_id: ClusterId,
    pub(super) keks: Keks,
    pub(super) tenants: Vec<WrappedTenantKeys>,
    pub(super) tombstones: Vec<TenantTombstone>,
}

impl Contents {
    pub(super) fn encode(&self, root: &RootKey) -> Result<Vec<u8>, KeyringError> {
        let mut sealed_keks = Vec::new();
        let mut file = Vec::with_capacity(1024 + 256 * self.tenants.len());
        file.push(FORMAT);
        file.extend_from_slice(&root.id());
        file.extend_from_slice(self.cluster_id.as_bytes());
        // The length is part of what the seal is bound to, so it is worked out first.
        let mut keks = Zeroizing::new(Vec::with_capacity(self.keks.len() * KEK_LEN));
        for (version, key) in self.keks.iter() {
            keks.extend_from_slice(&version.to_le_bytes());
            keks.extend_from_slice(key.expose());
        }
        let sealed_len = keks.len() + crate::crypto::SEALED_OVERHEAD_MAX;
        file.extend_from_slice(&(sealed_len as u32).to_le_bytes());
        let place = Aad { format: FORMAT, family: "keyring", key: &file };
        root.cipher().seal_into(Purpose::KeyEncryptionKeys, Compression::Skip, &place, &keks, &mut sealed_keks)?;
        debug_assert_eq!(sealed_keks.len(), sealed_len);
        file.extend_from_slice(&sealed_keks);

        let body = KeyringBody { tenants: self.tenants.clone(), tombstones: self.tombstones.clone() };
        let place = Aad { format: FORMAT, family: "keyring", key: &file.clone() };
        let kek = self.keks.newest();
        kek.seal_into(Purpose::KeyringBody, Compression::Skip, &place, &body.encode_to_vec(), &mut file)?;
        file.extend_from_slice(&crc32fast::hash(&file).to_le_bytes());
        Ok(file)
    }

    /// Reads and opens; `place` is how messages name the bytes.
    pub(super) fn decode(place: &str, file: &[u8], root: &RootKey) -> Result<Contents, KeyringError> {
        let damaged = |what| KeyringError::Damaged { place: place.to_owned(), what };
        let unsealed = |error| match error {
            CryptoError::UnknownFormat { .. } | CryptoError::BadTag => damaged("a seal does not match"),
            _ => damaged("a sealed part is malformed"),
        };
        let (rest, checksum) = file.split_last_chunk::<CHECKSUM_LEN>().ok_or_else(|| damaged("it is too short"))?;
        if crc32fast::hash(rest) != u32::from_le_bytes(*checksum) {
            return Err(damaged("its checksum does not match"));
        }
        let &found = rest.first().ok_or_else(|| damaged("it is too short"))?;
        if found != FORMAT {
            return Err(KeyringError::NewerFormat { place: place.to_owned(), found, supported: FORMAT });
        }
        let (header, _) = rest.split_first_chunk::<HEADER_LEN>().ok_or_else(|| damaged("it is too short"))?;
        if header[ROOT_KEY_ID_AT..CLUSTER_ID_AT] != root.id() {
            return Err(KeyringError::WrongRootKey { place: place.to_owned() });
        }
        let cluster_id =
            ClusterId::from_slice(&header[CLUSTER_ID_AT..KEKS_LEN_AT]).ok_or_else(|| damaged("it is too short"))?;
        let mut keks_len = [0; 4];
        keks_len.copy_from_slice(&header[KEKS_LEN_AT..]);
        let body_at = HEADER_LEN.saturating_add(u32::from_le_bytes(keks_len) as usize);
        let sealed_keks = rest.get(HEADER_LEN..body_at).ok_or_else(|| damaged("it is too short"))?;

        let aad = Aad { format: FORMAT, family: "keyring", key: header };
        let keks = root.cipher().open(Purpose::KeyEncryptionKeys, &aad, sealed_keks).map_err(unsealed)?;
        let keks = read_keks(&Zeroizing::new(keks)).ok_or_else(|| damaged("its key-encryption keys are malformed"))?;
        let aad = Aad { format: FORMAT, family: "keyring", key: &rest[..body_at] };
        let body = keks.newest().open(Purpose::KeyringBody, &aad, &rest[body_at..]).map_err(unsealed)?;
        let body = KeyringBody::decode(body.as_slice()).map_err(|_| damaged("its body is malformed"))?;
        Ok(Contents { cluster_id, keks, tenants: body.tenants, tombstones: body.tombstones })
    }
}

fn read_keks(bytes: &[u8]) -> Option<Keks> {
    let (entries, rest) = bytes.as_chunks::<KEK_LEN>();
    let mut keys = Vec::with_capacity(entries.len());
    for entry in entries {
        let (version, key) = entry.split_first_chunk::<4>()?;
        keys.push((u32::from_le_bytes(*version), SecretKey::from_slice(key)?));
    }
    if rest.is_empty() { Keks::from_sorted(keys) } else { None }
}
