//! Keyed hashes that stand for strings in storage keys.
//!
//! HMAC-SHA-256 under the tenant's lookup key, cut to its first 128 bits, over
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | domain: what kind of string this is, so that equal strings of two kinds differ |
//! | then, for each part: | | |
//! | | 4 | length of the part in bytes, u32 little-endian |
//! | | its length | the part |
//!
//! The same string always gives the same bytes, which is what a lookup needs and all that an onlooker learns. The key
//! never rotates and is erased with the tenant. Among 2^40 strings of one tenant a collision has a chance below 2^-48.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{KEY_LEN, SecretKey};

/// Block length of SHA-256 in bytes.
const BLOCK_LEN: usize = 64;

/// A prepared lookup key: the hash states after the key's block are kept, so a lookup costs two blocks of SHA-256.
pub(crate) struct LookupKey {
    prepared: Hmac<Sha256>,
}

impl LookupKey {
    pub(crate) fn new(key: &SecretKey) -> LookupKey {
        // HMAC pads a key that is shorter than the hash's block with zeros, so this is HMAC under the 32-byte key.
        let mut block = Zeroizing::new([0; BLOCK_LEN]);
        block[..KEY_LEN].copy_from_slice(key.expose());
        LookupKey { prepared: Hmac::new((&*block).into()) }
    }

    pub(crate) fn id(&self, domain: u8, parts: &[&[u8]]) -> [u8; 16] {
        let mut mac = self.prepared.clone();
        mac.update(&[domain]);
        for part in parts {
            mac.update(&(part.len() as u32).to_le_bytes());
            mac.update(part);
        }
        let full: [u8; 32] = mac.finalize().into_bytes().into();
        let mut id = [0; 16];
        id.copy_from_slice(&full[..16]);
        id
    }
}
