//! What a node does that is given more than it, or another, can take: it bounds what it holds, refuses the rest with a time
//! to wait, and costs nobody the leader.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_engine::WriteRequest;
use cairn_links::Links;
use cairn_proto::v1;
use cairn_raft::{Applied, Node, ProposeError, ReadLevel};
use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::disks::Trouble;
use crate::links::start_linked;
use crate::support::{
    Cluster, PATIENCE, SPACE, count, eventually, in_time, incompressible, memory, missing, space, try_write, write,
};

/// How long a slow disk takes to sync.
const SYNC_TIME: Duration = Duration::from_secs(1);

/// A cluster whose nodes reach each other through links, with a follower to harm and who leads.
async fn start_with_links() -> (Cluster, Links, u64, (u64, u64)) {
    start_linked_as(Cluster::of(3)).await
}

/// The same, of a cluster with settings of its own.
async fn start_linked_as(mut cluster: Cluster) -> (Cluster, Links, u64, (u64, u64)) {
    let links = start_linked(&mut cluster).await;
    write(cluster.node(1), space()).await;
    let (follower, leadership) = (cluster.follower().await, cluster.leadership().await);
    (cluster, links, follower, leadership)
}

/// Starts all nodes, each with a disk of its own that can be slowed down, and has them make the space.
async fn start_with_disks(cluster: &mut Cluster) -> Vec<Trouble> {
    let disks: Vec<Trouble> = cluster.ids().iter().map(|_| Trouble::with_sync_time(SYNC_TIME)).collect();
    cluster.start_all_on(&disks).await;
    write(cluster.node(1), space()).await;
    disks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_whose_disk_is_slow_lags_behind_with_a_bounded_part_of_the_log() {
    const HELD_BYTES_MAX: usize = 256 << 10;
    let mut cluster = Cluster::of(3);
    cluster.limits.log.queue_bytes_max = 64 << 10;
    cluster.limits.append_bytes_waiting_max = HELD_BYTES_MAX;
    let disks = start_with_disks(&mut cluster).await;
    let before = cluster.leadership().await;
    let slow = cluster.follower().await;
    let (disk, node) = (&disks[slow as usize - 1], Arc::clone(cluster.node(slow)));

    disk.slow_down(true);
    let (content, mut written, mut held) = (incompressible(20 << 10), 0, 0);
    while written < 100 || held <= HELD_BYTES_MAX as u64 / 2 {
        write(cluster.node(before.0), memory(&format!("m{written}"), &content)).await;
        written += 1;
        held = held.max(node.stats().append_bytes_waiting);
        assert!(held <= HELD_BYTES_MAX as u64, "{held} bytes");
        assert!(written < 5_000, "the bound was never tried: {held} bytes");
    }
    assert_eq!(cluster.leadership().await, before, "the leader is as well as ever");

    disk.slow_down(false);
    assert_eq!(count(&node, ReadLevel::Linearizable).await, written, "it catches up");
    eventually("the room is given back", || node.stats().append_bytes_waiting == 0).await;
    assert_eq!(cluster.leadership().await, before);
    cluster.assert_equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_on_a_slow_link_costs_neither_the_leader_nor_a_write() {
    let (cluster, links, slow, before) = start_with_links().await;

    links.slow_down(slow, 32 << 10);
    let content = incompressible(20 << 10);
    for number in 0..100 {
        write(cluster.node(before.0), memory(&format!("m{number}"), &content)).await;
    }
    assert!(cluster.node(slow).status().applied_index < cluster.node(before.0).status().applied_index, "it lags");
    assert_eq!(cluster.leadership().await, before, "heartbeats do not wait behind the log");
    links.mend();
    assert_eq!(count(cluster.node(slow), ReadLevel::Linearizable).await, 100, "it catches up");
    assert_eq!(cluster.leadership().await, before);
    cluster.assert_equal().await;
}

/// Two memories as large as they may be, which is about what a call may hold.
fn large(call: u64, content: &str) -> WriteRequest {
    let numbered =
        |number| v1::Memory { id: format!("m{call}-{number}"), content: content.to_string(), ..Default::default() };
    let memories = (0..2).map(numbered).collect();
    WriteRequest::AddMemories(v1::AddMemoriesRequest { space: SPACE.to_string(), memories, ..Default::default() })
}

/// Has a follower hear nothing of so many memories of 20 KiB.
async fn leave_behind(cluster: &Cluster, links: &Links, follower: u64, leader: u64, memories: u64) {
    let content = incompressible(20 << 10);
    links.cut_off(follower);
    for number in 0..memories {
        write(cluster.node(leader), memory(&format!("m{number}"), &content)).await;
    }
    let applied = |id| cluster.node(id).status().applied_index.unwrap_or(0);
    let behind = applied(leader) - applied(follower);
    assert!(behind >= memories, "it lacks all of it: {behind} entries");
    links.mend();
}

/// All that it lacks takes longer to arrive than a call has time; what has arrived counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_on_a_slow_link_catches_up_over_it() {
    const WRITTEN: u64 = 64;
    let (cluster, links, slow, before) = start_with_links().await;
    leave_behind(&cluster, &links, slow, before.0, WRITTEN).await;
    links.slow_down(slow, 64 << 10);
    assert_eq!(count(cluster.node(slow), ReadLevel::Linearizable).await, WRITTEN);
    assert_eq!(cluster.leadership().await, before);
    cluster.assert_equal().await;
}

/// What is on its way when a link breaks is lost, so that what travels as a whole must be small.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_catches_up_over_a_slow_link_that_breaks_again_and_again() {
    const WRITTEN: u64 = 64;
    let (cluster, links, slow, before) = start_with_links().await;
    leave_behind(&cluster, &links, slow, before.0, WRITTEN).await;
    let node = Arc::clone(cluster.node(slow));
    let patience = Instant::now() + PATIENCE;
    while node.status().applied_index < cluster.node(before.0).status().applied_index {
        assert!(Instant::now() < patience, "it gets no further than {:?}", node.status().applied_index);
        links.slow_down(slow, 128 << 10);
        // Enough for two appends, and not for all that it lacks.
        tokio::time::sleep(Duration::from_secs(5)).await;
        links.cut_off(slow);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    links.mend();
    assert_eq!(count(&node, ReadLevel::Linearizable).await, WRITTEN);
    cluster.assert_equal().await;
}

/// A link on which a single entry takes longer than a call has time, as long as calls have the time that they begin with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_as_large_as_can_be_gets_over_a_slow_link() {
    let mut cluster = Cluster::of(3);
    cluster.timing.peer_timeout = Duration::from_secs(1);
    let (cluster, links, slow, before) = start_linked_as(cluster).await;
    links.slow_down(slow, 512 << 10);
    write(cluster.node(before.0), large(0, &incompressible(1 << 20))).await;
    let written = write(cluster.node(before.0), memory("later", "tea")).await;
    assert_eq!(count(cluster.node(slow), ReadLevel::AtLeast(written.position)).await, 3);
    assert_eq!(cluster.leadership().await, before);
    cluster.assert_equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_as_large_as_can_be_reach_every_node_and_cost_nobody_the_leader() {
    const CALLS: u64 = 16;
    let cluster = Cluster::running(3).await;
    write(cluster.node(1), space()).await;
    let before = cluster.leadership().await;
    let through = cluster.node(cluster.follower().await);
    let content = incompressible(1 << 20);
    futures::future::join_all((0..CALLS).map(|call| write(through, large(call, &content)))).await;
    for node in cluster.nodes() {
        assert_eq!(count(node, ReadLevel::Linearizable).await, 2 * CALLS);
    }
    let logged = cluster.node(before.0).stats().log.bytes;
    assert!(logged > CALLS << 20, "they travelled as {logged} bytes");
    assert_eq!(cluster.leadership().await, before);
}

/// A write that was taken on: its memory, and its end.
type TakenOn = (String, BoxFuture<'static, Result<Applied, ProposeError>>);

/// Proposes so many memories on `node` before any of them can be answered; the rest it must refuse as an overload.
fn propose_at_once(node: &Arc<Node>, count: usize, content: &str) -> Vec<TakenOn> {
    let mut taken_on = Vec::new();
    for id in (0..count).map(|number| format!("m{number}")) {
        let (node, request) = (Arc::clone(node), memory(&id, content));
        let mut proposing = async move { try_write(&node, request, in_time()).await }.boxed();
        match (&mut proposing).now_or_never() {
            None => taken_on.push((id, proposing)),
            Some(refused) => assert_overloaded(&refused),
        }
    }
    taken_on
}

fn assert_overloaded(answer: &Result<Applied, ProposeError>) {
    let waits = matches!(answer, Err(ProposeError::Overloaded { retry_after }) if !retry_after.is_zero());
    assert!(waits, "{answer:?}");
}

/// Overloads the leader of a cluster whose limits let it take on `taken_on_max` of these memories at once.
async fn assert_shed(mut cluster: Cluster, content: &str, taken_on_max: usize) {
    const COUNT: usize = 64;
    let disks = start_with_disks(&mut cluster).await;
    let before = cluster.leadership().await;
    let follower = Arc::clone(cluster.node(cluster.follower().await));
    disks.iter().for_each(|disk| disk.slow_down(true));
    let taken_on = propose_at_once(cluster.node(before.0), COUNT, content);
    assert_eq!(taken_on.len(), taken_on_max);
    // The leader refuses what others forward too, and they pass it on.
    let forwarded = try_write(&follower, memory("forwarded", content), in_time());
    let (ids, ends): (Vec<_>, Vec<_>) = taken_on.into_iter().unzip();
    let (forwarded, ends) = tokio::join!(forwarded, futures::future::join_all(ends));
    assert_overloaded(&forwarded);
    ends.into_iter().for_each(|end| drop(end.unwrap()));
    disks.iter().for_each(|disk| disk.slow_down(false));
    assert_eq!(cluster.leadership().await, before, "what was refused cost nobody the leader");

    for node in cluster.nodes() {
        assert_eq!(missing(node, &ids).await, Vec::<String>::new());
        assert_eq!(count(node, ReadLevel::Linearizable).await, ids.len() as u64, "nothing that was refused is there");
    }
    // There is room again.
    let written = try_write(&follower, memory("later", content), Instant::now() + PATIENCE).await;
    written.unwrap();
    cluster.assert_equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_writes_than_a_leader_takes_on_are_refused_with_a_time_to_wait() {
    let mut cluster = Cluster::of(3);
    cluster.limits.proposals_in_flight_max = 8;
    assert_shed(cluster, "tea", 8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_bytes_than_a_leader_takes_on_are_refused_with_a_time_to_wait() {
    let mut cluster = Cluster::of(3);
    cluster.limits.proposal_bytes_in_flight_max = 64 << 10;
    assert_shed(cluster, &incompressible(20 << 10), 3).await;
}
