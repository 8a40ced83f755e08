//! Nodes whose clock jumps and whose disk is full.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use cairn_engine::WriteRequest;
use cairn_proto::v1;
use cairn_raft::{Clock, Environment, Node, NodeConfig, ProposeError, ReadLevel, SystemClock};

use crate::disks::Trouble;
use crate::support::{
    Cluster, PATIENCE, SPACE, count, eventually, in_time, memory, ready, release, space, try_write, write,
};

/// The machine's clock, ahead by some microseconds.
#[derive(Default)]
pub(crate) struct Ahead(AtomicI64);

impl Ahead {
    pub(crate) fn set(&self, micros: i64) {
        self.0.store(micros, Ordering::SeqCst);
    }
}

/// Starts all nodes of `cluster`, each with a clock that can be set, and waits until they are ready.
pub(crate) async fn start_with_clocks(cluster: &mut Cluster) -> Vec<Arc<Ahead>> {
    let clocks: Vec<Arc<Ahead>> = cluster.ids().iter().map(|_| Arc::default()).collect();
    let start = |config: NodeConfig| {
        let clock = Arc::clone(&clocks[config.node_id as usize - 1]);
        Node::start_in(config, Environment { clock, ..Environment::default() })
    };
    cluster.start_all_as(start).await;
    clocks
}

impl Clock for Ahead {
    fn wall_micros(&self) -> i64 {
        SystemClock.wall_micros() + self.0.load(Ordering::SeqCst)
    }

    fn steady(&self) -> Duration {
        SystemClock.steady()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_clock_jumps_hands_over() {
    let mut cluster = Cluster::of(3);
    let clocks = start_with_clocks(&mut cluster).await;
    write(cluster.node(1), space()).await;
    let leader = cluster.leader().await;
    let left = cluster.node(leader % 3 + 1);
    clocks[leader as usize - 1].set(3_600_000_000);

    eventually("another node leads", || left.status().leader_id.is_some_and(|id| id != leader)).await;
    // Through the node with the wrong clock too.
    for (number, node) in cluster.nodes().enumerate() {
        let deadline = in_time();
        let mut written = try_write(node, memory(&format!("m{number}"), "tea"), deadline).await;
        while matches!(written, Err(ProposeError::ClockRefused { .. })) && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(50)).await;
            written = try_write(node, memory(&format!("m{number}"), "tea"), deadline).await;
        }
        written.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_disk_is_full_can_be_stopped() {
    let mut cluster = Cluster::of(1);
    // One entry fills the queue, so that replication waits for the log with the next one.
    cluster.limits.log.queue_bytes_max = 4096;
    let disk = Trouble::default();
    let node = Node::start_in(cluster.config(1), disk.environment()).await.unwrap();
    ready(&node).await;
    write(&node, space()).await;
    write(&node, memory("m1", "tea")).await;

    disk.fill(true);
    for id in ["m2", "m3", "m4"] {
        let content: String = (0..3000).map(|n| format!("{n} ")).collect();
        let refused = try_write(&node, memory(id, &content), Instant::now() + Duration::from_secs(1)).await;
        assert!(matches!(refused, Err(ProposeError::Unavailable { .. })), "{refused:?}");
    }
    tokio::time::timeout(PATIENCE, node.shutdown()).await.expect("the node does not stop");

    disk.fill(false);
    release(node).await;
    cluster.start(1).await;
    cluster.ready().await;
    assert_eq!(count(cluster.node(1), ReadLevel::Linearizable).await, 1, "what was acknowledged is there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_whose_disk_is_full_holds_a_bounded_part_of_the_log() {
    const HELD_BYTES_MAX: usize = 256 << 10;
    let mut cluster = Cluster::of(3);
    cluster.limits.log.queue_bytes_max = 64 << 10;
    cluster.limits.append_bytes_waiting_max = HELD_BYTES_MAX;
    let disks: Vec<Trouble> = (0..3).map(|_| Trouble::default()).collect();
    // A stalled follower is given up and called again often.
    cluster.timing.peer_timeout = Duration::from_millis(400);
    cluster.start_all_on(&disks).await;
    write(cluster.node(1), space()).await;

    let before = cluster.leadership().await;
    let full = cluster.follower().await;
    disks[full as usize - 1].fill(true);
    let left = Arc::clone(cluster.nodes().find(|node| node.node_id() != full).unwrap());
    let content: String = (0..4000).map(|n| format!("{n} ")).collect();
    let mut held = 0;
    for n in 0..120 {
        write(&left, memory(&format!("m{n}"), &content)).await;
        held = held.max(cluster.node(full).stats().append_bytes_waiting);
    }
    // Over some of the leader's attempts to go on.
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        held = held.max(cluster.node(full).stats().append_bytes_waiting);
    }
    assert!(held <= HELD_BYTES_MAX as u64, "{held} bytes");
    assert!(held > HELD_BYTES_MAX as u64 / 2, "the bound was not tried: {held} bytes");
    assert_eq!(cluster.leadership().await, before, "the leader is as well as ever");

    disks[full as usize - 1].fill(false);
    assert_eq!(count(cluster.node(full), ReadLevel::Linearizable).await, 120, "it catches up");
    cluster.assert_equal().await;
    let node = Arc::clone(cluster.node(full));
    eventually("the room is given back", || node.stats().append_bytes_waiting == 0).await;
}

/// What is free on a disk of a test: what the file `free` beside the data directory says.
fn free_by_file(dir: &Path) -> u64 {
    std::fs::read_to_string(dir.with_extension("free")).ok().and_then(|text| text.parse().ok()).unwrap_or(1 << 40)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn adds_are_refused_while_the_leader_or_a_majority_is_short_of_space() {
    let mut cluster = Cluster::of(3);
    let set_free = |cluster: &Cluster, id: u64, bytes: u64| {
        std::fs::write(cluster.data_dir(id).with_extension("free"), bytes.to_string()).unwrap();
    };
    let environment = || Environment { bytes_free: free_by_file, ..Environment::default() };
    cluster.start_all_as(|config| Node::start_in(config, environment())).await;
    write(cluster.node(1), space()).await;
    let all_admit = |cluster: &Cluster, admit: bool| cluster.nodes().all(|node| node.admit_growth().is_ok() == admit);

    // One of three: the leader goes elsewhere, if it is that one, and writes go on.
    let full = cluster.leader().await;
    set_free(&cluster, full, 1000);
    eventually("another node leads", || {
        cluster.nodes().all(|node| node.status().leader_id.is_some_and(|id| id != full))
    })
    .await;
    eventually("all admit", || all_admit(&cluster, true)).await;
    write(cluster.node(full), memory("m1", "tea")).await;

    // Two of three: every node refuses before it proposes, and says whose disks they are.
    let second = cluster.leader().await;
    set_free(&cluster, second, 1000);
    eventually("all refuse", || all_admit(&cluster, false)).await;
    let mut expected = [full, second];
    expected.sort_unstable();
    for node in cluster.nodes() {
        let refused = node.admit_growth().unwrap_err();
        assert!(matches!(&refused, ProposeError::DiskLow { nodes, .. } if *nodes == expected), "{refused}");
        assert!(node.stats().disk_low);
    }
    // What is reserved serves deletes and changes of members.
    let delete = v1::DeleteMemoriesRequest {
        space: SPACE.to_string(),
        target: Some(v1::delete_memories_request::Target::Ids(v1::MemoryIds { ids: vec!["m1".to_string()] })),
        ..Default::default()
    };
    write(cluster.node(full), WriteRequest::DeleteMemories(delete)).await;
    let leader = cluster.leader().await;
    assert_eq!(count(cluster.node(leader), ReadLevel::Linearizable).await, 0);
    let removed = cluster.follower().await;
    cluster.node(leader).remove_member(removed, in_time()).await.unwrap();
    cluster.stop(removed).await;

    for id in cluster.ids() {
        set_free(&cluster, id, 1 << 40);
    }
    eventually("all admit again", || all_admit(&cluster, true)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_dropped_without_a_stop_gives_its_directory_back() {
    let mut cluster = Cluster::running(1).await;
    write(cluster.node(1), space()).await;
    write(cluster.node(1), memory("m1", "tea")).await;
    cluster.release(1).await;
    let node = cluster.start(1).await;
    ready(&node).await;
    assert_eq!(count(&node, ReadLevel::Linearizable).await, 1);
}
