//! Sealing: everything that turns plaintext into bytes that may lie on a disk or travel to a bucket, and back.
//!
//! ```text
//!   record  --zstd?--> RecordCipher (XAES-256-GCM, random 192-bit nonce) --> a value in the store, a command in the log
//!   frame   ---------> FrameSealer  (AES-256-GCM, nonce = frame number)  --> a sequential file: log segment, checkpoint
//!   string  ---------> LookupKey    (HMAC-SHA-256, cut to 128 bits)      --> a fixed-size part of a storage key
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `aad` | what a sealed value is bound to: format, key version, column family, storage key |
//! | `record` | record sealing, and the byte map of a sealed value |
//! | `random` | the source of randomness |
//! | `compress` | zstd before sealing, and for texts by themselves, with a bound on what is unpacked |
//! | `frame` | frame sealing for sequential files, and the keys of such files |
//! | `lookup` | keyed hashes that stand for strings in storage keys |
//! | `secret` | key bytes that wipe themselves and never print |
//!
//! This module knows ciphers and byte maps. Which key belongs to whom, and where keys are kept, is [`crate::keyring`].

mod aad;
mod compress;
mod error;
mod frame;
mod id;
mod lookup;
mod random;
mod record;
mod secret;

pub use aad::Aad;
pub use error::CryptoError;
pub use frame::{FRAME_OVERHEAD, FileKey, FrameOpener, FrameSealer, StoredFileKey};
pub use id::{ClusterId, KeyId, TenantId};
pub use record::{PLAINTEXT_LEN_MAX, SEALED_OVERHEAD_MAX, sealed_key_id};

pub(crate) use aad::Purpose;
pub(crate) use compress::{pack, unpack};
pub(crate) use lookup::LookupKey;
pub(crate) use random::{FreshNonce, Nonces};
pub(crate) use record::{Compression, RecordCipher};
pub(crate) use secret::{KEY_LEN, SecretKey};

#[cfg(test)]
mod spec_vectors;
#[cfg(test)]
mod tests;
