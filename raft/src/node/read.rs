//! Read points: up to where a node must have applied the log before it may answer.
//!
//! ```text
//!   readers of this node --\
//!   followers' ReadIndex ---+--> gate: one round for all that wait --> leader asks a majority --> index, time
//!                                                                       (a follower asks the leader)
//!   reader: wait until the index is applied here, then read
//! ```
//!
//! A reader joins a round only if it came before the round began, so the index covers every write that was acknowledged
//! before the read.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cairn_engine::{Position, ReadPoint};
use cairn_proto::peer::{ReadIndexRequest, read_index_response};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use openraft::LinearizerOption;
use openraft::async_runtime::watch::WatchReceiver;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::core::Core;
use super::deadline::answer_by;
use crate::error::ReadError;
use crate::network::{Lane, still_follows, with_deadline, within};
use crate::types::{GROUP, Vote};

/// Readers that may wait for a round.
const WAITING_MAX: usize = 16_384;

/// When to try again after an overload.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadLevel {
    /// Sees every write that was acknowledged before the read began.
    Linearizable,
    /// Sees every write up to this position.
    AtLeast(Position),
    /// Sees a state that is at most this old.
    MaxStaleness(Duration),
}

/// What a round has found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Point {
    /// The last index that must be applied.
    pub(crate) index: u64,
    /// The leader's time, in microseconds since 1970.
    pub(crate) time_micros: i64,
}

pub(crate) type Waiter = oneshot::Sender<Point>;

/// When this node's state was last known to be up to date.
#[derive(Debug, Clone, Copy)]
struct Confirmed {
    point: Point,
    at: Instant,
}

/// Where readers wait for a round.
pub(crate) struct ReadGate {
    queue: mpsc::Sender<Waiter>,
    /// The room for readers, held from the queue to the answer.
    room: Semaphore,
    confirmed: Mutex<Option<Confirmed>>,
    rounds: AtomicU64,
}

impl ReadGate {
    /// The gate, and the queue that its task takes from.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Waiter>) {
        let (queue, waiters) = mpsc::channel(WAITING_MAX);
        let room = Semaphore::new(WAITING_MAX);
        (Self { queue, room, confirmed: Mutex::new(None), rounds: AtomicU64::new(0) }, waiters)
    }

    /// Rounds in which a leader was asked.
    pub(crate) fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::Relaxed)
    }

    /// Waits for the next round that succeeds; the caller brings a deadline.
    pub(crate) async fn point(&self) -> Result<Point, ReadError> {
        let _room = self.room.try_acquire().map_err(|_| ReadError::Overloaded { retry_after: RETRY_AFTER })?;
        let (waiter, point) = oneshot::channel();
        self.queue.try_send(waiter).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ReadError::Overloaded { retry_after: RETRY_AFTER },
            mpsc::error::TrySendError::Closed(_) => stopped(),
        })?;
        point.await.map_err(|_| stopped())
    }

    /// Notes that the state has been up to date at `at`.
    fn confirm(&self, point: Point, at: Instant) {
        let mut confirmed = self.confirmed.lock();
        if confirmed.is_none_or(|known| known.at < at) {
            *confirmed = Some(Confirmed { point, at });
        }
    }

    /// The leader's time by the last confirmation and this node's steady clock.
    pub(crate) fn time_estimate(&self) -> Option<i64> {
        let confirmed = (*self.confirmed.lock())?;
        let elapsed = i64::try_from(confirmed.at.elapsed().as_micros()).unwrap_or(i64::MAX);
        Some(confirmed.point.time_micros.saturating_add(elapsed))
    }

    fn confirmed_within(&self, age: Duration) -> bool {
        self.confirmed.lock().is_some_and(|confirmed| confirmed.at.elapsed() <= age)
    }
}

fn stopped() -> ReadError {
    ReadError::Stopped { reason: "replication has stopped".to_string() }
}

/// A point at which a read of the wanted freshness may be made here and now.
pub(crate) async fn read_point(core: &Core, level: ReadLevel, deadline: Instant) -> Result<ReadPoint, ReadError> {
    if let Some(reason) = core.stopped() {
        return Err(ReadError::Stopped { reason });
    }
    let until = answer_by(deadline);
    match level {
        ReadLevel::Linearizable => confirmed_point(core, until).await,
        ReadLevel::AtLeast(position) => {
            let group = u32::from(position.group.0);
            if group != GROUP {
                return Err(ReadError::UnknownGroup { group });
            }
            await_applied(core, position.index, until).await?;
            Ok(ReadPoint { index: position.index, time_micros: leader_time(core, until).await? })
        }
        ReadLevel::MaxStaleness(age) if core.reads.confirmed_within(age) => {
            let index = core.shared.progress().borrow().unwrap_or(0);
            Ok(ReadPoint { index, time_micros: leader_time(core, until).await? })
        }
        // A fresh confirmation is never too old.
        ReadLevel::MaxStaleness(_) => confirmed_point(core, until).await,
    }
}

/// The leader's time by estimate. A node that has just started asks once: its data may have lain aside for long, as a backup
/// does, and what has expired meanwhile must not be seen.
async fn leader_time(core: &Core, until: Instant) -> Result<i64, ReadError> {
    match core.leader_time_estimate() {
        Some(time_micros) => Ok(time_micros),
        None => Ok(confirmed_point(core, until).await?.time_micros),
    }
}

async fn confirmed_point(core: &Core, until: Instant) -> Result<ReadPoint, ReadError> {
    let began_at = Instant::now();
    let mut fatal = core.shared.fatal();
    let point = tokio::select! {
        point = core.reads.point() => point?,
        // No round succeeds any more, and a node that shuts down waits for its readers: they had better ask another.
        _ = fatal.wait_for(Option::is_some) => return Err(stopped()),
        () = tokio::time::sleep_until(until.into()) => {
            return Err(ReadError::Unavailable { reason: "no leader confirmed the read in time".to_string() });
        }
    };
    await_applied(core, point.index, until).await?;
    core.reads.confirm(point, began_at);
    let time_micros = point.time_micros.max(core.shared.stamp_micros());
    Ok(ReadPoint { index: point.index, time_micros })
}

async fn await_applied(core: &Core, index: u64, until: Instant) -> Result<(), ReadError> {
    let mut progress = core.shared.progress();
    let mut fatal = core.shared.fatal();
    let applied = progress.wait_for(|applied| applied.is_some_and(|applied| applied >= index));
    tokio::select! {
        applied = applied => applied.map(|_| ()).map_err(|_| stopped()),
        _ = fatal.wait_for(Option::is_some) => Err(stopped()),
        () = core.stop.cancelled() => Err(stopped()),
        () = tokio::time::sleep_until(until.into()) => {
            Err(ReadError::Unavailable { reason: format!("this node has not reached index {index} in time") })
        }
    }
}

/// The gate's task: one round after the other, each for all that wait when it begins.
pub(crate) async fn run_gate(core: Arc<Core>, mut queue: mpsc::Receiver<Waiter>) {
    let mut waiting: Vec<Waiter> = Vec::new();
    loop {
        if waiting.is_empty() {
            tokio::select! {
                () = core.stop.cancelled() => return,
                waiter = queue.recv() => match waiter {
                    Some(waiter) => waiting.push(waiter),
                    None => return,
                },
            }
        }
        while let Ok(waiter) = queue.try_recv() {
            waiting.push(waiter);
        }
        waiting.retain(|waiter| !waiter.is_closed());
        if waiting.is_empty() {
            continue;
        }
        let round = tokio::select! {
            () = core.stop.cancelled() => return,
            round = round(&core) => round,
        };
        match round {
            Ok(point) => {
                for waiter in waiting.drain(..) {
                    // The reader may have given up.
                    let _ = waiter.send(point);
                }
            }
            Err(reason) => {
                tracing::debug!(reason, readers = waiting.len(), "a read round failed, the next one follows");
                tokio::time::sleep(core.timing.retry_interval).await;
            }
        }
    }
}

/// One round: this node's if it leads, else the leader's.
async fn round(core: &Core) -> Result<Point, String> {
    let leader_id = core.leader_id();
    let point = async {
        match leader_id {
            None => Err("no leader is known".to_string()),
            Some(leader_id) if leader_id == core.node_id() => lead_round(core).await,
            Some(leader_id) => ask_leader(core, leader_id).await,
        }
    };
    if leader_id.is_none() {
        return point.await;
    }
    core.reads.rounds.fetch_add(1, Ordering::Relaxed);
    tokio::select! {
        point = point => point,
        () = core.leader_changed(leader_id) => Err("the leader has changed".to_string()),
    }
}

async fn lead_round(core: &Core) -> Result<Point, String> {
    // Before the index, so that a leadership that was lost and won again in between is noticed.
    let vote = core.raft.metrics().borrow_watched().vote;
    // The index alone, which openraft gives away under the lease: the proof of leadership is the question below.
    let option = LinearizerOption::new(None, true).with_wait_timeout(core.timing.election_max);
    let linearizer = core.raft.get_read_linearizer(option).await.map_err(|error| error.to_string())?;
    let index = linearizer.read_log_id().index();
    confirm_leadership(core, vote).await?;
    Ok(Point { index, time_micros: core.now() })
}

/// Asks a majority, from now on, whether it still follows this node. openraft could ask instead, but it takes the answer to
/// an append for one to every later append of the stream that ends at the same entry: answers that were held up on the way
/// let a leader that has been deposed meanwhile confirm a read.
async fn confirm_leadership(core: &Core, vote: Vote) -> Result<(), String> {
    if !vote.committed || vote.leader_id.node_id != core.node_id() {
        return Err("this node does not lead".to_string());
    }
    let membership = Arc::clone(&core.raft.metrics().borrow_watched().membership_config);
    let configs = membership.get_joint_config();
    let mut following = BTreeSet::from([core.node_id()]);
    let is_majority = |following: &BTreeSet<u64>| {
        configs.iter().all(|voters| voters.intersection(following).count() * 2 > voters.len())
    };
    let voters: BTreeSet<u64> = configs.iter().flatten().copied().filter(|id| *id != core.node_id()).collect();
    let mut asked: FuturesUnordered<_> = voters.into_iter().map(|id| follower(core, id, vote)).collect();
    while !is_majority(&following) {
        match asked.next().await {
            Some(answer) => following.extend(answer),
            None => return Err("no majority follows this node".to_string()),
        }
    }
    Ok(())
}

/// `id`, if that node follows.
async fn follower(core: &Core, id: u64, vote: Vote) -> Option<u64> {
    let client = core.client(id, Lane::Heartbeat).ok()?;
    let header = core.peers.header(id);
    still_follows(client, header, vote, core.timing.election_max).await.then_some(id)
}

async fn ask_leader(core: &Core, leader_id: u64) -> Result<Point, String> {
    let mut client = core.client(leader_id, Lane::Control)?;
    let timeout = core.timing.election_max * 2;
    let request = with_deadline(ReadIndexRequest { header: Some(core.peers.header(leader_id)) }, timeout);
    let answer = within(timeout, client.read_index(request)).await;
    let answer = answer.map_err(|status| format!("node {leader_id}: {}", status.message()))?;
    match answer.outcome {
        Some(read_index_response::Outcome::Point(point)) => {
            Ok(Point { index: point.index, time_micros: point.time_micros })
        }
        Some(read_index_response::Outcome::NotLeader(_)) | None => Err(format!("node {leader_id} does not lead")),
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn readers_are_bounded_though_the_gate_takes_them_from_the_queue() {
        let (gate, mut queue) = ReadGate::new();
        let mut readers = Vec::new();
        let mut taken = Vec::new();
        for _ in 0..WAITING_MAX {
            let mut reader = Box::pin(gate.point());
            assert!((&mut reader).now_or_never().is_none(), "there is no round yet");
            readers.push(reader);
            // As the gate's task does while its rounds fail.
            taken.push(queue.try_recv().unwrap());
        }
        let refused = gate.point().now_or_never().unwrap();
        assert!(matches!(refused, Err(ReadError::Overloaded { .. })), "{refused:?}");
        // A reader that gives up makes room.
        readers.pop();
        assert!(gate.point().now_or_never().is_none());
    }
}
