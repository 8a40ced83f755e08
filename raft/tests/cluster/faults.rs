//! Nodes that go and come back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_proto::storage::Command;
use cairn_raft::{ProposeError, ReadError, ReadLevel};

use crate::disks::Trouble;
use crate::support::{
    Cluster, PATIENCE, count, eventually, in_time, memory, memory_of_request, missing, space, try_write, write,
};

/// How long a slow disk takes to sync.
const SYNC_TIME: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_write_is_lost_when_the_leader_goes() {
    let mut cluster = Cluster::running(3).await;
    write(cluster.node(1), space()).await;
    let leader = cluster.leader().await;
    let through = Arc::clone(cluster.node(cluster.follower().await));
    let writing = tokio::spawn(async move {
        let mut acknowledged = Vec::new();
        for n in 0..60 {
            let id = format!("m{n}");
            if try_write(&through, memory(&id, "tea"), in_time()).await.is_ok() {
                acknowledged.push(id);
            }
        }
        acknowledged
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    cluster.stop(leader).await;
    let acknowledged = writing.await.unwrap();
    assert_eq!(acknowledged.len(), 60);
    for node in cluster.nodes() {
        assert_eq!(missing(node, &acknowledged).await, Vec::<String>::new());
    }
    cluster.start(leader).await;
    assert_eq!(missing(cluster.node(leader), &acknowledged).await, Vec::<String>::new());
    cluster.assert_equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_shuts_down_hands_over() {
    let mut cluster = Cluster::running(3).await;
    write(cluster.node(1), space()).await;
    let leader = cluster.leader().await;
    let term = cluster.node(leader).status().term;
    cluster.shut_down(leader).await;
    let next = cluster.leader().await;
    assert_eq!(cluster.node(next).status().term, term + 1, "there was one election, and it was not contested");
    write(cluster.node(next), memory("m1", "tea")).await;
    // To stop is not to leave.
    let members: Vec<u64> = cluster.node(next).status().members.iter().map(|member| member.node_id).collect();
    assert_eq!(members, [1, 2, 3]);
    cluster.start(leader).await;
    assert_eq!(count(cluster.node(leader), ReadLevel::Linearizable).await, 1);
}

/// All nodes share one thread for everything that must not block: none of it waits for a disk.
#[tokio::test(flavor = "current_thread")]
async fn slow_disks_hold_up_nothing_but_the_writes_that_wait_for_them() {
    let mut cluster = Cluster::of(3);
    let disks: Vec<Trouble> = (0..3).map(|_| Trouble::with_sync_time(SYNC_TIME)).collect();
    cluster.start_all_on(&disks).await;
    write(cluster.node(1), space()).await;

    disks.iter().for_each(|disk| disk.slow_down(true));
    let writing = write(cluster.node(1), memory("m1", "tea"));
    let longest = async {
        let mut longest = Duration::ZERO;
        let begun = Instant::now();
        while begun.elapsed() < SYNC_TIME {
            let before = Instant::now();
            tokio::time::sleep(Duration::from_millis(10)).await;
            longest = longest.max(before.elapsed());
        }
        disks.iter().for_each(|disk| disk.slow_down(false));
        longest
    };
    let (_, longest) = tokio::join!(writing, longest);
    cluster.assert_equal().await;
    cluster.stop_all().await;
    assert!(longest < SYNC_TIME / 2, "everything stood still for {longest:?}");
}

/// Whoever went on after an entry that it cannot apply would have a state of its own from then on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_cannot_be_applied_stops_the_node_with_the_reason() {
    let cluster = Cluster::running(1).await;
    let node = cluster.node(1);
    write(node, space()).await;
    let proposed = node.propose(Command::default(), in_time()).await;
    assert!(matches!(proposed, Err(ProposeError::Stopped { .. } | ProposeError::Unavailable { .. })), "{proposed:?}");
    let reason = tokio::time::timeout(PATIENCE, node.failed()).await.unwrap();
    assert!(reason.contains("could not be applied"), "{reason}");
    assert!(!node.is_alive());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_stop_and_come_back_the_same() {
    let mut cluster = Cluster::running(3).await;
    write(cluster.node(1), space()).await;
    for n in 0..20 {
        write(cluster.node(1 + n % 3), memory(&format!("m{n}"), "tea")).await;
    }
    let (_, before) = cluster.digests().await;
    cluster.stop_all().await;
    cluster.start_all().await;
    for node in cluster.nodes() {
        assert_eq!(count(node, ReadLevel::Linearizable).await, 20);
    }
    let (_, after) = cluster.digests().await;
    assert_eq!(after, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_repeated_after_a_failover_is_carried_out_once() {
    let mut cluster = Cluster::running(3).await;
    write(cluster.node(1), space()).await;
    let first = write(cluster.node(1), memory_of_request("m1", "tea", "r1")).await;
    let leader = cluster.leader().await;
    cluster.stop(leader).await;
    for id in cluster.others(leader) {
        let again = write(cluster.node(id), memory_of_request("m1", "tea", "r1")).await;
        assert!(again.outcome.replayed);
        assert_eq!(again.outcome.result, first.outcome.result);
        assert_eq!(count(cluster.node(id), ReadLevel::Linearizable).await, 1);
    }
}

/// What restarts a node that is not alive would only prolong an outage of others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_finds_no_leader_is_alive_and_not_ready() {
    let mut cluster = Cluster::running(3).await;
    write(cluster.node(1), space()).await;
    let leader = cluster.leader().await;
    cluster.stop_all().await;
    let alone = cluster.start(leader).await;
    eventually("it knows of no leader", || alone.status().leader_id.is_none()).await;
    assert!(alone.is_alive());
    assert!(!alone.is_ready());
    for id in cluster.others(leader) {
        cluster.start(id).await;
    }
    cluster.ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_there_is_an_answer_before_the_deadline() {
    let mut cluster = Cluster::running(3).await;
    write(cluster.node(1), space()).await;
    let leader = cluster.leader().await;
    for id in cluster.others(leader) {
        cluster.stop(id).await;
    }
    let left = Arc::clone(cluster.node(leader));
    let deadline = Instant::now() + Duration::from_secs(2);
    let written = try_write(&left, memory("m1", "tea"), deadline).await;
    assert!(matches!(written, Err(ProposeError::Unavailable { .. })), "{written:?}");
    let deadline = Instant::now() + Duration::from_secs(2);
    let read = left.read_point(ReadLevel::Linearizable, deadline).await;
    assert!(matches!(read, Err(ReadError::Unavailable { .. })), "{read:?}");
    assert!(left.is_alive(), "a node without a majority is not to be restarted");

    // With the majority back, the same request can be repeated.
    let other = cluster.ids().into_iter().find(|id| *id != leader).unwrap();
    cluster.start(other).await;
    write(&left, memory("m2", "tea")).await;
    assert!(missing(&left, &["m2".to_string()]).await.is_empty());
}
