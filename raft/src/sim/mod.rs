//! Clusters in a simulation: one thread, one seed, the same run for the same seed.
//!
//! ```text
//!   clients ──▶ nodes: openraft ─▶ log store ─▶ WAL writer, step by step ─▶ a disk that loses and tears what is not synced
//!      │          │        └────▶ state machine, step by step ─▶ engine ─▶ RocksDB, whose buffers a crash drops
//!      │          └─ network: delays, losses, cuts; snapshots through the real receiver
//!      └─ history ─▶ stateright's LinearizabilityTester, memory by memory
//! ```
//!
//! What is real: openraft's core, the log down to its file system, the engine, snapshots, purges, the clock's rules. What
//! is not: tonic, and the tasks of `node` that speak through it, whose rules `node.rs` follows here; see decision 0022.
//!
//! `CAIRN_SIM_SEEDS` says how many seeds are run (`make sim SEEDS=n`), `CAIRN_SIM_SEED` runs a single one and prints what
//! happens in it.
//!
//! | file | what |
//! |---|---|
//! | `runtime` | the scheduler and the clock, as openraft's runtime |
//! | `network` | messages between nodes |
//! | `node` | a node over its machine |
//! | `world` | machines, crashes, what is known of all nodes |
//! | `faults` | what goes wrong |
//! | `clients` | calls, and the checks at the end |

mod clients;
mod faults;
#[path = "../../../tests/chaos/history.rs"]
mod history;
mod network;
mod node;
mod runtime;
mod world;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use cairn_engine::crypto::TenantId;
use openraft::RaftTypeConfig;
use openraft::async_runtime::watch::WatchReceiver;

use self::history::{History, Op};
use self::node::SimNode;
use self::runtime::{Entered, SimRuntime, sleep};
use self::world::World;
pub(crate) use self::world::copy_as_it_is;
use crate::types::{Entry, EntryPayload, LogCommand, PeerNode, Response, TypeConfig, Vote};

/// The time of a simulation during which things break.
const TROUBLE: Duration = Duration::from_secs(20);
/// How long it may take until all is well afterwards.
const PATIENCE: Duration = Duration::from_secs(120);
/// Steps of the scheduler that no simulation needs.
const POLLS_MAX: u64 = 20_000_000;
const CLIENTS: u64 = 4;

/// openraft, instantiated for simulations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct SimConfig;

impl RaftTypeConfig for SimConfig {
    type D = LogCommand;
    type R = Response;
    type NodeId = u64;
    type Node = PeerNode;
    type Term = u64;
    type LeaderId = <TypeConfig as RaftTypeConfig>::LeaderId;
    type Vote = Vote;
    type Payload = EntryPayload;
    type Entry = Entry;
    type Responder<T>
        = openraft::impls::OneshotResponder<Self, T>
    where
        T: Send + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: Send + 'static;
    type AsyncRuntime = SimRuntime;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

thread_local! {
    static WORLD: std::cell::RefCell<Option<Arc<World>>> = const { std::cell::RefCell::new(None) };
}

/// Whether this thread is a simulation, so that what blocks is done at once.
pub(crate) fn is_running() -> bool {
    runtime::executor().is_some()
}

/// What a simulated node does before it applies entries: time passes, and everyone compares notes.
pub(crate) async fn before_apply(entries: &[Entry]) {
    let Some(world) = WORLD.with_borrow(Clone::clone) else { return };
    let slow = if world.executor.below(20) == 0 { Duration::from_millis(80) } else { Duration::from_millis(1) };
    sleep(world.executor.between(Duration::ZERO, slow)).await;
    let host = world.executor.current_host();
    world.note_applied(host.0, entries);
}

/// What a simulation was like.
#[derive(Debug)]
struct Report {
    trace_hash: u64,
    answered: u64,
    counts: BTreeMap<&'static str, u64>,
    violations: Vec<String>,
    lines: Vec<String>,
}

/// Runs the simulation that follows from a seed.
fn simulate(seed: u64, keeps_lines: bool) -> Report {
    let entered = Entered::new(seed, keeps_lines);
    let executor = Arc::clone(entered.executor());
    let world = World::new(&executor, 3);
    WORLD.set(Some(Arc::clone(&world)));
    let history = Arc::new(History::default());
    let run = std::panic::catch_unwind(AssertUnwindSafe(|| {
        executor.run(POLLS_MAX, live(Arc::clone(&world), Arc::clone(&history)));
        world.end();
    }));
    if let Err(panic) = run {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_string()));
        world.violate(text.unwrap_or_else(|| "a panic".to_string()));
    }
    let checked = history.check();
    let report = Report {
        trace_hash: executor.trace_hash(),
        answered: checked.answered,
        counts: world.counts(),
        violations: world.violations().into_iter().chain(checked.violations).collect(),
        lines: executor.trace_lines(),
    };
    WORLD.set(None);
    drop(entered);
    report
}

/// The life of a cluster: it is formed, things break, they are mended, and all nodes must be the same and complete.
async fn live(world: Arc<World>, history: Arc<History>) {
    form(&world).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let executor = Arc::clone(&world.executor);
    executor.spawn_on(runtime::OUTSIDE, faults::restart(Arc::clone(&world)));
    let mut working = Vec::new();
    for _ in 0..CLIENTS {
        let work = clients::work(Arc::clone(&world), Arc::clone(&history), Arc::clone(&is_over));
        working.push(executor.spawn_on(runtime::OUTSIDE, work));
    }
    let (machines, network) = (Arc::clone(&world), Arc::clone(&world));
    let house = faults::keep_house(Arc::clone(&world), Arc::clone(&is_over));
    executor.spawn_on(runtime::OUTSIDE, house);
    let breaking = [
        executor.spawn_on(runtime::OUTSIDE, faults::break_machines(machines, Arc::clone(&is_over))),
        executor.spawn_on(runtime::OUTSIDE, faults::break_network(network, Arc::clone(&is_over))),
    ];
    sleep(TROUBLE).await;
    is_over.store(true, Ordering::Relaxed);
    for task in working.into_iter().chain(breaking) {
        // Nobody crashes the outside.
        let _ = task.await;
    }
    world.executor.trace(&"all is mended");
    settle(&world, &history).await;
}

/// Starts all nodes, and makes a cluster of them with a tenant and a space.
async fn form(world: &Arc<World>) {
    world.ids().into_iter().for_each(|id| world.start(id));
    let node = await_node(world, 1).await;
    let members: BTreeMap<u64, PeerNode> = world.ids().into_iter().map(|id| (id, PeerNode::default())).collect();
    let raft = node.raft.clone();
    let initialized = world.executor.spawn_on(node.host, async move { raft.initialize(members).await.is_ok() });
    assert!(initialized.await.unwrap(), "the cluster cannot be made");
    let tenant = node.shared.generations.current().prepare_create_tenant(TenantId::DEFAULT, "default").unwrap();
    propose(world, &node, tenant).await;
    while node.shared.generations.current().prepare(&node::alice(), clients::space()).is_err() {
        sleep(Duration::from_millis(20)).await;
    }
    let space = node.shared.generations.current().prepare(&node::alice(), clients::space()).unwrap();
    propose(world, &node, space).await;
}

async fn propose(world: &World, node: &Arc<SimNode>, command: cairn_proto::storage::Command) {
    let proposing = Arc::clone(node).propose(command, PATIENCE);
    let proposed = world.executor.spawn_on(node.host, proposing).await;
    assert!(proposed.is_ok_and(|proposed| proposed.is_some()), "a healthy cluster takes no write");
}

async fn await_node(world: &World, id: u64) -> Arc<SimNode> {
    let until = world.executor.now() + PATIENCE;
    loop {
        if let Some(node) = world.node(id) {
            return node;
        }
        assert!(world.executor.now() < until, "node {id} never starts: {:?}", world.violations());
        sleep(Duration::from_millis(20)).await;
    }
}

/// Everything is mended: every node must come back, answer, and hold the same.
async fn settle(world: &Arc<World>, history: &Arc<History>) {
    world.network.lock().mend();
    // Power cuts that were due have come, or do not come any more.
    sleep(Duration::from_secs(3)).await;
    for id in world.ids() {
        world.with_machine(id, |machine| machine.disk.cut_power_at(u64::MAX));
        if !world.is_alive(id) {
            world.start(id);
        }
    }
    let mut present: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for id in world.ids() {
        await_node(world, id).await;
        let until = world.executor.now() + PATIENCE;
        for key in history.keys() {
            while !clients::call(world, history, id, &key, &Op::Read).await {
                assert!(world.executor.now() < until, "node {id} does not answer any more");
                sleep(Duration::from_millis(50)).await;
            }
            if history.last_read(&key).is_some() {
                present.entry(id).or_default().push(key);
            }
        }
    }
    await_equality(world).await;
    for (id, present) in present {
        let node = await_node(world, id).await;
        let reading = Arc::clone(&node);
        let point = world.executor.spawn_on(node.host, reading.read_point(PATIENCE)).await.ok().flatten();
        match point {
            Some(point) => clients::check_completeness(&node, &present, &point),
            None => world.violate(format!("node {id} has no point to read at")),
        }
    }
}

/// Waits until all nodes have applied the same, and compares their digests.
async fn await_equality(world: &World) {
    let until = world.executor.now() + PATIENCE;
    loop {
        let states: Vec<_> = world.nodes().iter().map(|node| node.shared.generations.current().applied()).collect();
        if states.iter().all(|state| state.log_id == states[0].log_id) {
            if states.iter().any(|state| state.digest != states[0].digest) {
                world.violate("the nodes have applied the same and hold different states".to_string());
            }
            return;
        }
        assert!(world.executor.now() < until, "the nodes never apply the same");
        sleep(Duration::from_millis(50)).await;
    }
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs seeds on two threads and returns what failed.
fn run_seeds(first: u64, count: u64) -> (u64, BTreeMap<&'static str, u64>, Vec<String>) {
    let next = AtomicU64::new(first);
    let results = parking_lot::Mutex::new((0, BTreeMap::new(), Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    let report = simulate(seed, false);
                    let mut results = results.lock();
                    results.0 += report.answered;
                    for (what, times) in report.counts {
                        *results.1.entry(what).or_default() += times;
                    }
                    if !report.violations.is_empty() {
                        let what = report.violations.join("\n");
                        let again = "make sim SEED=";
                        results.2.push(format!("seed {seed} fails; to run it again: {again}{seed}\n{what}"));
                    }
                }
            });
        }
    });
    results.into_inner()
}

#[test]
fn clusters_keep_their_promises_whatever_happens() {
    if let Some(seed) = from_environment("CAIRN_SIM_SEED") {
        let report = simulate(seed, true);
        println!("{}", report.lines.join("\n"));
        assert!(report.violations.is_empty(), "seed {seed}:\n{}", report.violations.join("\n"));
        return;
    }
    let count = from_environment("CAIRN_SIM_SEEDS").unwrap_or(16);
    let first = from_environment("CAIRN_SIM_FIRST").unwrap_or(1);
    let (answered, counts, failed) = run_seeds(first, count);
    println!("{count} seeds from {first}: {answered} calls answered, {} seeds failed; {counts:?}", failed.len());
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
    assert!(answered > count * 40, "hardly anything was done");
}

/// As long as a machine may well stand still for, by a slow sync or a busy neighbour.
const STALL: Duration = Duration::from_millis(400);

/// The terms before and after each node in turn stood still for a moment.
async fn stall(world: Arc<World>) -> (Option<u64>, Option<u64>) {
    form(&world).await;
    sleep(Duration::from_secs(2)).await;
    let term = |world: &World| world.nodes().iter().map(|node| node.raft.metrics().borrow_watched().current_term).max();
    let before = term(&world);
    for node in world.nodes() {
        world.executor.pause(node.host, true);
        sleep(STALL).await;
        world.executor.pause(node.host, false);
        sleep(Duration::from_secs(2)).await;
    }
    (before, term(&world))
}

#[test]
fn a_node_that_stands_still_for_a_moment_costs_no_election() {
    for seed in 1..=5 {
        let entered = Entered::new(seed, false);
        let world = World::new(entered.executor(), 3);
        let (before, after) = entered.executor().run(POLLS_MAX, stall(Arc::clone(&world)));
        world.end();
        assert_eq!(before, after, "seed {seed}");
    }
}

#[test]
fn a_seed_always_leads_to_the_same_run() {
    let (first, second, other) = (simulate(7, true), simulate(7, true), simulate(8, false));
    let differ = first.lines.iter().zip(&second.lines).position(|(first, second)| first != second);
    let at = differ.map(|at| (&first.lines[at.saturating_sub(3)..=at], &second.lines[at.saturating_sub(3)..=at]));
    assert_eq!(at, None);
    assert_eq!(first.trace_hash, second.trace_hash);
    assert_ne!(first.trace_hash, other.trace_hash);
}
