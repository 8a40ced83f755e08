//! The root key: 32 random bytes that an operator supplies and that Cairn never stores.
//!
//! As text: 64 hex digits, or base64 with or without padding; white space around it is ignored. Two keys are derived
//! from it by HKDF-SHA-256 without salt, so that the bytes themselves serve no cipher:
//!
//! | info | length | use |
//! |---|---|---|
//! | `cairn root key id v1` | 16 | stands in the keyring file, to tell a wrong root key from damage |
//! | `cairn root key wrap v1` | 32 | seals the key-encryption keys |

use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{KeyringError, durable_file};
use crate::crypto::{KEY_LEN, KeyId, RecordCipher, SecretKey};

const ID_INFO: &[u8] = b"cairn root key id v1";
const WRAP_INFO: &[u8] = b"cairn root key wrap v1";
/// Longer text cannot be a key.
const TEXT_LEN_MAX: u64 = 1024;
/// Permission bits of everyone but the owner.
const OTHERS: u32 = 0o077;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The root key, in the form of the keys derived from it. Cloning shares them.
#[derive(Clone)]
pub struct RootKey(Arc<Derived>);

struct Derived {
    id: [u8; 16],
    cipher: RecordCipher,
}

impl RootKey {
    /// Reads the root key from a file that nobody but its owner may read.
    ///
    /// # Errors
    /// [`KeyringError::RootKeyMissing`], [`KeyringError::RootKeyExposed`], [`KeyringError::RootKeyMalformed`],
    /// [`KeyringError::Io`].
    pub fn from_file(path: &Path) -> Result<RootKey, KeyringError> {
        let place = format!("root key file {}", path.display());
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(KeyringError::RootKeyMissing { place }),
            Err(error) => return Err(durable_file::io_error("open root key file", path)(error)),
        };
        let read_error = durable_file::io_error("read root key file", path);
        // The open file is asked, not the path, so that what is checked is what is read.
        let mode = match file.metadata() {
            Ok(metadata) => metadata.permissions().mode() & 0o7777,
            Err(error) => return Err(read_error(error)),
        };
        if mode & OTHERS != 0 {
            return Err(KeyringError::RootKeyExposed { path: path.to_owned(), mode });
        }
        let mut text = Zeroizing::new(Vec::with_capacity(TEXT_LEN_MAX as usize));
        file.take(TEXT_LEN_MAX).read_to_end(&mut text).map_err(read_error)?;
        RootKey::parse(place, &text)
    }

    /// Reads the root key from an environment variable.
    ///
    /// # Errors
    /// [`KeyringError::RootKeyMissing`] when the variable is unset or empty; [`KeyringError::RootKeyMalformed`].
    pub fn from_env(variable: &str) -> Result<RootKey, KeyringError> {
        let place = format!("environment variable {variable}");
        match std::env::var_os(variable) {
            Some(text) if !text.is_empty() => RootKey::parse(place, &Zeroizing::new(text.into_encoded_bytes())),
            _ => Err(KeyringError::RootKeyMissing { place }),
        }
    }

    /// Makes a fresh root key and writes it as hex into a new file that only its owner may read.
    ///
    /// # Errors
    /// [`KeyringError::Exists`]; [`KeyringError::Io`].
    pub fn generate_file(path: &Path) -> Result<RootKey, KeyringError> {
        let secret = SecretKey::generate()?;
        let mut text = Zeroizing::new(vec![0; 2 * KEY_LEN + 1]);
        text[2 * KEY_LEN] = b'\n';
        hex_into(secret.expose(), &mut text[..2 * KEY_LEN]);
        durable_file::create_new(path, &text)?;
        Ok(RootKey::derive(&secret))
    }

    /// Takes the 32 bytes from the caller, who wipes the original: for embedded use and tests.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> RootKey {
        RootKey::derive(&SecretKey::filled_by(|key| key.copy_from_slice(bytes)))
    }

    /// What stands for this root key in keyring files; tells nothing about the key.
    #[must_use]
    pub fn id(&self) -> [u8; 16] {
        self.0.id
    }

    /// The cipher that seals the key-encryption keys.
    pub(super) fn cipher(&self) -> &RecordCipher {
        &self.0.cipher
    }

    fn parse(place: String, text: &[u8]) -> Result<RootKey, KeyringError> {
        let text = text.trim_ascii();
        let secret = match text.len() {
            0 => Err("it is empty"),
            64 => secret_from(text, |text, key| hex::decode_to_slice(text, key).is_ok()),
            43 | 44 => secret_from(text, |text, key| BASE64.decode_slice(text, key) == Ok(KEY_LEN)),
            _ => Err("its length fits neither form"),
        };
        match secret {
            Ok(secret) if secret.expose().iter().all(|byte| *byte == secret.expose()[0]) => {
                Err(KeyringError::RootKeyMalformed { place, what: "all its bytes are the same" })
            }
            Ok(secret) => Ok(RootKey::derive(&secret)),
            Err(what) => Err(KeyringError::RootKeyMalformed { place, what }),
        }
    }

    fn derive(secret: &SecretKey) -> RootKey {
        let hkdf = Hkdf::<Sha256>::new(None, secret.expose());
        let mut id = [0; 16];
        expand(&hkdf, ID_INFO, &mut id);
        let wrap = SecretKey::filled_by(|key| expand(&hkdf, WRAP_INFO, key));
        RootKey(Arc::new(Derived { id, cipher: RecordCipher::new(&wrap, KeyId(0)) }))
    }
}

fn secret_from(text: &[u8], decode: impl FnOnce(&[u8], &mut [u8]) -> bool) -> Result<SecretKey, &'static str> {
    // Decoders may want room beyond the 32 bytes while they work.
    let mut bytes = Zeroizing::new([0; 2 * KEY_LEN]);
    if !decode(text, &mut bytes[..KEY_LEN]) {
        return Err("a character does not belong there");
    }
    SecretKey::from_slice(&bytes[..KEY_LEN]).ok_or("its length fits neither form")
}

#[expect(
    clippy::expect_used,
    reason = "HKDF-SHA-256 refuses only outputs above 8,160 bytes; both uses ask for at most 32"
)]
fn expand(hkdf: &Hkdf<Sha256>, info: &[u8], output: &mut [u8]) {
    hkdf.expand(info, output).expect("at most 32 bytes are asked for");
}

fn hex_into(bytes: &[u8], text: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (byte, pair) in bytes.iter().zip(text.chunks_exact_mut(2)) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("RootKey(..)")
    }
}
