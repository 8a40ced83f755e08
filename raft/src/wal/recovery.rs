//! Recovery: reading what a stopped or killed process left, and deciding what of it counts.
//!
//! Segments are read in their order. All but the last must be whole up to the end that the next one's first frame
//! names: a segment gets a successor only after it was synced. In the last segment the first bad frame at offset X is
//!
//! - damage, if a later valid frame says that X was below what had been synced, or if X is below the segment's
//!   `created_end`: the log is refused;
//! - otherwise the torn end of writes that nobody was told of: the log ends there.
//!
//! Valid frames behind the last offset that is *proven* synced may have been read from the page cache of a process that
//! died of a failed sync, without being on the disk. They count, but they are written anew, into the segment that this
//! start begins; the old one then ends where proof ends. So no file is appended to twice, and what recovery reports is
//! durable.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::error::WalError;
use super::frame::{self, Frame, FrameKind};
use super::ledger::{Ledger, Location};
use super::record::Record;
use super::segment::{Directory, HEADER_BYTES, LoadedSegment, OpenSegment, Segment};

/// Where the end of the log was found torn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The segment.
    pub path: PathBuf,
    /// The offset of the first frame that does not count, in bytes.
    pub offset: u64,
}

/// A segment that is no longer written to.
#[derive(Debug)]
pub(super) struct ClosedSegment {
    pub(super) segment: Arc<Segment>,
    /// The highest index of an entry in it, truncated ones included.
    pub(super) last_index: Option<u64>,
}

/// A log ready to be written to.
#[derive(Debug)]
pub(super) struct Recovery {
    pub(super) ledger: Ledger,
    /// Oldest first.
    pub(super) closed: Vec<ClosedSegment>,
    pub(super) open: OpenSegment,
    /// The highest index of an entry in the open segment.
    pub(super) open_last_index: Option<u64>,
    pub(super) cut: Option<Cut>,
    /// Whether there was no log before.
    pub(super) created: bool,
}

/// Reads the directory's segments and begins a new one. Where there are none and `must_exist`, nothing is made: a log
/// that began anew would take back what this node has voted for and acknowledged.
pub(super) fn recover(directory: &Directory, must_exist: bool) -> Result<Recovery, WalError> {
    let missing = || WalError::Missing { path: directory.path.clone() };
    let sequences = match directory.list() {
        Err(error) if must_exist && error.is_not_found() => return Err(missing()),
        sequences => sequences?,
    };
    let Some((&first, &last)) = sequences.first().zip(sequences.last()) else {
        if must_exist {
            return Err(missing());
        }
        let ledger = Ledger::default();
        let (open, _) = directory.create(1, 0, ledger.summary(), &[], 0)?;
        return Ok(Recovery { ledger, closed: Vec::new(), open, open_last_index: None, cut: None, created: true });
    };
    if let Some(missing) = (first..=last).zip(&sequences).find(|(expected, found)| expected != *found) {
        let path = directory.segment_path(missing.0);
        return Err(WalError::Corruption { path, offset: 0, reason: "the segment is missing" });
    }

    let mut replay = Replay::begin(directory.load(first)?);
    for sequence in first + 1..=last {
        replay.follow(directory.load(sequence)?)?;
    }
    replay.finish(directory)
}

/// The reading of segments, one after the other.
struct Replay {
    ledger: Ledger,
    closed: Vec<ClosedSegment>,
    current: LoadedSegment,
}

impl Replay {
    fn begin(first: LoadedSegment) -> Self {
        let ledger = Ledger::with_missing_entries(first.start.summary.clone());
        Self { ledger, closed: Vec::new(), current: first }
    }

    /// Reads the current segment up to where the next one says it ends, and goes on to that.
    fn follow(&mut self, next: LoadedSegment) -> Result<(), WalError> {
        let last_index = self.replay_to(next.start.previous_end as usize)?;
        if next.start.summary != *self.ledger.summary() {
            let reason = "the first frame does not continue the segment before it";
            return Err(next.segment.corruption(HEADER_BYTES as u64, reason));
        }
        let current = std::mem::replace(&mut self.current, next);
        self.closed.push(ClosedSegment { segment: current.segment, last_index });
        Ok(())
    }

    /// Replays the frames of the current segment, which must be whole up to `end`. Returns the highest entry index.
    fn replay_to(&mut self, end: usize) -> Result<Option<u64>, WalError> {
        let segment = &self.current.segment;
        let mut scan = Scan::of(&self.current, end);
        let mut last_index = None;
        while let Some((offset, frame)) = scan.next_frame() {
            let location = Location::new(segment.sequence, offset as u64, frame.bytes);
            // An entry's index follows from its place, so that entries need not be opened before they are read;
            // reading checks it. Only the first entry of an empty log may have any index.
            let record = match frame.kind {
                FrameKind::Entry if !self.ledger.summary().takes_any_index() => {
                    Record::Entry { index: self.ledger.summary().next, data: Bytes::new() }
                }
                _ => segment.open_record(offset as u64, &frame)?,
            };
            match &record {
                Record::Entry { index, .. } => {
                    last_index = last_index.max(Some(*index));
                    self.ledger.append_written(*index, location)
                }
                other => self.ledger.apply(other).map(drop),
            }
            .map_err(|_| segment.corruption(offset as u64, "the log has a hole here"))?;
        }
        if scan.offset != end {
            return Err(segment.corruption(scan.offset as u64, "the frame is damaged or cut off"));
        }
        Ok(last_index)
    }

    /// Reads the last segment and begins a new one, with the frames whose sync is not proven.
    fn finish(mut self, directory: &Directory) -> Result<Recovery, WalError> {
        let (proven, torn) = self.measure_last()?;
        let last_index = self.replay_to(proven)?;
        let summary = self.ledger.summary().clone();
        let mut tail = Vec::new();
        let mut tickets = Vec::new();
        let mut scan = Scan { offset: proven, ..Scan::of(&self.current, torn) };
        while let Some((offset, frame)) = scan.next_frame() {
            let segment = &self.current.segment;
            let record = segment.open_record(offset as u64, &frame)?;
            let ticket = self.ledger.apply(&record);
            tickets.push(ticket.map_err(|_| segment.corruption(offset as u64, "the log has a hole here"))?);
            tail.push(record);
        }
        if self.ledger.misses_entries() {
            let oldest = self.closed.first().map_or(self.current.segment.sequence, |closed| closed.segment.sequence);
            let path = directory.segment_path(oldest - 1);
            return Err(WalError::Corruption { path, offset: 0, reason: "the segment is missing" });
        }
        let segment = self.current.segment;
        let junk = self.current.bytes[torn..].iter().any(|byte| *byte != 0);
        let cut = junk.then(|| Cut { path: segment.path.clone(), offset: torn as u64 });

        let (open, locations) = directory.create(segment.sequence + 1, proven as u64, &summary, &tail, 0)?;
        // Gives back what was reserved, and what does not count; nothing depends on it.
        let _ = segment.file.set_size(proven as u64);
        self.closed.push(ClosedSegment { segment, last_index });
        let mut open_last_index = None;
        for ((record, location), ticket) in tail.iter().zip(locations).zip(tickets) {
            if let (Record::Entry { index, .. }, Some(ticket)) = (record, ticket) {
                self.ledger.place(*index, ticket, location);
                open_last_index = open_last_index.max(Some(*index));
            }
        }
        Ok(Recovery { ledger: self.ledger, closed: self.closed, open, open_last_index, cut, created: false })
    }

    /// How far the last segment is proven synced, and where its first bad frame is.
    fn measure_last(&self) -> Result<(usize, usize), WalError> {
        let mut proven = self.current.start.created_end;
        let mut scan = Scan::of(&self.current, self.current.bytes.len());
        while let Some((_, frame)) = scan.next_frame() {
            proven = proven.max(frame.synced);
        }
        let torn = scan.offset;
        if proven > torn as u64 || frame::proves_synced(&self.current.bytes, torn, scan.group) {
            return Err(self.current.segment.corruption(torn as u64, "the frame is damaged"));
        }
        Ok((proven as usize, torn))
    }
}

/// Walks over the valid frames of a segment, up to a limit or the first bad one.
struct Scan<'a> {
    bytes: &'a [u8],
    offset: usize,
    group: u32,
}

impl<'a> Scan<'a> {
    fn of(segment: &'a LoadedSegment, end: usize) -> Self {
        let end = end.min(segment.bytes.len());
        Self { bytes: &segment.bytes[..end], offset: segment.frames_begin, group: segment.segment.group }
    }

    fn next_frame(&mut self) -> Option<(usize, Frame<'a>)> {
        let frame = frame::parse(self.bytes, self.offset, self.group)?;
        let offset = self.offset;
        self.offset += frame.bytes;
        Some((offset, frame))
    }
}
