//! The upkeep of large partitions' graphs, on a thread of its own: new vectors are linked, and rows that name removed ones mended.
//!
//! ```text
//!   write ──there is upkeep to do──▶ queue ──▶ thread: take a turn and plan, take another and join, until none is left
//! ```
//!
//! The longer part of linking only reads, so searches go on meanwhile; each write section stays under a millisecond. Nothing
//! waits for the thread: what is not linked is compared one by one. Where it does not keep up, the writer helps after each
//! chunk, twice as much as it has added, in write sections as short as the thread's, so that searches go on then too.
//! The thread starts with the first partition that is large enough for a graph, and ends with the engine.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cairn_index::{Partition, in_parts};

use super::checkpoint::Keeper;
use super::worker::{Queue, Worker};
use super::{Slot, State, cores};

/// How many vectors each thread plans under one read lock: they take some tenths of a millisecond.
const PLANNED_PER_THREAD: usize = 2;
/// As many where all threads plan, so that they are worth starting.
const PLANNED_PER_THREAD_OF_MANY: usize = 6;
/// With more than this many vectors to link, as after a start, all cores plan.
const MANY: u64 = 512;
/// So many of them are planned before the first of them is joined, on however many cores: without writes in between, every machine
/// makes the same graph of the same records.
const BATCH_OF_MANY: usize = 48;
/// As many where a writer helps, which then waits for them.
const BATCH_OF_WRITER: usize = 12;
/// With more than this many steps of upkeep left, the writer helps: it gets slower, and searches do not.
const LEFT_MAX: u64 = 2_000;
/// How many steps of mending rows are done under one write lock.
const SWEEP_STEPS: usize = 2;

/// The thread and what it is told of.
pub(super) struct Upkeep {
    /// Told of what has been done, which may be worth a checkpoint.
    keeper: Arc<Keeper>,
    worker: Worker<Arc<Slot>>,
}

impl Upkeep {
    pub(super) fn new(keeper: Arc<Keeper>) -> Self {
        Self { keeper, worker: Worker::new("cairn-upkeep") }
    }

    /// Has a partition looked after, if there is something to do for it.
    pub(super) fn consider(&self, slot: &Arc<Slot>, state: &State) {
        let State::Ready(partition) = state else { return };
        if partition.upkeep_left() == 0 || slot.is_in_upkeep.swap(true, Ordering::Relaxed) {
            return;
        }
        let (keeper, queue) = (self.keeper.clone(), self.worker.queue().clone());
        self.worker.push(slot.clone(), move || run(&keeper, &queue));
    }
}

/// What the thread does. Where there is none, writers do it.
fn run(keeper: &Keeper, queue: &Queue<Arc<Slot>>) {
    while let Some(slot) = queue.next() {
        slot.is_in_upkeep.store(false, Ordering::Relaxed);
        let is_more_to_do = do_some(&slot, BATCH_OF_MANY);
        if !is_more_to_do {
            keeper.consider(&slot, &slot.state.read());
            continue;
        }
        if !slot.is_in_upkeep.swap(true, Ordering::Relaxed) {
            queue.push(slot);
        }
    }
}

/// Does some upkeep for a writer that has made so many changes, if too much is left: twice as much as it has added, so that
/// it catches up in the end, and no write waits for all that a partition has left after its start.
pub(super) fn catch_up(slot: &Slot, changes: usize) {
    let (mut batches, batches_min) = (0, (changes * 2).div_ceil(BATCH_OF_WRITER));
    let enough = left(slot).waiting.saturating_sub(changes as u64 * 2);
    loop {
        let Left { steps, waiting } = left(slot);
        // Batches are small while few vectors are linked, so that more of them are needed; but none has less than one.
        let is_enough = batches >= batches_min && waiting <= enough || batches >= changes * 2;
        if steps <= LEFT_MAX || is_enough || !do_some(slot, BATCH_OF_WRITER) {
            return;
        }
        batches += 1;
    }
}

/// What is left to do for a partition.
struct Left {
    /// Steps of upkeep.
    steps: u64,
    /// Vectors to link.
    waiting: u64,
}

fn left(slot: &Slot) -> Left {
    match &*slot.state.read() {
        State::Ready(partition) => Left { steps: partition.upkeep_left(), waiting: partition.waiting() },
        _ => Left { steps: 0, waiting: 0 },
    }
}

/// One batch: planned in parts, each under the read lock, then joined in as many write sections. Returns whether to go on: something is
/// left, and something could be done.
fn do_some(slot: &Slot, batch_max: usize) -> bool {
    let _one_at_a_time = slot.linking.lock();
    let (before, batch, threads, each) = match &*slot.state.read() {
        State::Ready(partition) => {
            let (batch_max, threads, each) = if partition.waiting() > MANY {
                (batch_max, cores(), PLANNED_PER_THREAD_OF_MANY)
            } else {
                (PLANNED_PER_THREAD, 1, PLANNED_PER_THREAD)
            };
            // What is left is counted before anything is planned: for hnsw_rs, that is to insert.
            (partition.upkeep_left(), partition.next_batch(batch_max), threads, each)
        }
        _ => return false,
    };
    // Where nothing is to be linked, there may be rows to mend.
    let only_sweep = batch.is_empty().then_some(0..0);
    let parts = in_parts(0..batch.len(), each * threads);
    let mut plans = Vec::new();
    for part in parts.chain(only_sweep) {
        let turn = slot.state.turn();
        let planned = match &*turn.read() {
            State::Ready(partition) => partition.plan_part(&batch, part, threads),
            _ => return false,
        };
        plans.push(planned);
    }
    let mut left = 0;
    for plans in plans {
        let mut state = slot.state.change();
        let State::Ready(partition) = &mut *state else { return false };
        partition.join(plans);
        partition.sweep(SWEEP_STEPS);
        left = partition.upkeep_left();
    }
    // Where memory is short, the next write tries again.
    left > 0 && left != before
}

/// The tier that serves a partition's searches.
pub(super) fn tier(partition: &Partition) -> &'static str {
    if partition.has_graph() { "graph" } else { "flat" }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::partitions::bed::{Bed, SPACE};

    const BATCH: u64 = 400;

    /// A partition that the thread never gets, so that nobody but its writers links.
    fn without_thread(bed: &Bed) -> Arc<Slot> {
        let slot = bed.engine.partitions().slot(SPACE);
        while left(&slot).steps > 0 || slot.is_in_upkeep.swap(true, Ordering::Relaxed) {
            std::thread::yield_now();
        }
        slot
    }

    #[test]
    fn up_to_the_bound_a_write_waits_for_nobody_who_links() {
        let mut bed = Bed::new();
        let slot = without_thread(&bed);
        let linking = slot.linking.lock();
        let (done, is_done) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for number in 1..=LEFT_MAX / BATCH {
                    bed.add(number * 1_000..number * 1_000 + BATCH);
                }
                done.send(bed.engine.index_counts().waiting)
            });
            let waiting = is_done.recv_timeout(Duration::from_secs(60));
            drop(linking);
            assert_eq!(waiting, Ok(LEFT_MAX / BATCH * BATCH), "all were taken, and none was linked");
        });
    }

    #[test]
    fn beyond_the_bound_a_write_links_as_much_as_brings_it_back() {
        let mut bed = Bed::new();
        let slot = without_thread(&bed);
        for number in 1..=2 * LEFT_MAX / BATCH {
            bed.add(number * 1_000..number * 1_000 + BATCH);
            assert!(left(&slot).steps <= LEFT_MAX, "{} after {number} writes", left(&slot).steps);
        }
        assert!(left(&slot).steps > LEFT_MAX - BATCH, "no more than that: {}", left(&slot).steps);
    }
}
