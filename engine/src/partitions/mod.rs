//! The partitions: one index for each space, made from the records at its first use and kept in step with them.
//!
//! ```text
//!                              ┌──────────── idle for some rounds ────────────┐
//!                              ▼                                              │
//!   Unloaded ──first search──▶ Loading (changes queue up) ──────────────────▶ Ready
//!       ▲                      └──too little memory──▶ Failed ◀──too little memory──┘
//!       └───────────────next round─────────────────────┘
//! ```
//!
//! Time is counted in rounds, which the caller begins: nothing here reads a clock. A partition that has not been searched
//! for some rounds is given up, and so is one that was not searched in this round when another needs its memory.
//!
//! How a search and the records stay one, though no lock is held while RocksDB writes:
//!
//! ```text
//!   writer: mark the slots with the chunk's index ── write ── lock the slots, change the indexes, unmark, unlock
//!   search: read lock ── take a view ── is the slot marked, and the chunk in the view? ── no: search
//!                                                                                     └─ yes: wait for the writer, again
//! ```
//!
//! A batch shows to views all at once, when all of it is written, so a search during the write has the old state in both
//! index and view. Only between that moment and the change of the indexes must it wait. Each hit is therefore fetched in
//! the version that it matched.
//!
//! Where a space's indexed fields change, `refill.rs` makes the index of its attributes anew beside the one in use.
//!
//! A large partition is kept in checkpoints (`checkpoint/`), out of which the next start has it at once; else it is made from the
//! records (`records.rs`).
//!
//! Large partitions have a graph, which `upkeep.rs` looks after in the background. No search waits for that, and no write as
//! long as it keeps up.

#[cfg(test)]
mod bed;
mod checkpoint;
mod records;
mod refill;
mod status;
mod upkeep;
mod worker;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use cairn_index::{
    IndexError, MemoryBudget, MemoryKey, Partition, PartitionOptions, PreparedVector, Schema, SearchLock, Turn,
};
use cairn_proto::storage::MemoryRecord;
use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::filters::RecordFields;
use crate::options::Options;
use crate::spaces::SpaceInfo;
use crate::store::keys::{LookupId, SpaceRef};
use crate::store::rocks::{Store, View};
use crate::store::sealing::Sealer;

use checkpoint::{Keeper, Keeping, Kept, Loaded};
use refill::Refills;
pub use status::IndexCounts;
use upkeep::Upkeep;

/// When a caller whose search needs more memory than there is should try again.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// One change of a space's index.
pub(crate) enum IndexChange {
    /// A memory was written.
    Upsert { memory: LookupId, record: Box<MemoryRecord>, vector: Option<Vec<f32>> },
    /// The same with a vector that has been made ready for the space's partition.
    UpsertPrepared { memory: LookupId, record: Box<MemoryRecord>, vector: Box<PreparedVector>, values: Vec<f32> },
    /// A memory was removed.
    Remove { memory: LookupId },
    /// Other fields are indexed from now on.
    Schema(Schema),
    /// The space was deleted.
    Drop,
}

enum State {
    Unloaded,
    /// Being made from a view; changes behind that view wait here.
    Loading(Vec<IndexChange>),
    Ready(Box<Partition>),
    /// Given up for want of memory, until the next round: making it again takes long.
    Failed(String),
}

struct Slot {
    space: SpaceRef,
    state: SearchLock<State>,
    /// The round of the last search.
    searched: AtomicU64,
    /// The log index of a chunk that is on its way into the store and not in the partition yet; 0: there is none.
    written: AtomicU64,
    /// Held while the partition is made, so that it is made once.
    loading: Mutex<()>,
    /// Whether it is queued for upkeep.
    is_in_upkeep: AtomicBool,
    /// Held by whoever links, so that two do not plan the same.
    linking: Mutex<()>,
    keeping: Keeping,
}

/// All partitions of an engine.
pub(crate) struct Partitions {
    slots: Mutex<HashMap<SpaceRef, Arc<Slot>>>,
    budget: MemoryBudget,
    round: AtomicU64,
    /// From how many vectors on a space gets a graph; 0: as the index does by default.
    graph_from: u64,
    upkeep: Upkeep,
    /// Outlives the upkeep, which asks it for checkpoints.
    keeper: Arc<Keeper>,
    refills: Refills,
    /// Held by the writer from its mark to the change of the indexes.
    publishing: Mutex<()>,
}

impl Partitions {
    /// No partitions yet; together they may take `index_bytes_max`, 0: no limit.
    pub(crate) fn new(options: &Options, sealer: Sealer) -> Self {
        let bytes_max = options.index_bytes_max;
        let budget = if bytes_max == 0 { MemoryBudget::unlimited() } else { MemoryBudget::new(bytes_max) };
        let keeper = Arc::new(Keeper::new(options, sealer));
        Self {
            slots: Mutex::new(HashMap::new()),
            budget,
            round: AtomicU64::new(0),
            graph_from: options.index_graph_from,
            upkeep: Upkeep::new(Arc::clone(&keeper)),
            keeper,
            refills: Refills::default(),
            publishing: Mutex::new(()),
        }
    }

    /// Begins a round: gives up the partitions that no search has used in the last `idle_rounds` rounds, and lets those be
    /// made again that failed. Returns how many were given up.
    pub(crate) fn begin_round(&self, idle_rounds: u64) -> usize {
        let round = self.round.fetch_add(1, Ordering::Relaxed) + 1;
        let slots: Vec<_> = self.slots.lock().values().map(Arc::clone).collect();
        for slot in &slots {
            if matches!(*slot.state.read(), State::Failed(_)) {
                slot.state.change().recover();
            }
        }
        slots.iter().for_each(|slot| self.keeper.consider_in_round(slot));
        self.count_astray(&slots);
        let idle = |slot: &&Arc<Slot>| slot.searched.load(Ordering::Relaxed).saturating_add(idle_rounds) < round;
        slots.iter().filter(idle).filter(|slot| slot.unload()).count()
    }

    /// Gives up the partition that was searched longest ago, if none of this round has to go. Returns whether one did.
    fn make_room(&self) -> bool {
        let round = self.round.load(Ordering::Relaxed);
        let mut slots: Vec<_> = self.slots.lock().values().map(Arc::clone).collect();
        slots.retain(|slot| slot.searched.load(Ordering::Relaxed) < round);
        slots.sort_by_key(|slot| slot.searched.load(Ordering::Relaxed));
        slots.iter().any(|slot| slot.unload())
    }

    fn slot(&self, space: SpaceRef) -> Arc<Slot> {
        let mut slots = self.slots.lock();
        Arc::clone(slots.entry(space).or_insert_with(|| Arc::new(Slot::new(space))))
    }

    /// Writes a chunk to the store and changes the indexes, as one for all searches. `write` does the former; `index` is
    /// the log index that the store has applied after it. Does some upkeep where too much is left.
    pub(crate) fn publish(
        &self,
        index: u64,
        changes: Vec<(SpaceRef, IndexChange)>,
        write: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        // Always in the order of the spaces, so that two writers could not wait for each other.
        let mut by_space: BTreeMap<SpaceRef, Vec<IndexChange>> = BTreeMap::new();
        for (space, change) in changes {
            by_space.entry(space).or_default().push(change);
        }
        let changes: Vec<usize> = by_space.values().map(Vec::len).collect();
        let slots: Vec<_> = by_space.keys().map(|space| self.slot(*space)).collect();
        slots.iter().zip(by_space.values_mut()).for_each(|(slot, changes)| slot.prepare(changes));
        let dropped = {
            let _publishing = self.publishing.lock();
            for slot in &slots {
                slot.written.store(index, Ordering::SeqCst);
            }
            let written = write();
            self.switch(&slots, by_space, written)?
        };
        for (slot, changes) in slots.iter().zip(changes) {
            upkeep::catch_up(slot, changes);
        }
        self.keeper.shared.published.store(index, Ordering::SeqCst);
        let mut slots = self.slots.lock();
        for space in dropped {
            if let Some(slot) = slots.remove(&space) {
                self.keeper.forget(&slot);
            }
        }
        Ok(())
    }

    /// Changes the indexes after their chunk was written, under all their locks. Returns the spaces that were deleted.
    fn switch(
        &self,
        slots: &[Arc<Slot>],
        by_space: BTreeMap<SpaceRef, Vec<IndexChange>>,
        written: Result<()>,
    ) -> Result<Vec<SpaceRef>> {
        let mut dropped = Vec::new();
        // All turns first, so that no search waits for what is planned in another partition.
        let turns: Vec<_> = slots.iter().map(|slot| slot.state.turn()).collect();
        let mut states: Vec<_> = turns.into_iter().map(Turn::change).collect();
        for slot in slots {
            slot.written.store(0, Ordering::SeqCst);
        }
        written?;
        for ((slot, state), (space, changes)) in slots.iter().zip(&mut states).zip(by_space) {
            if changes.iter().any(|change| matches!(change, IndexChange::Drop)) {
                **state = State::Unloaded;
                dropped.push(space);
            } else {
                state.take(space, changes);
                self.refills.consider(space, state);
                self.upkeep.consider(slot, state);
                self.keeper.consider(slot, state);
            }
        }
        Ok(dropped)
    }

    /// Reads a partition, made first where it is not there, together with a view of the store in the same state.
    pub(crate) fn read<'s, T>(
        &self,
        store: &'s Store,
        space: &SpaceInfo,
        read: impl FnOnce(&Partition, &View<'s>) -> Result<T>,
    ) -> Result<(T, View<'s>)> {
        let slot = self.slot(space.reference);
        slot.searched.store(self.round.load(Ordering::Relaxed), Ordering::Relaxed);
        loop {
            let is_made = match &*slot.state.read() {
                State::Ready(partition) => {
                    let view = store.view();
                    // Looked at after the view was taken: a chunk that is marked later is not in it.
                    let written = slot.written.load(Ordering::SeqCst);
                    if written == 0 || view.applied_index()? < written {
                        return read(partition, &view).map(|result| (result, view));
                    }
                    true
                }
                State::Failed(reason) => return Err(exhausted(reason)),
                State::Unloaded | State::Loading(_) => false,
            };
            if is_made {
                // The writer needs the read lock that was let go just now.
                drop(self.publishing.lock());
            } else {
                self.load(&slot, store, space)?;
            }
        }
    }

    fn load(&self, slot: &Arc<Slot>, store: &Store, space: &SpaceInfo) -> Result<()> {
        let _one_at_a_time = slot.loading.lock();
        let view = {
            let mut state = slot.state.change();
            if !matches!(*state, State::Unloaded) {
                return Ok(());
            }
            *state = State::Loading(Vec::new());
            store.view()
        };
        // As it is in that view: a change of its fields before it was not told to a partition that is not there.
        let mut built = self.build_in(&view, space.reference);
        while built.as_ref().is_err_and(is_exhausted) && self.make_room() {
            built = self.build_in(&view, space.reference);
        }
        let built = built.map(|made| (slot.keeping.prepare(made.kept), made.index, made.partition));
        let mut state = slot.state.change();
        let State::Loading(behind) = std::mem::replace(&mut *state, State::Unloaded) else {
            // The space was deleted meanwhile.
            return Ok(());
        };
        match built {
            Ok((instance, index, partition)) => {
                slot.keeping.begin(instance, index);
                *state = State::Ready(Box::new(partition));
                state.take(space.reference, behind);
                self.refills.consider(space.reference, &state);
                self.upkeep.consider(slot, &state);
                self.keeper.consider(slot, &state);
                Ok(())
            }
            Err(error) => {
                if is_exhausted(&error) {
                    *state = State::Failed(error.to_string());
                }
                Err(error)
            }
        }
    }

    fn build_in(&self, view: &View<'_>, space: SpaceRef) -> Result<Made> {
        let found = crate::spaces::find(view, space)?;
        let found = found.ok_or_else(|| Error::not_found("space", &format!("number {}", space.space)))?;
        let mut made = self.build(view, &found)?;
        // Only now, so that loading links nothing: what is not linked yet is searched flat until the upkeep has linked half of it.
        made.partition.enable_graph_without_upkeep(self.graph_from);
        Ok(made)
    }

    /// Makes a partition out of its checkpoint, or of the records of a view.
    fn build(&self, view: &View<'_>, space: &SpaceInfo) -> Result<Made> {
        let options = PartitionOptions {
            dimension: space.dimension,
            metric: space.metric,
            kind: space.kind,
            storage: space.storage,
            schema: space.schema.clone(),
            budget: self.budget.clone(),
        };
        let index = view.applied_index()?;
        if space.searchable
            && let Some(Loaded { partition, kept, .. }) = self.keeper.shared.load(view, space, options.clone())?
        {
            return Ok(Made { partition, index, kept: Some(kept) });
        }
        let mut partition = Partition::new(options).map_err(index_error)?;
        records::add_all(&mut partition, view, space, &self.keeper.shared.counters)?;
        Ok(Made { partition, index, kept: None })
    }
}

impl Slot {
    fn new(space: SpaceRef) -> Self {
        Self {
            space,
            state: SearchLock::new(State::Unloaded),
            searched: AtomicU64::new(0),
            written: AtomicU64::new(0),
            loading: Mutex::new(()),
            is_in_upkeep: AtomicBool::new(false),
            linking: Mutex::new(()),
            keeping: Keeping::default(),
        }
    }
}

/// A partition that was made, as of a log index.
struct Made {
    partition: Partition,
    index: u64,
    /// The checkpoint that it came out of.
    kept: Option<Kept>,
}

impl Slot {
    /// Makes vectors ready for the partition, before any lock is held for longer than it takes to ask how.
    fn prepare(&self, changes: &mut Vec<IndexChange>) {
        let preparer = match &*self.state.read() {
            State::Ready(partition) => partition.preparer(),
            _ => return,
        };
        let prepare = |change| {
            let IndexChange::Upsert { memory, record, vector: Some(values) } = change else { return change };
            match preparer.prepare(&values) {
                Ok(vector) => IndexChange::UpsertPrepared { memory, record, vector: Box::new(vector), values },
                // The partition will say what is wrong with it.
                Err(_) => IndexChange::Upsert { memory, record, vector: Some(values) },
            }
        };
        *changes = std::mem::take(changes).into_iter().map(prepare).collect();
    }

    /// Gives the partition up, if it is there. The slot stays: whoever holds it sees all later changes.
    fn unload(&self) -> bool {
        let mut state = self.state.change();
        if !matches!(*state, State::Ready(_)) {
            return false;
        }
        let partition = std::mem::replace(&mut *state, State::Unloaded);
        // Freeing a large one takes a while, and nobody has to wait for that.
        drop(state);
        drop(partition);
        true
    }
}

impl State {
    /// Lets a partition be made again that failed.
    fn recover(&mut self) {
        if matches!(self, Self::Failed(_)) {
            *self = Self::Unloaded;
        }
    }

    /// Takes changes that were written to the store.
    fn take(&mut self, space: SpaceRef, changes: Vec<IndexChange>) {
        let partition = match self {
            Self::Unloaded | Self::Failed(_) => return,
            Self::Loading(behind) => {
                behind.extend(changes);
                return;
            }
            Self::Ready(partition) => partition,
        };
        for change in changes {
            let result = match change {
                IndexChange::Upsert { memory, record, vector } => upsert(partition, memory, &record, vector.as_deref()),
                IndexChange::UpsertPrepared { memory, record, vector, values } => {
                    let (key, fields) = (MemoryKey(memory), RecordFields(&record));
                    match partition.upsert_prepared(key, record.id.as_bytes(), &fields, Some(&vector)) {
                        // Made again in between, as another kind of partition.
                        Err(IndexError::PreparedForAnother) => upsert(partition, memory, &record, Some(&values)),
                        result => result.map(|_| ()),
                    }
                }
                IndexChange::Remove { memory } => {
                    partition.remove(&MemoryKey(memory));
                    Ok(())
                }
                IndexChange::Schema(schema) => {
                    partition.change_schema(schema);
                    Ok(())
                }
                IndexChange::Drop => Ok(()),
            };
            if let Err(error) = result {
                // The record is stored all the same; searches of this space say so instead of missing it.
                tracing::error!(tenant = space.tenant, space = space.space, %error, "the index of a space is given up");
                *self = Self::Failed(error.to_string());
                return;
            }
        }
    }
}

fn upsert(
    partition: &mut Partition,
    memory: LookupId,
    record: &MemoryRecord,
    vector: Option<&[f32]>,
) -> std::result::Result<(), IndexError> {
    partition.upsert(MemoryKey(memory), record.id.as_bytes(), &RecordFields(record), vector).map(|_| ())
}

/// An error of the index as one of the engine.
pub(crate) fn index_error(error: IndexError) -> Error {
    match error {
        IndexError::MemoryLimit { .. } | IndexError::OutOfMemory(_) | IndexError::Full => {
            exhausted(&error.to_string()).with_source(error)
        }
        _ => Error::internal("the index refused what had been checked").with_source(error),
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn is_exhausted(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::IndexMemory { .. })
}

fn exhausted(reason: &str) -> Error {
    Error::new(ErrorKind::IndexMemory { retry_after: RETRY_AFTER }, reason)
}
