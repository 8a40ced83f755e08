//! Segments: their header, their names, and how one comes into being.
//!
//! A segment's file is `NNNNNNNNNNNNNNNNNNNN.wal`, its sequence in 20 digits. The header takes the first 512 bytes; all
//! numbers are little-endian:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | format version of the header and of every frame behind it: 1 |
//! | 1 | 7 | `CairnWl` |
//! | 8 | 8 | node id |
//! | 16 | 4 | Raft group |
//! | 20 | 4 | `n`: bytes of the wrapped key |
//! | 24 | 8 | sequence |
//! | 32 | n | the segment's data key, wrapped by the keyring; AAD: `cairn.wal`, version (1), node id (8), group (4), sequence (8) |
//! | 32 + n | 476 - n | zeros |
//! | 508 | 4 | crc32 of bytes 0..508 |
//!
//! A segment is written and synced under a temporary name, `….wal.new`, with its first frame and whatever else it must
//! begin with, and then renamed. So a segment with a name is whole up to `created_end` of its first frame, and a
//! temporary file counts for nothing.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_engine::crypto::{FileKey, FrameOpener, FrameSealer};
use cairn_engine::keyring::Keyring;

use super::error::WalError;
use super::file_system::{FileSystem, LogFile};
use super::frame::{self, FRAME_HEADER_BYTES, Frame, FrameKind, frame_bytes, u32_at, u64_at};
use super::ledger::Location;
use super::record::{Record, Start, Summary};

/// Bytes of the header: frames begin here.
pub(super) const HEADER_BYTES: usize = 512;
/// The format version that this program writes, and the newest that it reads.
pub(super) const FORMAT_VERSION: u8 = 1;

const MAGIC: &[u8; 7] = b"CairnWl";
const KEY_OFFSET: usize = 32;
const CRC_OFFSET: usize = HEADER_BYTES - 4;
const NAME_SUFFIX: &str = ".wal";
const TEMPORARY_SUFFIX: &str = ".wal.new";

/// Whose log it is and how it is sealed.
#[derive(Debug, Clone)]
pub struct SealContext {
    /// Wraps the segments' data keys; its cluster id is bound to every frame.
    pub keyring: Arc<Keyring>,
    /// This node.
    pub node_id: u64,
    /// The Raft group.
    pub group: u32,
}

impl SealContext {
    fn key_aad(&self, sequence: u64) -> Vec<u8> {
        let mut aad = b"cairn.wal".to_vec();
        aad.push(FORMAT_VERSION);
        aad.extend_from_slice(&self.node_id.to_le_bytes());
        aad.extend_from_slice(&self.group.to_le_bytes());
        aad.extend_from_slice(&sequence.to_le_bytes());
        aad
    }

    fn opener(&self, path: &Path, sequence: u64, wrapped_key: &[u8]) -> Result<FrameOpener, WalError> {
        let key = self.keyring.unwrap_file_key(wrapped_key, &self.key_aad(sequence)).map_err(key_error(path))?;
        Ok(FrameOpener::new(&key, self.keyring.cluster_id(), sequence))
    }
}

fn key_error<E: std::error::Error + Send + Sync + 'static>(path: &Path) -> impl FnOnce(E) -> WalError {
    let path = path.to_owned();
    move |source| WalError::Key { path, source: Box::new(source) }
}

/// A segment that can be read. Shared with readers, who may outlive its name.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) sequence: u64,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn LogFile>,
    pub(super) group: u32,
    opener: FrameOpener,
}

impl Segment {
    /// Opens the payload of a frame that lies at `offset`.
    pub(super) fn open_frame(&self, offset: u64, frame: &Frame<'_>) -> Result<Vec<u8>, WalError> {
        self.opener
            .open(offset, frame.kind as u8, frame.sealed)
            .map_err(|_| self.corruption(offset, "the frame's seal is broken"))
    }

    /// Opens a frame and decodes its record.
    pub(super) fn open_record(&self, offset: u64, frame: &Frame<'_>) -> Result<Record, WalError> {
        let plain = self.open_frame(offset, frame)?;
        Record::decode(frame.kind, plain).ok_or_else(|| self.corruption(offset, "the frame's payload is malformed"))
    }

    /// Reads one entry from the disk and checks that it is the one that is asked for.
    pub(super) fn read_entry(&self, index: u64, location: Location) -> Result<bytes::Bytes, WalError> {
        let mut bytes = vec![0; location.bytes as usize];
        let offset = u64::from(location.offset);
        self.file.read_exact_at(&mut bytes, offset).map_err(WalError::io("read", &self.path))?;
        let frame = frame::parse_cut_out(&bytes, offset, self.group)
            .ok_or_else(|| self.corruption(offset, "the frame is damaged"))?;
        match self.open_record(offset, &frame)? {
            Record::Entry { index: found, data } if found == index => Ok(data),
            _ => Err(self.corruption(offset, "the frame holds another record than the one that was written there")),
        }
    }

    pub(super) fn corruption(&self, offset: u64, reason: &'static str) -> WalError {
        WalError::Corruption { path: self.path.clone(), offset, reason }
    }
}

/// The end of the log: the one segment that is written to.
#[derive(Debug)]
pub(super) struct OpenSegment {
    pub(super) segment: Arc<Segment>,
    pub(super) sealer: FrameSealer,
    /// The file's size; frames end below it.
    pub(super) capacity: u64,
    /// Where the next frame goes.
    pub(super) end: u64,
    /// Everything below is durable.
    pub(super) synced: u64,
    /// What the last frame in the file says is durable; less than `synced`: the last sync is not yet proven.
    pub(super) proven: u64,
}

impl OpenSegment {
    /// Appends the record's frame to `out`, which will be written at `self.end`.
    pub(super) fn encode(&mut self, out: &mut Vec<u8>, record: &Record) -> Result<(), WalError> {
        let offset = self.end + out.len() as u64;
        let kind = record.kind();
        let sealer = &mut self.sealer;
        frame::encode(out, kind, self.segment.group, self.synced, |out| {
            let start = out.len();
            record.encode(out);
            sealer.seal_in_place(offset, kind as u8, out, start)
        })
        .map_err(|source| WalError::Seal { path: self.segment.path.clone(), source })
    }
}

/// Where segments live and how they are made.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) file_system: Arc<dyn FileSystem>,
    pub(super) path: PathBuf,
    pub(super) seal: SealContext,
    pub(super) segment_bytes: u64,
}

impl Directory {
    pub(super) fn segment_path(&self, sequence: u64) -> PathBuf {
        self.path.join(format!("{sequence:020}{NAME_SUFFIX}"))
    }

    /// The sequences of the segments that have names, rising. Removes what an interrupted creation left.
    pub(super) fn list(&self) -> Result<Vec<u64>, WalError> {
        let mut sequences = Vec::new();
        for name in self.file_system.list(&self.path).map_err(WalError::io("list", &self.path))? {
            if name.ends_with(TEMPORARY_SUFFIX) {
                let path = self.path.join(&name);
                self.file_system.remove(&path).map_err(WalError::io("remove", &path))?;
            } else if let Some(digits) = name.strip_suffix(NAME_SUFFIX)
                && digits.len() == 20
                && let Ok(sequence) = digits.parse()
            {
                sequences.push(sequence);
            }
        }
        sequences.sort_unstable();
        Ok(sequences)
    }

    /// Creates a segment that begins with the state of the log and the given records, durable with its name when this
    /// returns. It has room for `room_bytes` more at least. Also says where each record lies.
    pub(super) fn create(
        &self,
        sequence: u64,
        previous_end: u64,
        summary: &Summary,
        records: &[Record],
        room_bytes: u64,
    ) -> Result<(OpenSegment, Vec<Location>), WalError> {
        let path = self.segment_path(sequence);
        let key = FileKey::generate().map_err(key_error(&path))?;
        let wrapped_key =
            self.seal.keyring.wrap_file_key(&key, &self.seal.key_aad(sequence)).map_err(key_error(&path))?;
        let opener = self.seal.opener(&path, sequence, &wrapped_key)?;
        let sealer = FrameSealer::new(key, self.seal.keyring.cluster_id(), sequence);

        let mut start = Start { previous_end, created_end: 0, summary: summary.clone() };
        let start_end = HEADER_BYTES + frame_bytes(start.encode().len());
        let records_bytes: usize = records.iter().map(|record| frame_bytes(record.plain_bytes())).sum();
        let created_end = (start_end + records_bytes) as u64;
        start.created_end = created_end;
        let capacity = self.segment_bytes.max(created_end + room_bytes);
        if capacity > u64::from(u32::MAX) {
            return Err(WalError::EntryTooLarge { bytes: records_bytes, limit: u32::MAX as usize });
        }

        let temporary = self.path.join(format!("{sequence:020}{TEMPORARY_SUFFIX}"));
        let file = self.file_system.create(&temporary, capacity).map_err(WalError::io("create", &temporary))?;
        let segment = Arc::new(Segment { sequence, path, file, group: self.seal.group, opener });
        let mut open = OpenSegment { segment, sealer, capacity, end: 0, synced: 0, proven: 0 };
        let written = self
            .encode_beginning(&mut open, &wrapped_key, &start, records)
            .and_then(|(bytes, locations)| self.name(&open.segment, &temporary, &bytes).map(|()| locations));
        match written {
            Ok(locations) => {
                (open.end, open.synced, open.proven) = (created_end, created_end, created_end);
                Ok((open, locations))
            }
            Err(error) => {
                // A left-over would block the next attempt; if it cannot be removed, that attempt reports it.
                let _ = self.file_system.remove(&temporary);
                Err(error)
            }
        }
    }

    fn encode_beginning(
        &self,
        open: &mut OpenSegment,
        wrapped_key: &[u8],
        start: &Start,
        records: &[Record],
    ) -> Result<(Vec<u8>, Vec<Location>), WalError> {
        let path = &open.segment.path;
        let mut bytes = encode_header(&self.seal, open.segment.sequence, wrapped_key)
            .ok_or_else(|| key_error(path)(io::Error::other("the wrapped key does not fit into the header")))?;
        let sealer = &mut open.sealer;
        frame::encode(&mut bytes, FrameKind::Start, self.seal.group, 0, |out| {
            let begin = out.len();
            out.extend_from_slice(&start.encode());
            sealer.seal_in_place(HEADER_BYTES as u64, FrameKind::Start as u8, out, begin)
        })
        .map_err(|source| WalError::Seal { path: path.clone(), source })?;
        let mut locations = Vec::with_capacity(records.len());
        for record in records {
            let offset = bytes.len();
            open.encode(&mut bytes, record)?;
            locations.push(Location::new(open.segment.sequence, offset as u64, bytes.len() - offset));
        }
        debug_assert_eq!(bytes.len() as u64, start.created_end);
        Ok((bytes, locations))
    }

    fn name(&self, segment: &Segment, temporary: &Path, bytes: &[u8]) -> Result<(), WalError> {
        segment.file.write_all_at(bytes, 0).map_err(WalError::io("write", temporary))?;
        segment.file.sync_data().map_err(WalError::io("sync", temporary))?;
        self.file_system.rename(temporary, &segment.path).map_err(WalError::io("rename", temporary))?;
        self.file_system.sync_directory(&self.path).map_err(WalError::io("sync", &self.path))
    }

    /// Opens a segment that has a name, and reads all of it.
    pub(super) fn load(&self, sequence: u64) -> Result<LoadedSegment, WalError> {
        let path = self.segment_path(sequence);
        let file = self.file_system.open(&path).map_err(WalError::io("open", &path))?;
        let size = file.size().map_err(WalError::io("read", &path))?;
        let corruption = |offset, reason| WalError::Corruption { path: path.clone(), offset, reason };
        if size > u64::from(u32::MAX) {
            return Err(corruption(0, "the file is larger than a segment can be"));
        }
        let mut bytes = vec![0; size as usize];
        file.read_exact_at(&mut bytes, 0).map_err(WalError::io("read", &path))?;
        let wrapped_key = self.check_header(&path, sequence, &bytes)?;
        let opener = self.seal.opener(&path, sequence, wrapped_key)?;
        let segment = Arc::new(Segment { sequence, path: path.clone(), file, group: self.seal.group, opener });

        let frame = frame::parse(&bytes, HEADER_BYTES, self.seal.group)
            .filter(|frame| frame.kind == FrameKind::Start)
            .ok_or_else(|| corruption(HEADER_BYTES as u64, "the first frame is damaged"))?;
        let plain = segment.open_frame(HEADER_BYTES as u64, &frame)?;
        let start =
            Start::decode(&plain).ok_or_else(|| corruption(HEADER_BYTES as u64, "the first frame is malformed"))?;
        let frames_begin = HEADER_BYTES + frame.bytes;
        Ok(LoadedSegment { segment, bytes, start, frames_begin })
    }

    /// Checks a file's header and returns the wrapped key in it.
    fn check_header<'a>(&self, path: &Path, sequence: u64, file: &'a [u8]) -> Result<&'a [u8], WalError> {
        let corruption = |reason| WalError::Corruption { path: path.to_owned(), offset: 0, reason };
        let header = file.get(..HEADER_BYTES).ok_or_else(|| corruption("the header is cut off"))?;
        // The version comes before the checksum, whose place a later version may have moved.
        if &header[1..8] == MAGIC && header[0] > FORMAT_VERSION {
            return Err(WalError::NewerFormat { path: path.to_owned(), version: header[0], known: FORMAT_VERSION });
        }
        if &header[1..8] != MAGIC
            || header[0] != FORMAT_VERSION
            || crc32fast::hash(&header[..CRC_OFFSET]) != u32_at(header, CRC_OFFSET)
        {
            return Err(corruption("the header is damaged"));
        }
        let (node_id, group) = (u64_at(header, 8), u32_at(header, 16));
        if node_id != self.seal.node_id || group != self.seal.group {
            return Err(WalError::Foreign { path: path.to_owned(), node_id, group });
        }
        if u64_at(header, 24) != sequence {
            return Err(corruption("the file's name is not that of its segment"));
        }
        let wrapped_key_bytes = u32_at(header, 20) as usize;
        header[KEY_OFFSET..CRC_OFFSET].get(..wrapped_key_bytes).ok_or_else(|| corruption("the header is malformed"))
    }
}

/// A segment as it was found on the disk.
#[derive(Debug)]
pub(super) struct LoadedSegment {
    pub(super) segment: Arc<Segment>,
    /// The whole file.
    pub(super) bytes: Vec<u8>,
    pub(super) start: Start,
    /// Where the frames after the first begin.
    pub(super) frames_begin: usize,
}

/// The header's 512 bytes; `None` when the wrapped key is too long for them.
fn encode_header(seal: &SealContext, sequence: u64, wrapped_key: &[u8]) -> Option<Vec<u8>> {
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.push(FORMAT_VERSION);
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&seal.node_id.to_le_bytes());
    header.extend_from_slice(&seal.group.to_le_bytes());
    header.extend_from_slice(&(wrapped_key.len() as u32).to_le_bytes());
    header.extend_from_slice(&sequence.to_le_bytes());
    header.extend_from_slice(wrapped_key);
    if header.len() > CRC_OFFSET {
        return None;
    }
    header.resize(CRC_OFFSET, 0);
    let crc = crc32fast::hash(&header);
    header.extend_from_slice(&crc.to_le_bytes());
    Some(header)
}

const _: () = assert!(HEADER_BYTES.is_multiple_of(frame::FRAME_ALIGNMENT) && FRAME_HEADER_BYTES < HEADER_BYTES);
