//! From a configuration to a running node.
//!
//! The order matters: the lock before anything is read, the identity before a peer is spoken to, the peer server before the
//! cluster exists, the keyring before the log and the store that it opens.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use cairn_engine::keyring::Keyring;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{InitializeError, RaftError};
use openraft::{Config, SnapshotPolicy};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::core::{Core, Raft};
use super::propose::{Proposals, Submission, run_proposer};
use super::read::{ReadGate, Waiter, run_gate};
use super::status::{States, run_reporter};
use super::{Node, bootstrap, duties};
use crate::clock::Stamper;
use crate::config::{Environment, Limits, NodeConfig, Peer, Timing};
use crate::error::StartError;
use crate::identity::{DirLock, Identity};
use crate::log_store::LogStore;
use crate::network::{AppendRoom, MESSAGE_BYTES_MAX, Membership, NetworkFactory, PeerServer, Peers, serve};
use crate::snapshot::{SnapshotReceiver, SnapshotStore, run_controller};
use crate::state_machine::{Generations, Shared, StateMachine, error_chain};
use crate::types::{GROUP, PeerNode};
use crate::wal::{self, Recovered, SealContext, Summary, WalError};

/// Entries in one append.
const APPEND_ENTRIES_MAX: u64 = 1024;

/// Bytes of entries in one append, unless a single one is larger. What has arrived of an append that was given up is lost, so the
/// least that a link must carry is this much in [`Timing::peer_timeout`](crate::config::Timing::peer_timeout).
const APPEND_BYTES_MAX: usize = 256 << 10;

/// Messages that may wait for openraft's core; their bytes are bounded where they come from.
const CORE_QUEUE: u64 = 4096;

/// What may surround a single entry in a message between nodes, in bytes.
const MESSAGE_OVERHEAD_BYTES: usize = 64 << 10;

/// Where the parts of a data directory lie.
struct Layout {
    keyring: PathBuf,
    log: PathBuf,
    group: PathBuf,
}

impl Layout {
    fn of(data_dir: &Path) -> Self {
        Self {
            keyring: data_dir.join("keyring"),
            log: data_dir.join("wal").join("group-0"),
            group: data_dir.join("group-0"),
        }
    }
}

pub(super) async fn start(config: NodeConfig, environment: Environment) -> Result<Arc<Node>, StartError> {
    check(&config)?;
    let layout = Layout::of(&config.data_dir);
    let (data_dir, node_id) = (config.data_dir.clone(), config.node_id);
    let opened = blocking(move || {
        let lock = DirLock::take(&data_dir)?;
        let identity = Identity::open(&data_dir, node_id)?;
        Ok((lock, identity))
    });
    let (lock, identity) = opened.await?;
    let (lock, identity) = (Arc::new(lock), Arc::new(identity));

    let server_stop = CancellationToken::new();
    // Ends the server if the future of this start is dropped.
    let guard = server_stop.clone().drop_guard();
    let mut tasks = JoinSet::new();
    match start_in(&mut tasks, config, environment, &layout, lock, identity, server_stop.clone()).await {
        Ok(core) => {
            DropGuard::disarm(guard);
            Ok(Arc::new(Node { core, tasks: Mutex::new(Some(tasks)), server_stop }))
        }
        Err(error) => {
            // The port and the directory are to be free when the caller reads the error.
            drop(guard);
            while tasks.join_next().await.is_some() {}
            Err(error)
        }
    }
}

async fn start_in(
    tasks: &mut JoinSet<()>,
    config: NodeConfig,
    environment: Environment,
    layout: &Layout,
    lock: Arc<DirLock>,
    identity: Arc<Identity>,
    stop: CancellationToken,
) -> Result<Arc<Core>, StartError> {
    let peers = Arc::new(Peers::new(Arc::clone(&identity), &config.peers, config.timing.clone()));
    let founders = config.peers.iter().map(|peer| peer.id).collect();
    let server = start_server(tasks, Arc::clone(&identity), founders, config.listener, stop.clone())?;
    let listed = bootstrap::Listed { peers: &config.peers, join: config.join };
    let keyring = bootstrap::join(&identity, &peers, listed, &layout.keyring, &config.root_key).await?;
    let keyring = Arc::new(keyring);
    let membership = Membership { cluster_id: keyring.cluster_id(), keyring: Arc::clone(&keyring) };
    let _ = server.membership.set(membership);

    let founder = identity.is_founder();
    let parts = Parts { lock, identity, peers, keyring, environment, stop };
    let started = start_core(parts, layout, &config.data_dir, &config.timing, &config.limits, config.engine).await?;
    let (core, submissions, waiters) = started;
    let _ = server.core.set(Arc::clone(&core));
    start_tasks(tasks, &core, submissions, waiters);
    if founder {
        initialize(&core, &config.peers).await?;
    }
    Ok(core)
}

fn check(config: &NodeConfig) -> Result<(), StartError> {
    let fault = |reason: String| Err(StartError::Config(reason));
    let mut ids = BTreeMap::new();
    for peer in &config.peers {
        if peer.id == 0 {
            return fault("node ids begin at 1: correct the list of peers".to_string());
        }
        if peer.peer_address.is_empty() {
            return fault(format!("node {} has no peer address: correct the list of peers", peer.id));
        }
        if ids.insert(peer.id, ()).is_some() {
            return fault(format!("node {} is listed twice: correct the list of peers", peer.id));
        }
    }
    if !ids.contains_key(&config.node_id) {
        return fault(format!("node {} is not in the list of peers: add it", config.node_id));
    }
    if config.join && ids.len() < 2 {
        return fault("a node that joins a cluster needs a member to ask: add one to the list of peers".to_string());
    }
    let entry_bytes_limit = MESSAGE_BYTES_MAX - MESSAGE_OVERHEAD_BYTES;
    if config.limits.log.entry_bytes_max > entry_bytes_limit {
        return fault(format!(
            "entries of the log may have {entry_bytes_limit} bytes at most: lower `entry_bytes_max`"
        ));
    }
    let engine = cairn_engine::Options { dir: config.data_dir.clone(), ..config.engine.clone() };
    engine.validate().map_err(|error| StartError::Config(error.to_string()))
}

fn start_server(
    tasks: &mut JoinSet<()>,
    identity: Arc<Identity>,
    founders: BTreeSet<u64>,
    listener: std::net::TcpListener,
    stop: CancellationToken,
) -> Result<PeerServer, StartError> {
    let listening = listener.set_nonblocking(true).and_then(|()| tokio::net::TcpListener::from_std(listener));
    let listener = listening.map_err(|error| StartError::Config(format!("the peer port cannot be used: {error}")))?;
    let server = PeerServer {
        identity,
        membership: Arc::new(OnceLock::new()),
        core: Arc::new(OnceLock::new()),
        founders: Arc::new(founders),
        stop,
    };
    tasks.spawn(serve(server.clone(), listener));
    Ok(server)
}

/// What is there before the store is opened.
struct Parts {
    lock: Arc<DirLock>,
    identity: Arc<Identity>,
    peers: Arc<Peers>,
    keyring: Arc<Keyring>,
    environment: Environment,
    stop: CancellationToken,
}

type Started = (Arc<Core>, mpsc::Receiver<Submission>, mpsc::Receiver<Waiter>);

async fn start_core(
    parts: Parts,
    layout: &Layout,
    data_dir: &Path,
    timing: &Timing,
    limits: &Limits,
    engine: cairn_engine::Options,
) -> Result<Started, StartError> {
    let Parts { lock, identity, peers, keyring, environment, stop } = parts;
    let node_id = identity.node_id();
    let cluster_id = keyring.cluster_id();
    let (group_dir, log_dir, opening_keyring) = (layout.group.clone(), layout.log.clone(), Arc::clone(&keyring));
    let (log_limits, log_environment) = (limits.clone(), environment.log);
    let (log_lock, store_lock) = (Arc::clone(&lock), Arc::clone(&lock));
    let opened = blocking(move || {
        let first_start = !identity.log_created();
        let log_environment = wal::Environment { must_exist: !first_start, kept: Some(log_lock), ..log_environment };
        let seal = SealContext { keyring: Arc::clone(&opening_keyring), node_id, group: GROUP };
        let (log, recovered) = open_log(&log_dir, &log_limits, seal, log_environment)?;
        let generations = Generations::open(&group_dir, &engine, opening_keyring, first_start, Some(store_lock))?;
        let applied = generations.current().applied().log_id.map(|log_id| log_id.index);
        check_store(&log_dir, &group_dir, &recovered.summary, applied)?;
        let snapshots = SnapshotStore::open(group_dir.join("snapshots"))?;
        if first_start {
            identity.set_log_created()?;
        }
        let receiver = SnapshotReceiver::open(&group_dir)?;
        Ok((generations, snapshots, receiver, log))
    });
    let (generations, snapshots, receiver, log) = opened.await?;
    let wal = Arc::clone(log.wal());
    let shared = Arc::new(Shared::new(Arc::new(generations), snapshots, limits.clone()));
    let machine = StateMachine::new(Arc::clone(&shared)).map_err(StartError::io(data_dir))?;
    let network = NetworkFactory {
        peers: Arc::clone(&peers),
        keyring: Arc::clone(&keyring),
        shared: Arc::clone(&shared),
        timing: timing.clone(),
        limits: limits.clone(),
    };
    let raft_config = raft_config(&cluster_id.to_string(), timing, limits)?;
    let raft = Raft::new(node_id, Arc::new(raft_config), network, log, machine).await;
    let raft = raft.map_err(|error| start_failed(&shared, &error))?;
    let (proposals, submissions) = Proposals::new(limits);
    let (reads, waiters) = ReadGate::new();
    let core = Core {
        cluster_id,
        keyring,
        raft,
        wal,
        shared,
        stamper: Arc::new(Stamper::new(environment.clock, timing.clock_jump_max)),
        peers,
        proposals,
        reads,
        append_room: AppendRoom::new(limits.append_bytes_waiting_max),
        states: States::default(),
        receiver: Arc::new(Mutex::new(receiver)),
        data_dir: data_dir.to_path_buf(),
        bytes_free: environment.bytes_free,
        timing: timing.clone(),
        limits: limits.clone(),
        draining: AtomicBool::new(false),
        changing: tokio::sync::Mutex::default(),
        started_at: Instant::now(),
        stop,
        lock,
    };
    Ok((Arc::new(core), submissions, waiters))
}

/// The state machine knows better than openraft why it failed.
fn start_failed(shared: &Shared, error: &dyn std::fmt::Display) -> StartError {
    let reason = shared.fatal().borrow().clone();
    StartError::Raft(reason.unwrap_or_else(|| error.to_string()))
}

fn open_log(
    dir: &Path,
    limits: &Limits,
    seal: SealContext,
    environment: wal::Environment,
) -> Result<(LogStore, Recovered), StartError> {
    let opened = LogStore::open_in(dir, limits.log.clone(), seal, APPEND_BYTES_MAX, environment);
    opened.map_err(|error| match error {
        WalError::Missing { path } => {
            StartError::Damaged { path, reason: "the log is missing, and it had been made".to_string() }
        }
        error => StartError::Log(error_chain(&error)),
    })
}

/// Refuses a store and a log that are not each other's: one of them is older than the other, or was made anew. What a
/// purge took from the log must be in the store, and nothing is applied before this node has had a vote.
pub(crate) fn check_store(
    log_dir: &Path,
    group_dir: &Path,
    log: &Summary,
    applied: Option<u64>,
) -> Result<(), StartError> {
    if let (None, Some(applied)) = (&log.vote, applied) {
        let reason = format!("the log has never voted, but the store has applied index {applied}");
        return Err(StartError::Damaged { path: log_dir.to_path_buf(), reason });
    }
    match &log.purged {
        Some(purged) if applied.is_none_or(|applied| applied < purged.index) => {
            let applied = applied.map_or("nothing".to_string(), |applied| format!("up to index {applied}"));
            let reason = format!("the store has applied {applied}, but the log begins after index {}", purged.index);
            Err(StartError::Damaged { path: group_dir.to_path_buf(), reason })
        }
        _ => Ok(()),
    }
}

pub(crate) fn raft_config(cluster_name: &str, timing: &Timing, limits: &Limits) -> Result<Config, StartError> {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let config = Config {
        cluster_name: cluster_name.to_string(),
        heartbeat_interval: millis(timing.heartbeat),
        election_timeout_min: millis(timing.election_min),
        election_timeout_max: millis(timing.election_max),
        install_snapshot_timeout: millis(timing.snapshot_timeout),
        max_payload_entries: APPEND_ENTRIES_MAX,
        api_channel_size: Some(CORE_QUEUE),
        // A follower gets a snapshot only when the log no longer has what it needs.
        replication_lag_threshold: u64::MAX,
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        snapshot_max_chunk_size: limits.snapshot_chunk_bytes as u64,
        enable_pre_vote: Some(true),
        // Entries go to the followers while this node still syncs them: a leader that crashes may have lost what a majority
        // has. Were it to go on in the same term, it would give other entries the same ids.
        enable_leader_restore: Some(false),
        // A leader that only speaks and is not answered falls silent in turns, so that others may elect one.
        quorum_loss_probe_interval: Some(millis(timing.election_max) * 3),
        backoff: "50ms 100ms 200ms ...1s".to_string(),
        ..Config::default()
    };
    config.validate().map_err(|error| StartError::Config(format!("the timing does not fit: {error}")))
}

fn start_tasks(
    tasks: &mut JoinSet<()>,
    core: &Arc<Core>,
    submissions: mpsc::Receiver<Submission>,
    waiters: mpsc::Receiver<Waiter>,
) {
    tasks.spawn(for_life(core, "proposer", run_proposer(Arc::clone(core), submissions)));
    tasks.spawn(for_life(core, "read gate", run_gate(Arc::clone(core), waiters)));
    tasks.spawn(for_life(core, "reporter", run_reporter(Arc::clone(core))));
    tasks.spawn(for_life(core, "leader's duties", duties::run(Arc::clone(core))));
    tasks.spawn(for_life(core, "replication core", watch_core(Arc::clone(core))));
    let controller = run_controller(
        core.raft.clone(),
        Arc::clone(&core.shared),
        core.limits.clone(),
        core.timing.clone(),
        core.stop.clone(),
    );
    tasks.spawn(for_life(core, "snapshot controller", controller));
}

/// Runs a task that must live as long as the node: if it ends before, even by a panic, the node stops with a reason
/// instead of going on without it.
fn for_life<T>(core: &Arc<Core>, name: &'static str, task: T) -> impl Future<Output = ()> + Send + use<T>
where
    T: Future<Output = ()> + Send,
{
    struct Alarm(Arc<Core>, &'static str);
    impl Drop for Alarm {
        fn drop(&mut self) {
            if !self.0.stop.is_cancelled() {
                self.0.shared.stop_because(&format!("its {} has ended", self.1));
            }
        }
    }
    let alarm = Alarm(Arc::clone(core), name);
    async move {
        task.await;
        drop(alarm);
    }
}

/// Publishes it when openraft stops by itself, such as after an error of the log.
async fn watch_core(core: Arc<Core>) {
    let mut metrics = core.raft.metrics();
    loop {
        if let Err(fatal) = &metrics.borrow_and_update().running_state {
            if !core.stop.is_cancelled() {
                core.shared.stop_because(&fatal.to_string());
            }
            return;
        }
        tokio::select! {
            () = core.stop.cancelled() => return,
            changed = metrics.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

/// Gives a new cluster its first members. Only its founder does so; a second start finds it done.
async fn initialize(core: &Core, peers: &[Peer]) -> Result<(), StartError> {
    let initialized = core.raft.is_initialized().await.map_err(|error| start_failed(&core.shared, &error))?;
    if initialized {
        return Ok(());
    }
    let members: BTreeMap<u64, PeerNode> = peers
        .iter()
        .map(|peer| {
            let node =
                PeerNode { peer_address: peer.peer_address.clone(), client_address: peer.client_address.clone() };
            (peer.id, node)
        })
        .collect();
    match core.raft.initialize(members).await {
        // A peer may have been elected and have written to this log in the meantime.
        Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
        Err(error) => Err(start_failed(&core.shared, &error)),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StartError> + Send + 'static,
) -> Result<T, StartError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(StartError::Config(format!("the start has failed: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::wal::Purged;

    fn check(log: &Summary, applied: Option<u64>) -> Result<(), String> {
        check_store(Path::new("log"), Path::new("store"), log, applied).map_err(|error| error.to_string())
    }

    #[test]
    fn a_store_that_fits_its_log_is_taken() {
        let mut log = Summary::default();
        assert_eq!(check(&log, None), Ok(()));
        log.vote = Some(Bytes::from_static(b"vote"));
        assert_eq!(check(&log, None), Ok(()));
        assert_eq!(check(&log, Some(7)), Ok(()));
        log.purged = Some(Purged { index: 7, id: Bytes::new() });
        assert_eq!(check(&log, Some(7)), Ok(()));
    }

    #[test]
    fn a_log_that_was_made_anew_beside_a_store_is_refused() {
        let refused = check(&Summary::default(), Some(7)).unwrap_err();
        assert!(refused.starts_with("log is damaged (the log has never voted"), "{refused}");
    }

    #[test]
    fn a_store_that_lacks_what_the_log_has_purged_is_refused() {
        let vote = Some(Bytes::from_static(b"vote"));
        let log = Summary { vote, purged: Some(Purged { index: 7, id: Bytes::new() }), ..Summary::default() };
        for (applied, says) in [(Some(6), "up to index 6, but"), (None, "nothing, but")] {
            let refused = check(&log, applied).unwrap_err();
            assert!(refused.starts_with("store is damaged") && refused.contains(says), "{refused}");
            assert_eq!(refused.lines().count(), 1);
        }
    }
}
