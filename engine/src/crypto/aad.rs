//! What a sealed value is bound to.
//!
//! The associated data of every XAES-256-GCM seal has this shape, so that no two meanings share an encoding: all fields
//! have a fixed size or a length before them, and the last one runs to the end.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | purpose: 1 record, 2 file key, 3 tenant key, 4 key-encryption keys, 5 keyring body |
//! | 1 | 1 | format of the sealed value |
//! | 2 | 1 | flags of the sealed value |
//! | 3 | 4 | key version, u32 little-endian |
//! | 7 | 1 | format of the plaintext, as its owner numbers it |
//! | 8 | 1 | `f`: length of the column family's name |
//! | 9 | `f` | the column family's name |
//! | 9 + `f` | rest | the storage key |

use super::KeyId;

/// What the sealed bytes are for; first byte of the associated data. Numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Purpose {
    /// A record in the store or a command in the log.
    Record = 1,
    /// The key of a sequential file, in that file's header.
    FileKey = 2,
    /// A tenant's data or lookup key, wrapped.
    TenantKey = 3,
    /// The key-encryption keys in the keyring file.
    KeyEncryptionKeys = 4,
    /// The rest of the keyring file.
    KeyringBody = 5,
}

/// The place of a sealed value: it opens nowhere else.
#[derive(Clone, Copy, Debug)]
pub struct Aad<'a> {
    /// The format of the plaintext, as the owner of the value numbers it.
    pub format: u8,
    /// The column family, or another name for the kind of place; at most 255 bytes.
    pub family: &'a str,
    /// The storage key, or whatever else names the place within the family.
    pub key: &'a [u8],
}

/// Bytes of associated data that are kept without an allocation; storage keys are shorter than this.
const INLINE_LEN: usize = 160;

/// Encoded associated data.
pub(crate) struct AadBytes {
    inline: [u8; INLINE_LEN],
    inline_len: usize,
    spilled: Vec<u8>,
}

impl AadBytes {
    /// Encodes by the byte map above.
    pub(crate) fn new(purpose: Purpose, seal_format: u8, flags: u8, key_id: KeyId, aad: &Aad<'_>) -> AadBytes {
        debug_assert!(aad.family.len() <= usize::from(u8::MAX), "names of column families are short constants");
        let family = &aad.family.as_bytes()[..aad.family.len().min(usize::from(u8::MAX))];
        let [k0, k1, k2, k3] = key_id.0.to_le_bytes();
        let head = [purpose as u8, seal_format, flags, k0, k1, k2, k3, aad.format, family.len() as u8];
        let parts: [&[u8]; 3] = [&head, family, aad.key];
        let mut bytes = AadBytes { inline: [0; INLINE_LEN], inline_len: 0, spilled: Vec::new() };
        if parts.iter().map(|part| part.len()).sum::<usize>() > INLINE_LEN {
            bytes.spilled = parts.concat();
        } else {
            for part in parts {
                bytes.inline[bytes.inline_len..bytes.inline_len + part.len()].copy_from_slice(part);
                bytes.inline_len += part.len();
            }
        }
        bytes
    }

    /// The encoded bytes.
    pub(crate) fn as_slice(&self) -> &[u8] {
        if self.spilled.is_empty() { &self.inline[..self.inline_len] } else { &self.spilled }
    }
}
