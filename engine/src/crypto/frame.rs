//! Frame sealing for sequential files: log segments, checkpoints of the index, snapshot files.
//!
//! Each file has a key of its own, made when the file is made, so the frame's number can be the nonce and costs no
//! space. A sealed frame is the ciphertext, as long as the plaintext, and a tag of 16 bytes; length, number and kind are
//! kept by the file that owns the frame, and the file's header carries the format version.
//!
//! Nonce of AES-256-GCM, 12 bytes:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | 0 |
//! | 4 | 8 | frame number, u64 big-endian |
//!
//! Associated data, 34 bytes:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | format of the frame: 1 |
//! | 1 | 16 | id of the cluster that wrote the file |
//! | 17 | 8 | file id, u64 little-endian |
//! | 25 | 8 | frame number, u64 little-endian |
//! | 33 | 1 | kind of the frame, as the owner of the file numbers them |
//!
//! A nonce must never be used twice under one key. Two rules see to that: a [`FrameSealer`] takes frame numbers in
//! rising order only, and a key that was read back from a file is a [`StoredFileKey`], which cannot seal. So a file that
//! was closed is never appended to: the next frame goes into a new file with a new key.

use std::fmt;

use aes_gcm::aead::AeadInOut;
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{Aes256Gcm, KeyInit, Nonce, Tag};

use super::{ClusterId, CryptoError, SecretKey};

/// A sealed frame is this much longer than its plaintext, in bytes.
pub const FRAME_OVERHEAD: usize = 16;

const FRAME_FORMAT: u8 = 1;
const AAD_LEN: usize = 34;

/// The key of a file that is being written: fresh, used for that one file, and gone from memory with its sealer. It is
/// kept in the file's header, wrapped by [`crate::keyring::Keyring::wrap_file_key`].
pub struct FileKey(pub(crate) SecretKey);

impl FileKey {
    /// Makes the key of a new file.
    ///
    /// # Errors
    /// [`CryptoError::Random`] when the operating system gives no random bytes.
    pub fn generate() -> Result<FileKey, CryptoError> {
        SecretKey::generate().map(FileKey)
    }
}

impl fmt::Debug for FileKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("FileKey(..)")
    }
}

/// The key of a file that was written earlier, taken from its header: it opens frames and never seals one.
pub struct StoredFileKey(pub(crate) SecretKey);

impl fmt::Debug for StoredFileKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("StoredFileKey(..)")
    }
}

/// Opens the frames of one file. The cipher is prepared once; cloning is not needed, `&self` suffices everywhere.
pub struct FrameOpener {
    cipher: Aes256Gcm,
    origin: ClusterId,
    file_id: u64,
}

impl FrameOpener {
    /// Prepares to read the file `file_id` that cluster `origin` wrote.
    #[must_use]
    pub fn new(key: &StoredFileKey, origin: ClusterId, file_id: u64) -> FrameOpener {
        FrameOpener::prepare(&key.0, origin, file_id)
    }

    fn prepare(key: &SecretKey, origin: ClusterId, file_id: u64) -> FrameOpener {
        FrameOpener { cipher: Aes256Gcm::new(key.expose().into()), origin, file_id }
    }

    /// Opens one frame.
    ///
    /// # Errors
    /// [`CryptoError::BadTag`] when a bit differs, or the frame belongs to another file, number or kind.
    pub fn open(&self, frame_no: u64, kind: u8, sealed: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let mut plain = sealed.to_vec();
        self.open_in_place(frame_no, kind, &mut plain)?;
        Ok(plain)
    }

    /// Opens one frame where it lies: `buffer` holds the sealed frame before and the plaintext after. On an error its
    /// content is left sealed.
    ///
    /// # Errors
    /// As [`FrameOpener::open`].
    pub fn open_in_place(&self, frame_no: u64, kind: u8, buffer: &mut Vec<u8>) -> Result<(), CryptoError> {
        let Some((body, tag)) = buffer.split_last_chunk_mut::<FRAME_OVERHEAD>() else {
            return Err(CryptoError::Malformed("a frame shorter than its tag"));
        };
        let body_len = body.len();
        self.cipher
            .decrypt_inout_detached(&nonce(frame_no), &self.aad(frame_no, kind), InOutBuf::from(body), &Tag::from(*tag))
            .map_err(|_| CryptoError::BadTag)?;
        buffer.truncate(body_len);
        Ok(())
    }

    fn aad(&self, frame_no: u64, kind: u8) -> [u8; AAD_LEN] {
        let mut aad = [0; AAD_LEN];
        aad[0] = FRAME_FORMAT;
        aad[1..17].copy_from_slice(self.origin.as_bytes());
        aad[17..25].copy_from_slice(&self.file_id.to_le_bytes());
        aad[25..33].copy_from_slice(&frame_no.to_le_bytes());
        aad[33] = kind;
        aad
    }
}

impl fmt::Debug for FrameOpener {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("FrameOpener")
            .field("origin", &self.origin)
            .field("file_id", &self.file_id)
            .finish_non_exhaustive()
    }
}

fn nonce(frame_no: u64) -> Nonce<aes_gcm::aead::consts::U12> {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&frame_no.to_be_bytes());
    nonce.into()
}

/// Seals the frames of one new file, and opens them again.
///
/// Invariant: no frame number below `next` is ever sealed again.
pub struct FrameSealer {
    opener: FrameOpener,
    next: u64,
}

impl FrameSealer {
    /// Prepares to write the file `file_id` of cluster `origin`. Takes the key, so that no second sealer can exist.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "a key that was handed over cannot prepare a second sealer")]
    pub fn new(key: FileKey, origin: ClusterId, file_id: u64) -> FrameSealer {
        FrameSealer { opener: FrameOpener::prepare(&key.0, origin, file_id), next: 0 }
    }

    /// The lowest frame number that may still be sealed.
    #[must_use]
    pub fn next_frame_no(&self) -> u64 {
        self.next
    }

    /// Seals one frame. Numbers rise; gaps are allowed.
    ///
    /// # Errors
    /// [`CryptoError::FrameOrder`] when `frame_no` or a later one was sealed before.
    pub fn seal(&mut self, frame_no: u64, kind: u8, plain: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let mut sealed = Vec::with_capacity(plain.len() + FRAME_OVERHEAD);
        self.seal_into(frame_no, kind, plain, &mut sealed)?;
        Ok(sealed)
    }

    /// Seals one frame and appends it to `out`; on an error `out` is as before.
    ///
    /// # Errors
    /// As [`FrameSealer::seal`].
    pub fn seal_into(&mut self, frame_no: u64, kind: u8, plain: &[u8], out: &mut Vec<u8>) -> Result<(), CryptoError> {
        let start = out.len();
        out.reserve(plain.len() + FRAME_OVERHEAD);
        out.extend_from_slice(plain);
        self.seal_in_place(frame_no, kind, out, start)
    }

    /// Seals in place what `buffer` holds from `start` on, and appends the tag: for callers that encode a frame
    /// straight into the buffer that they will write. On an error `buffer` is cut at `start`.
    ///
    /// # Errors
    /// As [`FrameSealer::seal`].
    pub fn seal_in_place(
        &mut self,
        frame_no: u64,
        kind: u8,
        buffer: &mut Vec<u8>,
        start: usize,
    ) -> Result<(), CryptoError> {
        let sealed = self.encrypt(frame_no, kind, buffer.get_mut(start..).unwrap_or_default());
        match sealed {
            Ok(tag) => {
                buffer.extend_from_slice(&tag);
                Ok(())
            }
            Err(error) => {
                buffer.truncate(start);
                Err(error)
            }
        }
    }

    fn encrypt(&mut self, frame_no: u64, kind: u8, body: &mut [u8]) -> Result<Tag, CryptoError> {
        // The last number is never sealed, so that `next` cannot wrap round.
        if frame_no < self.next || frame_no == u64::MAX {
            return Err(CryptoError::FrameOrder { frame_no, next: self.next });
        }
        self.next = frame_no + 1;
        let aad = self.opener.aad(frame_no, kind);
        let len = body.len();
        self.opener
            .cipher
            .encrypt_inout_detached(&nonce(frame_no), &aad, InOutBuf::from(body))
            .map_err(|_| CryptoError::TooLong { len, max: u32::MAX as usize })
    }

    /// Opens a frame that this sealer made.
    ///
    /// # Errors
    /// As [`FrameOpener::open`].
    pub fn open(&self, frame_no: u64, kind: u8, sealed: &[u8]) -> Result<Vec<u8>, CryptoError> {
        self.opener.open(frame_no, kind, sealed)
    }

    /// Ends the writing: the opener remains, for readers of the finished file.
    #[must_use]
    pub fn into_opener(self) -> FrameOpener {
        self.opener
    }
}

impl fmt::Debug for FrameSealer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("FrameSealer").field("opener", &self.opener).field("next", &self.next).finish()
    }
}
