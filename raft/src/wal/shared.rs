//! What callers and the writing thread share: one ordered queue, the ledger, and the room that appends wait for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::WalError;
use super::ledger::{Ledger, Location};
use super::record::Record;
use super::segment::Segment;

/// Called once, from the log's thread, when a write is durable or has failed. It must not block.
pub type Callback = Box<dyn FnOnce(Result<(), WalError>) + Send>;

/// A record on its way to the disk.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) record: Record,
    /// For entries: see [`Ledger::append`].
    pub(super) ticket: u64,
}

/// Someone who waits for a sync.
pub(super) struct Waiting {
    pub(super) done: Callback,
    /// The room in the queue that is given back with the acknowledgement.
    pub(super) room: Option<OwnedSemaphorePermit>,
}

/// Everything that was queued when the thread looked.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) pending: Vec<Pending>,
    pub(super) waiting: Vec<Waiting>,
    /// The latest committed position, if it is not written yet.
    pub(super) committed: Option<Bytes>,
}

/// What the thread is to do next.
pub(super) enum Work {
    /// Write and sync.
    Commit(Batch),
    /// Nothing was queued for a while: write what needs no sync.
    Idle(Option<Bytes>),
    /// Everything is written; end.
    Close,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// No more is taken; what is queued will be written.
    Closing,
    Stopped,
}

pub(super) struct State {
    pub(super) ledger: Ledger,
    /// The segments that readers may need, by sequence.
    pub(super) segments: BTreeMap<u64, Arc<Segment>>,
    queue: Batch,
    phase: Phase,
}

/// See the module.
pub(super) struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    pub(super) room: Arc<Semaphore>,
    pub(super) counters: Counters,
}

impl Shared {
    pub(super) fn new(ledger: Ledger, segments: BTreeMap<u64, Arc<Segment>>, queue_bytes_max: usize) -> Self {
        Self {
            state: Mutex::new(State { ledger, segments, queue: Batch::default(), phase: Phase::Running }),
            wake: Condvar::new(),
            room: Arc::new(Semaphore::new(queue_bytes_max)),
            counters: Counters::default(),
        }
    }

    /// Looks at the state without changing it.
    pub(super) fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.lock())
    }

    /// Changes the ledger and queues the records for it, in one step, so that both have the same order. `change` returns
    /// the records and the ticket of the first.
    pub(super) fn submit(
        &self,
        waiting: Option<Waiting>,
        change: impl FnOnce(&mut Ledger) -> Result<(Vec<Record>, u64), WalError>,
    ) -> Result<(), WalError> {
        let mut state = self.state.lock();
        if state.phase != Phase::Running {
            return Err(WalError::Stopped);
        }
        let (records, first_ticket) = change(&mut state.ledger)?;
        let pending = (first_ticket..).zip(records).map(|(ticket, record)| Pending { record, ticket });
        state.queue.pending.extend(pending);
        state.queue.waiting.extend(waiting);
        self.wake.notify_one();
        Ok(())
    }

    /// Queues a committed position, replacing an earlier one that is not written yet.
    pub(super) fn submit_committed(&self, committed: Bytes) -> Result<(), WalError> {
        let mut state = self.state.lock();
        if state.phase != Phase::Running {
            return Err(WalError::Stopped);
        }
        state.ledger.apply(&Record::Committed(committed.clone()))?;
        state.queue.committed = Some(committed);
        self.wake.notify_one();
        Ok(())
    }

    /// Waits for work. `unproven`: the thread has something to write when it is idle.
    pub(super) fn next_work(&self, unproven: bool, idle_delay: Duration) -> Work {
        let mut state = self.state.lock();
        loop {
            if !state.queue.pending.is_empty() || !state.queue.waiting.is_empty() {
                return Work::Commit(std::mem::take(&mut state.queue));
            }
            let may_idle = unproven || state.queue.committed.is_some();
            if state.phase != Phase::Running {
                return if may_idle { Work::Idle(state.queue.committed.take()) } else { Work::Close };
            }
            if !may_idle {
                self.wake.wait(&mut state);
            } else if self.wake.wait_for(&mut state, idle_delay).timed_out() && state.queue.pending.is_empty() {
                return Work::Idle(state.queue.committed.take());
            }
        }
    }

    /// As [`next_work`](Self::next_work) for a thread that has been idle for long enough, without waiting; `None` when
    /// there is nothing to do.
    #[cfg(test)]
    pub(super) fn work_at_hand(&self, unproven: bool) -> Option<Work> {
        let mut state = self.state.lock();
        if !state.queue.pending.is_empty() || !state.queue.waiting.is_empty() {
            return Some(Work::Commit(std::mem::take(&mut state.queue)));
        }
        (unproven || state.queue.committed.is_some()).then(|| Work::Idle(state.queue.committed.take()))
    }

    /// Whether somebody waits for a sync.
    #[cfg(test)]
    pub(super) fn is_awaited(&self) -> bool {
        let state = self.state.lock();
        !state.queue.pending.is_empty() || !state.queue.waiting.is_empty()
    }

    /// Waits for some time, or until the log is to close. Returns whether to go on.
    pub(super) fn pause(&self, time: Duration) -> bool {
        let mut state = self.state.lock();
        let end = std::time::Instant::now() + time;
        while state.phase == Phase::Running && !self.wake.wait_until(&mut state, end).timed_out() {}
        state.phase == Phase::Running
    }

    /// Notes where entries were written (index, ticket, place), and lets go of what the cache need not hold.
    pub(super) fn place(&self, entries: &[(u64, u64, Location)], cache_bytes_max: usize) {
        let mut state = self.state.lock();
        for (index, ticket, location) in entries {
            state.ledger.place(*index, *ticket, *location);
        }
        state.ledger.shrink_cache(cache_bytes_max);
    }

    pub(super) fn add_segment(&self, segment: Arc<Segment>) {
        self.state.lock().segments.insert(segment.sequence, segment);
    }

    pub(super) fn remove_segment(&self, sequence: u64) {
        self.state.lock().segments.remove(&sequence);
    }

    /// Takes no more; the thread will write what is queued and end.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        if state.phase == Phase::Running {
            state.phase = Phase::Closing;
        }
        self.room.close();
        self.wake.notify_one();
    }

    /// Takes no more, and tells everyone who waits.
    pub(super) fn stop(&self) {
        let abandoned = {
            let mut state = self.state.lock();
            state.phase = Phase::Stopped;
            std::mem::take(&mut state.queue)
        };
        self.room.close();
        for waiting in abandoned.waiting {
            (waiting.done)(Err(WalError::Stopped));
        }
    }
}

/// What the thread has done so far.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) entries: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) syncs: AtomicU64,
    pub(super) segments_created: AtomicU64,
    pub(super) segments_removed: AtomicU64,
    pub(super) stalled: AtomicBool,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

/// What a log has done since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WalStats {
    /// Entries written.
    pub entries: u64,
    /// Bytes written, frames of all kinds.
    pub bytes: u64,
    /// Calls of fdatasync on the open segment; `entries / syncs` is how well writers share them.
    pub syncs: u64,
    /// Segments begun after the one that opening began.
    pub segments_created: u64,
    /// Segments removed because all of their entries were purged.
    pub segments_removed: u64,
    /// Bytes that may still be queued before appends wait.
    pub queue_bytes_free: usize,
    /// Whether writing waits for space on the disk.
    pub stalled: bool,
}

impl Shared {
    pub(super) fn stats(&self) -> WalStats {
        let counters = &self.counters;
        WalStats {
            entries: counters.entries.load(Ordering::Relaxed),
            bytes: counters.bytes.load(Ordering::Relaxed),
            syncs: counters.syncs.load(Ordering::Relaxed),
            segments_created: counters.segments_created.load(Ordering::Relaxed),
            segments_removed: counters.segments_removed.load(Ordering::Relaxed),
            queue_bytes_free: self.room.available_permits(),
            stalled: counters.stalled.load(Ordering::Relaxed),
        }
    }
}
