//! Writes and reads, on any node.

use std::time::{Duration, Instant};

use cairn_engine::Position;
use cairn_raft::{ProposeError, ReadError, ReadLevel};

use crate::support::{
    Cluster, count, eventually, in_time, memory, memory_of_request, missing, space, try_write, write,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_node_is_a_cluster_of_one() {
    let mut cluster = Cluster::running(1).await;
    write(cluster.node(1), space()).await;
    write(cluster.node(1), memory("m1", "tea")).await;
    assert_eq!(count(cluster.node(1), ReadLevel::Linearizable).await, 1);
    let (index, digests) = cluster.digests().await;

    cluster.stop(1).await;
    cluster.start(1).await;
    cluster.ready().await;
    assert_eq!(count(cluster.node(1), ReadLevel::Linearizable).await, 1);
    let (index_again, digests_again) = cluster.digests().await;
    assert!(index_again >= index);
    assert_eq!(digests_again, digests);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_takes_writes_and_every_node_sees_them() {
    let cluster = Cluster::running(3).await;
    write(cluster.node(2), space()).await;
    let mut written = 0;
    for round in 0..3 {
        for node in cluster.nodes() {
            write(node, memory(&format!("m{round}-{}", node.node_id()), "tea")).await;
            written += 1;
            for reader in cluster.nodes() {
                assert_eq!(count(reader, ReadLevel::Linearizable).await, written);
            }
        }
    }
    cluster.assert_equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_or_an_age_is_enough_where_asked_for() {
    let cluster = Cluster::running(3).await;
    write(cluster.node(1), space()).await;
    let applied = write(cluster.node(1), memory("m1", "tea")).await;
    for node in cluster.nodes() {
        assert_eq!(count(node, ReadLevel::AtLeast(applied.position)).await, 1);
        // The first one asks the leader, the second one may rely on that.
        assert_eq!(count(node, ReadLevel::MaxStaleness(Duration::from_secs(60))).await, 1);
        assert_eq!(count(node, ReadLevel::MaxStaleness(Duration::from_secs(60))).await, 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_that_never_comes_is_unavailable() {
    let cluster = Cluster::running(1).await;
    let far = ReadLevel::AtLeast(Position::at(1_000_000));
    let waited = cluster.node(1).read_point(far, Instant::now() + Duration::from_millis(200)).await;
    assert!(matches!(waited, Err(ReadError::Unavailable { .. })), "{waited:?}");
    let elsewhere = Position { group: cairn_engine::GroupId(9), index: 1 };
    let waited = cluster.node(1).read_point(ReadLevel::AtLeast(elsewhere), in_time()).await;
    assert!(matches!(waited, Err(ReadError::UnknownGroup { group: 9 })), "{waited:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_much_at_once_is_refused_and_nothing_is_lost() {
    let mut cluster = Cluster::of(1);
    cluster.limits.proposals_in_flight_max = 2;
    cluster.start_all().await;
    let node = cluster.node(1);
    write(node, space()).await;
    let writes = (0..64).map(|n| {
        let id = format!("m{n}");
        async move { (try_write(node, memory(&id, "tea"), in_time()).await, id) }
    });
    let mut acknowledged = Vec::new();
    for (written, id) in futures::future::join_all(writes).await {
        match written {
            Ok(_) => acknowledged.push(id),
            Err(ProposeError::Overloaded { retry_after }) => assert!(!retry_after.is_zero()),
            Err(error) => panic!("{error}"),
        }
    }
    assert!(!acknowledged.is_empty() && acknowledged.len() < 64);
    assert_eq!(missing(node, &acknowledged).await, Vec::<String>::new());
    assert_eq!(count(node, ReadLevel::Linearizable).await, acknowledged.len() as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_request_is_carried_out_once() {
    let cluster = Cluster::running(3).await;
    write(cluster.node(1), space()).await;
    let first = write(cluster.node(1), memory_of_request("m1", "tea", "r1")).await;
    let again = write(cluster.node(2), memory_of_request("m1", "tea", "r1")).await;
    assert!(!first.outcome.replayed);
    assert!(again.outcome.replayed);
    assert_eq!(first.outcome.result, again.outcome.result);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_names_all_members() {
    let cluster = Cluster::running(3).await;
    let leader = cluster.leader().await;
    for node in cluster.nodes() {
        eventually("all members are heard of", || node.status().members.iter().all(|member| member.reachable)).await;
        let status = node.status();
        assert_eq!(status.leader_id, Some(leader));
        assert_eq!(status.members.iter().map(|member| member.node_id).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(node.leader_client_address(), Some(format!("client-{leader}:7480")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over_on_a_drain() {
    let cluster = Cluster::running(3).await;
    write(cluster.node(1), space()).await;
    let leader = cluster.leader().await;
    cluster.node(leader).drain(true, crate::support::PATIENCE).await.unwrap();
    assert_ne!(cluster.leader().await, leader);
    assert!(!cluster.node(leader).is_ready());
    write(cluster.node(leader), memory("m1", "tea")).await;
}
