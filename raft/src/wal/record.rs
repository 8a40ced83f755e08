//! Records: what frames carry before they are sealed, and the state that a sequence of records leads to. Pure.
//!
//! | kind | payload |
//! |---|---|
//! | entry | index (8), the entry |
//! | vote, committed | the caller's bytes |
//! | truncation | the first index that is gone (8) |
//! | purge | the last index that is gone (8), the caller's bytes for its log id |
//! | mark | nothing |
//! | start | see [`Start`] |
//!
//! Start:
//!
//! | bytes | field |
//! |---|---|
//! | 8 | where the segment before this one ends; what lies behind that in it counts for nothing; 0: there is none |
//! | 8 | where this segment was synced to when it got its name |
//! | 8 | the first live index |
//! | 8 | the index after the last live one; equal to the first: the log is empty |
//! | 1 + 8 | purged: 0 or 1, the index (zero when none) |
//! | 3 x (1 + 4 + n) | the purged log id, the vote, the committed position: 0 or 1, length, bytes |

use bytes::Bytes;

use super::error::WalError;
use super::frame::{FrameKind, u32_at, u64_at};

/// One change of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    /// The entry follows the log.
    Entry { index: u64, data: Bytes },
    /// The vote is replaced.
    Vote(Bytes),
    /// The entries from an index on are removed.
    Truncation { from: u64 },
    /// The entries up to an index are removed, beyond the tail too.
    Purge { index: u64, id: Bytes },
    /// The committed position is replaced.
    Committed(Bytes),
    /// No change.
    Mark,
}

impl Record {
    pub(super) fn kind(&self) -> FrameKind {
        match self {
            Self::Entry { .. } => FrameKind::Entry,
            Self::Vote(_) => FrameKind::Vote,
            Self::Truncation { .. } => FrameKind::Truncation,
            Self::Purge { .. } => FrameKind::Purge,
            Self::Committed(_) => FrameKind::Committed,
            Self::Mark => FrameKind::Mark,
        }
    }

    /// The size of the payload before sealing.
    pub(super) fn plain_bytes(&self) -> usize {
        match self {
            Self::Entry { data, .. } => 8 + data.len(),
            Self::Purge { id, .. } => 8 + id.len(),
            Self::Vote(bytes) | Self::Committed(bytes) => bytes.len(),
            Self::Truncation { .. } => 8,
            Self::Mark => 0,
        }
    }

    /// Appends the payload to a buffer.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Entry { index, data: bytes } | Self::Purge { index, id: bytes } => {
                out.extend_from_slice(&index.to_le_bytes());
                out.extend_from_slice(bytes);
            }
            Self::Vote(bytes) | Self::Committed(bytes) => out.extend_from_slice(bytes),
            Self::Truncation { from } => out.extend_from_slice(&from.to_le_bytes()),
            Self::Mark => {}
        }
    }

    /// Reads an opened payload; `None` when it is none of this kind (a start frame is not a record).
    pub(super) fn decode(kind: FrameKind, plain: Vec<u8>) -> Option<Self> {
        let plain = Bytes::from(plain);
        let number = || plain.get(..8).map(|bytes| u64_at(bytes, 0));
        Some(match kind {
            FrameKind::Start => return None,
            FrameKind::Entry => Self::Entry { index: number()?, data: plain.slice(8..) },
            FrameKind::Vote => Self::Vote(plain),
            FrameKind::Truncation if plain.len() == 8 => Self::Truncation { from: number()? },
            FrameKind::Truncation => return None,
            FrameKind::Purge => Self::Purge { index: number()?, id: plain.slice(8..) },
            FrameKind::Committed => Self::Committed(plain),
            FrameKind::Mark if plain.is_empty() => Self::Mark,
            FrameKind::Mark => return None,
        })
    }
}

/// Up to where the log was purged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purged {
    /// The last index that is gone.
    pub index: u64,
    /// The caller's bytes for its log id.
    pub id: Bytes,
}

/// The state of a log without its entries.
///
/// Invariants: `first <= next`; the live entries are `first..next` without a hole; when there are none and the log was
/// purged, `next` follows the purged index; when there are none and it never was, the next entry may have any index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// The vote that was saved last.
    pub vote: Option<Bytes>,
    /// The committed position that was saved last.
    pub committed: Option<Bytes>,
    /// Up to where the log was purged.
    pub purged: Option<Purged>,
    /// The first live index.
    pub first: u64,
    /// The index after the last live one.
    pub next: u64,
}

impl Summary {
    /// Whether no entry is live.
    pub fn is_empty(&self) -> bool {
        self.first == self.next
    }

    /// The index of the last live entry.
    pub fn last_index(&self) -> Option<u64> {
        (!self.is_empty()).then(|| self.next - 1)
    }

    /// Whether the next entry may have any index.
    pub(super) fn takes_any_index(&self) -> bool {
        self.is_empty() && self.purged.is_none()
    }

    /// Adds `count` entries beginning with `index`.
    pub(super) fn append(&mut self, index: u64, count: u64) -> Result<(), WalError> {
        if count == 0 {
            return Ok(());
        }
        let end = index.checked_add(count).ok_or(WalError::OutOfOrder { expected: self.next, got: index })?;
        if self.takes_any_index() {
            self.first = index;
        } else if index != self.next {
            return Err(WalError::OutOfOrder { expected: self.next, got: index });
        }
        self.next = end;
        Ok(())
    }

    /// Removes the entries from an index on.
    pub(super) fn truncate(&mut self, from: u64) {
        if from < self.next {
            self.next = from.max(self.first);
        }
        if self.is_empty() {
            let next = self.purged.as_ref().map_or(0, |purged| purged.index.saturating_add(1));
            (self.first, self.next) = (next, next);
        }
    }

    /// Removes the entries up to an index; going back changes nothing. Returns whether anything changed.
    pub(super) fn purge(&mut self, index: u64, id: &Bytes) -> bool {
        if self.purged.as_ref().is_some_and(|purged| purged.index >= index) {
            return false;
        }
        self.purged = Some(Purged { index, id: id.clone() });
        let after = index.saturating_add(1);
        if self.is_empty() || after >= self.next {
            (self.first, self.next) = (after, after);
        } else {
            self.first = self.first.max(after);
        }
        true
    }

    /// The state after a record.
    pub(super) fn apply(&mut self, record: &Record) -> Result<(), WalError> {
        match record {
            Record::Entry { index, .. } => self.append(*index, 1)?,
            Record::Vote(bytes) => self.vote = Some(bytes.clone()),
            Record::Truncation { from } => self.truncate(*from),
            Record::Purge { index, id } => {
                self.purge(*index, id);
            }
            Record::Committed(bytes) => self.committed = Some(bytes.clone()),
            Record::Mark => {}
        }
        Ok(())
    }
}

/// The payload of a segment's first frame: with it the segments before this one are not needed for anything but their
/// live entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Start {
    /// Where the segment before this one ends.
    pub(super) previous_end: u64,
    /// Where this segment was synced to when it got its name.
    pub(super) created_end: u64,
    /// The state of the log at its beginning.
    pub(super) summary: Summary,
}

impl Start {
    pub(super) fn encode(&self) -> Vec<u8> {
        let summary = &self.summary;
        let mut out = Vec::with_capacity(128);
        for number in [self.previous_end, self.created_end, summary.first, summary.next] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.push(u8::from(summary.purged.is_some()));
        out.extend_from_slice(&summary.purged.as_ref().map_or(0, |purged| purged.index).to_le_bytes());
        for bytes in
            [summary.purged.as_ref().map(|purged| &purged.id), summary.vote.as_ref(), summary.committed.as_ref()]
        {
            out.push(u8::from(bytes.is_some()));
            let bytes = bytes.map_or(&[] as &[u8], |bytes| bytes);
            out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            out.extend_from_slice(bytes);
        }
        out
    }

    pub(super) fn decode(plain: &[u8]) -> Option<Self> {
        let mut fields = Fields(plain);
        let previous_end = fields.number()?;
        let created_end = fields.number()?;
        let (first, next) = (fields.number()?, fields.number()?);
        let purged_flag = fields.flag()?;
        let purged_index = fields.number()?;
        let purged_id = fields.bytes()?;
        let (vote, committed) = (fields.bytes()?, fields.bytes()?);
        if !fields.0.is_empty() || purged_flag != purged_id.is_some() || first > next {
            return None;
        }
        let purged = purged_id.map(|id| Purged { index: purged_index, id });
        Some(Self { previous_end, created_end, summary: Summary { vote, committed, purged, first, next } })
    }
}

/// A cursor over a start payload.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(head)
    }

    fn number(&mut self) -> Option<u64> {
        self.take(8).map(|bytes| u64_at(bytes, 0))
    }

    fn flag(&mut self) -> Option<bool> {
        match self.take(1)? {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }

    /// The outer option: whether the field could be read; the inner one: whether it is there.
    #[expect(clippy::option_option, reason = "the two mean different things")]
    fn bytes(&mut self) -> Option<Option<Bytes>> {
        let present = self.flag()?;
        let length = u32_at(self.take(4)?, 0) as usize;
        let bytes = self.take(length)?;
        match present {
            true => Some(Some(Bytes::copy_from_slice(bytes))),
            false if length == 0 => Some(None),
            false => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn optional_bytes() -> impl Strategy<Value = Option<Bytes>> {
        prop::option::of(prop::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from))
    }

    fn records() -> impl Strategy<Value = Record> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from);
        prop_oneof![
            (any::<u64>(), bytes()).prop_map(|(index, data)| Record::Entry { index, data }),
            bytes().prop_map(Record::Vote),
            any::<u64>().prop_map(|from| Record::Truncation { from }),
            (any::<u64>(), bytes()).prop_map(|(index, id)| Record::Purge { index, id }),
            bytes().prop_map(Record::Committed),
            Just(Record::Mark),
        ]
    }

    proptest! {
        #[test]
        fn records_come_back(record in records()) {
            let mut plain = Vec::new();
            record.encode(&mut plain);
            prop_assert_eq!(plain.len(), record.plain_bytes());
            prop_assert_eq!(Record::decode(record.kind(), plain), Some(record));
        }

        #[test]
        fn starts_come_back(
            vote in optional_bytes(), committed in optional_bytes(),
            purged in prop::option::of((any::<u64>(), prop::collection::vec(any::<u8>(), 0..20))),
            first in any::<u64>(), length in any::<u32>(), ends in any::<(u64, u64)>(),
        ) {
            let purged = purged.map(|(index, id)| Purged { index, id: id.into() });
            let next = first.saturating_add(length.into());
            let summary = Summary { vote, committed, purged, first, next };
            let start = Start { previous_end: ends.0, created_end: ends.1, summary };
            prop_assert_eq!(Start::decode(&start.encode()), Some(start));
        }

        #[test]
        fn arbitrary_payloads_never_panic(kind in 0usize..7, plain in prop::collection::vec(any::<u8>(), 0..120)) {
            use FrameKind::*;
            let kind = [Start, Entry, Vote, Truncation, Purge, Committed, Mark][kind];
            let _ = super::Start::decode(&plain);
            let _ = Record::decode(kind, plain);
        }
    }

    #[test]
    fn purging_beyond_the_tail_moves_the_log_forward() {
        let mut summary = Summary::default();
        summary.append(3, 2).unwrap();
        assert!(summary.purge(20, &Bytes::new()));
        assert!(summary.is_empty());
        assert!(summary.append(20, 1).is_err());
        summary.append(21, 1).unwrap();
        assert_eq!(summary.last_index(), Some(21));
        assert!(!summary.purge(7, &Bytes::new()), "purging backwards changes nothing");
    }

    #[test]
    fn truncation_keeps_what_was_purged() {
        let mut summary = Summary::default();
        summary.append(0, 10).unwrap();
        summary.purge(4, &Bytes::new());
        summary.truncate(0);
        assert_eq!((summary.first, summary.next), (5, 5));
        summary.append(5, 1).unwrap();
        summary.truncate(9);
        assert_eq!(summary.last_index(), Some(5), "truncating beyond the tail changes nothing");
    }
}
