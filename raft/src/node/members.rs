//! Changes of the members, asked for on any node and made by the leader.
//!
//! ```text
//!   any node:  change --leader elsewhere--> ChangeMembers over the network --\
//!                 '------leader here------> look, refuse or propose <--------'
//! ```
//!
//! A change says how things are to be, not what is to be done: it is repeated until they are so, over changes of the leader
//! too, and repeating it is harmless. The leader makes one change at a time. A change of voters takes two entries; where a
//! leader falls between them, the next one writes the second, see [`finish_joint`].

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use cairn_proto::peer::{
    ChangeMembersRequest, ChangeMembersResponse, ChangedMembers, DrainRequest, MembershipRefusal,
    MembershipRefusalKind as Kind, NewMember, NotLeader, change_members_request, change_members_response,
};
use cairn_proto::v1;
use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};

use super::core::Core;
use super::deadline::answer_by;
use super::status::{self, REACHABLE};
use super::transfer::{ENDED, transfer_leadership};
use crate::config::Peer;
use crate::error::MembershipError;
use crate::network::{Lane, with_deadline, within};
use crate::types::{PeerNode, StoredMembership, TypeConfig, is_voter, voters_without};

/// Entries that a learner may lack and still be given a vote: what a busy leader writes in a moment.
const PROMOTE_LAG_MAX: u64 = 2_000;

/// How things are to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// The node is a member; a learner, if it was none.
    Add(Peer),
    /// The learner has a vote.
    Promote(u64),
    /// The node is no member.
    Remove(u64),
    /// The voter leads; `None`: another one than now, the one that is furthest.
    Lead(Option<u64>),
}

/// The cluster after a change.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changed {
    pub(crate) members: Vec<v1::Member>,
    pub(crate) leader_id: u64,
}

/// Has `change` made by whichever node leads, until just before `deadline`.
pub(crate) async fn change(core: &Core, change: &Change, deadline: Instant) -> Result<Changed, MembershipError> {
    let until = answer_by(deadline);
    let mut led_by = None;
    loop {
        if let Some(reason) = core.stopped() {
            return Err(MembershipError::Unavailable(format!("the node has stopped: {reason}")));
        }
        let leader_id = core.leader_id();
        if let (Change::Lead(target), Some(leader_id)) = (change, leader_id) {
            // The answer of a leader that steps aside may well be lost.
            if target.map_or(led_by.is_some_and(|before| before != leader_id), |target| target == leader_id) {
                return Ok(Changed { leader_id, members: status::status(core).members });
            }
            led_by = led_by.or(Some(leader_id));
        }
        let attempt = match leader_id {
            None => Err(MembershipError::NotLeader { leader_id: None }),
            Some(leader_id) if leader_id == core.node_id() => change_here(core, change, until).await,
            Some(leader_id) => forward(core, leader_id, change, until).await,
        };
        let reason = match attempt {
            Err(MembershipError::NotLeader { .. }) => "no leader is known".to_string(),
            Err(MembershipError::Unavailable(reason)) => reason,
            decided => return decided,
        };
        let again_at = Instant::now() + core.timing.retry_interval;
        if again_at >= until {
            return Err(MembershipError::Unavailable(reason));
        }
        tokio::select! {
            () = core.leader_changed(leader_id) => {}
            () = tokio::time::sleep_until(again_at.into()) => {}
        }
    }
}

/// Makes `change` as the leader.
pub(crate) async fn change_here(core: &Core, change: &Change, until: Instant) -> Result<Changed, MembershipError> {
    let patience = || MembershipError::Unavailable("no majority confirmed the change in time".to_string());
    let making = async {
        hear(core, change, until).await;
        let _turn = core.changing.lock().await;
        match change {
            Change::Add(peer) => add(core, peer).await,
            Change::Promote(node_id) => promote(core, *node_id).await,
            Change::Remove(node_id) => remove(core, *node_id, until).await,
            Change::Lead(target) => {
                let timeout = until.saturating_duration_since(Instant::now());
                let leader_id = transfer_leadership(core, *target, timeout).await?;
                return Ok(Changed { leader_id, members: status::status(core).members });
            }
        }?;
        Ok(Changed { leader_id: core.node_id(), members: status::status(core).members })
    };
    tokio::time::timeout_at(until.into(), making).await.map_err(|_| patience())?
}

/// The membership in force, of the leader.
fn led_membership(core: &Core) -> Result<std::sync::Arc<StoredMembership>, MembershipError> {
    let metrics = core.raft.metrics();
    let metrics = metrics.borrow_watched();
    match metrics.current_leader {
        Some(leader_id) if leader_id == core.node_id() => Ok(std::sync::Arc::clone(&metrics.membership_config)),
        leader_id => Err(MembershipError::NotLeader { leader_id }),
    }
}

async fn add(core: &Core, peer: &Peer) -> Result<(), MembershipError> {
    let membership = led_membership(core)?;
    let node = PeerNode { peer_address: peer.peer_address.clone(), client_address: peer.client_address.clone() };
    if let Some(known) = membership.get_node(&peer.id) {
        return if *known == node {
            Ok(())
        } else {
            let text = format!("node {} is a member already, and its peers reach it at {known}", peer.id);
            Err(MembershipError::AlreadyExists(text))
        };
    }
    if core.shared.is_retired(peer.id) {
        return Err(MembershipError::Retired { node_id: peer.id });
    }
    if let Some((id, _)) = membership.nodes().find(|(_, other)| other.peer_address == node.peer_address) {
        return Err(MembershipError::AlreadyExists(format!("{node} is the address of node {id}")));
    }
    propose(core, ChangeMembers::AddNodes([(peer.id, node)].into()), true).await
}

async fn promote(core: &Core, node_id: u64) -> Result<(), MembershipError> {
    let membership = led_membership(core)?;
    if membership.get_node(&node_id).is_none() {
        return Err(MembershipError::NotFound { node_id });
    }
    if is_voter(&membership, node_id) {
        return Ok(());
    }
    check_caught_up(core, node_id)?;
    propose(core, ChangeMembers::AddVoterIds([node_id].into()), true).await
}

async fn remove(core: &Core, node_id: u64, until: Instant) -> Result<(), MembershipError> {
    let membership = led_membership(core)?;
    if membership.get_node(&node_id).is_none() {
        return if core.shared.is_retired(node_id) { Ok(()) } else { Err(MembershipError::NotFound { node_id }) };
    }
    if !is_voter(&membership, node_id) {
        return propose(core, ChangeMembers::RemoveNodes([node_id].into()), false).await;
    }
    let remaining: Vec<u64> = voters_without(&membership, node_id).collect();
    if remaining.is_empty() {
        return Err(MembershipError::Refused(format!("node {node_id} is the last voter, and holds all there is")));
    }
    check_majority(core, node_id, &remaining)?;
    if node_id == core.node_id() {
        // Who leads next removes this node.
        let timeout = until.saturating_duration_since(Instant::now());
        let leader_id = transfer_leadership(core, None, timeout).await?;
        return Err(MembershipError::NotLeader { leader_id: Some(leader_id) });
    }
    propose(core, ChangeMembers::RemoveVoters([node_id].into()), false).await
}

/// Waits a little until a change has what it needs of other nodes. A leader of a moment ago does not know yet how far they are, a node
/// that has just started has heard of few, and a busy one is late to report. What is missing in the end is for the change to say.
async fn hear(core: &Core, change: &Change, until: Instant) {
    let mut metrics = core.raft.metrics();
    let hearing = async {
        loop {
            let news = core.states.news();
            metrics.borrow_and_update();
            if check_others(core, change).is_ok() {
                return;
            }
            tokio::select! {
                () = news => {}
                changed = metrics.changed() => if changed.is_err() {
                    return;
                },
            }
        }
    };
    // Half of the time is left for the change and its answer.
    let patience = core.timing.hearing_patience.min(until.saturating_duration_since(Instant::now()) / 2);
    let _ = tokio::time::timeout(patience, hearing).await;
}

/// What a change needs of other nodes, as far as there is something to wait for.
fn check_others(core: &Core, change: &Change) -> Result<(), MembershipError> {
    let Ok(membership) = led_membership(core) else { return Ok(()) };
    match *change {
        Change::Promote(node_id) if membership.get_node(&node_id).is_some() && !is_voter(&membership, node_id) => {
            check_caught_up(core, node_id)
        }
        Change::Remove(node_id) if is_voter(&membership, node_id) => {
            let remaining: Vec<u64> = voters_without(&membership, node_id).collect();
            if remaining.is_empty() { Ok(()) } else { check_majority(core, node_id, &remaining) }
        }
        _ => Ok(()),
    }
}

/// Whether a node can be given a vote without holding up everyone.
fn check_caught_up(core: &Core, node_id: u64) -> Result<(), MembershipError> {
    if !core.states.is_reachable(node_id, REACHABLE) {
        return Err(MembershipError::NotCaughtUp(format!("node {node_id} cannot be reached: is it running?")));
    }
    let (matched, last) = {
        let metrics = core.raft.metrics();
        let metrics = metrics.borrow_watched();
        let matched = metrics.replication.as_ref().and_then(|matched| matched.get(&node_id).copied().flatten());
        (matched.map(|log_id| log_id.index), metrics.last_log_index.unwrap_or(0))
    };
    if matched.is_none_or(|matched| matched + PROMOTE_LAG_MAX < last) {
        let has = matched.map_or("nothing".to_string(), |index| format!("the log up to {index}"));
        return Err(MembershipError::NotCaughtUp(format!(
            "node {node_id} has {has} and the leader up to {last}: wait until it has caught up"
        )));
    }
    Ok(())
}

/// Whether most of the voters that remain without a node can be reached.
fn check_majority(core: &Core, without: u64, remaining: &[u64]) -> Result<(), MembershipError> {
    let is_heard = |id: &&u64| **id == core.node_id() || core.states.is_reachable(**id, REACHABLE);
    let reachable = remaining.iter().filter(is_heard).count();
    if reachable * 2 > remaining.len() {
        return Ok(());
    }
    Err(MembershipError::Refused(format!(
        "without node {without} only {reachable} of {} voters could be reached, which is no majority",
        remaining.len()
    )))
}

/// Proposes a change, and waits until it is applied here and what this node says of the members shows it. `retain`: whether
/// voters that go stay as learners.
async fn propose(core: &Core, change: ChangeMembers<u64, PeerNode>, retain: bool) -> Result<(), MembershipError> {
    let changed = core.raft.change_membership(change, retain).await.map_err(refusal_of)?;
    if core.metrics_say(|metrics| *metrics.membership_config.log_id() >= Some(changed.log_id)).await {
        return Ok(());
    }
    Err(MembershipError::Unavailable(ENDED.to_string()))
}

fn refusal_of(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> MembershipError {
    match error {
        RaftError::Fatal(fatal) => MembershipError::Unavailable(fatal.to_string()),
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
            MembershipError::NotLeader { leader_id: forward.leader_id }
        }
        RaftError::APIError(ClientWriteError::ChangeMembershipError(
            error @ (ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_)),
        )) => MembershipError::Unavailable(error.to_string()),
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => {
            MembershipError::Refused(error.to_string())
        }
        // Somebody else has changed the members in the meantime: look again.
        RaftError::APIError(error) => MembershipError::Unavailable(error.to_string()),
    }
}

/// Writes the second entry of a change of voters whose leader fell after the first, unless a change is under way here.
pub(super) async fn finish_joint(core: &Core) -> Result<(), String> {
    let is_joint = |membership: &StoredMembership| membership.membership().get_joint_config().len() > 1;
    if !led_membership(core).is_ok_and(|membership| is_joint(&membership)) {
        return Ok(());
    }
    let Ok(_turn) = core.changing.try_lock() else { return Ok(()) };
    tracing::info!("a change of the voters was left half made, and is finished now");
    propose(core, ChangeMembers::AddVoterIds(BTreeSet::new()), false).await.map_err(|error| error.to_string())
}

async fn forward(core: &Core, leader_id: u64, change: &Change, until: Instant) -> Result<Changed, MembershipError> {
    let mut client = core.client(leader_id, Lane::Control).map_err(MembershipError::Unavailable)?;
    let timeout = until.saturating_duration_since(Instant::now());
    let request = ChangeMembersRequest {
        header: Some(core.peers.header(leader_id)),
        change: Some(to_proto(change)),
        timeout: prost_types::Duration::try_from(timeout).ok(),
    };
    let call = within(timeout, client.change_members(with_deadline(request, timeout)));
    let answer = tokio::select! {
        answer = call => answer,
        // The old leader may never answer, and repeating the change is harmless.
        () = core.leader_changed(Some(leader_id)) => {
            return Err(MembershipError::NotLeader { leader_id: core.leader_id() });
        }
    };
    let answer =
        answer.map_err(|status| MembershipError::Unavailable(format!("node {leader_id}: {}", status.message())))?;
    match answer.outcome {
        Some(change_members_response::Outcome::Changed(changed)) => {
            Ok(Changed { members: changed.members, leader_id: changed.leader_id })
        }
        Some(change_members_response::Outcome::NotLeader(other)) => {
            Err(MembershipError::NotLeader { leader_id: (other.leader_id != 0).then_some(other.leader_id) })
        }
        Some(change_members_response::Outcome::Refusal(refusal)) => Err(refusal_from_proto(refusal, change)),
        None => Err(MembershipError::Unavailable(format!("node {leader_id} did not say what became of the change"))),
    }
}

fn to_proto(change: &Change) -> change_members_request::Change {
    match change {
        Change::Add(peer) => change_members_request::Change::Add(NewMember {
            node_id: peer.id,
            peer_address: peer.peer_address.clone(),
            client_address: peer.client_address.clone(),
        }),
        Change::Promote(node_id) => change_members_request::Change::PromoteNodeId(*node_id),
        Change::Remove(node_id) => change_members_request::Change::RemoveNodeId(*node_id),
        Change::Lead(target) => change_members_request::Change::LeadNodeId(target.unwrap_or(0)),
    }
}

/// A change from a message.
pub(crate) fn from_proto(change: change_members_request::Change) -> Change {
    match change {
        change_members_request::Change::Add(member) => Change::Add(Peer {
            id: member.node_id,
            peer_address: member.peer_address,
            client_address: member.client_address,
        }),
        change_members_request::Change::PromoteNodeId(node_id) => Change::Promote(node_id),
        change_members_request::Change::RemoveNodeId(node_id) => Change::Remove(node_id),
        change_members_request::Change::LeadNodeId(node_id) => Change::Lead((node_id != 0).then_some(node_id)),
    }
}

/// The answer to a peer that has forwarded a change.
pub(crate) fn to_response(result: Result<Changed, MembershipError>) -> ChangeMembersResponse {
    let refusal = |kind: Kind, message: String| {
        change_members_response::Outcome::Refusal(MembershipRefusal { kind: kind.into(), message })
    };
    let outcome = match result {
        Ok(changed) => change_members_response::Outcome::Changed(ChangedMembers {
            members: changed.members,
            leader_id: changed.leader_id,
        }),
        Err(MembershipError::NotLeader { leader_id }) => {
            change_members_response::Outcome::NotLeader(NotLeader { leader_id: leader_id.unwrap_or(0) })
        }
        Err(error @ MembershipError::NotFound { .. }) => refusal(Kind::NotFound, error.to_string()),
        Err(error @ MembershipError::Retired { .. }) => refusal(Kind::Retired, error.to_string()),
        Err(MembershipError::AlreadyExists(text)) => refusal(Kind::AlreadyExists, text),
        Err(MembershipError::NotCaughtUp(text)) => refusal(Kind::NotCaughtUp, text),
        Err(MembershipError::Refused(text)) => refusal(Kind::Precondition, text),
        Err(MembershipError::Unavailable(text)) => refusal(Kind::Unavailable, text),
    };
    ChangeMembersResponse { outcome: Some(outcome) }
}

fn refusal_from_proto(refusal: MembershipRefusal, change: &Change) -> MembershipError {
    let node_id = match change {
        Change::Add(peer) => peer.id,
        Change::Promote(node_id) | Change::Remove(node_id) => *node_id,
        Change::Lead(target) => target.unwrap_or(0),
    };
    match refusal.kind() {
        Kind::NotFound => MembershipError::NotFound { node_id },
        Kind::Retired => MembershipError::Retired { node_id },
        Kind::AlreadyExists => MembershipError::AlreadyExists(refusal.message),
        Kind::NotCaughtUp => MembershipError::NotCaughtUp(refusal.message),
        Kind::Unavailable => MembershipError::Unavailable(refusal.message),
        Kind::Precondition | Kind::Unspecified => MembershipError::Refused(refusal.message),
    }
}

/// Marks this node as being drained, or no longer; a drained leader hands over within `timeout`.
pub(crate) async fn drain_here(core: &Core, drain: bool, timeout: Duration) -> Result<(), MembershipError> {
    core.draining.store(drain, std::sync::atomic::Ordering::Release);
    let alone = core.raft.metrics().borrow_watched().membership_config.voter_ids().count() == 1;
    if drain && !alone && core.leader_id() == Some(core.node_id()) {
        transfer_leadership(core, None, timeout).await?;
    }
    Ok(())
}

/// Drains a node, this or another one, and returns its state.
pub(crate) async fn drain(
    core: &Core,
    node_id: u64,
    drain: bool,
    deadline: Instant,
) -> Result<v1::NodeState, MembershipError> {
    let timeout = answer_by(deadline).saturating_duration_since(Instant::now());
    if node_id == core.node_id() {
        drain_here(core, drain, timeout).await?;
        return Ok(status::own_state_now(core));
    }
    if core.raft.metrics().borrow_watched().membership_config.get_node(&node_id).is_none() {
        return Err(MembershipError::NotFound { node_id });
    }
    let unavailable = |text: &str| MembershipError::Unavailable(format!("node {node_id}: {text}"));
    let mut client = core.client(node_id, Lane::Control).map_err(|error| unavailable(&error))?;
    let request = DrainRequest {
        header: Some(core.peers.header(node_id)),
        drain,
        timeout: prost_types::Duration::try_from(timeout).ok(),
    };
    let answer = within(timeout, client.drain(with_deadline(request, timeout))).await;
    let answer = answer.map_err(|status| unavailable(status.message()))?;
    if answer.refusal.is_empty() { Ok(answer.state.unwrap_or_default()) } else { Err(unavailable(&answer.refusal)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_and_refusals_survive_the_way_to_the_leader() {
        let peer = Peer { id: 4, peer_address: "n4:7481".to_string(), client_address: "n4:7480".to_string() };
        for change in
            [Change::Add(peer), Change::Promote(4), Change::Remove(4), Change::Lead(None), Change::Lead(Some(4))]
        {
            assert_eq!(from_proto(to_proto(&change)), change);
        }
        let refusals = [
            MembershipError::NotFound { node_id: 4 },
            MembershipError::Retired { node_id: 4 },
            MembershipError::AlreadyExists("a".to_string()),
            MembershipError::NotCaughtUp("b".to_string()),
            MembershipError::Refused("c".to_string()),
            MembershipError::Unavailable("d".to_string()),
        ];
        for refusal in refusals {
            let text = refusal.to_string();
            let Some(change_members_response::Outcome::Refusal(sent)) = to_response(Err(refusal)).outcome else {
                panic!("{text} is no refusal")
            };
            assert_eq!(refusal_from_proto(sent, &Change::Remove(4)).to_string(), text);
        }
    }
}
