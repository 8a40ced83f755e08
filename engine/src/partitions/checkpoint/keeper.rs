//! When checkpoints are written, and the thread that writes them: after so many changes, and in each round if there was any.
//! The thread starts with the first partition that is large enough, and ends with the engine, in the middle of a chunk if need be.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::save::Unfinished;
use super::{Counters, INDEX_DIR, Kept, Place, remove_dir, space_of};
use crate::error::Result;
use crate::options::Options;
use crate::partitions::worker::{Queue, Worker};
use crate::partitions::{Slot, State};
use crate::store::rocks::Store;
use crate::store::sealing::Sealer;

/// A smaller partition is made from its records in some tens of milliseconds.
const FROM_DEFAULT: u64 = 2_000;
/// A checkpoint is due when as many changes were made as one in so many memories. A new memory is two: it is written, and linked.
const DUE_SHARE: u64 = 4;
/// A checkpoint without changes is renewed before the feed can have been cut behind it: at one in so many of its changes.
const RENEWED_SHARE: u64 = 4;

/// What is known of a partition's checkpoint.
#[derive(Default)]
pub(in crate::partitions) struct Keeping {
    /// Which partition of the slot it is: another one each time that it is made.
    pub(in crate::partitions) instance: AtomicU64,
    /// The log index that the partition was made at.
    pub(in crate::partitions) index: AtomicU64,
    /// The partition's count of changes at its last checkpoint.
    pub(in crate::partitions) changes: AtomicU64,
    /// Whether the space was deleted.
    pub(in crate::partitions) is_dropped: AtomicBool,
    pub(super) saved_index: AtomicU64,
    pub(super) kept: Mutex<Kept>,
    is_queued: AtomicBool,
}

impl Keeping {
    /// Takes note of the checkpoint that the slot's next partition is made of, before it is shown. Returns its instance. Not to be
    /// called under the lock of the partition, for which a checkpoint that is being written may wait.
    pub(in crate::partitions) fn prepare(&self, kept: Option<Kept>) -> u64 {
        let mut known = self.kept.lock();
        let instance = self.instance.load(Ordering::SeqCst) + 1;
        *known = Kept { instance, ..kept.unwrap_or_default() };
        instance
    }

    /// The slot's partition is this one now, made at that log index. To be called under its lock.
    pub(in crate::partitions) fn begin(&self, instance: u64, index: u64) {
        self.instance.store(instance, Ordering::SeqCst);
        self.index.store(index, Ordering::SeqCst);
        // What was taken in since the checkpoint counts as changed.
        self.changes.store(0, Ordering::SeqCst);
    }
}

/// The checkpoints of an engine.
pub(in crate::partitions) struct Keeper {
    pub(in crate::partitions) shared: Arc<Shared>,
    /// Whether there may be a thread.
    is_threaded: bool,
    worker: Worker<Arc<Slot>>,
}

/// What the thread has.
pub(in crate::partitions) struct Shared {
    pub(super) dir: PathBuf,
    pub(super) sealer: Sealer,
    /// Partitions with fewer memories have no checkpoint.
    pub(super) from: u64,
    /// From how many vectors on a partition has a graph; 0: as the index does by default.
    pub(super) graph_from: u64,
    /// So many log entries behind the last checkpoint, it is renewed in the next round.
    renewed_behind: u64,
    /// The last log index whose changes are in all partitions.
    pub(in crate::partitions) published: AtomicU64,
    pub(in crate::partitions) counters: Counters,
    queue: Arc<Queue<Arc<Slot>>>,
}

impl Keeper {
    pub(in crate::partitions) fn new(options: &Options, sealer: Sealer) -> Self {
        let from = if options.index_checkpoint_from == 0 { FROM_DEFAULT } else { options.index_checkpoint_from };
        let worker = Worker::new("cairn-checkpoint");
        let shared = Shared {
            dir: options.dir.join(INDEX_DIR),
            sealer,
            from,
            graph_from: options.index_graph_from,
            renewed_behind: options.limits.feed_changes_max / RENEWED_SHARE / 1_000,
            published: AtomicU64::new(0),
            counters: Counters::default(),
            queue: worker.queue().clone(),
        };
        Self { shared: Arc::new(shared), is_threaded: options.index_checkpoint_thread, worker }
    }

    /// Removes the checkpoints of spaces that are not there any more.
    pub(in crate::partitions) fn clean(&self, store: &Store) -> Result<()> {
        let Ok(entries) = std::fs::read_dir(&self.shared.dir) else { return Ok(()) };
        for entry in entries.flatten() {
            let space = entry.file_name().to_str().and_then(space_of);
            let is_there = match space {
                Some(space) => crate::spaces::find(&store.view(), space).is_ok_and(|found| found.is_some()),
                None => false,
            };
            if !is_there {
                remove_dir(&entry.path());
            }
        }
        Ok(())
    }

    /// Has a checkpoint written if so much has changed that it is due.
    pub(in crate::partitions) fn consider(&self, slot: &Arc<Slot>, state: &State) {
        let State::Ready(partition) = state else { return };
        let changed = partition.changes().saturating_sub(slot.keeping.changes.load(Ordering::Relaxed));
        if changed >= self.shared.from.max(partition.len() as u64 / DUE_SHARE) {
            self.enqueue(slot);
        }
    }

    /// Has a checkpoint written if anything has changed, or it is so old that the feed will not reach back to it.
    pub(in crate::partitions) fn consider_in_round(&self, slot: &Arc<Slot>) {
        if self.shared.is_outdated(slot) {
            self.enqueue(slot);
        }
    }

    /// Has the checkpoint of a deleted space removed.
    pub(in crate::partitions) fn forget(&self, slot: &Arc<Slot>) {
        slot.keeping.is_dropped.store(true, Ordering::SeqCst);
        if !self.is_threaded {
            self.shared.do_one(slot);
        }
        self.enqueue(slot);
    }

    fn enqueue(&self, slot: &Arc<Slot>) {
        if !self.is_threaded || slot.keeping.is_queued.swap(true, Ordering::SeqCst) {
            return;
        }
        let shared = self.shared.clone();
        self.worker.push(slot.clone(), move || shared.run());
    }
}

impl Shared {
    pub(super) fn is_over(&self) -> bool {
        self.queue.is_over()
    }

    /// Whether a partition is large enough for a checkpoint, and there is none, or an older one.
    fn is_outdated(&self, slot: &Slot) -> bool {
        let state = slot.state.read();
        let State::Ready(partition) = &*state else { return false };
        if (partition.len() as u64) < self.from {
            return false;
        }
        let behind =
            self.published.load(Ordering::SeqCst).saturating_sub(slot.keeping.saved_index.load(Ordering::SeqCst));
        partition.changes() > slot.keeping.changes.load(Ordering::SeqCst) || behind > self.renewed_behind
    }

    fn run(&self) {
        while let Some(slot) = self.queue.next() {
            slot.keeping.is_queued.store(false, Ordering::SeqCst);
            self.do_one(&slot);
        }
    }

    /// Writes or removes the checkpoint of a partition, if there is something to do. Returns whether one was written.
    pub(in crate::partitions) fn do_one(&self, slot: &Slot) -> bool {
        if !slot.keeping.is_dropped.load(Ordering::SeqCst) && !self.is_outdated(slot) {
            return false;
        }
        let (tenant, space) = (slot.space.tenant, slot.space.space);
        let saved = self.save(slot, &mut |_| Ok(()));
        if slot.keeping.is_dropped.load(Ordering::SeqCst) {
            let _kept = slot.keeping.kept.lock();
            remove_dir(&Place::new(&self.dir, &self.sealer, slot.space).dir);
        }
        match saved {
            Ok(()) => true,
            Err(Unfinished::Moot) => false,
            Err(Unfinished::Failed(error)) => {
                Counters::add(&self.counters.save_failures, 1);
                tracing::warn!(tenant, space, %error, "a checkpoint of an index could not be written");
                false
            }
        }
    }
}
