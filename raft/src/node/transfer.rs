//! Leadership to another node.

use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;

use super::READY_LAG_MAX;
use super::core::Core;
use crate::error::MembershipError;
use crate::types::TypeConfig;

/// Hands leadership of this node to `target`, or to the voter that is furthest.
pub(super) async fn transfer_leadership(
    core: &Core,
    target: Option<u64>,
    timeout: Duration,
) -> Result<u64, MembershipError> {
    let own_id = core.node_id();
    let target = {
        let metrics = core.raft.metrics();
        let metrics = metrics.borrow_watched();
        if metrics.current_leader != Some(own_id) {
            return Err(MembershipError::NotLeader { leader_id: metrics.current_leader });
        }
        let matched = metrics.replication.clone().unwrap_or_default();
        let matched = |id: u64| matched.get(&id).and_then(|log_id| log_id.as_ref().map(|log_id| log_id.index));
        let voters = metrics.membership_config.voter_ids().filter(|&id| id != own_id);
        // One that is being drained only where there is no other.
        let target = target.or_else(|| voters.max_by_key(|&id| (!core.states.is_draining(id), matched(id))));
        let target = target.ok_or_else(|| MembershipError::Refused("there is no other voter".to_string()))?;
        if target == own_id {
            return Ok(own_id);
        }
        if !metrics.membership_config.voter_ids().any(|id| id == target) {
            return Err(MembershipError::Refused(format!("node {target} is no voter")));
        }
        let last = metrics.last_log_index.unwrap_or(0);
        if matched(target).is_none_or(|matched| matched + READY_LAG_MAX < last) {
            return Err(MembershipError::Refused(format!("node {target} has not caught up")));
        }
        target
    };
    let transfer = async {
        // Waits as well while replication waits for the disk.
        core.raft.trigger().transfer_leader(target).await?;
        await_leader(core, target).await;
        Ok::<(), openraft::errors::Fatal<TypeConfig>>(())
    };
    match tokio::time::timeout(timeout, transfer).await {
        Ok(Ok(())) => Ok(target),
        Ok(Err(fatal)) => Err(MembershipError::Unavailable(fatal.to_string())),
        Err(_) => Err(MembershipError::Unavailable(format!("node {target} did not take over in time"))),
    }
}

async fn await_leader(core: &Core, leader_id: u64) {
    let mut metrics = core.raft.metrics();
    while metrics.borrow_and_update().current_leader != Some(leader_id) {
        if metrics.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
