//! Record sealing: XAES-256-GCM with a random 192-bit nonce, so that one key may seal any number of values.
//!
//! Byte map of a sealed value:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | format: 1 |
//! | 1 | 1 | flags: bit 0 = compressed before sealing; all others 0 |
//! | 2 | 4 | key version, u32 little-endian |
//! | 6 | 24 | nonce, random |
//! | 30 | `n` | ciphertext, as long as the plaintext (or as its compressed form) |
//! | 30 + `n` | 16 | tag |
//!
//! Format, flags and key version are part of the associated data (see [`Aad`]), so every bit of a sealed value is
//! covered by the tag. XAES-256-GCM: <https://c2sp.org/XAES-256-GCM>.

use aes_gcm::aead::AeadInOut;
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{KeyInit, Tag};
use xaes_256_gcm::{Nonce, Xaes256Gcm};

use super::aad::{AadBytes, Purpose};
use super::compress;
use super::random::FreshNonce;
use super::{Aad, CryptoError, KeyId, SecretKey};

/// The most plaintext that one sealed value may hold, in bytes; also the bound on what is ever unpacked from one.
pub const PLAINTEXT_LEN_MAX: usize = 64 << 20;
/// A sealed value is at most this much longer than its plaintext, in bytes.
pub const SEALED_OVERHEAD_MAX: usize = HEADER_LEN + TAG_LEN;

const FORMAT: u8 = 1;
const FLAG_COMPRESSED: u8 = 1;
const FLAGS_AT: usize = 1;
const KEY_ID_AT: usize = 2;
const NONCE_AT: usize = 6;
pub(super) const NONCE_LEN: usize = 24;
const HEADER_LEN: usize = NONCE_AT + NONCE_LEN;
const TAG_LEN: usize = 16;

/// Whether to try compression before sealing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    /// Compress, and keep the result where it is smaller.
    Try,
    /// The caller knows the bytes to be incompressible or wants their length to stay.
    Skip,
}

/// The key version that a sealed value names, without opening it.
///
/// # Errors
/// [`CryptoError::Malformed`] and [`CryptoError::UnknownFormat`] when the bytes are no sealed value.
pub fn sealed_key_id(sealed: &[u8]) -> Result<KeyId, CryptoError> {
    Header::read(sealed).map(|header| header.key_id)
}

struct Header {
    flags: u8,
    key_id: KeyId,
}

impl Header {
    fn read(sealed: &[u8]) -> Result<Header, CryptoError> {
        let (&found, _) = sealed.split_first().ok_or(CryptoError::Malformed("no bytes at all"))?;
        if found != FORMAT {
            return Err(CryptoError::UnknownFormat { found, supported: FORMAT });
        }
        if sealed.len() < HEADER_LEN + TAG_LEN {
            return Err(CryptoError::Malformed("shorter than header and tag"));
        }
        let flags = sealed[FLAGS_AT];
        if flags & !FLAG_COMPRESSED != 0 {
            return Err(CryptoError::Malformed("unknown flags"));
        }
        let mut key_id = [0; 4];
        key_id.copy_from_slice(&sealed[KEY_ID_AT..NONCE_AT]);
        Ok(Header { flags, key_id: KeyId(u32::from_le_bytes(key_id)) })
    }
}

impl Compression {
    /// For a value of `len` bytes, of which `packed_len` are packed already, or do not shrink otherwise.
    pub(crate) fn worth_trying(len: usize, packed_len: usize) -> Self {
        let rest = len.saturating_sub(packed_len);
        if rest >= compress::WORTH_TRYING_LEN && rest >= len / 4 { Self::Try } else { Self::Skip }
    }
}

/// A prepared cipher for one key: the key schedule is computed once, so that sealing a record costs two blocks of
/// AES and one key schedule for the message's own key, then AES-256-GCM over the bytes.
pub(crate) struct RecordCipher {
    cipher: Xaes256Gcm,
    key_id: KeyId,
}

impl RecordCipher {
    pub(crate) fn new(key: &SecretKey, key_id: KeyId) -> RecordCipher {
        RecordCipher { cipher: Xaes256Gcm::new(key.expose().into()), key_id }
    }

    pub(crate) fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// Appends the sealed form of `plain` to `out`; on an error `out` is as before.
    pub(crate) fn seal_into(
        &self,
        purpose: Purpose,
        compression: Compression,
        aad: &Aad<'_>,
        plain: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), CryptoError> {
        self.seal_with_nonce(purpose, compression, FreshNonce::draw()?, aad, plain, out)
    }

    /// As [`RecordCipher::seal_into`], under a nonce of the caller's.
    pub(crate) fn seal_with_nonce(
        &self,
        purpose: Purpose,
        compression: Compression,
        nonce: FreshNonce,
        aad: &Aad<'_>,
        plain: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), CryptoError> {
        if plain.len() > PLAINTEXT_LEN_MAX {
            return Err(CryptoError::TooLong { len: plain.len(), max: PLAINTEXT_LEN_MAX });
        }
        match compression {
            Compression::Skip => self.seal_with_flags(purpose, 0, nonce, aad, plain, out),
            Compression::Try => compress::with_compressed(plain, |compressed| match compressed {
                Some(compressed) => self.seal_with_flags(purpose, FLAG_COMPRESSED, nonce, aad, compressed, out),
                None => self.seal_with_flags(purpose, 0, nonce, aad, plain, out),
            })?,
        }
    }

    fn seal_with_flags(
        &self,
        purpose: Purpose,
        flags: u8,
        nonce: FreshNonce,
        aad: &Aad<'_>,
        plain: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), CryptoError> {
        let nonce = nonce.into_bytes();
        let aad = AadBytes::new(purpose, FORMAT, flags, self.key_id, aad);

        let start = out.len();
        out.reserve(HEADER_LEN + plain.len() + TAG_LEN);
        out.push(FORMAT);
        out.push(flags);
        out.extend_from_slice(&self.key_id.0.to_le_bytes());
        out.extend_from_slice(&nonce);
        out.extend_from_slice(plain);
        let body = InOutBuf::from(&mut out[start + HEADER_LEN..]);
        match self.cipher.encrypt_inout_detached(&Nonce::from(nonce), aad.as_slice(), body) {
            Ok(tag) => {
                out.extend_from_slice(&tag);
                Ok(())
            }
            Err(_) => {
                out.truncate(start);
                Err(CryptoError::TooLong { len: plain.len(), max: PLAINTEXT_LEN_MAX })
            }
        }
    }

    /// Opens what [`RecordCipher::seal_into`] made with the same purpose and place.
    pub(crate) fn open(&self, purpose: Purpose, aad: &Aad<'_>, sealed: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let header = Header::read(sealed)?;
        if header.key_id != self.key_id {
            return Err(CryptoError::UnknownKey(header.key_id));
        }
        let (body, tag) = sealed[HEADER_LEN..]
            .split_last_chunk::<TAG_LEN>()
            .ok_or(CryptoError::Malformed("shorter than header and tag"))?;
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&sealed[NONCE_AT..HEADER_LEN]);
        let aad = AadBytes::new(purpose, FORMAT, header.flags, self.key_id, aad);

        let mut plain = body.to_vec();
        self.cipher
            .decrypt_inout_detached(
                &Nonce::from(nonce),
                aad.as_slice(),
                InOutBuf::from(plain.as_mut_slice()),
                &Tag::from(*tag),
            )
            .map_err(|_| CryptoError::BadTag)?;
        if header.flags & FLAG_COMPRESSED == 0 { Ok(plain) } else { compress::decompress(&plain, PLAINTEXT_LEN_MAX) }
    }
}
