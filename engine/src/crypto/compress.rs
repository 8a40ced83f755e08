//! zstd before sealing.
//!
//! Plaintext of a compressed value:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | length of the unpacked value in bytes, u32 little-endian |
//! | 4 | rest | one zstd frame |
//!
//! A text that is packed by itself, so that log and store need not do so again and again:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | format: 1 |
//! | 1 | rest | as above |
//!
//! Contexts are kept per thread, since making one costs more than compressing a record. The length of a sealed value
//! tells an onlooker how well it compressed; records are sealed one by one with nothing of another tenant's in them, so
//! this says nothing about anyone else's data.

use std::cell::RefCell;

use zstd::bulk::{Compressor, Decompressor};

use super::CryptoError;

/// Fastest level that still shrinks text well; records are small and written once.
const LEVEL: i32 = 1;
/// Below this, hardly anything is saved: such values are ids, hashes and numbers, and a zstd frame has a header of its own.
pub(super) const WORTH_TRYING_LEN: usize = 256;
/// The format of a text that is packed by itself.
const PACKED_FORMAT: u8 = 1;
/// Scratch space that a thread keeps between values; a larger one is given back at once.
const SCRATCH_KEPT_LEN: usize = 256 << 10;
const LEN_FIELD: usize = 4;

struct Workspace {
    compressor: Option<Compressor<'static>>,
    decompressor: Option<Decompressor<'static>>,
    scratch: Vec<u8>,
}

impl Workspace {
    /// Wipes what was used of the scratch space, so that no plaintext outlives the call that brought it.
    fn wipe(&mut self, used: usize) {
        // A plain fill: the space stays reachable, so the stores cannot be optimised away, and `zeroize` would write
        // byte by byte.
        self.scratch[..used].fill(0);
        if self.scratch.len() > SCRATCH_KEPT_LEN {
            self.scratch = Vec::new();
        }
    }
}

thread_local! {
    static WORKSPACE: RefCell<Workspace> =
        const { RefCell::new(Workspace { compressor: None, decompressor: None, scratch: Vec::new() }) };
}

/// Compresses `plain` and hands `Some(compressed)` to `then`, or `None` where that would not be smaller.
pub(super) fn with_compressed<T>(plain: &[u8], then: impl FnOnce(Option<&[u8]>) -> T) -> Result<T, CryptoError> {
    if plain.len() < WORTH_TRYING_LEN {
        return Ok(then(None));
    }
    let Ok(plain_len) = u32::try_from(plain.len()) else { return Ok(then(None)) };
    WORKSPACE.with_borrow_mut(|workspace| {
        let compressor = match &mut workspace.compressor {
            Some(compressor) => compressor,
            none => none.insert(Compressor::new(LEVEL).map_err(CryptoError::Compression)?),
        };
        if workspace.scratch.len() < plain.len() {
            workspace.scratch.resize(plain.len(), 0);
        }
        workspace.scratch[..LEN_FIELD].copy_from_slice(&plain_len.to_le_bytes());
        // Room for a result that is smaller than the plaintext and no more: where it does not fit, zstd stops early.
        let written = compressor.compress_to_buffer(plain, &mut workspace.scratch[LEN_FIELD..plain.len() - 1]);
        let result = then(written.ok().map(|frame_len| &workspace.scratch[..LEN_FIELD + frame_len]));
        workspace.wipe(plain.len());
        Ok(result)
    })
}

/// Packs a text by itself; `None` where that would not make it smaller.
pub(crate) fn pack(text: &str) -> Result<Option<Vec<u8>>, CryptoError> {
    with_compressed(text.as_bytes(), |compressed| {
        compressed.map(|compressed| {
            let mut packed = Vec::with_capacity(1 + compressed.len());
            packed.push(PACKED_FORMAT);
            packed.extend_from_slice(compressed);
            packed
        })
    })
}

/// Unpacks what [`pack`] made, never into more than `len_max` bytes.
pub(crate) fn unpack(packed: &[u8], len_max: usize) -> Result<String, CryptoError> {
    let (&found, compressed) = packed.split_first().ok_or(CryptoError::Malformed("no bytes at all"))?;
    if found != PACKED_FORMAT {
        return Err(CryptoError::UnknownFormat { found, supported: PACKED_FORMAT });
    }
    let text = decompress(compressed, len_max)?;
    String::from_utf8(text).map_err(|_| CryptoError::Malformed("a packed text is not UTF-8"))
}

/// Unpacks what [`with_compressed`] made, never into more than `len_max` bytes.
pub(super) fn decompress(packed: &[u8], len_max: usize) -> Result<Vec<u8>, CryptoError> {
    let (len_field, frame) = packed
        .split_first_chunk::<LEN_FIELD>()
        .ok_or(CryptoError::Malformed("no length before the compressed data"))?;
    let len = u32::from_le_bytes(*len_field) as usize;
    if len > len_max {
        return Err(CryptoError::TooLong { len, max: len_max });
    }
    WORKSPACE.with_borrow_mut(|workspace| {
        let decompressor = match &mut workspace.decompressor {
            Some(decompressor) => decompressor,
            none => none.insert(Decompressor::new().map_err(CryptoError::Compression)?),
        };
        let mut plain = Vec::with_capacity(len);
        let written = decompressor.decompress_to_buffer(frame, &mut plain).map_err(CryptoError::Compression)?;
        if written != len {
            return Err(CryptoError::Malformed("the compressed data has another length than it says"));
        }
        Ok(plain)
    })
}
