//! Memories whose time ends: on a cluster that does nothing else, over restarts, from copies and snapshots that lay aside,
//! and under clocks that jump.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_engine::WriteRequest;
use cairn_proto::v1;
use cairn_proto::v1::memory::Expiry;
use cairn_raft::{Environment, Node, ReadError, ReadLevel};

use crate::environment::{Ahead, start_with_clocks};
use crate::snapshots::{copy_dir, write_until_purged};
use crate::support::{Cluster, SPACE, alice, count, eventually, in_time, memory, missing, space, write};

const TEN_MINUTES_MICROS: i64 = 600_000_000;
const DAY_MICROS: i64 = 86_400_000_000;

fn memory_for(id: &str, time: Duration) -> WriteRequest {
    let WriteRequest::AddMemories(mut request) = memory(id, "tea") else { unreachable!() };
    request.memories[0].expiry = Some(Expiry::Ttl(prost_types::Duration::try_from(time).unwrap()));
    WriteRequest::AddMemories(request)
}

async fn is_there(node: &Node, id: &str) -> bool {
    missing(node, &[id.to_string()]).await.is_empty()
}

/// Memories in the store of `node`, whether their time is over or not.
fn stored(node: &Node) -> u64 {
    node.engine().memories().unwrap()
}

async fn eventually_gone(node: &Node, id: &str) {
    let deadline = in_time();
    while is_there(node, id).await {
        assert!(std::time::Instant::now() < deadline, "{id} never ends on node {}", node.node_id());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_cluster_hides_and_removes_what_has_expired() {
    let cluster = Cluster::running(3).await;
    write(cluster.node(1), space()).await;
    write(cluster.node(1), memory("stays", "tea")).await;
    write(cluster.node(2), memory_for("goes", Duration::from_millis(700))).await;
    for node in cluster.nodes() {
        eventually_gone(node, "goes").await;
        assert_eq!(count(node, ReadLevel::Linearizable).await, 1);
    }
    // Nobody reads or writes from here on.
    for node in cluster.nodes() {
        eventually("the row itself is removed", || stored(node) == 1).await;
    }
    cluster.assert_equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_goes_on_while_no_node_runs() {
    let mut cluster = Cluster::running(3).await;
    write(cluster.node(1), space()).await;
    write(cluster.node(1), memory_for("short", Duration::from_millis(1500))).await;
    write(cluster.node(1), memory_for("long", Duration::from_secs(3600))).await;
    cluster.stop_all().await;
    tokio::time::sleep(Duration::from_millis(1600)).await;
    cluster.start_all().await;
    for node in cluster.nodes() {
        assert!(!is_there(node, "short").await, "its time was over before the start");
        assert!(is_there(node, "long").await);
    }
}

/// The leader's clock jumps; what has time left stays, what has not goes.
async fn a_jump_by(micros: i64) {
    let mut cluster = Cluster::of(3);
    let clocks = start_with_clocks(&mut cluster).await;
    write(cluster.node(1), space()).await;
    write(cluster.node(1), memory_for("long", Duration::from_secs(300))).await;
    write(cluster.node(1), memory_for("short", Duration::from_secs(4))).await;
    let jumped = cluster.leader().await;
    let clock = &clocks[jumped as usize - 1];
    clock.set(micros);
    for node in cluster.nodes() {
        eventually_gone(node, "short").await;
        assert!(is_there(node, "long").await, "node {}: five minutes have not passed", node.node_id());
        eventually("the row itself is removed", || stored(node) == 1).await;
    }
    // A clock that is right again is trusted again.
    clock.set(0);
    write(cluster.node(jumped), memory("after", "tea")).await;
    for node in cluster.nodes() {
        assert!(is_there(node, "long").await && is_there(node, "after").await);
        assert_eq!(count(node, ReadLevel::Linearizable).await, 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_expires_early_when_the_leaders_clock_jumps_ahead() {
    a_jump_by(TEN_MINUTES_MICROS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expiry_goes_on_when_the_leaders_clock_jumps_back() {
    a_jump_by(-TEN_MINUTES_MICROS).await;
}

/// Starts node `id` with a clock by which a day has passed.
async fn start_a_day_later(cluster: &mut Cluster, id: u64) -> Arc<Node> {
    let clock = Arc::new(Ahead::default());
    clock.set(DAY_MICROS);
    let node = Node::start_in(cluster.config(id), Environment { clock, ..Environment::default() }).await.unwrap();
    cluster.adopt(Arc::clone(&node));
    node
}

/// Which memories `node` shows to a caller who waits for nothing but the state of `ReadLevel::AtLeast`.
async fn shown(node: &Node, position: u64) -> Vec<String> {
    let level = ReadLevel::AtLeast(cairn_engine::Position::at(position));
    let point = node.read_point(level, in_time()).await.unwrap();
    let request = v1::ListMemoriesRequest {
        space: SPACE.to_string(),
        order_by: "created_at".to_string(),
        ..v1::ListMemoriesRequest::default()
    };
    let listed = node.engine().list_memories(&alice(), &request, &point).unwrap();
    listed.memories.into_iter().map(|memory| memory.id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_expired_while_a_copy_lay_aside_is_hidden_at_once_and_removed() {
    let mut cluster = Cluster::running(1).await;
    write(cluster.node(1), space()).await;
    write(cluster.node(1), memory_for("goes", Duration::from_secs(3600))).await;
    let last = write(cluster.node(1), memory("stays", "tea")).await.position.index;
    cluster.shut_down(1).await;
    let (data, copy) = (cluster.data_dir(1), cluster.data_dir(1).with_extension("copy"));
    copy_dir(&data, &copy);

    // The node itself goes on for a day, and is lost then.
    let node = start_a_day_later(&mut cluster, 1).await;
    eventually("the row itself is removed", || stored(&node) == 1).await;
    drop(node);
    cluster.shut_down(1).await;
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&copy, &data).unwrap();

    let node = start_a_day_later(&mut cluster, 1).await;
    assert_eq!(shown(&node, last).await, ["stays"], "hidden from the first read on");
    assert!(!is_there(&node, "goes").await);
    assert_eq!(count(&node, ReadLevel::Linearizable).await, 1);
    eventually("the row itself is removed", || stored(&node) == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_node_that_gets_an_old_snapshot_never_shows_what_has_expired() {
    let mut cluster = Cluster::of(1);
    cluster.limits.snapshot_bytes = 4096;
    cluster.start_all().await;
    write(cluster.node(1), space()).await;
    write(cluster.node(1), memory_for("goes", Duration::from_secs(3600))).await;
    let written = write_until_purged(&cluster, 1).await;
    assert_eq!(stored(cluster.node(1)), written + 1, "the snapshot holds a memory whose time is not over");
    cluster.shut_down(1).await;

    start_a_day_later(&mut cluster, 1).await;
    cluster.ready().await;
    let newcomer = cluster.newcomer(2);
    cluster.node(1).add_member(newcomer, in_time()).await.unwrap();
    let node = start_a_day_later(&mut cluster, 2).await;
    assert!(!shown(&node, 1).await.contains(&"goes".to_string()), "hidden from the first read on");
    assert!(!is_there(&node, "goes").await);
    assert_eq!(count(&node, ReadLevel::Linearizable).await, written);
    assert!(node.stats().snapshot_bytes_received > 0, "it was a snapshot that came");
    eventually("the row itself is removed", || stored(&node) == written).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_no_leader_has_told_the_time_shows_nothing_that_may_have_expired() {
    let mut cluster = Cluster::running(3).await;
    write(cluster.node(1), space()).await;
    write(cluster.node(1), memory_for("goes", Duration::from_secs(3600))).await;
    let last = write(cluster.node(1), memory("stays", "tea")).await.position.index;
    let follower = cluster.follower().await;
    cluster.digests().await;
    for id in cluster.ids() {
        cluster.shut_down(id).await;
    }

    let alone = start_a_day_later(&mut cluster, follower).await;
    eventually("it has applied what it had", || {
        alone.engine().applied().log_id.is_some_and(|applied| applied.index >= last)
    })
    .await;
    let level = ReadLevel::AtLeast(cairn_engine::Position::at(last));
    let early = alone.read_point(level, Instant::now() + Duration::from_millis(500)).await;
    assert!(matches!(early, Err(ReadError::Unavailable { .. })), "{early:?}");
    for id in cluster.others(follower) {
        start_a_day_later(&mut cluster, id).await;
    }
    assert_eq!(shown(&alone, last).await, ["stays"]);
}
