//! Real processes under faults, three and now and then a fourth, and clients that write down every call: the history of each memory must be linearizable,
//! no list and no search may tell of what was never written, and after all faults every node must hold the same.
//!
//! ```text
//!   clients ──calls──▶ nodes ──network──▶ nodes        faults: kill, pause, cut, one-way cut, silence, delay or loss, transfer,
//!      └─history─▶ stateright's LinearizabilityTester, memory by memory            members that come and go, snapshots for one
//!                                                                                  that was away for too long
//! ```
//!
//! `CAIRN_CHAOS_SECONDS` says how long; without it the run is short. `CAIRN_CHAOS_SEED` repeats the order of the faults, as
//! far as processes allow. `make chaos MINUTES=30` runs it.
//!
//! | file | holds |
//! |---|---|
//! | `history.rs` | what clients saw, and its check |
//! | `network.rs` | what lies between the nodes, and how it is harmed |
//! | `looks.rs` | what lists and searches may tell of |

#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod history;
mod looks;
mod network;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cairn_client::proto::NodeState;
use cairn_client::{Client, ErrorKind, Memory, NewSpace, Query, RetryPolicy};
use cairn_tests::TestCluster;
use futures::TryStreamExt;
use rustix::process::{Pid, Signal, kill_process};
use tokio::task::JoinSet;

use history::{History, Op, Ret};
use looks::Looks;
use network::Network;

const NODES: u64 = 3;
const WORKERS: u64 = 6;
const SPACE: &str = "register";
/// Memories that are in use at one time.
const KEYS: u64 = 4;
/// Calls to one memory, about: the search for an order grows quickly with them.
const CALLS_PER_KEY: u64 = 24;
/// Memories that a list or a search asks for.
const LOOKED_AT: u32 = 100;
const CALL_WITHIN: Duration = Duration::from_secs(3);
/// The log is given up soon, so that a node which was away needs a snapshot.
const SETTINGS: &str = "raft: { snapshot_interval: 2s }\n";
/// Long enough for any change of members on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Numbers that depend on the seed only.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % limit
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_under_faults_are_linearizable() {
    let seconds = from_environment("CAIRN_CHAOS_SECONDS").unwrap_or(15);
    let seed = from_environment("CAIRN_CHAOS_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("chaos for {seconds} s, CAIRN_CHAOS_SEED={seed}");
    let (mut cluster, network) = networked_cluster().await;
    cluster.client().create_space(NewSpace::new(SPACE, 2)).await.unwrap();

    let (history, looks) = (Arc::new(History::default()), Arc::new(Looks::default()));
    let is_over = Arc::new(AtomicBool::new(false));
    let mut workers = JoinSet::new();
    for number in 0..WORKERS {
        let clients = (1..=NODES).map(|id| client_of(&cluster, id)).collect();
        workers.spawn(work(number, clients, Arc::clone(&history), Arc::clone(&looks), Arc::clone(&is_over)));
    }
    let faults = faults_for(Duration::from_secs(seconds), Dice(seed | 1), &mut cluster, &network).await;
    is_over.store(true, Ordering::Relaxed);
    while let Some(worker) = workers.join_next().await {
        worker.unwrap();
    }

    cluster.wait_until_ready().await.unwrap();
    read_all(&cluster, &history).await;
    cluster.wait_until_equal().await;
    check_completeness(&cluster, &history).await;
    let checked = history.check();
    println!("{checked}; {} lists and searches; faults: {faults:?}", looks.answered());
    assert!(checked.violations.is_empty(), "not linearizable:\n{}", checked.violations.join("\n\n"));
    assert!(checked.answered > seconds * 5, "hardly anything was done: {checked}");
    assert!(looks.answered() > 0, "nothing was listed or searched for");
}

/// A cluster whose nodes reach each other through a [`Network`].
async fn networked_cluster() -> (TestCluster, Network) {
    let mut cluster = TestCluster::new(NODES);
    let network = Network::between(&mut cluster).await;
    for id in 1..=NODES {
        let path = cluster.directory().join(format!("node-{id}.yaml"));
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text + SETTINGS).unwrap();
        cluster.start_node(id).unwrap();
    }
    cluster.wait_until_ready().await.unwrap();
    (cluster, network)
}

fn client_of(cluster: &TestCluster, id: u64) -> Client {
    // No retries beyond the ones of the node: an answer that was lost is kept as one that was lost.
    let retry = RetryPolicy { unreachable_max: 1, ..RetryPolicy::default() };
    Client::builder().endpoints([cluster.node(id).endpoint()]).deadline(CALL_WITHIN).retry(retry).build().unwrap()
}

/// Calls one node after the other, until the end.
async fn work(number: u64, clients: Vec<Client>, history: Arc<History>, looks: Arc<Looks>, is_over: Arc<AtomicBool>) {
    let mut dice = Dice(number * 0x9E37_79B9 + 1);
    while !is_over.load(Ordering::Relaxed) {
        let client = &clients[dice.below(NODES) as usize];
        if dice.below(8) == 0 {
            look(client, &looks, dice.below(3)).await;
            continue;
        }
        let key = history.next_key(KEYS, CALLS_PER_KEY, dice.below(KEYS));
        let op = match dice.below(10) {
            0..4 => Op::Write(history.next_value()),
            4 => Op::Delete,
            _ => Op::Read,
        };
        if let Op::Write(value) = op {
            looks.ask_for(&key, value);
        }
        call(client, &history, key, op).await;
        tokio::time::sleep(dice.millis(1, 20)).await;
    }
}

/// One call, written down before it is sent and when it is answered. Without an answer nobody knows what became of it.
async fn call(client: &Client, history: &History, key: String, op: Op) {
    let number = history.invoke(&key, &op);
    let space = client.space(SPACE);
    let answer = match &op {
        Op::Write(value) => {
            let memory = Memory::new(value.to_string()).id(&key).vector(vec![1.0, *value as f32 + 1.0]);
            space.add(memory).await.map(|_| Ret::Written)
        }
        Op::Delete => space.delete([&key]).await.map(|deleted| Ret::Deleted(deleted.count == 1)),
        Op::Read => space
            .get([&key])
            .await
            .map(|found| Ret::Value(found.memories.first().map(|memory| memory.content.parse().unwrap()))),
    };
    match answer {
        Ok(answer) => history.answer(number, &key, answer),
        Err(error) => {
            bear(&error).await;
            history.lose(&op);
        }
    }
}

/// Waits a moment after an error that faults explain; no other may come.
async fn bear(error: &cairn_client::Error) {
    let expected = [ErrorKind::Unavailable, ErrorKind::DeadlineExceeded, ErrorKind::Overloaded];
    assert!(expected.contains(&error.kind()), "{error:?}");
    tokio::time::sleep(Duration::from_millis(50)).await;
}

/// A list or a search of one of two sorts: whatever comes was written at some time, under that id. Whether all of it comes is
/// asked in the end, when nobody writes.
async fn look(client: &Client, looks: &Looks, way: u64) {
    let space = client.space(SPACE);
    let search = |exact| space.search(Query::vector(vec![1.0, 1.0])).exact(exact).limit(LOOKED_AT);
    let memories = match way {
        0 => space.list().page_size(LOOKED_AT).await.map(|page| page.memories),
        way => search(way == 1).await.map(|found| found.hits.into_iter().map(|hit| hit.memory).collect()),
    };
    match memories {
        Ok(memories) => looks.see(memories.iter().map(|memory| (&*memory.id, &*memory.content))),
        Err(error) => bear(&error).await,
    }
}

/// Has every node read every memory, as calls of the history.
async fn read_all(cluster: &TestCluster, history: &History) {
    for id in 1..=NODES {
        let client = client_of(cluster, id);
        for key in history.keys() {
            call(&client, history, key, Op::Read).await;
        }
    }
}

/// Every node lists, counts and finds exactly the memories that were there when they were read last.
async fn check_completeness(cluster: &TestCluster, history: &History) {
    let present: BTreeSet<String> = history.keys().into_iter().filter(|key| history.last_read(key).is_some()).collect();
    for id in 1..=NODES {
        let space = client_of(cluster, id).space(SPACE);
        let listed = space.list().page_size(1000).stream().map_ok(|memory| memory.id);
        let listed: BTreeSet<String> = listed.try_collect().await.unwrap();
        assert_eq!(listed, present, "what node {id} lists");
        assert_eq!(space.count().await.unwrap().count, present.len() as u64, "what node {id} counts");
        let found = space.search(cairn_client::Vector::from(vec![1.0, 1.0])).exact(true).limit(1000).await.unwrap();
        let found: BTreeSet<String> = found.hits.into_iter().map(|hit| hit.memory.id).collect();
        assert!(found.is_subset(&present) && found.len() == present.len().min(1000), "node {id} finds {found:?}");
    }
}

/// Breaks things and mends them again, for some time; returns how often which.
async fn faults_for(
    time: Duration,
    mut dice: Dice,
    cluster: &mut TestCluster,
    network: &Network,
) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::new();
    // Once in any case, however short the run.
    install_a_snapshot(cluster, 1 + dice.below(NODES)).await;
    counts.insert("snapshot install", 1);
    let until = Instant::now() + time;
    while Instant::now() < until {
        tokio::time::sleep(dice.millis(200, 1_500)).await;
        let node = 1 + dice.below(NODES);
        let other = 1 + (node + dice.below(NODES - 1)) % NODES;
        let lasting = dice.millis(300, 3_000);
        let name = match dice.below(11) {
            0 | 1 => {
                cluster.kill(node).unwrap();
                tokio::time::sleep(lasting / 2).await;
                cluster.start_node(node).unwrap();
                "kill"
            }
            2 => {
                signal(cluster, node, Signal::STOP);
                tokio::time::sleep(lasting).await;
                signal(cluster, node, Signal::CONT);
                "pause"
            }
            fault @ 3..8 => harm(network, &mut dice, fault, node, other),
            8 => {
                install_a_snapshot(cluster, node).await;
                "snapshot install"
            }
            9 => {
                come_and_go(cluster, network, node, lasting).await;
                "member come and gone"
            }
            _ => {
                // It may well be refused, as when there is no leader.
                let _ = client_of(cluster, node).transfer_leadership(Some(other)).await;
                "transfer"
            }
        };
        if network.is_harmed() {
            tokio::time::sleep(lasting).await;
            network.mend();
        }
        *counts.entry(name).or_default() += 1;
    }
    counts
}

/// Harms the network until it is mended.
fn harm(network: &Network, dice: &mut Dice, fault: u64, node: u64, other: u64) -> &'static str {
    match fault {
        3 => {
            network.cut_off(node);
            "isolation"
        }
        4 => {
            network.cut(node, other);
            "one-way cut"
        }
        5 => {
            network.cut(node, other);
            network.cut(other, node);
            "bridge"
        }
        6 => {
            network.silence(node, other);
            "silence"
        }
        _ => network.impair(dice.millis(5, 150)),
    }
}

/// A node stays away until the others have given up the log that it would need, and comes back under traffic: only a snapshot
/// helps it. It must take one, and be ready again.
async fn install_a_snapshot(cluster: &mut TestCluster, node: u64) {
    cluster.kill(node).unwrap();
    let others: Vec<u64> = (1..=NODES).filter(|id| *id != node).collect();
    let mut last = 0;
    for id in &others {
        last = last.max(own_state(cluster, *id).await.last_log_index);
    }
    let until = Instant::now() + PATIENCE;
    // The entry after `last` must be gone too: with `last` itself the node has what the others' log begins behind.
    for id in &others {
        while own_state(cluster, *id).await.first_log_index <= last + 1 {
            assert!(Instant::now() < until, "node {id} never gives up its log behind {last}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    cluster.start_node(node).unwrap();
    cluster.wait_until_ready().await.unwrap();
    // The metrics are of the last look at the node, a moment ago.
    let has_come = async || {
        let bytes = cluster.node(node).metric("cairn_snapshot_received_bytes_total").await;
        bytes.is_some_and(|bytes| bytes > 0.0)
    };
    while !has_come().await {
        assert!(Instant::now() < until, "node {node} caught up without a snapshot");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What a running node says of itself, as soon as it answers.
async fn own_state(cluster: &TestCluster, id: u64) -> NodeState {
    cluster.node(id).state(PATIENCE).await.unwrap()
}

/// A new node joins, gets a vote, serves for a while and leaves. Nothing else is broken meanwhile, so all of it must succeed.
async fn come_and_go(cluster: &mut TestCluster, network: &Network, through: u64, lasting: Duration) {
    let id = cluster.newcomer().unwrap();
    network.let_in(cluster, id);
    let (peer, grpc) = (cluster.node(id).peer.to_string(), cluster.node(id).grpc.to_string());
    let client = Client::builder().endpoints([cluster.node(through).endpoint()]).deadline(PATIENCE).build().unwrap();
    client.add_member(id, peer, grpc).await.unwrap();
    cluster.start_node(id).unwrap();
    let until = Instant::now() + PATIENCE;
    while let Err(error) = client.promote_member(id).await {
        let is_behind = error.reason() == Some("NODE_NOT_CAUGHT_UP");
        assert!(is_behind && Instant::now() < until, "node {id} gets no vote: {error:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(lasting).await;
    client.remove_member(id).await.unwrap();
    cluster.kill(id).unwrap();
}

fn signal(cluster: &TestCluster, id: u64, signal: Signal) {
    let process = cluster.node(id).process_id().and_then(|process| Pid::from_raw(process as i32));
    kill_process(process.unwrap(), signal).unwrap();
}
