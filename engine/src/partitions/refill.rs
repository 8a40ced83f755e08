//! Indexed fields that change: the attributes of a partition in use are made anew, some memories at a time.
//!
//! ```text
//!   a change of fields ──▶ noted ──▶ advance: the next records of a view, given to the partition under short write locks
//!                                       └──at the end of the records──▶ the new attributes are gone over to
//! ```
//!
//! Nothing of this is replicated or kept: each replica does it for the partitions that it has in memory, and a partition
//! that is made later has the new fields from the start. Whoever embeds the engine calls for it, as often as it likes; searches
//! find the same before and after.

use std::collections::BTreeMap;
use std::sync::Arc;

use cairn_index::MemoryKey;
use cairn_proto::storage::MemoryRecord;
use parking_lot::Mutex;

use super::{Partitions, State, index_error};
use crate::error::Result;
use crate::filters::RecordFields;
use crate::store::decode;
use crate::store::keys::{Key, Kind, LookupId, SpaceRef, prefix_of_space};
use crate::store::rocks::{Store, View};

/// Memories that a partition is given under one write lock: less than a millisecond.
const UNDER_ONE_LOCK: usize = 64;

/// The spaces whose attributes are being made anew, with the last memory that was looked at.
#[derive(Default)]
pub(super) struct Refills(Mutex<BTreeMap<SpaceRef, Option<LookupId>>>);

impl Refills {
    /// Notes a partition whose fields have changed, from its first memory on.
    pub(super) fn consider(&self, space: SpaceRef, state: &State) {
        if let State::Ready(partition) = state
            && partition.reindex_progress().is_some()
        {
            self.0.lock().entry(space).or_default();
        }
    }

    fn first(&self) -> Option<(SpaceRef, Option<LookupId>)> {
        self.0.lock().first_key_value().map(|(space, behind)| (*space, *behind))
    }

    fn set(&self, space: SpaceRef, behind: Option<Option<LookupId>>) {
        let mut refills = self.0.lock();
        match behind {
            Some(behind) => refills.insert(space, behind),
            None => refills.remove(&space),
        };
    }
}

impl Partitions {
    /// Whether the fields of a space have changed and its index does not have them yet.
    pub(crate) fn has_refills(&self) -> bool {
        self.refills.first().is_some()
    }

    /// Looks at up to so many memories of one space whose fields have changed. Returns whether there is more to do.
    pub(crate) fn advance_refill(&self, store: &Store, rows_max: usize) -> Result<bool> {
        let Some((space, behind)) = self.refills.first() else { return Ok(false) };
        let slot = self.slots.lock().get(&space).map(Arc::clone);
        let Some(slot) = slot else {
            self.refills.set(space, None);
            return Ok(true);
        };
        let view = store.view();
        let (records, is_end) = next_records(&view, space, behind, rows_max)?;
        for records in records.chunks(UNDER_ONE_LOCK) {
            let mut state = slot.state.change();
            let State::Ready(partition) = &mut *state else { break };
            for (memory, record) in records {
                partition.refill(&MemoryKey(*memory), &RecordFields(record)).map_err(index_error)?;
            }
        }
        let mut state = slot.state.change();
        let next = match &mut *state {
            State::Ready(partition) if partition.reindex_progress().is_some() => {
                // Where the fields have changed once more meanwhile, the memories before have to be looked at again.
                let is_done = is_end && partition.finish_reindex();
                let last = records.last().map(|(memory, _)| *memory).or(behind);
                (!is_done).then_some(if is_end { None } else { last })
            }
            _ => None,
        };
        self.refills.set(space, next);
        drop(state);
        Ok(self.refills.first().is_some())
    }
}

fn next_records(
    view: &View<'_>,
    space: SpaceRef,
    behind: Option<LookupId>,
    rows_max: usize,
) -> Result<(Vec<(LookupId, MemoryRecord)>, bool)> {
    let group = view.sealer().group();
    let prefix = prefix_of_space(group, Kind::Memory, space);
    let start = behind.map_or(prefix, |memory| Key::Memory { space, memory }.encode(group).successor());
    let mut rows = view.cursor(&start, &prefix.prefix_end(), false);
    let mut records = Vec::new();
    while let Some((key_bytes, value)) = rows.item()? {
        if records.len() >= rows_max.max(1) {
            return Ok((records, false));
        }
        let (_, key) = Key::decode(key_bytes)?;
        let Key::Memory { memory, .. } = key else { break };
        records.push((memory, decode(&key, &view.sealer().open_row(&key, value)?)?));
        rows.advance();
    }
    Ok((records, true))
}
