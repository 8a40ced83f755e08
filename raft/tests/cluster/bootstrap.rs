//! First starts, in any order, with and without mishaps.

use std::time::Duration;

use cairn_engine::keyring::RootKey;
use cairn_raft::{Node, ReadLevel, StartError};

use crate::support::{Cluster, PATIENCE, count, in_time, memory, ready, space, write};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_may_be_started_in_any_order() {
    for order in [[1, 2, 3], [3, 2, 1], [2, 3, 1]] {
        let cluster = Cluster::of(3);
        let starts = order.into_iter().zip(0..).map(|(id, place)| {
            let config = cluster.config(id);
            async move {
                tokio::time::sleep(Duration::from_millis(200 * place)).await;
                Node::start(config).await.unwrap()
            }
        });
        let nodes = tokio::time::timeout(PATIENCE, futures::future::join_all(starts)).await.unwrap();
        ready(&nodes[0]).await;
        write(&nodes[0], space()).await;
        for node in &nodes {
            node.read_point(ReadLevel::Linearizable, in_time()).await.unwrap();
            assert_eq!(node.status().cluster_id, nodes[0].status().cluster_id);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_is_broken_off_can_be_repeated() {
    let mut cluster = Cluster::of(3);
    for id in [1, 2] {
        let broken_off = tokio::time::timeout(Duration::from_millis(300), Node::start(cluster.config(id))).await;
        assert!(broken_off.is_err(), "two of three nodes are not there");
    }
    cluster.start_all().await;
    write(cluster.node(3), space()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_disk_under_a_known_id_is_refused() {
    let mut cluster = Cluster::running(3).await;
    write(cluster.node(1), space()).await;
    for lost in [1, 3] {
        cluster.stop(lost).await;
        let aside = cluster.data_dir(lost).with_extension("aside");
        std::fs::rename(cluster.data_dir(lost), &aside).unwrap();
        let refused = cluster.try_start(lost).await.err().unwrap();
        assert!(matches!(refused, StartError::IdInUse { node_id, .. } if node_id == lost), "{refused}");
        assert!(refused.to_string().contains("an id that was never used"), "{refused}");

        std::fs::remove_dir_all(cluster.data_dir(lost)).unwrap();
        std::fs::rename(&aside, cluster.data_dir(lost)).unwrap();
        cluster.start(lost).await;
        cluster.ready().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_root_key_is_refused() {
    let mut cluster = Cluster::running(1).await;
    write(cluster.node(1), space()).await;
    write(cluster.node(1), memory("m1", "tea")).await;
    cluster.stop(1).await;

    let right = std::mem::replace(&mut cluster.root_key, RootKey::from_bytes(&[8; 32]));
    let refused = cluster.try_start(1).await.err().unwrap();
    assert!(matches!(refused, StartError::Key(_)), "{refused}");
    assert_eq!(refused.to_string().lines().count(), 1);

    cluster.root_key = right;
    cluster.start(1).await;
    cluster.ready().await;
    assert_eq!(count(cluster.node(1), ReadLevel::Linearizable).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_another_root_key_does_not_join() {
    let mut cluster = Cluster::of(2);
    let mut stranger = cluster.config(2);
    stranger.root_key = RootKey::from_bytes(&[8; 32]);
    let (first, second) = tokio::join!(Node::start(cluster.config(1)), Node::start(stranger));
    let refused = second.err().unwrap();
    assert!(matches!(refused, StartError::Key(_)), "{refused}");
    // With the right key the same directory joins.
    cluster.start(2).await;
    let first = first.unwrap();
    ready(&first).await;
    write(&first, space()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_contradicts_the_nodes_is_refused() {
    let mut cluster = Cluster::running(1).await;
    let other = Cluster::of(2);
    // Node 2 of the other cluster is told that its node 1 is where this cluster's node lives.
    let mut config = other.config(2);
    config.peers[0].id = 9;
    config.peers[0].peer_address = cluster.peer_address(1);
    let refused = Node::start(config).await.err().unwrap();
    assert!(matches!(refused, StartError::Config(_)), "{refused}");
    cluster.stop(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_part_of_a_directory_is_noticed() {
    for part in ["keyring", "wal/group-0", "group-0/CURRENT"] {
        let mut cluster = Cluster::running(1).await;
        write(cluster.node(1), space()).await;
        cluster.stop(1).await;
        let path = cluster.data_dir(1).join(part);
        let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        removed.unwrap();
        let refused = cluster.try_start(1).await.err().unwrap();
        assert!(matches!(refused, StartError::Damaged { .. }), "{part}: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_log_is_refused_at_every_start() {
    let mut cluster = Cluster::running(1).await;
    write(cluster.node(1), space()).await;
    cluster.stop(1).await;
    let log_dir = cluster.data_dir(1).join("wal/group-0");
    for entry in std::fs::read_dir(&log_dir).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    for start in ["first", "second"] {
        let refused = cluster.try_start(1).await.err().unwrap();
        assert!(matches!(refused, StartError::Damaged { .. }), "{start}: {refused}");
        assert_eq!(std::fs::read_dir(&log_dir).unwrap().count(), 0, "{start}: nothing is made that hides the loss");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_came_with_a_wrong_root_key_may_come_back_with_an_empty_disk() {
    let mut cluster = Cluster::of(2);
    let mut stranger = cluster.config(2);
    stranger.root_key = RootKey::from_bytes(&[8; 32]);
    let (first, second) = tokio::join!(Node::start(cluster.config(1)), Node::start(stranger));
    assert!(matches!(second, Err(StartError::Key(_))));
    std::fs::remove_dir_all(cluster.data_dir(2)).unwrap();
    cluster.start(2).await;
    let first = first.unwrap();
    ready(&first).await;
    write(&first, space()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_that_no_message_takes_are_refused_at_the_start() {
    let mut cluster = Cluster::of(1);
    cluster.limits.log.entry_bytes_max = 64 << 20;
    let refused = cluster.try_start(1).await.err().unwrap();
    assert!(matches!(&refused, StartError::Config(reason) if reason.contains("entry_bytes_max")), "{refused}");
    cluster.limits.log.entry_bytes_max = 63 << 20;
    cluster.start(1).await;
}
