//! The ledger: which entries the log has, where each lies, and the recent ones themselves. Pure memory.
//!
//! It holds the log as its callers see it: an append, truncation or purge is in the ledger as soon as it is queued, and
//! on the disk later. Callers change it under the log's lock; the thread that writes reports back where an entry lies.
//!
//! ```text
//!   summary.first          cache.first                 summary.next
//!        |  written, on disk    |  written or pending       |
//!   slots[0] .................. slots[..] ................. slots[last]
//!                               entries[0] ................ entries[last]
//! ```
//!
//! Invariants: one slot for each live index; the cache covers a tail of the live entries; an entry that is not written
//! yet is in the cache.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;

use super::error::WalError;
use super::record::{Record, Summary};

/// Where an entry's frame lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Location {
    /// The sequence of its segment.
    pub(super) segment: u64,
    /// The frame's offset in the file.
    pub(super) offset: u32,
    /// The frame's size.
    pub(super) bytes: u32,
}

impl Location {
    /// Segments are smaller than 4 GiB, see [`super::WalOptions::validate`] and [`super::segment::Directory::create`].
    pub(super) fn new(segment: u64, offset: u64, bytes: usize) -> Self {
        Self { segment, offset: offset as u32, bytes: bytes as u32 }
    }
}

/// What the ledger knows of a live entry's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    /// Queued. The number tells entries apart that had the same index, one after the other.
    Pending(u64),
    /// In the file.
    Written(Location),
    /// In a segment that was not found; only while the log is recovered.
    Missing,
}

/// One entry of a reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    Cached(Bytes),
    Stored(Location),
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    summary: Summary,
    slots: VecDeque<Slot>,
    cache: VecDeque<Bytes>,
    cache_bytes: usize,
    next_ticket: u64,
}

impl Ledger {
    /// The ledger of a log of which only the state is known: its entries lie in segments that are not there.
    pub(super) fn with_missing_entries(summary: Summary) -> Self {
        let count = (summary.next - summary.first) as usize;
        Self { summary, slots: std::iter::repeat_n(Slot::Missing, count).collect(), ..Self::default() }
    }

    pub(super) fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Whether a live entry lies in a segment that was not found.
    pub(super) fn misses_entries(&self) -> bool {
        self.slots.front() == Some(&Slot::Missing)
    }

    /// Adds entries that are queued, and returns the ticket of the first; the others' follow it.
    pub(super) fn append(&mut self, index: u64, entries: &[Bytes]) -> Result<u64, WalError> {
        self.summary.append(index, entries.len() as u64)?;
        let ticket = self.next_ticket;
        for entry in entries {
            self.slots.push_back(Slot::Pending(self.next_ticket));
            self.next_ticket += 1;
            self.cache_bytes += entry.len();
            self.cache.push_back(entry.clone());
        }
        Ok(ticket)
    }

    /// Brings the ledger to where a record leads; an entry counts as queued, and its ticket is returned.
    pub(super) fn apply(&mut self, record: &Record) -> Result<Option<u64>, WalError> {
        match record {
            Record::Entry { index, data } => return self.append(*index, std::slice::from_ref(data)).map(Some),
            Record::Truncation { from } => {
                self.truncate(*from);
            }
            Record::Purge { index, id } => {
                self.purge(*index, id);
            }
            Record::Vote(_) | Record::Committed(_) | Record::Mark => self.summary.apply(record)?,
        }
        Ok(None)
    }

    /// Adds an entry that was found on the disk.
    pub(super) fn append_written(&mut self, index: u64, location: Location) -> Result<(), WalError> {
        debug_assert!(self.cache.is_empty(), "the cache would have a hole");
        self.summary.append(index, 1)?;
        self.slots.push_back(Slot::Written(location));
        Ok(())
    }

    /// Removes the entries from an index on; returns whether there were any.
    pub(super) fn truncate(&mut self, from: u64) -> bool {
        let before = self.slots.len();
        self.summary.truncate(from);
        self.forget();
        self.slots.len() < before
    }

    /// Removes the entries up to an index; returns whether the log was not already purged that far.
    pub(super) fn purge(&mut self, index: u64, id: &Bytes) -> bool {
        let first = self.summary.first;
        if !self.summary.purge(index, id) {
            return false;
        }
        let gone = (self.summary.first - first).min(self.slots.len() as u64) as usize;
        self.slots.drain(..gone);
        self.forget();
        true
    }

    /// Drops the slots and cached entries that the summary no longer counts. Slots are dropped at the end; the caller
    /// has dropped those at the beginning.
    fn forget(&mut self) {
        let removed_at_end = self.slots.len().saturating_sub((self.summary.next - self.summary.first) as usize);
        for _ in 0..removed_at_end {
            self.slots.pop_back();
            self.cache_bytes -= self.cache.pop_back().map_or(0, |entry| entry.len());
        }
        while self.cache.len() > self.slots.len() {
            self.cache_bytes -= self.cache.pop_front().map_or(0, |entry| entry.len());
        }
    }

    /// Notes where an entry was written, unless another has taken its index since.
    pub(super) fn place(&mut self, index: u64, ticket: u64, location: Location) {
        if let Some(slot) = index.checked_sub(self.summary.first).and_then(|at| self.slots.get_mut(at as usize))
            && *slot == Slot::Pending(ticket)
        {
            *slot = Slot::Written(location);
        }
    }

    /// Shrinks the cache to a number of bytes, keeping what is not written yet.
    pub(super) fn shrink_cache(&mut self, bytes_max: usize) {
        while self.cache_bytes > bytes_max {
            match self.slots.get(self.slots.len() - self.cache.len()) {
                Some(Slot::Written(_)) => {
                    self.cache_bytes -= self.cache.pop_front().map_or(0, |entry| entry.len());
                }
                _ => break,
            }
        }
    }

    /// The entries of a range that are live, from the first on, as many as fit into a number of bytes, but at least
    /// one if there is one. Returns the index of the first as well.
    pub(super) fn plan(&self, range: Range<u64>, bytes_max: usize) -> (u64, Vec<Source>) {
        let begin = range.start.max(self.summary.first);
        let end = range.end.min(self.summary.next);
        let mut sources = Vec::new();
        let mut bytes = 0usize;
        for index in begin..end {
            let Some(source) = self.source((index - self.summary.first) as usize) else { break };
            bytes = bytes.saturating_add(match &source {
                Source::Cached(entry) => entry.len(),
                Source::Stored(location) => location.bytes as usize,
            });
            if bytes > bytes_max && !sources.is_empty() {
                break;
            }
            sources.push(source);
        }
        (begin, sources)
    }

    fn source(&self, at: usize) -> Option<Source> {
        let uncached = self.slots.len() - self.cache.len();
        match at.checked_sub(uncached) {
            Some(at) => self.cache.get(at).cloned().map(Source::Cached),
            None => match self.slots.get(at) {
                Some(Slot::Written(location)) => Some(Source::Stored(*location)),
                // Never: what is not cached is written, and a log with missing entries is refused.
                _ => None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(count: usize) -> Vec<Bytes> {
        (0..count).map(|number| Bytes::from(vec![number as u8; 10])).collect()
    }

    fn location(offset: u64) -> Location {
        Location::new(1, offset, 64)
    }

    #[test]
    fn what_is_not_written_stays_in_memory() {
        let mut ledger = Ledger::default();
        let ticket = ledger.append(1, &entries(4)).unwrap();
        ledger.place(1, ticket, location(8));
        ledger.place(2, ticket + 1, location(16));
        ledger.shrink_cache(0);
        let (first, sources) = ledger.plan(0..10, usize::MAX);
        assert_eq!(first, 1);
        assert_eq!(sources[..2], [Source::Stored(location(8)), Source::Stored(location(16))]);
        assert!(matches!(sources[2..], [Source::Cached(_), Source::Cached(_)]));
    }

    #[test]
    fn a_place_of_an_overwritten_entry_is_ignored() {
        let mut ledger = Ledger::default();
        let old = ledger.append(0, &entries(3)).unwrap();
        assert!(ledger.truncate(1));
        ledger.append(1, &entries(2)).unwrap();
        ledger.place(1, old + 1, location(8));
        ledger.shrink_cache(0);
        assert!(matches!(ledger.plan(1..2, 100).1[..], [Source::Cached(_)]));
    }

    #[test]
    fn readings_are_capped_in_bytes_but_never_empty() {
        let mut ledger = Ledger::default();
        ledger.append(0, &entries(5)).unwrap();
        assert_eq!(ledger.plan(0..5, 25).1.len(), 2);
        assert_eq!(ledger.plan(3..5, 1).1.len(), 1);
        assert_eq!(ledger.plan(5..9, 1), (5, vec![]));
    }

    #[test]
    fn purging_keeps_slots_and_cache_in_step() {
        let mut ledger = Ledger::default();
        let ticket = ledger.append(5, &entries(6)).unwrap();
        for at in 0..3 {
            ledger.place(5 + at, ticket + at, location(at));
        }
        ledger.shrink_cache(30);
        assert!(ledger.purge(6, &Bytes::new()));
        assert!(!ledger.purge(6, &Bytes::new()));
        let (first, sources) = ledger.plan(0..100, usize::MAX);
        assert_eq!((first, sources.len()), (7, 4));
        assert_eq!(sources[0], Source::Stored(location(2)));
        assert!(ledger.purge(100, &Bytes::new()));
        assert_eq!(ledger.plan(0..200, usize::MAX), (101, vec![]));
        assert_eq!(ledger.cache_bytes, 0);
    }

    #[test]
    fn purging_below_an_empty_or_later_log_changes_no_entries() {
        let mut ledger = Ledger::default();
        ledger.append(5, &entries(2)).unwrap();
        assert!(ledger.purge(2, &Bytes::new()));
        assert_eq!(ledger.plan(0..100, usize::MAX).1.len(), 2);
    }
}
