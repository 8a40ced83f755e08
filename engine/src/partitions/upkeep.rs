//! The upkeep of large partitions' graphs, on a thread of its own: new vectors are linked, and rows that name removed ones mended.
//!
//! ```text
//!   write ──there is upkeep to do──▶ queue ──▶ thread: plan under the read lock, join under the write lock, until none is left
//! ```
//!
//! The longer part of linking only reads, so searches go on meanwhile; each write section stays under a millisecond. Nothing
//! waits for the thread: what is not linked is compared one by one. Where it does not keep up, the writer helps after each
//! chunk, twice as much as it has added, in write sections as short as the thread's, so that searches go on then too.
//! The thread starts with the first partition that is large enough for a graph, and ends with the engine.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use cairn_index::Partition;
use parking_lot::{Condvar, Mutex};

use super::checkpoint::Keeper;
use super::{Slot, State, cores};

/// How many vectors each thread plans under one read lock: they take some tenths of a millisecond.
const PLANNED_PER_THREAD: usize = 2;
/// As many where all threads plan, so that they are worth starting.
const PLANNED_PER_THREAD_OF_MANY: usize = 6;
/// With more than this many vectors to link, as after a start, all cores plan.
const MANY: u64 = 512;
/// With more than this many steps of upkeep left, the writer helps: it gets slower, and searches do not.
const LEFT_MAX: u64 = 2_000;
/// How many steps of mending rows are done under one write lock.
const SWEEP_STEPS: usize = 2;

/// The queue and its thread.
pub(super) struct Upkeep {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    /// Told of what has been done, which may be worth a checkpoint.
    keeper: Arc<Keeper>,
    queue: Mutex<VecDeque<Arc<Slot>>>,
    wake: Condvar,
    is_over: AtomicBool,
}

impl Upkeep {
    pub(super) fn new(keeper: Arc<Keeper>) -> Self {
        let (queue, wake) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { keeper, queue, wake, is_over: AtomicBool::new(false) });
        Self { shared, thread: Mutex::new(None) }
    }

    /// Has a partition looked after, if there is something to do for it.
    pub(super) fn consider(&self, slot: &Arc<Slot>, state: &State) {
        let State::Ready(partition) = state else { return };
        if partition.upkeep_left() == 0 || slot.is_in_upkeep.swap(true, Ordering::Relaxed) {
            return;
        }
        self.shared.queue.lock().push_back(slot.clone());
        self.shared.wake.notify_one();
        let mut thread = self.thread.lock();
        if thread.is_none() {
            let shared = self.shared.clone();
            let spawned = std::thread::Builder::new().name("cairn-upkeep".into()).spawn(move || shared.run());
            match spawned {
                Ok(spawned) => *thread = Some(spawned),
                Err(error) => tracing::warn!(%error, "no thread for the upkeep of indexes; writes will do it"),
            }
        }
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        {
            let _queue = self.shared.queue.lock();
            self.shared.is_over.store(true, Ordering::Relaxed);
            self.shared.wake.notify_all();
        }
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the thread for the upkeep of indexes has failed");
        }
    }
}

impl Shared {
    fn run(&self) {
        while let Some(slot) = self.next() {
            slot.is_in_upkeep.store(false, Ordering::Relaxed);
            let is_more_to_do = do_some(&slot);
            if !is_more_to_do {
                self.keeper.consider(&slot, &slot.state.read());
                continue;
            }
            if !slot.is_in_upkeep.swap(true, Ordering::Relaxed) {
                self.queue.lock().push_back(slot);
            }
        }
    }

    /// Waits for a partition that needs upkeep; `None` once the engine is closed.
    fn next(&self) -> Option<Arc<Slot>> {
        let mut queue = self.queue.lock();
        loop {
            if self.is_over.load(Ordering::Relaxed) {
                return None;
            }
            if let Some(slot) = queue.pop_front() {
                return Some(slot);
            }
            self.wake.wait(&mut queue);
        }
    }
}

/// Does some upkeep for a writer that has made so many changes, if too much is left: twice as much as it has added, so that
/// it catches up in the end, and no write waits for all that a partition has left after its start.
pub(super) fn catch_up(slot: &Slot, changes: usize) {
    let is_behind = || matches!(&*slot.state.read(), State::Ready(partition) if partition.upkeep_left() > LEFT_MAX);
    for _ in 0..(changes * 2).div_ceil(PLANNED_PER_THREAD_OF_MANY) {
        if !is_behind() || !do_some(slot) {
            return;
        }
    }
}

/// One plan and one write section. Returns whether to go on: something is left, and something could be done.
fn do_some(slot: &Slot) -> bool {
    let _turn = slot.upkeep_turn.lock();
    let plans = match &*slot.state.read() {
        State::Ready(partition) => {
            let (threads, each) = match partition.waiting() > MANY {
                true => (cores(), PLANNED_PER_THREAD_OF_MANY),
                false => (1, PLANNED_PER_THREAD),
            };
            partition.plan(each * threads, threads)
        }
        _ => return false,
    };
    let mut state = slot.change();
    let State::Ready(partition) = &mut *state else { return false };
    let before = partition.upkeep_left();
    partition.join(plans);
    partition.sweep(SWEEP_STEPS);
    let left = partition.upkeep_left();
    // Where memory is short, the next write tries again.
    left > 0 && left != before
}

/// The tier that serves a partition's searches.
pub(super) fn tier(partition: &Partition) -> &'static str {
    if partition.has_graph() { "graph" } else { "flat" }
}
