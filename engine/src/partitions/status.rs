//! What partitions take, and what has been done for them.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::upkeep::tier;
use super::{Partitions, Slot, State};
use crate::error::Result;
use crate::store::keys::SpaceRef;
use crate::store::rocks::Store;

/// Slots whose nodes are looked at under one read lock: less than a millisecond.
const LOOKED_AT_TOGETHER: u32 = 512;

/// What a partition takes.
pub(crate) struct PartitionStatus {
    pub(crate) bytes: u64,
    pub(crate) tier: &'static str,
    /// Fields whose index is being made, with how many memories it has, and of how many.
    pub(crate) building: Vec<(String, u64, u64)>,
}

/// The indexes in memory, and what has been done for them since the engine was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexCounts {
    /// Indexes in memory.
    pub loaded: u64,
    /// Bytes that they take.
    pub bytes: u64,
    /// Vectors that wait to be linked into a graph; they are compared one by one until then.
    pub waiting: u64,
    /// Vectors that searches over a graph may not reach, as of the last round: always 0, and a fault where it is not.
    pub unreachable: u64,
    /// Checkpoints that were written.
    pub checkpoints_saved: u64,
    /// Bytes that were written for them.
    pub checkpoint_bytes: u64,
    /// Checkpoints that could not be written.
    pub checkpoint_failures: u64,
    /// Indexes that were loaded from their checkpoint.
    pub checkpoints_loaded: u64,
    /// Checkpoints that were there and of no use.
    pub checkpoints_unusable: u64,
    /// Indexes that were made from the records.
    pub made: u64,
    /// Memories that were added to them so far.
    pub made_memories: u64,
}

impl Partitions {
    /// What a space's partition takes.
    pub(crate) fn status(&self, space: SpaceRef) -> PartitionStatus {
        let slot = self.slots.lock().get(&space).map(Arc::clone);
        match slot.as_ref().map(|slot| slot.state.read()).as_deref() {
            Some(State::Ready(partition)) => {
                let (done, total) = partition.reindex_progress().unwrap_or_default();
                let building = partition.reindexed_paths().into_iter().map(|path| (path, done, total));
                PartitionStatus { bytes: partition.bytes(), tier: tier(partition), building: building.collect() }
            }
            _ => PartitionStatus { bytes: 0, tier: "unloaded", building: Vec::new() },
        }
    }

    /// All partitions together.
    pub(crate) fn counts(&self) -> IndexCounts {
        let counters = &self.keeper.shared.counters;
        let mut counts = IndexCounts {
            unreachable: counters.astray.load(Ordering::Relaxed),
            checkpoints_saved: counters.saved.load(Ordering::Relaxed),
            checkpoint_bytes: counters.saved_bytes.load(Ordering::Relaxed),
            checkpoint_failures: counters.save_failures.load(Ordering::Relaxed),
            checkpoints_loaded: counters.loaded.load(Ordering::Relaxed),
            checkpoints_unusable: counters.unusable.load(Ordering::Relaxed),
            made: counters.made.load(Ordering::Relaxed),
            made_memories: counters.made_memories.load(Ordering::Relaxed),
            ..IndexCounts::default()
        };
        let slots: Vec<_> = self.slots.lock().values().map(Arc::clone).collect();
        for slot in &slots {
            if let State::Ready(partition) = &*slot.state.read() {
                counts.loaded += 1;
                counts.bytes += partition.bytes();
                counts.waiting += partition.waiting();
            }
        }
        counts
    }

    /// Writes the checkpoints of all partitions that have changed since their last one. Returns how many were written.
    pub(crate) fn checkpoint_all(&self) -> usize {
        let slots: Vec<_> = self.slots.lock().values().map(Arc::clone).collect();
        slots.iter().filter(|slot| self.keeper.shared.do_one(slot)).count()
    }

    /// Removes the checkpoints of spaces that are not there any more, such as those of tenants that were erased.
    pub(crate) fn clean_checkpoints(&self, store: &Store) -> Result<()> {
        self.keeper.clean(store)
    }

    /// Looks for nodes of graphs that do not hang below the root.
    pub(super) fn count_astray(&self, slots: &[Arc<Slot>]) {
        let count = |slot: &Arc<Slot>, range: Range<u32>| match &*slot.state.turn().read() {
            State::Ready(partition) if range.start < partition.slots_used() && partition.has_graph() => {
                Some(partition.astray(range))
            }
            _ => None,
        };
        let mut astray = 0;
        for slot in slots {
            let starts = (0..).step_by(LOOKED_AT_TOGETHER as usize);
            astray += starts.map_while(|start| count(slot, start..start + LOOKED_AT_TOGETHER)).sum::<u64>();
        }
        if astray > 0 {
            tracing::error!(vectors = astray, "vectors of an index may not be reached over its graph");
        }
        self.keeper.shared.counters.astray.store(astray, Ordering::Relaxed);
    }
}
