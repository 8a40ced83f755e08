//! Whom a read believes, how old what it sees may be, and what many of them cost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_raft::{Node, ReadError, ReadLevel};
use futures::FutureExt as _;

use crate::links::start_linked;
use crate::scripted::Follower;
use crate::support::{Cluster, count, in_time, memory, ready, space, try_write, write};

/// Two followers whose answers are held up may have made another leader long before the answers arrive, and that leader may
/// have acknowledged writes that this node knows nothing of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_from_before_a_read_do_not_confirm_it() {
    let mut cluster = Cluster::of(3);
    let (second, third) = (Follower::serve(&cluster, 2), Follower::serve(&cluster, 3));
    let node = cluster.start(1).await;
    ready(&node).await;
    write(&node, space()).await;
    assert_eq!(count(&node, ReadLevel::Linearizable).await, 0, "followers that answer confirm a read");

    // An older answer that is held back would be let through first.
    let written = node.engine().applied().log_id.unwrap().index;
    for follower in [&second, &third] {
        follower.has_answered_up_to(written).await;
        follower.hold_answers();
    }
    let before = [second.received(|_| true).await, third.received(|_| true).await];
    let writing = tokio::spawn(write_one(Arc::clone(&node)));
    second.received(|received| received.entries > before[0].entries).await;
    let before = third.received(|received| received.entries > before[1].entries).await;

    // From here on neither of them needs to follow any more.
    let heartbeats = second.received(|_| true).await.heartbeats;
    let reading = tokio::spawn({
        let node = Arc::clone(&node);
        async move { node.read_point(ReadLevel::Linearizable, Instant::now() + Duration::from_secs(3)).await }
    });
    second.received(|received| received.heartbeats > heartbeats + 1).await;

    // The entry is committed by the answer of one, which has the other told so, after the read began; then comes the
    // other's answer to the append before that.
    second.let_one_through();
    third.received(|received| received.commits > before.commits).await;
    third.let_one_through();

    let read = reading.await.unwrap();
    assert!(matches!(read, Err(ReadError::Unavailable { .. })), "nobody confirmed the read: {read:?}");
    writing.abort();
}

async fn write_one(node: Arc<Node>) {
    // Whether it is acknowledged does not matter.
    let _ = try_write(&node, memory("m1", "tea"), in_time()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_cut_off_serves_reads_up_to_the_age_they_allow_and_no_older() {
    const LONG: Duration = Duration::from_secs(3600);
    const SHORT: Duration = Duration::from_millis(200);
    let mut cluster = Cluster::of(3);
    let links = start_linked(&mut cluster).await;
    write(cluster.node(1), space()).await;
    write(cluster.node(1), memory("m1", "tea")).await;
    let cut_off = cluster.follower().await;
    let node = Arc::clone(cluster.node(cut_off));
    assert_eq!(count(&node, ReadLevel::Linearizable).await, 1);
    let confirmed_by = Instant::now();

    links.cut_off(cut_off);
    let other = cluster.nodes().find(|other| other.node_id() != cut_off).unwrap();
    write(other, memory("m2", "tea")).await;
    assert_eq!(count(&node, ReadLevel::MaxStaleness(LONG)).await, 1, "what it saw last is not too old yet");
    tokio::time::sleep_until((confirmed_by + SHORT + Duration::from_millis(1)).into()).await;
    for level in [ReadLevel::MaxStaleness(SHORT), ReadLevel::Linearizable] {
        let read = node.read_point(level, Instant::now() + Duration::from_secs(2)).await;
        assert!(matches!(read, Err(ReadError::Unavailable { .. })), "{level:?}: {read:?}");
    }
    assert_eq!(count(&node, ReadLevel::MaxStaleness(LONG)).await, 1, "the other reads changed nothing");

    // Nothing that it knew when it was cut off is that young: it asks the leader again.
    links.mend();
    assert_eq!(count(&node, ReadLevel::MaxStaleness(SHORT)).await, 2);
}

/// Such a node can ask the leader up to where a read must see, and hears nothing of what has been written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lags_behind_answers_once_it_has_caught_up() {
    let mut cluster = Cluster::of(3);
    let links = start_linked(&mut cluster).await;
    write(cluster.node(1), space()).await;
    let (leader, behind) = (cluster.leader().await, cluster.follower().await);
    let node = Arc::clone(cluster.node(behind));
    assert_eq!(count(&node, ReadLevel::Linearizable).await, 0);

    links.cut(leader, behind);
    write(cluster.node(leader), memory("m1", "tea")).await;
    let reading = tokio::spawn({
        let node = Arc::clone(&node);
        async move { count(&node, ReadLevel::Linearizable).await }
    });
    // As long as a round takes many times over.
    tokio::time::sleep(Duration::from_millis(300)).await;
    links.mend();
    assert_eq!(reading.await.unwrap(), 1);
}

/// A reader that waits out its deadline on such a node has no time left for another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_wait_on_a_node_that_is_removed_are_told_at_once() {
    let mut cluster = Cluster::of(3);
    let links = start_linked(&mut cluster).await;
    write(cluster.node(1), space()).await;
    let removed = cluster.follower().await;
    let node = Arc::clone(cluster.node(removed));
    links.cut_off(removed);
    let mut reading = Box::pin(node.read_point(ReadLevel::Linearizable, in_time()));
    assert!((&mut reading).now_or_never().is_none(), "nobody can confirm it");
    let other = cluster.nodes().find(|other| other.node_id() != removed).unwrap();
    other.remove_member(removed, in_time()).await.unwrap();

    links.mend();
    let read = reading.await;
    assert!(matches!(read, Err(ReadError::Stopped { .. })), "{read:?}");
}

/// How many readers wait at a time where it matters that they share rounds.
const READERS: usize = 500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_wait_on_a_follower_share_a_question_to_the_leader() {
    let mut cluster = Cluster::of(3);
    let links = start_linked(&mut cluster).await;
    write(cluster.node(1), space()).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let node = cluster.node(follower);
    assert_eq!(count(node, ReadLevel::Linearizable).await, 0);

    let before = node.stats().read_rounds;
    links.silence(follower, leader);
    let mut readers: Vec<_> =
        (0..READERS).map(|_| Box::pin(node.read_point(ReadLevel::Linearizable, in_time()))).collect();
    for reader in &mut readers {
        assert!(reader.now_or_never().is_none(), "the leader has not heard of it");
    }
    links.mend();
    for read in futures::future::join_all(readers).await {
        read.unwrap();
    }
    // The first may ask alone, and a question that was lost is asked again.
    let rounds = node.stats().read_rounds - before;
    assert!((1..READERS as u64 / 10).contains(&rounds), "{rounds} questions for {READERS} readers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_wait_share_a_round() {
    let mut cluster = Cluster::of(3);
    let followers = [Follower::serve(&cluster, 2), Follower::serve(&cluster, 3)];
    let node = cluster.start(1).await;
    ready(&node).await;
    write(&node, space()).await;
    assert_eq!(count(&node, ReadLevel::Linearizable).await, 0);

    let asked = async || {
        let [second, third] = &followers;
        second.received(|_| true).await.confirmations + third.received(|_| true).await.confirmations
    };
    let before = asked().await;
    let mut readers: Vec<_> =
        (0..READERS).map(|_| Box::pin(node.read_point(ReadLevel::Linearizable, in_time()))).collect();
    // Each of them waits at the gate once it has been polled, for answers that do not come before the last one is there.
    followers.iter().for_each(Follower::hold_answers);
    for reader in &mut readers {
        assert!(reader.now_or_never().is_none(), "a round needs an answer from another node");
    }
    followers.iter().for_each(Follower::release_answers);
    for read in futures::future::join_all(readers).await {
        read.unwrap();
    }
    // Each round asks both. The first reader may have a round of its own, and one that is given up on a slow machine is
    // repeated.
    let asked = asked().await - before;
    assert!((1..READERS as u64 / 10).contains(&asked), "{asked} questions for {READERS} readers");
}
