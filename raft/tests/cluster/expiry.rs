//! Memories whose time ends: on a cluster that does nothing else, over restarts, and under clocks that jump.

use std::time::Duration;

use cairn_engine::WriteRequest;
use cairn_proto::v1::memory::Expiry;
use cairn_raft::{Node, ReadLevel};

use crate::environment::start_with_clocks;
use crate::support::{Cluster, count, eventually, in_time, memory, missing, space, write};

const TEN_MINUTES_MICROS: i64 = 600_000_000;

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
    let (_, digests) = cluster.digests().await;
    assert!(digests.iter().all(|digest| *digest == digests[0]));
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
    let cluster = Cluster::of(3);
    let (nodes, clocks) = start_with_clocks(&cluster).await;
    write(&nodes[0], space()).await;
    write(&nodes[0], memory_for("long", Duration::from_secs(300))).await;
    write(&nodes[0], memory_for("short", Duration::from_secs(4))).await;
    let leader = nodes[0].status().leader_id.unwrap();
    let jumped = leader as usize - 1;
    clocks[jumped].set(micros);
    for node in &nodes {
        eventually_gone(node, "short").await;
        assert!(is_there(node, "long").await, "node {}: five minutes have not passed", node.node_id());
        eventually("the row itself is removed", || stored(node) == 1).await;
    }
    // A clock that is right again is trusted again.
    clocks[jumped].set(0);
    write(&nodes[jumped], memory("after", "tea")).await;
    for node in &nodes {
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
