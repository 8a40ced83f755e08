//! What a running node consists of, shared by its tasks, its peer server and its callers.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use cairn_engine::crypto::ClusterId;
use cairn_engine::keyring::Keyring;
use cairn_proto::peer::peer_service_client::PeerServiceClient;
use openraft::RaftMetrics;
use openraft::async_runtime::watch::WatchReceiver;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::propose::Proposals;
use super::read::ReadGate;
use super::status::States;
use crate::clock::{ClockFault, PeerClocks, Stamper};
use crate::config::{Limits, Timing};
use crate::identity::DirLock;
use crate::network::{AppendRoom, Lane, Peers};
use crate::snapshot::SnapshotReceiver;
use crate::state_machine::{Shared, StateMachine};
use crate::types::TypeConfig;
use crate::wal::Wal;

/// openraft, instantiated for Cairn.
pub(crate) type Raft = openraft::Raft<TypeConfig, StateMachine>;

/// The parts of a running node.
pub(crate) struct Core {
    pub(crate) cluster_id: ClusterId,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) raft: Raft,
    pub(crate) wal: Arc<Wal>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) stamper: Arc<Stamper>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) proposals: Proposals,
    pub(crate) reads: ReadGate,
    pub(crate) append_room: AppendRoom,
    pub(crate) states: States,
    pub(crate) receiver: Arc<Mutex<SnapshotReceiver>>,
    pub(crate) data_dir: std::path::PathBuf,
    pub(crate) bytes_free: fn(&std::path::Path) -> u64,
    pub(crate) timing: Timing,
    pub(crate) limits: Limits,
    pub(crate) draining: AtomicBool,
    /// Held while this node, as the leader, changes the members.
    pub(crate) changing: tokio::sync::Mutex<()>,
    pub(crate) started_at: Instant,
    pub(crate) stop: CancellationToken,
    /// The log holds on to it as well, so that the directory is free only when nobody writes to it any more.
    pub(crate) lock: Arc<DirLock>,
}

impl Core {
    /// This node.
    pub(crate) fn node_id(&self) -> u64 {
        self.peers.node_id()
    }

    /// The leader, as far as this node knows.
    pub(crate) fn leader_id(&self) -> Option<u64> {
        self.raft.metrics().borrow_watched().current_leader
    }

    /// Returns once another node leads than `leader_id`, or replication has ended.
    pub(crate) async fn leader_changed(&self, leader_id: Option<u64>) {
        self.metrics_say(|metrics| metrics.current_leader != leader_id).await;
    }

    /// Waits until something is so by the metrics; `false` once replication has ended before.
    pub(crate) async fn metrics_say(&self, is_so: impl Fn(&RaftMetrics<TypeConfig>) -> bool) -> bool {
        let mut metrics = self.raft.metrics();
        while !is_so(&metrics.borrow_and_update()) {
            if metrics.changed().await.is_err() {
                return false;
            }
        }
        true
    }

    /// A client for calls to a member.
    pub(crate) fn client(&self, node_id: u64, lane: Lane) -> Result<PeerServiceClient<Channel>, String> {
        let membership = Arc::clone(&self.raft.metrics().borrow_watched().membership_config);
        let in_log = membership.get_node(&node_id).map(|node| node.peer_address.as_str());
        let address = self.peers.address(node_id, in_log);
        let address = address.ok_or_else(|| format!("the address of node {node_id} is not known"))?;
        self.peers.client(node_id, &address, lane).map_err(|error| error.to_string())
    }

    /// Why the node has stopped or is stopping; `None` while it runs.
    pub(crate) fn stopped(&self) -> Option<String> {
        if let Some(reason) = self.shared.fatal().borrow().clone() {
            return Some(reason);
        }
        self.stop.is_cancelled().then(|| "it is shutting down".to_string())
    }

    /// Whether a node has said that more than the reserve is free on its disk. One that has not spoken yet has it.
    pub(crate) fn has_room(&self, node_id: u64) -> bool {
        let free = self.states.disk_free_bytes(node_id, self.node_id());
        free.is_none_or(|bytes| bytes > self.limits.disk_reserved_bytes)
    }

    /// Whether the leader and a majority of the voters have room for a larger state; else which nodes do not. By the states
    /// that members exchange once a second, so that any node knows before it proposes.
    pub(crate) fn room_on_disks(&self) -> Result<(), Vec<u64>> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let voters: Vec<u64> = metrics.membership_config.voter_ids().collect();
        let full: Vec<u64> = voters.iter().copied().filter(|&id| !self.has_room(id)).collect();
        let leader_is_full = metrics.current_leader.is_some_and(|id| full.contains(&id));
        if leader_is_full || full.len() * 2 >= voters.len().max(1) { Err(full) } else { Ok(()) }
    }

    /// Whether this node's clock may be used, see [`Stamper::compare`].
    pub(crate) fn check_clock(&self) -> Result<(), ClockFault> {
        self.stamper.compare(self.shared.stamp_micros(), || {
            let membership = Arc::clone(&self.raft.metrics().borrow_watched().membership_config);
            let members: Vec<u64> = membership.nodes().map(|(&id, _)| id).collect();
            match &members[..] {
                [only] if *only == self.node_id() => PeerClocks::NoPeers,
                members => self.states.peer_clocks(members, self.node_id()),
            }
        })
    }

    /// The stamp of the next command; only the leader asks.
    pub(crate) fn stamp(&self) -> Result<i64, ClockFault> {
        self.check_clock()?;
        self.stamper.stamp(self.shared.stamp_micros())
    }

    /// The leader's time; only the leader asks.
    pub(crate) fn now(&self) -> i64 {
        // Where the clock cannot be used, the time is that of the last stamp.
        let _ = self.check_clock();
        self.stamper.now(self.shared.stamp_micros())
    }

    /// The leader's time as well as this node can know it without asking, in microseconds since 1970. `None`: no leader has
    /// told it since this node started, and what it has applied may be of any age.
    pub(crate) fn leader_time_estimate(&self) -> Option<i64> {
        let leader_id = self.leader_id();
        if leader_id == Some(self.node_id()) {
            return Some(self.now());
        }
        let heard = leader_id.and_then(|leader_id| self.states.clock_of(leader_id));
        let told = heard.max(self.reads.time_estimate())?;
        Some(told.max(self.shared.stamp_micros()))
    }
}
