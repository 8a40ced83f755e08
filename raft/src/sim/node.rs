//! A simulated node: the real log over a lying disk, the real engine, openraft, and what the node above them does.
//!
//! Proposals and read points follow the rules of `node/propose.rs` and `node/read.rs`, which speak gRPC and take tokio's
//! time, and so cannot run here themselves.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use cairn_engine::crypto::TenantId;
use cairn_engine::keyring::{Keyring, RootKey};
use cairn_engine::{Options, Position, Principal, ReadPoint};
use cairn_proto::storage;
use futures::{FutureExt, StreamExt};
use openraft::async_runtime::AsyncRuntime;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::impls::OneshotResponder;
use openraft::{LinearizerOption, ServerState};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::SimConfig;
use super::network::{Factory, call, still_follows};
use super::runtime::{Host, SimRuntime, executor, sleep};
use super::world::World;
use crate::clock::{Clock, PeerClocks, Stamper};
use crate::config::{Limits, Timing};
use crate::log_store::LogStore;
use crate::node::{check_store, raft_config};
use crate::snapshot::{SnapshotReceiver, SnapshotStore};
use crate::state_machine::{Generations, Shared, StateMachine};
use crate::types::{GROUP, LogCommand};
use crate::wal::tests::disk::BadDisk;
use crate::wal::{Environment, SealContext, Stepper, Wal, WalOptions};

/// Where the log lies on its disk.
const LOG_DIR: &str = "/wal";
/// The time at which simulations begin, in microseconds since 1970.
const BEGIN_MICROS: i64 = 1_800_000_000_000_000;
/// How far a wall clock may jump ahead.
pub(super) const JUMP_MAX: Duration = Duration::from_secs(300);

/// The clocks of a machine: the wall clock is off by some microseconds.
#[derive(Debug, Default)]
pub(super) struct SimClock(pub(super) AtomicI64);

impl Clock for SimClock {
    fn wall_micros(&self) -> i64 {
        BEGIN_MICROS + self.steady().as_micros() as i64 + self.0.load(Ordering::SeqCst)
    }

    fn steady(&self) -> Duration {
        executor().map_or(Duration::ZERO, |executor| executor.now())
    }
}

/// What survives a crash of a node.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) disk: BadDisk,
    pub(super) lives: u64,
    pub(super) clock: Arc<SimClock>,
}

/// One life of a node.
pub(super) struct SimNode {
    pub(super) id: u64,
    pub(super) host: Host,
    pub(super) raft: openraft::Raft<SimConfig, StateMachine>,
    pub(super) shared: Arc<Shared>,
    pub(super) keyring: Arc<Keyring>,
    pub(super) receiver: Arc<Mutex<SnapshotReceiver>>,
    pub(super) stamper: Stamper,
    proposing: tokio::sync::Mutex<()>,
    world: Arc<World>,
}

/// The writer of a node's log, moved on by its task.
pub(super) struct Writer {
    pub(super) stepper: Mutex<Stepper>,
    pub(super) called: Notify,
}

pub(super) fn alice() -> Principal {
    Principal::new(TenantId::DEFAULT, "alice")
}

pub(super) fn root_key() -> RootKey {
    RootKey::from_bytes(&[7; 32])
}

/// Small, so that segments, snapshots and purges come often.
pub(super) fn limits() -> Limits {
    let log = WalOptions { segment_bytes: 16 << 10, cache_bytes_max: 8 << 10, ..WalOptions::default() };
    Limits { snapshot_bytes: 6 << 10, apply_entries_max: 8, log, ..Limits::default() }
}

fn engine_options(dir: &Path) -> Options {
    let mut options = Options::new(dir);
    // Large enough that nothing is flushed but by those who ask for it.
    options.write_buffer_bytes = 4 << 20;
    options.block_cache_bytes = 1 << 20;
    options.background_threads = 1;
    options
}

impl SimNode {
    /// Starts the next life of a node from what its machine still has. Runs on the node's host.
    pub(super) async fn start(world: Arc<World>, host: Host) -> Result<(Arc<Self>, Arc<Writer>), String> {
        let Host(id, life) = host;
        let dir = world.life_dir(id, life);
        let keyring = Keyring::open(&world.keyring_path(id), &root_key()).map_err(|error| error.to_string())?;
        let keyring = Arc::new(keyring);
        let (disk, clock) = world.with_machine(id, |machine| (machine.disk.clone(), Arc::clone(&machine.clock)));
        let failing = Arc::clone(&world);
        let environment = Environment {
            file_system: Arc::new(disk),
            on_failure: Arc::new(move |_| failing.lose(host)),
            must_exist: life > 1,
            kept: None,
        };
        let seal = SealContext { keyring: Arc::clone(&keyring), node_id: id, group: GROUP };
        let opened = Wal::open_stepped(Path::new(LOG_DIR), limits().log, seal, environment);
        let (wal, recovered, stepper) = opened.map_err(|error| error.to_string())?;
        let log = LogStore::over(wal, &recovered.summary, Path::new(LOG_DIR), 64 << 10);
        let log = log.map_err(|error| error.to_string())?;
        let group_dir = dir.join("group-0");
        let generations = Generations::open(&group_dir, &engine_options(&dir), Arc::clone(&keyring), life == 1, None);
        let generations = generations.map_err(|error| error.to_string())?;
        let applied = generations.current().applied().log_id.map(|log_id| log_id.index);
        check_store(Path::new(LOG_DIR), &group_dir, &recovered.summary, applied).map_err(|error| error.to_string())?;
        let snapshots = SnapshotStore::open(group_dir.join("snapshots")).map_err(|error| error.to_string())?;
        let receiver = SnapshotReceiver::open(&group_dir).map_err(|error| error.to_string())?;
        let shared = Arc::new(Shared::new(Arc::new(generations), snapshots, limits()));
        let machine = StateMachine::new(Arc::clone(&shared)).map_err(|error| error.to_string())?;
        // The log is written from here on: openraft writes before it has started.
        let writer = Arc::new(Writer { stepper: Mutex::new(stepper), called: Notify::new() });
        world.set_writer(host, &writer);
        SimRuntime::spawn(write_log(Arc::clone(&world), host, Arc::clone(&writer)));
        let config = raft_config("simulated", &Timing::default(), &limits()).map_err(|error| error.to_string())?;
        let factory = Factory { world: Arc::clone(&world), node_id: id };
        let raft = openraft::Raft::new(id, Arc::new(config), factory, log, machine).await;
        let node = Self {
            id,
            host,
            raft: raft.map_err(|error| error.to_string())?,
            shared,
            keyring,
            receiver: Arc::new(Mutex::new(receiver)),
            stamper: Stamper::new(clock, JUMP_MAX),
            proposing: tokio::sync::Mutex::default(),
            world,
        };
        Ok((Arc::new(node), writer))
    }

    pub(super) fn world(&self) -> &World {
        &self.world
    }

    pub(super) fn leader_id(&self) -> Option<u64> {
        self.raft.metrics().borrow_watched().current_leader
    }

    /// As `Core::check_clock`; what peers say of the time comes without a delay here.
    fn check_clock(&self) -> Result<(), String> {
        let peers = || PeerClocks::Heard(self.world.latest_clock(self.id));
        self.stamper.compare(self.shared.stamp_micros(), peers).map_err(|fault| fault.to_string())
    }

    /// Whether this node has to leave the lead to others, as the real leader's duties have it.
    pub(super) fn has_wrong_clock(&self) -> bool {
        self.check_clock().is_err()
    }

    /// As the proposer: stamps and hands over in one order, only as a leader that has applied what others stamped.
    pub(super) async fn propose_here(
        &self,
        mut command: storage::Command,
    ) -> Result<(Position, storage::Outcome), String> {
        let answer = {
            let _turn = self.proposing.lock().await;
            self.await_leadership().await?;
            self.check_clock()?;
            let stamp = self.stamper.stamp(self.shared.stamp_micros());
            command.stamp_micros = stamp.map_err(|fault| fault.to_string())?;
            let (responder, answer) = OneshotResponder::new_pair();
            let written = self.raft.client_write_ff(LogCommand::new(&command), Some(responder)).await;
            written.map_err(|fatal| fatal.to_string())?;
            answer
        };
        let written = answer.await.map_err(|_| "replication has stopped")?.map_err(|error| error.to_string())?;
        Ok((Position::at(written.log_id.index), written.data.0.unwrap_or_default()))
    }

    async fn await_leadership(&self) -> Result<(), String> {
        let mut metrics = self.raft.metrics();
        let led = async {
            loop {
                {
                    let seen = metrics.borrow_and_update();
                    if seen.state != ServerState::Leader {
                        return Err("another node leads".to_string());
                    }
                    let applied = seen.last_applied.as_ref().map(|log_id| *log_id.committed_leader_id());
                    if applied.is_some_and(|leader| leader.term == seen.current_term && leader.node_id == self.id) {
                        return Ok(());
                    }
                }
                metrics.changed().await.map_err(|_| "replication has stopped".to_string())?;
            }
        };
        SimRuntime::timeout(Timing::default().election_max * 2, led).await.unwrap_or(Err("no majority".to_string()))
    }

    /// Has a command carried out by whichever node leads, again and again until it is or `time` is over.
    pub(super) async fn propose(
        self: Arc<Self>,
        command: storage::Command,
        time: Duration,
    ) -> Option<(Position, storage::Outcome)> {
        let until = self.world.executor.now() + time;
        loop {
            let left = until.checked_sub(self.world.executor.now()).filter(|left| !left.is_zero())?;
            let command = command.clone();
            let done = match self.leader_id() {
                Some(leader) if leader == self.id => {
                    let proposed = self.propose_here(command);
                    SimRuntime::timeout(left, proposed).await.ok().and_then(Result::ok)
                }
                Some(leader) => {
                    let propose = move |node: Arc<Self>| async move { node.propose_here(command).await.ok() }.boxed();
                    call(Arc::clone(&self.world), self.id, leader, left, "propose", propose).await.ok().flatten()
                }
                None => None,
            };
            match done {
                Some(done) => return Some(done),
                None => sleep(Timing::default().retry_interval).await,
            }
        }
    }

    /// As the round of a leader.
    async fn lead_round(self: Arc<Self>) -> Option<ReadPoint> {
        let vote = self.raft.metrics().borrow_watched().vote;
        let timing = Timing::default();
        let option = LinearizerOption::new(None, true).with_wait_timeout(timing.election_max);
        let index = self.raft.get_read_linearizer(option).await.ok()?.read_log_id().index();
        if !vote.committed || vote.leader_id.node_id != self.id {
            return None;
        }
        let membership = Arc::clone(&self.raft.metrics().borrow_watched().membership_config);
        let voters: Vec<u64> = membership.voter_ids().collect();
        let mut following = 1;
        let mut asked: futures::stream::FuturesUnordered<_> = voters
            .iter()
            .filter(|&&voter| voter != self.id)
            .map(|&voter| still_follows(Arc::clone(&self.world), self.id, voter, vote, timing.election_max))
            .collect();
        while following * 2 <= voters.len() {
            following += usize::from(asked.next().await?);
        }
        let _ = self.check_clock();
        Some(ReadPoint { index, time_micros: self.stamper.now(self.shared.stamp_micros()) })
    }

    /// A point for a linearizable read on this node, which has applied it; `None` when there is none in time.
    pub(super) async fn read_point(self: Arc<Self>, time: Duration) -> Option<ReadPoint> {
        let until = self.world.executor.now() + time;
        loop {
            let left = until.checked_sub(self.world.executor.now()).filter(|left| !left.is_zero())?;
            let point = match self.leader_id() {
                Some(leader) if leader == self.id => Arc::clone(&self).lead_round().await,
                Some(leader) => {
                    let round = |node: Arc<Self>| node.lead_round().boxed();
                    let answer = call(Arc::clone(&self.world), self.id, leader, left, "read index", round).await;
                    answer.unwrap_or(None)
                }
                None => None,
            };
            let Some(point) = point else {
                sleep(Timing::default().retry_interval).await;
                continue;
            };
            let mut progress = self.shared.progress();
            let applied = async move { progress.wait_for(|applied| *applied >= Some(point.index)).await.is_ok() };
            let left = until.saturating_sub(self.world.executor.now());
            return SimRuntime::timeout(left, applied).await.unwrap_or(false).then_some(point);
        }
    }
}

/// The thread of the log: a while after somebody wants a sync, it writes and syncs what is queued by then.
async fn write_log(world: Arc<World>, host: Host, writer: Arc<Writer>) {
    loop {
        writer.called.notified().await;
        let slow = world.disk_delay_max(host.0);
        sleep(world.executor.between(Duration::from_micros(20), slow)).await;
        writer.stepper.lock().step();
        world.executor.trace(&format_args!("{} has written its log", host.0));
        // Once in a while the disk is idle for long enough to write what needs no sync.
        if world.executor.below(4) == 0 {
            writer.stepper.lock().step();
        }
    }
}
