//! Members that come and go as an operator moves them: real processes, and the command line.

#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cairn_client::{Client, Memory, NewSpace, Query, Space};
use cairn_tests::{ClusterError, TestCluster, cairn_binary};
use tokio::task::JoinSet;

const PATIENCE: Duration = Duration::from_secs(60);
/// Less than the time that a node which stops gives to the calls that have begun: whoever waits on it must be told before.
const CALL_WITHIN: Duration = Duration::from_secs(25);
const DIMENSION: u32 = 8;
const WORKERS: u64 = 3;

/// Runs `cairn` against one node.
fn cairn(cluster: &TestCluster, through: u64, arguments: &[&str]) -> Output {
    let endpoint = cluster.node(through).endpoint();
    Command::new(cairn_binary())
        .args(arguments)
        .args(["--endpoint", &endpoint, "--timeout", "60s"])
        .env_remove("CAIRN_ENDPOINT")
        .output()
        .unwrap()
}

#[track_caller]
fn ok(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_is_replaced_from_the_command_line() {
    let mut cluster = TestCluster::start(3).await;
    let client = cluster.client();
    client.create_space(NewSpace::new("notes", 2)).await.unwrap();
    for number in 0..50 {
        client.space("notes").add(Memory::new(format!("note {number}")).vector(vec![1.0, 0.5])).await.unwrap();
    }
    cluster.kill(3).unwrap();
    let unasked = cairn(&cluster, 1, &["node", "remove", "3"]);
    assert_eq!(unasked.status.code(), Some(2), "nobody can be asked: {unasked:?}");
    let left = ok(&cairn(&cluster, 1, &["node", "remove", "3", "--yes"]));
    assert_eq!(left.lines().count(), 2, "{left}");

    let id = cluster.newcomer().unwrap();
    let (new, peer, grpc) = (id.to_string(), cluster.node(id).peer.to_string(), cluster.node(id).grpc.to_string());
    let early = cairn(&cluster, 1, &["node", "promote", &new]);
    assert_eq!(early.status.code(), Some(3), "it is no member yet: {early:?}");
    let added = ok(&cairn(&cluster, 1, &["node", "add", &new, "--peer", &peer, "--client", &grpc]));
    assert!(added.contains("learner"), "{added}");
    cluster.start_node(id).unwrap();
    let promoted = ok(&cairn(&cluster, 2, &["node", "promote", &new, "--wait", "60s"]));
    assert!(promoted.contains("voter"), "{promoted}");
    cluster.wait_until_ready().await.unwrap();
    assert_eq!(cluster.client_of(id).space("notes").count().await.unwrap().count, 50);

    let leads = ok(&cairn(&cluster, 1, &["node", "transfer-leader", &new]));
    assert_eq!(leads, format!("node {new} leads\n"));
    let drained = ok(&cairn(&cluster, 2, &["node", "drain", &new]));
    assert!(drained.contains("drained"), "{drained}");
    ok(&cairn(&cluster, 2, &["node", "drain", &new, "--undo"]));
    let listed = ok(&cairn(&cluster, 1, &["node", "ls"]));
    assert_eq!(listed.lines().count(), 3, "{listed}");

    // The dead node returns, with its disk, and is told why it may not.
    cluster.start_node(3).unwrap();
    let refused = cluster.wait_until_ready().await.unwrap_err();
    assert!(
        matches!(&refused, ClusterError::Ended { node: 3, log, .. } if log.contains("removed from its cluster")),
        "{refused}"
    );
    cluster.wait_until_equal().await;
}

/// Clients that write, read and search until they are told to stop. They know every address that there will be, and retry as
/// the SDK does by itself; beyond that no call may fail.
struct Load {
    is_over: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    workers: JoinSet<u64>,
}

impl Load {
    fn begin(endpoints: &[String]) -> Self {
        let mut load = Self { is_over: Arc::default(), rounds: Arc::default(), workers: JoinSet::new() };
        for worker in 0..WORKERS {
            let client = Client::builder().endpoints(endpoints.to_vec()).deadline(CALL_WITHIN).build().unwrap();
            let (is_over, rounds) = (Arc::clone(&load.is_over), Arc::clone(&load.rounds));
            load.workers.spawn(async move {
                let mut written = 0;
                while !is_over.load(Ordering::Relaxed) {
                    work(&client.space("notes"), worker, written).await;
                    written += 1;
                    rounds.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                written
            });
        }
        load
    }

    /// Waits until every worker has gone on for a while.
    async fn some_more(&self) {
        let (begun, before) = (Instant::now(), self.rounds.load(Ordering::Relaxed));
        while self.rounds.load(Ordering::Relaxed) < before + 5 * WORKERS {
            assert!(begun.elapsed() < PATIENCE, "the clients get no further");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends it; how many memories were written.
    async fn end(mut self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        let mut written = 0;
        while let Some(worker) = self.workers.join_next().await {
            written += worker.unwrap();
        }
        written
    }
}

/// A direction of its own for each memory.
fn vector(worker: u64, number: u64) -> Vec<f32> {
    let seed = (worker * 100_000 + number) as u32;
    let mixed = |place: u32| (seed ^ place.wrapping_mul(0x85eb_ca6b)).wrapping_mul(0xc2b2_ae35);
    (1..=DIMENSION).map(|place| (mixed(place) >> 16) as f32 - 32_768.0).collect()
}

/// Adds a memory, and reads and finds it at once, on whichever node answers.
async fn work(space: &Space, worker: u64, number: u64) {
    let (id, vector) = (format!("w{worker}-{number}"), vector(worker, number));
    space.add(Memory::new(format!("note {id}")).id(&id).vector(vector.clone())).await.unwrap();
    let read = space.get([&id]).await.unwrap();
    assert_eq!(read.memories.len(), 1, "{id} is not there");
    let found = space.search(Query::vector(vector)).exact(true).limit(3).await.unwrap();
    assert_eq!(found.hits.first().map(|hit| hit.memory.id.as_str()), Some(id.as_str()), "{id} is not found first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_grows_to_five_and_shrinks_to_three_without_a_failed_call() {
    let mut cluster = TestCluster::start(1).await;
    cluster.client().create_space(NewSpace::new("notes", DIMENSION)).await.unwrap();
    let newcomers: Vec<u64> = (2..=5).map(|_| cluster.newcomer().unwrap()).collect();
    let load = Load::begin(&cluster.endpoints());
    load.some_more().await;

    for id in newcomers {
        let through = id - 1;
        let (new, peer, grpc) = (id.to_string(), cluster.node(id).peer.to_string(), cluster.node(id).grpc.to_string());
        ok(&cairn(&cluster, through, &["node", "add", &new, "--peer", &peer, "--client", &grpc]));
        cluster.start_node(id).unwrap();
        ok(&cairn(&cluster, through, &["node", "promote", &new, "--wait", "60s"]));
        cluster.wait_until_ready().await.unwrap();
        load.some_more().await;
    }
    let listed = ok(&cairn(&cluster, 3, &["node", "ls"]));
    assert_eq!(listed.lines().count(), 5, "{listed}");

    // The leader among them: it hands over first.
    for id in ["1", "2"] {
        ok(&cairn(&cluster, 5, &["node", "remove", id, "--yes"]));
        load.some_more().await;
    }
    let written = load.end().await;
    let listed = ok(&cairn(&cluster, 4, &["node", "ls"]));
    assert_eq!(listed.lines().count(), 3, "{listed}");
    for id in [1, 2] {
        cluster.kill(id).unwrap();
    }
    for id in 3..=5 {
        assert_eq!(cluster.client_of(id).space("notes").count().await.unwrap().count, written, "what node {id} counts");
    }
    cluster.wait_until_equal().await;
}
