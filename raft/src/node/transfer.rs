//! Leadership to another node.

use std::time::{Duration, Instant};

use openraft::RaftMetrics;
use openraft::async_runtime::watch::WatchReceiver;

use super::core::Core;
use crate::error::MembershipError;
use crate::types::{TypeConfig, is_voter, voters_without};

/// Why a change was given up on a node that stops.
pub(super) const ENDED: &str = "replication has ended";

/// How many of the longest election timeouts the next leader is given to catch up.
const CATCH_UP_ROUNDS: u32 = 2;

/// Hands leadership of this node to `target`, or to the voter that is furthest, within `timeout`. A leader of a moment ago
/// has not heard yet how far the others are, so a target that seems behind is waited for a little.
pub(super) async fn transfer_leadership(
    core: &Core,
    target: Option<u64>,
    timeout: Duration,
) -> Result<u64, MembershipError> {
    let until = Instant::now() + timeout;
    let target = caught_up_target(core, target, timeout.min(core.timing.election_max * CATCH_UP_ROUNDS)).await?;
    if target == core.node_id() {
        return Ok(target);
    }
    let transfer = async {
        // Waits as well while replication waits for the disk.
        core.raft.trigger().transfer_leader(target).await?;
        Ok::<bool, openraft::errors::Fatal<TypeConfig>>(
            core.metrics_say(|metrics| metrics.current_leader == Some(target)).await,
        )
    };
    match tokio::time::timeout_at(until.into(), transfer).await {
        Ok(Ok(true)) => Ok(target),
        Ok(Err(fatal)) => Err(MembershipError::Unavailable(fatal.to_string())),
        Ok(Ok(false)) => Err(MembershipError::Unavailable(ENDED.to_string())),
        Err(_) => Err(MembershipError::Unavailable(format!("node {target} did not take over in time"))),
    }
}

/// The node that is to lead, once it has caught up; refused when it has not within `patience`.
async fn caught_up_target(core: &Core, target: Option<u64>, patience: Duration) -> Result<u64, MembershipError> {
    let mut metrics = core.raft.metrics();
    let mut behind = None;
    let search = async {
        loop {
            let found = find_target(core, &metrics.borrow_and_update(), target)?;
            match found {
                Target::Ready(node_id) => return Ok(node_id),
                Target::Behind(node_id) => behind = Some(node_id),
            }
            if metrics.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let found = tokio::time::timeout(patience, search).await;
    found.unwrap_or_else(|_| {
        let node = behind.map_or_else(|| "no voter".to_string(), |node_id| format!("node {node_id}"));
        Err(MembershipError::Refused(format!("{node} has not caught up")))
    })
}

enum Target {
    Ready(u64),
    Behind(u64),
}

fn find_target(core: &Core, metrics: &RaftMetrics<TypeConfig>, wanted: Option<u64>) -> Result<Target, MembershipError> {
    let own_id = core.node_id();
    if metrics.current_leader != Some(own_id) {
        return Err(MembershipError::NotLeader { leader_id: metrics.current_leader });
    }
    let matched = |id: u64| {
        let matched = metrics.replication.as_ref().and_then(|progress| progress.get(&id)?.as_ref());
        matched.map(|log_id| log_id.index)
    };
    let voters = voters_without(&metrics.membership_config, own_id);
    // One that is being drained only where there is no other.
    let target = wanted.or_else(|| voters.max_by_key(|&id| (!core.states.is_draining(id), matched(id))));
    let target = target.ok_or_else(|| MembershipError::Refused("there is no other voter".to_string()))?;
    if target == own_id {
        return Ok(Target::Ready(target));
    }
    if !is_voter(&metrics.membership_config, target) {
        return Err(MembershipError::Refused(format!("node {target} is no voter")));
    }
    let last = metrics.last_log_index.unwrap_or(0);
    // So many are on their way to everybody at a busy time. Nobody takes writes until the next leader has them.
    let lag_max = core.limits.proposals_in_flight_max as u64;
    let is_ready = matched(target).is_some_and(|matched| matched + lag_max >= last);
    Ok(if is_ready { Target::Ready(target) } else { Target::Behind(target) })
}
