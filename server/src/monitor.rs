//! The node as its probes, metrics and hints see it: a picture of its state that is taken twice a second, so that no
//! probe waits for replication or the disk.

use std::sync::Arc;

use cairn_engine::IndexCounts;
use cairn_proto::v1::{GetClusterStatusResponse, Member, MemberRole};
use cairn_raft::{Node, NodeStats, NodeStatus};
use parking_lot::Mutex;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::telemetry::{Metrics, definitions};
use crate::vitals::{Answer, Replication, Vitals};

/// What probes and metrics ask.
pub(crate) struct Monitor {
    vitals: Vitals,
    metrics: Metrics,
    lag_entries_max: u64,
    picture: Mutex<Option<Arc<Picture>>>,
}

/// The state of the node at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Picture {
    /// The cluster, as this node sees it.
    pub(crate) status: GetClusterStatusResponse,
    /// The last log index that the node has applied.
    pub(crate) applied_index: u64,
    /// Whether replication runs.
    pub(crate) alive: bool,
    /// Whether replication would serve calls.
    pub(crate) serving: bool,
    /// What the node has done since it started.
    pub(crate) stats: NodeStats,
    /// The indexes in memory.
    pub(crate) indexes: IndexCounts,
}

impl Picture {
    /// The state of `node`; what it says of itself is up to a second old.
    pub(crate) fn of(node: &Node) -> Self {
        Self::with(node, node.status())
    }

    /// The state of `node` now.
    pub(crate) async fn now(node: &Node) -> Self {
        Self::with(node, node.status_now().await)
    }

    fn with(node: &Node, status: NodeStatus) -> Self {
        let NodeStatus {
            cluster_id,
            node_id,
            leader_id,
            term,
            committed_index,
            applied_index,
            cluster_version,
            members,
        } = status;
        let status = GetClusterStatusResponse {
            cluster_id: Uuid::from_bytes(cluster_id).to_string(),
            node_id,
            leader_id: leader_id.unwrap_or_default(),
            term,
            committed_index: committed_index.unwrap_or_default(),
            cluster_version,
            members,
        };
        let applied_index = applied_index.unwrap_or_default();
        Self {
            status,
            applied_index,
            alive: node.is_alive(),
            serving: node.is_ready(),
            stats: node.stats(),
            indexes: node.engine().index_counts(),
        }
    }

    /// This node among the members.
    fn own(&self) -> Option<&Member> {
        self.status.members.iter().find(|member| member.node_id == self.status.node_id)
    }

    fn leads(&self) -> bool {
        self.status.leader_id != 0 && self.status.leader_id == self.status.node_id
    }

    /// A node does not forget a leader that has died, and a leader does not step down when its followers have.
    fn in_touch(&self) -> bool {
        if !self.leads() {
            let leader = self.status.members.iter().find(|member| member.node_id == self.status.leader_id);
            return leader.is_some_and(|leader| leader.reachable);
        }
        let voters = self.status.members.iter().filter(|member| member.role() != MemberRole::Learner);
        let (reachable, silent): (Vec<_>, Vec<_>) = voters.partition(|voter| voter.reachable);
        reachable.len() > silent.len()
    }

    fn replication(&self) -> Replication {
        Replication {
            alive: self.alive,
            leader_known: self.status.leader_id != 0,
            in_touch: self.in_touch(),
            lag_entries: self.status.committed_index.saturating_sub(self.applied_index),
            serving: self.serving,
        }
    }
}

impl Monitor {
    /// The monitor of a node that has not started.
    pub(crate) fn new(lag_entries_max: u64) -> Self {
        Self { vitals: Vitals::new(), metrics: Metrics::new(), lag_entries_max, picture: Mutex::new(None) }
    }

    /// The metrics of the node.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The signs of life of the node.
    pub(crate) fn vitals(&self) -> &Vitals {
        &self.vitals
    }

    /// Whether the process does its work.
    pub(crate) fn live(&self) -> Answer {
        self.vitals.live(self.replication())
    }

    /// Whether the node has come up.
    pub(crate) fn started(&self) -> Answer {
        self.vitals.started()
    }

    /// Whether the node can serve calls.
    pub(crate) fn ready(&self) -> Answer {
        self.vitals.ready(self.replication(), self.lag_entries_max)
    }

    /// Takes note of the node's state, and sets the gauges by it.
    pub(crate) fn observe(&self, picture: Picture) {
        self.set_gauges(&picture);
        self.set_log_metrics(&picture.stats);
        self.set_index_metrics(&picture.indexes);
        *self.picture.lock() = Some(Arc::new(picture));
        let flag = |yes: bool| f64::from(u8::from(yes));
        self.metrics.set(definitions::READY, &[], flag(self.ready() == Answer::Yes));
        self.metrics.set(definitions::DRAINING, &[], flag(self.vitals.is_draining()));
    }

    fn replication(&self) -> Option<Replication> {
        self.picture.lock().as_ref().map(|picture| picture.replication())
    }

    fn set_gauges(&self, picture: &Picture) {
        let status = &picture.status;
        let reachable = status.members.iter().filter(|member| member.reachable).count();
        let counts = [
            (definitions::RAFT_TERM, status.term),
            (definitions::RAFT_LEADER, u64::from(picture.leads())),
            (definitions::RAFT_LEADER_KNOWN, u64::from(status.leader_id != 0)),
            (definitions::RAFT_MEMBERS, status.members.len() as u64),
            (definitions::RAFT_MEMBERS_REACHABLE, reachable as u64),
            (definitions::RAFT_COMMITTED_INDEX, status.committed_index),
            (definitions::RAFT_APPLIED_INDEX, picture.applied_index),
        ];
        for (definition, value) in counts {
            self.metrics.set_count(definition, &[], value);
        }
        let Some(state) = picture.own().and_then(|own| own.state.as_ref()) else { return };
        let counts = [
            (definitions::RAFT_DURABLE_APPLIED_INDEX, state.durable_applied_index),
            (definitions::WAL_FIRST_INDEX, state.first_log_index),
            (definitions::WAL_LAST_INDEX, state.last_log_index),
            (definitions::DISK_USED, state.disk_used_bytes),
            (definitions::DISK_FREE, state.disk_free_bytes),
            (definitions::MEMORIES, state.memories),
        ];
        for (definition, value) in counts {
            self.metrics.set_count(definition, &[], value);
        }
    }

    fn set_log_metrics(&self, stats: &NodeStats) {
        let totals = [
            (definitions::WAL_ENTRIES, stats.log.entries),
            (definitions::WAL_BYTES, stats.log.bytes),
            (definitions::WAL_SYNCS, stats.log.syncs),
            (definitions::WAL_SEGMENTS_REMOVED, stats.log.segments_removed),
            (definitions::READ_ROUNDS, stats.read_rounds),
            (definitions::SNAPSHOT_SENT, stats.snapshot_bytes_sent),
            (definitions::SNAPSHOT_RECEIVED, stats.snapshot_bytes_received),
        ];
        for (definition, total) in totals {
            self.metrics.add_up_to(definition, &[], total);
        }
        let entries_per_sync = stats.log.entries as f64 / stats.log.syncs.max(1) as f64;
        self.metrics.set(definitions::WAL_ENTRIES_PER_SYNC, &[], entries_per_sync);
        self.metrics.set_count(definitions::DISK_LOW, &[], u64::from(stats.disk_low));
        self.metrics.set_count(definitions::WAL_STALLED, &[], u64::from(stats.log.stalled));
        self.metrics.set_count(definitions::APPEND_WAITING, &[], stats.append_bytes_waiting);
    }

    fn set_index_metrics(&self, indexes: &IndexCounts) {
        let counts = [
            (definitions::INDEXES, indexes.loaded),
            (definitions::INDEX_MEMORY, indexes.bytes),
            (definitions::INDEX_WAITING, indexes.waiting),
            (definitions::INDEX_UNREACHABLE, indexes.unreachable),
        ];
        for (definition, value) in counts {
            self.metrics.set_count(definition, &[], value);
        }
        let totals = [
            (definitions::INDEX_MADE, indexes.made),
            (definitions::INDEX_MADE_MEMORIES, indexes.made_memories),
            (definitions::CHECKPOINTS_SAVED, indexes.checkpoints_saved),
            (definitions::CHECKPOINT_BYTES, indexes.checkpoint_bytes),
            (definitions::CHECKPOINT_FAILURES, indexes.checkpoint_failures),
            (definitions::CHECKPOINTS_LOADED, indexes.checkpoints_loaded),
            (definitions::CHECKPOINTS_UNUSABLE, indexes.checkpoints_unusable),
        ];
        for (definition, total) in totals {
            self.metrics.add_up_to(definition, &[], total);
        }
    }

    /// A summary for people and scripts.
    pub(crate) fn summary(&self) -> Value {
        let (status, reason) = match self.ready() {
            Answer::Yes => ("ready", ""),
            Answer::No(reason) => ("not ready", reason),
        };
        let mut summary = json!({
            "status": status,
            "reason": reason,
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_seconds": self.metrics.uptime().as_secs(),
        });
        let picture = self.picture.lock().clone();
        if let (Some(picture), Some(object)) = (picture, summary.as_object_mut()) {
            let role = picture.own().map_or(MemberRole::Unspecified, Member::role);
            object.insert("cluster_id".into(), picture.status.cluster_id.clone().into());
            object.insert("node_id".into(), picture.status.node_id.into());
            object.insert("leader_id".into(), picture.status.leader_id.into());
            object.insert("role".into(), role.as_str_name().trim_start_matches("MEMBER_ROLE_").to_lowercase().into());
            object.insert("term".into(), picture.status.term.into());
            object.insert("committed_index".into(), picture.status.committed_index.into());
            object.insert("applied_index".into(), picture.applied_index.into());
            object.insert("members".into(), picture.status.members.len().into());
        }
        summary
    }
}

#[cfg(test)]
mod tests {
    use cairn_proto::v1::NodeState;

    use super::*;

    fn picture(node_id: u64, leader_id: u64) -> Picture {
        let member = |id: u64| Member {
            node_id: id,
            client_address: format!("node{id}:7480"),
            reachable: true,
            state: Some(NodeState { memories: 5, ..NodeState::default() }),
            ..Member::default()
        };
        let members = vec![member(1), member(2)];
        let status = GetClusterStatusResponse {
            node_id,
            leader_id,
            committed_index: 100,
            term: 3,
            members,
            ..Default::default()
        };
        Picture {
            status,
            applied_index: 90,
            alive: true,
            serving: true,
            stats: NodeStats::default(),
            indexes: IndexCounts::default(),
        }
    }

    #[test]
    fn readiness_and_gauges_follow_the_picture() {
        let monitor = Monitor::new(10);
        monitor.vitals().set_started();
        assert_eq!(monitor.ready(), Answer::No("starting"));
        monitor.observe(picture(1, 2));
        assert_eq!(monitor.ready(), Answer::Yes);
        let mut stats = NodeStats::default();
        (stats.log.entries, stats.log.syncs) = (30, 4);
        monitor.observe(Picture { stats, ..picture(1, 2) });
        let text = monitor.metrics().render();
        for line in [
            "cairn_ready 1",
            "cairn_raft_leader 0",
            "cairn_raft_members_reachable 2",
            "cairn_memories 5",
            "cairn_wal_entries_total 30",
            "cairn_wal_entries_per_sync 7.5",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        for leader in [1, 2] {
            let mut cut_off = picture(1, leader);
            cut_off.status.members[1].reachable = false;
            monitor.observe(cut_off);
            assert_eq!(monitor.ready(), Answer::No("no leader with a majority is in touch"), "led by {leader}");
        }
        monitor.observe(picture(1, 1));
        assert_eq!(monitor.summary()["status"], "ready");
        assert_eq!(monitor.summary()["applied_index"], 90);
        monitor.observe(Picture { alive: false, ..picture(1, 2) });
        assert!(matches!(monitor.ready(), Answer::No(_)));
        assert!(monitor.metrics().render().contains("cairn_ready 0"));
    }
}
