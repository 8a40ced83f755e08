//! The way of a command to the leader's log and back.
//!
//! ```text
//!   any node:  propose --no leader--> wait, again        until just before the deadline
//!                 |----leader elsewhere--> Propose over the network
//!                 '----leader here--> queue --> proposer: stamp, hand to openraft --> committed --> applied --> answer
//! ```
//!
//! One task stamps and hands over, so that stamps never fall along the log. What is under way is bounded in number and in
//! bytes; what is beyond is refused at once. A repeated attempt is harmless, since a command carries its request key.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cairn_engine::Position;
use cairn_proto::peer::{ProposeRequest, propose_response};
use cairn_proto::storage;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::ClientWriteError;
use openraft::raft::ClientWriteResult;
use openraft::{Instant as _, ServerState};
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::core::Core;
use super::deadline::answer_by;
use crate::config::Limits;
use crate::error::{ProposeError, Refusal};
use crate::network::{Lane, with_deadline, within};
use crate::types::{LogCommand, Reply, TypeConfig};

/// Commands that are stamped and handed over in one go.
const BATCH: usize = 256;

/// The version that a cluster has from the beginning, before its members have said what they support.
const CLUSTER_VERSION_FIRST: u32 = 1;

/// What the stamp, the log id and the framing add to a command in the log, at most.
const ENTRY_OVERHEAD_BYTES: usize = 256;

/// When to try again after an overload: about as long as the queue takes to move.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// A command that has been applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// Where its entry lies; a read at this position sees it.
    pub position: Position,
    /// What it did.
    pub outcome: storage::Outcome,
}

/// Who waits for the end of a command.
type Caller = oneshot::Sender<Result<ClientWriteResult<TypeConfig>, Refusal>>;

/// A command on its way to the proposer.
pub(crate) struct Submission {
    command: storage::Command,
    caller: Caller,
}

/// The bounded entrance to the proposer.
pub(crate) struct Proposals {
    queue: mpsc::Sender<Submission>,
    count: Arc<Semaphore>,
    kibibytes: Arc<Semaphore>,
    limits: Limits,
}

/// Room for one command; given back when dropped.
pub(crate) struct Permit {
    _count: OwnedSemaphorePermit,
    _kibibytes: OwnedSemaphorePermit,
}

impl Proposals {
    /// The entrance, and the queue that the proposer takes from.
    pub(crate) fn new(limits: &Limits) -> (Self, mpsc::Receiver<Submission>) {
        let (queue, submissions) = mpsc::channel(limits.proposals_in_flight_max.max(1));
        let proposals = Self {
            queue,
            count: Arc::new(Semaphore::new(limits.proposals_in_flight_max)),
            kibibytes: Arc::new(Semaphore::new(limits.proposal_bytes_in_flight_max / 1024)),
            limits: limits.clone(),
        };
        (proposals, submissions)
    }

    /// Takes room for `command`, or refuses.
    fn admit(&self, command: &storage::Command) -> Result<Permit, Refusal> {
        // In the log such an entry would stop one leader after the other.
        let limit = self.limits.log.entry_bytes_max.saturating_sub(ENTRY_OVERHEAD_BYTES);
        let bytes = command.encoded_len();
        if bytes > limit {
            return Err(Refusal::TooLarge { bytes, limit });
        }
        let overloaded = |_| Refusal::Overloaded { retry_after: RETRY_AFTER };
        // Even a command that is larger than the bound must get through when it is alone.
        let kibibytes = (bytes / 1024 + 1).min((self.limits.proposal_bytes_in_flight_max / 1024).max(1));
        let kibibytes = u32::try_from(kibibytes).unwrap_or(u32::MAX);
        let count = Arc::clone(&self.count).try_acquire_owned().map_err(overloaded)?;
        let kibibytes = Arc::clone(&self.kibibytes).try_acquire_many_owned(kibibytes).map_err(overloaded)?;
        Ok(Permit { _count: count, _kibibytes: kibibytes })
    }

    /// Proposes as the leader; for commands that a peer forwards.
    pub(crate) async fn propose_here(&self, command: storage::Command) -> Result<Applied, Refusal> {
        let _permit = self.admit(&command)?;
        self.submit(command).await
    }

    /// Hands a command that has room to the proposer and awaits its end.
    async fn submit(&self, command: storage::Command) -> Result<Applied, Refusal> {
        let stopped = || Refusal::Stopped("replication has stopped".to_string());
        let (caller, answer) = oneshot::channel();
        self.queue.send(Submission { command, caller }).await.map_err(|_| stopped())?;
        match answer.await.map_err(|_| stopped())?? {
            Ok(written) => Ok(Applied {
                position: Position::at(written.log_id.index),
                outcome: written.data.0.unwrap_or_default(),
            }),
            Err(ClientWriteError::ForwardToLeader(forward)) => Err(Refusal::NotLeader { leader_id: forward.leader_id }),
            Err(error) => Err(Refusal::Unknown(error.to_string())),
        }
    }
}

/// Proposes `command` on whichever node leads, until just before `deadline`.
pub(crate) async fn propose(
    core: &Core,
    command: storage::Command,
    deadline: Instant,
) -> Result<Applied, ProposeError> {
    check_version(core, &command)?;
    let _permit = core.proposals.admit(&command).map_err(final_error)?;
    let until = answer_by(deadline);
    let mut forwarded = None;
    loop {
        if let Some(reason) = core.stopped() {
            return Err(ProposeError::Stopped { reason });
        }
        let leader_id = core.leader_id();
        let refusal = match leader_id {
            None => Refusal::Unknown("no leader is known".to_string()),
            Some(leader_id) if leader_id == core.node_id() => {
                match tokio::time::timeout_at(until.into(), core.proposals.submit(command.clone())).await {
                    Ok(Ok(applied)) => return Ok(applied),
                    Ok(Err(refusal)) => refusal,
                    Err(_) => Refusal::Unknown("no majority confirmed the write in time".to_string()),
                }
            }
            Some(leader_id) => {
                let bytes = forwarded.get_or_insert_with(|| Bytes::from(command.encode_to_vec())).clone();
                match forward(core, leader_id, bytes, until).await {
                    Ok(applied) => return Ok(applied),
                    Err(refusal) => refusal,
                }
            }
        };
        let reason = match refusal {
            Refusal::NotLeader { .. } => "no leader is known".to_string(),
            Refusal::Unknown(reason) => reason,
            refusal => return Err(final_error(refusal)),
        };
        let again_at = Instant::now() + core.timing.retry_interval;
        if again_at >= until {
            return Err(ProposeError::Unavailable { reason });
        }
        tokio::select! {
            () = core.leader_changed(leader_id) => {}
            () = tokio::time::sleep_until(again_at.into()) => {}
        }
    }
}

/// Refuses a command that some member may not know: it would have to stop. What this node has applied may be older than what
/// holds by now, never newer, since the version never falls.
fn check_version(core: &Core, command: &storage::Command) -> Result<(), ProposeError> {
    let current = core.shared.generations.current().applied().cluster_version.max(CLUSTER_VERSION_FIRST);
    let needed = command.cluster_version;
    if needed > current { Err(ProposeError::VersionTooNew { needed, current }) } else { Ok(()) }
}

fn final_error(refusal: Refusal) -> ProposeError {
    match refusal {
        Refusal::Overloaded { retry_after } => ProposeError::Overloaded { retry_after },
        Refusal::TooLarge { bytes, limit } => ProposeError::TooLarge { bytes, limit },
        Refusal::Clock(reason) => ProposeError::ClockRefused { reason },
        Refusal::Stopped(reason) => ProposeError::Stopped { reason },
        refusal @ (Refusal::NotLeader { .. } | Refusal::Unknown(_)) => {
            ProposeError::Unavailable { reason: refusal.to_string() }
        }
    }
}

async fn forward(core: &Core, leader_id: u64, command: Bytes, until: Instant) -> Result<Applied, Refusal> {
    let mut client = core.client(leader_id, Lane::Forward).map_err(Refusal::Unknown)?;
    let timeout = until.saturating_duration_since(Instant::now());
    let request = ProposeRequest { header: Some(core.peers.header(leader_id)), command };
    let call = within(timeout, client.propose(with_deadline(request, timeout)));
    let answer = tokio::select! {
        answer = call => answer.map_err(|status| Refusal::Unknown(format!("node {leader_id}: {}", status.message())))?,
        // The old leader may never answer; the command's request key makes it safe to go to the new one.
        () = core.leader_changed(Some(leader_id)) => return Err(Refusal::NotLeader { leader_id: core.leader_id() }),
    };
    match answer.outcome {
        Some(propose_response::Outcome::Applied(proposed)) => {
            let outcome = storage::Outcome::decode(proposed.outcome)
                .map_err(|error| Refusal::Unknown(format!("node {leader_id} sent no outcome: {error}")))?;
            Ok(Applied { position: Position::at(proposed.index), outcome })
        }
        Some(propose_response::Outcome::NotLeader(other)) => {
            Err(Refusal::NotLeader { leader_id: (other.leader_id != 0).then_some(other.leader_id) })
        }
        Some(propose_response::Outcome::Overloaded(overloaded)) => {
            let retry_after = overloaded.retry_after.and_then(|after| Duration::try_from(after).ok());
            Err(Refusal::Overloaded { retry_after: retry_after.unwrap_or(RETRY_AFTER) })
        }
        Some(propose_response::Outcome::ClockRefused(refused)) => Err(Refusal::Clock(refused.reason)),
        None => Err(Refusal::Unknown(format!("node {leader_id} did not say what became of the write"))),
    }
}

/// The proposer: stamps and hands over, in order, until the node stops.
pub(crate) async fn run_proposer(core: Arc<Core>, mut submissions: mpsc::Receiver<Submission>) {
    let mut led_term = None;
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        tokio::select! {
            () = core.stop.cancelled() => return,
            taken = submissions.recv_many(&mut batch, BATCH) => if taken == 0 { return },
        }
        let mut leading = await_leadership(&core, &mut led_term).await;
        for Submission { command, caller } in batch.drain(..) {
            let stamped = match &leading {
                Ok(()) => stamp(&core, command),
                Err(refusal) => Err(refusal.repeat()),
            };
            match stamped {
                Ok(command) => {
                    // Where it fails the reply is gone with it, from which the caller learns that replication has stopped.
                    if let Err(fatal) = core.raft.client_write_ff(command, Some(Reply(caller))).await {
                        leading = Err(Refusal::Stopped(fatal.to_string()));
                    }
                }
                Err(refusal) => {
                    // The caller may have given up.
                    let _ = caller.send(Err(refusal));
                }
            }
        }
    }
}

fn stamp(core: &Core, mut command: storage::Command) -> Result<LogCommand, Refusal> {
    command.stamp_micros = core.stamp().map_err(|fault| match fault.is_lasting() {
        true => Refusal::Clock(fault.to_string()),
        // The next attempt will do better.
        false => Refusal::Unknown(fault.to_string()),
    })?;
    Ok(LogCommand::new(&command))
}

/// Makes sure that this node leads, has applied everything that earlier leaders stamped, and is heard by a majority.
async fn await_leadership(core: &Core, led_term: &mut Option<u64>) -> Result<(), Refusal> {
    let patience = tokio::time::sleep(core.timing.election_max * 2);
    tokio::pin!(patience);
    let mut metrics = core.raft.metrics();
    loop {
        {
            let seen = metrics.borrow_and_update();
            if let Err(fatal) = &seen.running_state {
                return Err(Refusal::Stopped(fatal.to_string()));
            }
            if seen.state != ServerState::Leader {
                return Err(Refusal::NotLeader { leader_id: seen.current_leader });
            }
            // An entry of the own term is applied: so is all that earlier leaders have stamped.
            let own = |leader: &crate::types::LeaderId| leader.term == seen.current_term && leader.node_id == seen.id;
            if seen.last_applied.as_ref().is_some_and(|log_id| own(log_id.committed_leader_id())) {
                *led_term = Some(seen.current_term);
            }
            if *led_term == Some(seen.current_term) {
                let alone = seen.membership_config.voter_ids().count() == 1;
                let silence = seen.last_quorum_acked.map(|acked| acked.into_inner().elapsed());
                let heard = silence.is_none_or(|silence| silence < core.timing.election_max * 3);
                return if alone || heard { Ok(()) } else { Err(no_majority()) };
            }
        }
        tokio::select! {
            changed = metrics.changed() => if changed.is_err() {
                return Err(Refusal::Stopped("replication has stopped".to_string()));
            },
            () = &mut patience => return Err(no_majority()),
        }
    }
}

fn no_majority() -> Refusal {
    Refusal::Unknown("no majority of the nodes can be reached".to_string())
}

#[cfg(test)]
mod tests {
    use cairn_proto::storage::{SealedMutation, command};

    use super::*;
    use crate::types::{Entry, EntryPayload, LeaderId, LogId, encode_entry};
    use crate::wal::WalOptions;

    #[test]
    fn a_command_that_the_log_does_not_take_is_refused_before_it_gets_there() {
        let entry_bytes_max = 4096;
        let log = WalOptions { entry_bytes_max, ..WalOptions::default() };
        let (proposals, _queue) = Proposals::new(&Limits { log, ..Limits::default() });
        let mut refused = 0;
        for payload_bytes in 3000..5000 {
            let sealed = SealedMutation { key_id: 1, payload: vec![0; payload_bytes].into() };
            let mut command = storage::Command { body: Some(command::Body::Sealed(sealed)), ..Default::default() };
            match proposals.admit(&command) {
                Ok(_permit) => {
                    command.stamp_micros = i64::MAX;
                    let leader = LeaderId { term: u64::MAX, node_id: u64::MAX };
                    let payload = EntryPayload::Normal(LogCommand::new(&command));
                    let bytes = encode_entry(&Entry { log_id: LogId::new(leader, u64::MAX), payload }).len();
                    assert!(bytes <= entry_bytes_max, "{payload_bytes} bytes become {bytes}");
                }
                Err(Refusal::TooLarge { bytes, limit }) => {
                    assert!(bytes > limit && limit < entry_bytes_max);
                    refused += 1;
                }
                Err(other) => panic!("{other}"),
            }
        }
        assert!(refused > 900, "only what is too large is refused, and all of it");
    }
}
