//! The members, as they say of themselves. Each is asked on its own, so that its clock can be read against ours.

use std::time::{Duration, Instant};

use cairn_client::{Client, Timestamp, proto};

use super::finding::{Finding, Grade};
use crate::cli::args::ClientOptions;
use crate::cli::cluster::digest_warning;
use crate::cli::contexts::destination;
use crate::cli::exit::Result;
use crate::cli::output::bytes_for_people;

/// Clocks further apart: expiry and histories are off by as much after a change of leader.
const SKEW_WARN_MS: i64 = 500;
const SKEW_FAIL_MS: i64 = 10_000;

/// Entries that a member may have left to apply.
const LAG_WARN: u64 = 10_000;

/// Free space, as a share of what the data and the free space take together.
const FREE_SHARE_WARN: f64 = 0.20;
const FREE_SHARE_FAIL: f64 = 0.05;

type Status = proto::GetClusterStatusResponse;

/// The clock of one member: how far it is ahead of ours, and how exactly that is known, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Offset {
    pub(super) node_id: u64,
    pub(super) ahead_ms: i64,
    pub(super) error_ms: i64,
}

/// All checks of the cluster.
pub(super) async fn check(options: &ClientOptions) -> Result<Vec<Finding>> {
    let destination = destination(options)?;
    let client = Client::builder().endpoints(&destination.endpoints).deadline(options.timeout).build()?;
    let status = match client.status().await {
        Ok(status) => status,
        Err(error) => {
            let seen = format!("{}: {error}", destination.endpoints.join(", "));
            let advice = "start a node, name a running one with --endpoint, or leave the cluster out with --offline";
            return Ok(vec![Finding::new(Grade::Fail, "cluster", seen, advice)]);
        }
    };
    let mut offsets = Vec::new();
    for member in &status.members {
        offsets.extend(offset(member, options.timeout).await);
    }
    let mut findings =
        vec![quorum(&status), versions(&status), digests(&status), clocks(&offsets, status.members.len())];
    findings.extend(status.members.iter().filter_map(|member| lag(member, status.committed_index)));
    findings.extend(status.members.iter().filter_map(disk));
    Ok(findings)
}

/// Reads the clock of one member over the shortest of some round trips.
async fn offset(member: &proto::Member, timeout: Duration) -> Option<Offset> {
    let endpoint = format!("http://{}", member.client_address);
    let client = Client::builder().endpoints([endpoint]).deadline(timeout.min(Duration::from_secs(3))).build().ok()?;
    let mut best: Option<Offset> = None;
    for _ in 0..3 {
        let (asked, began) = (Timestamp::now(), Instant::now());
        let status = client.status().await.ok()?;
        let round_trip_ms = i64::try_from(began.elapsed().as_millis()).ok()?;
        let own = status.members.iter().find(|own| own.node_id == status.node_id && own.node_id == member.node_id)?;
        let clock = Timestamp::from(own.state.as_ref()?.clock?);
        // The answer was made between asking and hearing, on average in the middle.
        let ahead_ms = (clock.as_micros() - asked.as_micros()) / 1_000 - round_trip_ms / 2;
        let found = Offset { node_id: member.node_id, ahead_ms, error_ms: round_trip_ms / 2 + 1 };
        best = Some(best.filter(|best| best.error_ms <= found.error_ms).unwrap_or(found));
    }
    best
}

pub(super) fn quorum(status: &Status) -> Finding {
    let voters = || status.members.iter().filter(|member| member.role() != proto::MemberRole::Learner);
    let (all, reachable) = (voters().count(), voters().filter(|member| member.reachable).count());
    let seen = format!(
        "{reachable} of {all} voters reachable, leader {}",
        match status.leader_id {
            0 => "not known".to_owned(),
            id => format!("node {id}"),
        }
    );
    let silent: Vec<_> =
        status.members.iter().filter(|member| !member.reachable).map(|member| member.node_id.to_string()).collect();
    let advice = format!("look at the logs of node {}, and at the network between", silent.join(", "));
    let grade = match (status.leader_id, reachable * 2 > all, silent.is_empty()) {
        (0, _, _) | (_, false, _) => Grade::Fail,
        (_, true, false) => Grade::Warn,
        (_, true, true) => Grade::Ok,
    };
    let advice =
        if silent.is_empty() { "wait for an election, then look at the logs of the nodes".to_owned() } else { advice };
    Finding::new(grade, "quorum", seen, advice)
}

pub(super) fn versions(status: &Status) -> Finding {
    let states = || status.members.iter().filter_map(|member| member.state.as_ref());
    let mut versions: Vec<_> = states().map(|state| state.version.clone()).collect();
    versions.sort();
    versions.dedup();
    let lowest = states().map(|state| state.supported_cluster_version).min().unwrap_or(status.cluster_version);
    let seen = format!("program {}, cluster version {} of {lowest}", versions.join(" and "), status.cluster_version);
    if versions.len() > 1 {
        return Finding::new(
            Grade::Warn,
            "versions",
            seen,
            "finish the upgrade: new commands wait for the oldest member",
        );
    }
    Finding::ok("versions", seen)
}

pub(super) fn digests(status: &Status) -> Finding {
    match digest_warning(status) {
        Some(warning) => {
            let seen = warning.trim_start_matches("warning: ").split(':').next().unwrap_or_default().to_owned();
            Finding::new(
                Grade::Fail,
                "digests",
                seen,
                "keep the data directories, and report this: replicas must be equal",
            )
        }
        None => Finding::ok("digests", "members at one index hold the same rows"),
    }
}

pub(super) fn clocks(offsets: &[Offset], members: usize) -> Finding {
    let advice = "keep the clocks of all nodes in step, for example with chrony";
    let (Some(first), Some(last)) =
        (offsets.iter().min_by_key(|offset| offset.ahead_ms), offsets.iter().max_by_key(|offset| offset.ahead_ms))
    else {
        return Finding::new(
            Grade::Warn,
            "clocks",
            "no clock could be read",
            "name nodes that can be reached from here",
        );
    };
    let exactness = offsets.iter().map(|offset| offset.error_ms).max().unwrap_or_default();
    let farthest = if last.ahead_ms.abs() >= first.ahead_ms.abs() { last } else { first };
    let (between, from_here) = (last.ahead_ms - first.ahead_ms, farthest.ahead_ms.abs());
    let mut seen = format!("{between} ms between members, {from_here} ms from here, to {exactness} ms");
    if offsets.len() < members {
        seen.push_str(&format!(", of {} of {members}", offsets.len()));
    }
    // This machine is no member, and its clock no reason to fail.
    let grade = Grade::above(between - exactness, SKEW_WARN_MS, SKEW_FAIL_MS);
    let own = if from_here - exactness > SKEW_WARN_MS { Grade::Warn } else { Grade::Ok };
    let grade = if grade == Grade::Ok { own } else { grade };
    Finding::new(grade, "clocks", seen, advice)
}

/// A member that is far behind; `None` where it says nothing.
pub(super) fn lag(member: &proto::Member, committed: u64) -> Option<Finding> {
    let behind = committed.saturating_sub(member.state.as_ref()?.applied_index);
    let grade = Grade::above(behind, LAG_WARN, u64::MAX);
    let seen = format!("node {}: {behind} entries to apply", member.node_id);
    Some(Finding::new(grade, "lag", seen, "let it catch up; look at its disk and its log if it does not"))
}

/// The space on a member's disk; `None` where it says nothing.
pub(super) fn disk(member: &proto::Member) -> Option<Finding> {
    let state = member.state.as_ref()?;
    let share = state.disk_free_bytes as f64 / (state.disk_free_bytes as f64 + state.disk_used_bytes as f64).max(1.0);
    let grade = Grade::above(1.0 - share, 1.0 - FREE_SHARE_WARN, 1.0 - FREE_SHARE_FAIL);
    let (used, free) = (bytes_for_people(state.disk_used_bytes), bytes_for_people(state.disk_free_bytes));
    let seen = format!("node {}: {used} of data, {free} free", member.node_id);
    Some(Finding::new(grade, "disk", seen, "free some space, or move the data directory to a larger disk"))
}
