//! What only the leader does, on its own account: the default tenant, the cluster version, expiry, what changes of spaces
//! leave to do, the second half of a change of voters whose leader fell; and to give up leadership when its clock is wrong
//! or its disk nearly full.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_engine::crypto::TenantId;
use cairn_engine::keyring::KeyError;
use cairn_proto::storage::{Command, Outcome, SetClusterVersion, command, outcome};
use openraft::async_runtime::watch::WatchReceiver;

use super::core::Core;
use super::members::finish_joint;
use super::propose::propose;
use super::status::REACHABLE;
use super::transfer::transfer_leadership;
use crate::clock::ClockFault;
use crate::types::voters_without;

/// How often the leader looks for something to do.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often it looks while the cluster is being made.
const INTERVAL_FORMING: Duration = Duration::from_millis(50);
/// The deadline of its own commands.
const DEADLINE: Duration = Duration::from_secs(5);

/// Runs until the node stops.
pub(crate) async fn run(core: Arc<Core>) {
    loop {
        let interval = if has_default_tenant(&core) { INTERVAL } else { INTERVAL_FORMING };
        tokio::select! {
            () = core.stop.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
        }
        // On followers too, so that the clock is known to be right before they lead.
        let clock = core.check_clock();
        if core.leader_id() != Some(core.node_id()) {
            continue;
        }
        if let Err(fault) = clock
            && fault.is_lasting()
        {
            hand_over(&core, fault).await;
            continue;
        }
        if !core.has_room(core.node_id()) {
            leave_full_disk(&core).await;
        }
        if let Err(reason) = look(&core).await {
            tracing::debug!(reason, "a duty of the leader was put off");
        }
    }
}

/// Gives up leadership to a voter that trusts its clock: a leader that stamps nothing keeps everyone from writing.
async fn hand_over(core: &Core, fault: ClockFault) {
    let target = {
        let metrics = core.raft.metrics();
        let metrics = metrics.borrow_watched();
        let matched = metrics.replication.clone().unwrap_or_default();
        let voters = voters_without(&metrics.membership_config, core.node_id());
        let trusted = voters.filter(|&id| core.states.clock_of(id).is_some());
        trusted.max_by_key(|id| matched.get(id).and_then(|log_id| log_id.as_ref().map(|log_id| log_id.index)))
    };
    let Some(target) = target else {
        tracing::warn!(%fault, "this node leads and stamps no write, and no other voter can take over");
        return;
    };
    tracing::warn!(%fault, target, "this node hands over leadership");
    if let Err(error) = transfer_leadership(core, Some(target), core.timing.election_max * 2).await {
        tracing::warn!(%error, "leadership was not handed over");
    }
}

/// Gives up leadership to a voter that has room on its disk: a leader that has none keeps everyone from adding.
async fn leave_full_disk(core: &Core) {
    let target = {
        let metrics = core.raft.metrics();
        let metrics = metrics.borrow_watched();
        let mut voters = voters_without(&metrics.membership_config, core.node_id());
        voters.find(|&id| core.has_room(id) && core.states.is_reachable(id, REACHABLE) && !core.states.is_draining(id))
    };
    let Some(target) = target else { return };
    tracing::warn!(target, "the disk of this node is nearly full: it hands over leadership");
    if let Err(error) = transfer_leadership(core, Some(target), core.timing.election_max * 2).await {
        tracing::warn!(%error, "leadership was not handed over");
    }
}

/// Whether the tenant that every cluster begins with is there.
pub(crate) fn has_default_tenant(core: &Core) -> bool {
    core.keyring.tenant(TenantId::DEFAULT).is_ok()
}

async fn look(core: &Arc<Core>) -> Result<(), String> {
    if matches!(core.keyring.tenant(TenantId::DEFAULT), Err(KeyError::Unknown(_))) {
        let preparing = Arc::clone(core);
        let prepared = tokio::task::spawn_blocking(move || {
            preparing.shared.generations.current().prepare_create_tenant(TenantId::DEFAULT, "default")
        });
        let command = prepared.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        // Where an earlier leader has done it already, the outcome says so and nothing changes.
        carry_out(core, command).await?;
    }
    finish_joint(core).await?;
    raise_cluster_version(core).await?;
    expire(core).await?;
    build(core).await
}

/// Raises the cluster version to what all members support; it never falls.
async fn raise_cluster_version(core: &Arc<Core>) -> Result<(), String> {
    let generation = core.shared.generations.current();
    let (current, supported) = (generation.applied().cluster_version, generation.supported_cluster_version());
    drop(generation);
    if current >= supported {
        return Ok(());
    }
    let members: Vec<u64> = core.raft.metrics().borrow_watched().membership_config.nodes().map(|(&id, _)| id).collect();
    match core.states.supported_version_min((core.node_id(), supported), &members) {
        Some(version) if version > current => {
            let body = command::Body::SetClusterVersion(SetClusterVersion { version });
            // The command that raises the version must be one that the old version knows.
            let command = Command { cluster_version: current, body: Some(body), ..Command::default() };
            carry_out(core, command).await.map(|_| ())
        }
        _ => Ok(()),
    }
}

async fn expire(core: &Arc<Core>) -> Result<(), String> {
    loop {
        let preparing = Arc::clone(core);
        let prepared = tokio::task::spawn_blocking(move || {
            let now_micros = preparing.now();
            preparing.shared.generations.current().prepare_expiry(now_micros)
        });
        let prepared = prepared.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        let Some(command) = prepared else { return Ok(()) };
        let done = carry_out(core, command).await?;
        let unfinished = matches!(done.result, Some(outcome::Result::ExpireMemories(expired)) if expired.unfinished);
        if !unfinished || core.stop.is_cancelled() {
            return Ok(());
        }
    }
}

/// Does what changes of spaces have left to do, step by step.
async fn build(core: &Arc<Core>) -> Result<(), String> {
    loop {
        let preparing = Arc::clone(core);
        let prepared = tokio::task::spawn_blocking(move || preparing.shared.generations.current().prepare_build());
        let prepared = prepared.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        let Some(command) = prepared else { return Ok(()) };
        carry_out(core, command).await?;
        if core.stop.is_cancelled() || core.leader_id() != Some(core.node_id()) {
            return Ok(());
        }
    }
}

async fn carry_out(core: &Core, command: Command) -> Result<Outcome, String> {
    let applied = propose(core, command, Instant::now() + DEADLINE).await;
    applied.map(|applied| applied.outcome).map_err(|error| error.to_string())
}
