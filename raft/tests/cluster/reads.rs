//! Whom a read believes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_raft::{Node, ReadError, ReadLevel};

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

    second.hold_answers();
    third.hold_answers();
    let before = second.received(|_| true).await;
    let writing = tokio::spawn(write_one(Arc::clone(&node)));
    second.received(|received| received.entries > before.entries).await;
    let before = third.received(|received| received.entries >= before.entries).await;

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
