//! Frames: the unit in which a segment is written, checked and cut. Pure functions over bytes.
//!
//! All numbers are little-endian. A frame begins at a multiple of 8 bytes from the beginning of its file.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | `len`: bytes of the sealed payload, its 16-byte tag included |
//! | 4 | 4 | `crc32` of bytes 0..4 and of everything from byte 8 to the end of the padding |
//! | 8 | 1 | kind, see [`FrameKind`] |
//! | 9 | 3 | zero |
//! | 12 | 4 | Raft group |
//! | 16 | 8 | offset in this file below which everything was known to be synced when this frame was written |
//! | 24 | `len` | payload, sealed with AES-256-GCM under the segment's key; the frame number in nonce and AAD is the frame's offset in the file, the file id is the segment's sequence |
//! | 24 + `len` | 0..7 | zeros up to the next multiple of 8 |
//!
//! The frame number is the offset because an offset is written once under one key: a file is never appended to after a
//! restart or a failed write.

use cairn_engine::crypto::FRAME_OVERHEAD;
use crc32fast::Hasher;

/// Bytes before the payload.
pub(super) const FRAME_HEADER_BYTES: usize = 24;
/// Frames begin at multiples of this.
pub(super) const FRAME_ALIGNMENT: usize = 8;

/// What a frame carries. The numbers are on disk and never reused; a new one needs a new segment format version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum FrameKind {
    /// The state of the log at the beginning of a segment; always a segment's first frame.
    Start = 1,
    /// One log entry.
    Entry = 2,
    /// The vote.
    Vote = 3,
    /// Entries from an index on are gone.
    Truncation = 4,
    /// Entries up to an index are gone.
    Purge = 5,
    /// The committed position.
    Committed = 6,
    /// Nothing; written for its "known synced" field.
    Mark = 7,
}

impl FrameKind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Start,
            2 => Self::Entry,
            3 => Self::Vote,
            4 => Self::Truncation,
            5 => Self::Purge,
            6 => Self::Committed,
            7 => Self::Mark,
            _ => return None,
        })
    }
}

/// A frame whose length, checksum and fixed fields are right; the payload is still sealed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) kind: FrameKind,
    pub(super) synced: u64,
    pub(super) sealed: &'a [u8],
    /// Bytes of the whole frame, padding included.
    pub(super) bytes: usize,
}

/// The size of a frame whose payload has `plain_bytes` before sealing.
pub(super) fn frame_bytes(plain_bytes: usize) -> usize {
    (FRAME_HEADER_BYTES + plain_bytes + FRAME_OVERHEAD).next_multiple_of(FRAME_ALIGNMENT)
}

/// Appends a frame to `out`. `write_sealed` appends the sealed payload, which must be shorter than 2^32 bytes
/// ([`super::WalOptions`] sees to that); when it fails, `out` is as before.
pub(super) fn encode<E>(
    out: &mut Vec<u8>,
    kind: FrameKind,
    group: u32,
    synced: u64,
    write_sealed: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let begin = out.len();
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&[kind as u8, 0, 0, 0]);
    out.extend_from_slice(&group.to_le_bytes());
    out.extend_from_slice(&synced.to_le_bytes());
    if let Err(error) = write_sealed(out) {
        out.truncate(begin);
        return Err(error);
    }
    let sealed_bytes = (out.len() - begin - FRAME_HEADER_BYTES) as u32;
    out[begin..begin + 4].copy_from_slice(&sealed_bytes.to_le_bytes());
    out.resize(begin + (out.len() - begin).next_multiple_of(FRAME_ALIGNMENT), 0);
    let crc = checksum(&out[begin..]);
    out[begin + 4..begin + 8].copy_from_slice(&crc.to_le_bytes());
    Ok(())
}

/// Reads the frame at `offset` of a file's bytes; `None` when there is no valid one.
pub(super) fn parse(file: &[u8], offset: usize, group: u32) -> Option<Frame<'_>> {
    parse_cut_out(file.get(offset..)?, offset as u64, group)
}

/// Reads the frame at the beginning of `bytes`, which lie at `offset` of their file.
pub(super) fn parse_cut_out(bytes: &[u8], offset: u64, group: u32) -> Option<Frame<'_>> {
    let header = bytes.get(..FRAME_HEADER_BYTES)?;
    let sealed_bytes = u32_at(header, 0) as usize;
    let kind = FrameKind::from_byte(header[8])?;
    let synced = u64_at(header, 16);
    // The cheap checks come first: this function also searches damaged files, where it is called at every 8th byte.
    if header[9..12] != [0; 3] || u32_at(header, 12) != group || synced > offset || sealed_bytes < FRAME_OVERHEAD {
        return None;
    }
    let frame_bytes = FRAME_HEADER_BYTES.checked_add(sealed_bytes)?.checked_next_multiple_of(FRAME_ALIGNMENT)?;
    let frame = bytes.get(..frame_bytes)?;
    if checksum(frame) != u32_at(header, 4) {
        return None;
    }
    let sealed = &frame[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + sealed_bytes];
    Some(Frame { kind, synced, sealed, bytes: frame_bytes })
}

/// Whether a valid frame beyond `offset` proves that `offset` had been synced, so that what is bad there is damage and
/// not the torn end of a write.
pub(super) fn proves_synced(file: &[u8], offset: usize, group: u32) -> bool {
    let first = (offset + 1).next_multiple_of(FRAME_ALIGNMENT);
    (first..file.len())
        .step_by(FRAME_ALIGNMENT)
        .any(|at| parse(file, at, group).is_some_and(|frame| frame.synced > offset as u64))
}

fn checksum(frame: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&frame[..4]);
    hasher.update(&frame[8..]);
    hasher.finalize()
}

/// Four bytes as a little-endian number; the caller has checked the length.
pub(super) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[offset..offset + 4]);
    u32::from_le_bytes(number)
}

/// Eight bytes as a little-endian number; the caller has checked the length.
pub(super) fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[offset..offset + 8]);
    u64::from_le_bytes(number)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    fn encoded(out: &mut Vec<u8>, kind: FrameKind, group: u32, synced: u64, sealed: &[u8]) {
        let written: Result<(), Infallible> = encode(out, kind, group, synced, |out| {
            out.extend_from_slice(sealed);
            Ok(())
        });
        written.unwrap();
    }

    #[test]
    fn the_byte_map_holds() {
        let mut out = vec![0; 32];
        encoded(&mut out, FrameKind::Vote, 7, 16, &[0xAA; 17]);
        let frame = &out[32..];
        assert_eq!(frame.len(), 48, "24 + 17 rounded up to a multiple of 8");
        assert_eq!(frame[..4], [17, 0, 0, 0]);
        assert_eq!(frame[8..12], [3, 0, 0, 0]);
        assert_eq!(frame[12..16], [7, 0, 0, 0]);
        assert_eq!(frame[16..24], [16, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(frame[24..41], [0xAA; 17]);
        assert_eq!(frame[41..], [0; 7]);
        let parsed = parse(&out, 32, 7).unwrap();
        assert_eq!(parsed, Frame { kind: FrameKind::Vote, synced: 16, sealed: &[0xAA; 17], bytes: 48 });
        assert_eq!(parse(&out, 32, 8), None, "another group's frame");
        assert_eq!(frame_bytes(1), 48);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let mut out = Vec::new();
        encoded(&mut out, FrameKind::Entry, 0, 0, &[0x55; 33]);
        for bit in 0..out.len() * 8 {
            out[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(parse(&out, 0, 0), None, "bit {bit}");
            out[bit / 8] ^= 1 << (bit % 8);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), offset in 0usize..220) {
            let _ = parse(&bytes, offset, 0);
            let _ = proves_synced(&bytes, offset, 0);
        }
    }
}
