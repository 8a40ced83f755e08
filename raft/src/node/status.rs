//! What a node says of itself and of its peers; answers without a majority too.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use cairn_proto::peer::ReportStateRequest;
use cairn_proto::v1;
use openraft::async_runtime::watch::WatchReceiver;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::core::Core;
use crate::clock::{ClockFault, PeerClocks};
use crate::network::{Lane, with_deadline, within};
use crate::wal::WalStats;

/// How often nodes exchange their states.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// How often until the clocks of the nodes are compared.
const REPORT_INTERVAL_FIRST: Duration = Duration::from_millis(50);
/// How many times at most: the peers may be down for long.
const ROUNDS_FIRST_MAX: u64 = 100;
/// How long a peer may take to answer.
const REPORT_TIMEOUT: Duration = Duration::from_millis(800);
/// A peer that was heard of within this time is called reachable.
pub(super) const REACHABLE: Duration = Duration::from_millis(2500);
/// The directory is measured at every so many reports.
const MEASURE_EVERY: u64 = 10;

/// The cluster as one node sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeStatus {
    /// The cluster.
    pub cluster_id: [u8; 16],
    /// The node that says so.
    pub node_id: u64,
    /// Who leads, where known.
    pub leader_id: Option<u64>,
    /// The term.
    pub term: u64,
    /// The last committed log index that the node knows.
    pub committed_index: Option<u64>,
    /// The last log index that the node has applied.
    pub applied_index: Option<u64>,
    /// The replicated cluster version.
    pub cluster_version: u32,
    /// All members, ascending by id.
    pub members: Vec<v1::Member>,
}

/// What a node has done since it started, and what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NodeStats {
    /// What its log has done.
    pub log: WalStats,
    /// Bytes of entries that it has from its leader and that its log does not have yet.
    pub append_bytes_waiting: u64,
    /// Rounds in which it has asked the leader, or as the leader a majority, up to where readers must see; many share one.
    pub read_rounds: u64,
    /// Whether writes that make the state grow are refused for want of space.
    pub disk_low: bool,
    /// Bytes of snapshots that it has sent to peers.
    pub snapshot_bytes_sent: u64,
    /// Bytes of snapshots that it has received from peers.
    pub snapshot_bytes_received: u64,
}

/// See [`super::Node::stats`].
pub(crate) fn stats(core: &Core) -> NodeStats {
    let (snapshot_bytes_sent, snapshot_bytes_received) = core.shared.snapshots.traffic().totals();
    NodeStats {
        log: core.wal.stats(),
        append_bytes_waiting: core.append_room.bytes_taken(),
        read_rounds: core.reads.rounds(),
        disk_low: core.room_on_disks().is_err(),
        snapshot_bytes_sent,
        snapshot_bytes_received,
    }
}

/// A peer's last report.
#[derive(Debug, Clone)]
struct Heard {
    state: v1::NodeState,
    at: Instant,
}

/// The last reports, of this node and of its peers.
#[derive(Default)]
pub(crate) struct States {
    own: Mutex<Option<v1::NodeState>>,
    heard: Mutex<BTreeMap<u64, Heard>>,
    /// Tells who waits for a report that one has come.
    news: Notify,
}

impl States {
    /// This node's last report.
    pub(crate) fn own(&self) -> Option<v1::NodeState> {
        self.own.lock().clone()
    }

    /// Notes a peer's report.
    pub(crate) fn hear(&self, node_id: u64, state: v1::NodeState) {
        self.heard.lock().insert(node_id, Heard { state, at: Instant::now() });
        self.news.notify_waiters();
    }

    /// Whether a peer was heard of within `time`.
    pub(crate) fn is_reachable(&self, node_id: u64, time: Duration) -> bool {
        self.heard.lock().get(&node_id).is_some_and(|heard| heard.at.elapsed() < time)
    }

    /// Ends with the next report that comes, also if it comes before this is awaited.
    pub(crate) fn news(&self) -> Notified<'_> {
        self.news.notified()
    }

    /// What a node said last that was free on its disk.
    pub(crate) fn disk_free_bytes(&self, node_id: u64, own_id: u64) -> Option<u64> {
        if node_id == own_id {
            return self.own.lock().as_ref().map(|state| state.disk_free_bytes);
        }
        self.heard.lock().get(&node_id).map(|heard| heard.state.disk_free_bytes)
    }

    /// Whether a peer said last that it is being drained.
    pub(crate) fn is_draining(&self, node_id: u64) -> bool {
        self.heard.lock().get(&node_id).is_some_and(|heard| heard.state.draining)
    }

    /// What a peer said last that it had applied.
    pub(crate) fn applied_index_of(&self, node_id: u64) -> Option<u64> {
        self.heard.lock().get(&node_id).map(|heard| heard.state.applied_index)
    }

    /// A peer's clock by its last report and this node's steady clock, in microseconds since 1970.
    pub(crate) fn clock_of(&self, node_id: u64) -> Option<i64> {
        let heard = self.heard.lock();
        let heard = heard.get(&node_id)?;
        let clock = heard.state.clock.as_ref()?;
        let micros = clock.seconds.checked_mul(1_000_000)?.checked_add(i64::from(clock.nanos / 1000))?;
        micros.checked_add(i64::try_from(heard.at.elapsed().as_micros()).ok()?)
    }

    /// The clocks of those of `members` that have reported, without `own_id`.
    pub(crate) fn peer_clocks(&self, members: &[u64], own_id: u64) -> PeerClocks {
        let is_heard = |id: &&u64| **id != own_id && self.heard.lock().contains_key(*id);
        let heard: Vec<u64> = members.iter().filter(is_heard).copied().collect();
        if heard.is_empty() {
            return PeerClocks::Unheard;
        }
        PeerClocks::Heard(heard.into_iter().filter_map(|id| self.clock_of(id)).max())
    }

    /// The cluster version that all of `members` support, once each of them has reported. `own`: this node and what it
    /// supports.
    pub(crate) fn supported_version_min(&self, own: (u64, u32), members: &[u64]) -> Option<u32> {
        let (own_id, own_version) = own;
        let heard = self.heard.lock();
        let supported = |id: &u64| match id {
            id if *id == own_id => Some(own_version),
            id => heard.get(id).map(|heard| heard.state.supported_cluster_version),
        };
        members.iter().map(supported).collect::<Option<Vec<u32>>>()?.into_iter().min()
    }
}

/// The cluster as this node sees it.
pub(crate) fn status(core: &Core) -> NodeStatus {
    let metrics = core.raft.metrics().borrow_watched().clone();
    let applied = core.shared.generations.current().applied();
    let voters: Vec<u64> = metrics.membership_config.voter_ids().collect();
    let own_state = core.states.own();
    let heard = core.states.heard.lock();
    let member = |(&node_id, node): (&u64, &crate::types::PeerNode)| {
        let role = match () {
            () if metrics.current_leader == Some(node_id) => v1::MemberRole::Leader,
            () if voters.contains(&node_id) => v1::MemberRole::Voter,
            () => v1::MemberRole::Learner,
        };
        let matched = metrics.replication.as_ref().and_then(|matched| matched.get(&node_id));
        let matched = matched.and_then(|log_id| log_id.as_ref().map(|log_id| log_id.index));
        let own = node_id == core.node_id();
        let heard = heard.get(&node_id);
        v1::Member {
            node_id,
            peer_address: core.peers.address(node_id, Some(&node.peer_address)).unwrap_or_default(),
            client_address: core.peers.client_address(node_id, &node.client_address),
            role: role.into(),
            reachable: own || heard.is_some_and(|heard| heard.at.elapsed() < REACHABLE),
            matched_index: if own { metrics.last_log_index } else { matched },
            state: if own { own_state.clone() } else { heard.map(|heard| heard.state.clone()) },
        }
    };
    NodeStatus {
        cluster_id: core.cluster_id.0,
        node_id: core.node_id(),
        leader_id: metrics.current_leader,
        term: metrics.current_term,
        committed_index: metrics.local_committed.map(|log_id| log_id.index),
        applied_index: applied.log_id.map(|log_id| log_id.index),
        cluster_version: applied.cluster_version,
        members: metrics.membership_config.nodes().map(member).collect(),
    }
}

/// The reporter: tells the peers how this node is, and hears how they are.
pub(crate) async fn run_reporter(core: Arc<Core>) {
    let mut ticks = tokio::time::interval(REPORT_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut disk_used_bytes = 0;
    for round in 0_u64.. {
        let in_haste = round < ROUNDS_FIRST_MAX && core.check_clock() == Err(ClockFault::NotCompared);
        tokio::select! {
            () = core.stop.cancelled() => return,
            _ = ticks.tick() => {}
            // Nothing is stamped before the peers' clocks are known.
            () = tokio::time::sleep(REPORT_INTERVAL_FIRST), if in_haste => {}
        }
        if round % MEASURE_EVERY == 0 {
            disk_used_bytes = measure_disk(&core).await;
        }
        let Some(state) = own_state(&core, disk_used_bytes).await else { continue };
        *core.states.own.lock() = Some(state.clone());
        let members: Vec<u64> =
            core.raft.metrics().borrow_watched().membership_config.nodes().map(|(&id, _)| id).collect();
        for peer_id in members.into_iter().filter(|&id| id != core.node_id()) {
            tokio::spawn(exchange(Arc::clone(&core), peer_id, state.clone()));
        }
    }
}

/// Takes this node's own report anew, so that a status speaks of now and not of the last round.
pub(crate) async fn refresh_own(core: &Arc<Core>) {
    let disk_used_bytes = match core.states.own() {
        Some(state) => state.disk_used_bytes,
        None => measure_disk(core).await,
    };
    if let Some(state) = own_state(core, disk_used_bytes).await {
        *core.states.own.lock() = Some(state);
    }
}

async fn measure_disk(core: &Arc<Core>) -> u64 {
    let dir = core.data_dir.clone();
    tokio::task::spawn_blocking(move || bytes_below(&dir)).await.unwrap_or(0)
}

async fn exchange(core: Arc<Core>, peer_id: u64, state: v1::NodeState) {
    let Ok(mut client) = core.client(peer_id, Lane::Control) else { return };
    let request = ReportStateRequest { header: Some(core.peers.header(peer_id)), state: Some(state) };
    // A peer that does not answer simply is not heard of, and a node that stops waits for none.
    let answer = within(REPORT_TIMEOUT, client.report_state(with_deadline(request, REPORT_TIMEOUT)));
    let Some(answer) = core.stop.run_until_cancelled(answer).await else { return };
    if answer.as_ref().is_err_and(|status| status.code() == tonic::Code::PermissionDenied) {
        // Its own log may never tell it: nobody replicates to it any more.
        core.shared.stop_because(&format!("it was removed from the cluster, as node {peer_id} says"));
    }
    if let Some(state) = answer.ok().and_then(|answer| answer.state) {
        core.states.hear(peer_id, state);
    }
}

/// This node's last report, with what changes at a call.
pub(crate) fn own_state_now(core: &Core) -> v1::NodeState {
    let mut state = core.states.own().unwrap_or_default();
    state.draining = core.draining.load(Ordering::Acquire);
    state
}

async fn own_state(core: &Arc<Core>, disk_used_bytes: u64) -> Option<v1::NodeState> {
    let asked = Arc::clone(core);
    let stored = tokio::task::spawn_blocking(move || {
        let generation = asked.shared.generations.current();
        let durable = generation.durable_applied().ok().flatten().map_or(0, |log_id| log_id.index);
        let memories = generation.memories().unwrap_or(0);
        let supported = generation.supported_cluster_version();
        (generation.applied(), durable, memories, (asked.bytes_free)(&asked.data_dir), supported)
    });
    let (applied, durable_applied_index, memories, disk_free_bytes, supported_cluster_version) = stored.await.ok()?;
    let metrics = core.raft.metrics().borrow_watched().clone();
    Some(v1::NodeState {
        version: env!("CARGO_PKG_VERSION").to_string(),
        supported_cluster_version,
        applied_index: applied.log_id.map_or(0, |log_id| log_id.index),
        durable_applied_index,
        digest: hex::encode(applied.digest),
        first_log_index: metrics.purged.map_or(0, |log_id| log_id.index + 1),
        last_log_index: metrics.last_log_index.unwrap_or(0),
        disk_used_bytes,
        disk_free_bytes,
        uptime: prost_types::Duration::try_from(core.started_at.elapsed()).ok(),
        // Followers take the leader's time from this, so it must not be one that the leader would not stamp with.
        clock: core.stamper.report().map(|clock| prost_types::Timestamp {
            seconds: clock.div_euclid(1_000_000),
            nanos: i32::try_from(clock.rem_euclid(1_000_000) * 1000).unwrap_or(0),
        }),
        draining: core.draining.load(Ordering::Acquire),
        memories,
    })
}

/// The bytes of all files below `dir`; what cannot be read counts nothing, since files come and go.
fn bytes_below(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}
