//! Clusters of two releases: this one, pretending to know a cluster version more or less than it does.

use cairn_proto::storage::{Command, Noop, command};
use cairn_raft::{Node, NodeConfig, ProposeError, ReadLevel};

use crate::support::{Cluster, count, eventually, in_time, memory, missing, space, write};

/// What the older release supports.
const OLD: u32 = 1;
/// What the newer one does.
const NEW: u32 = OLD + 1;

/// A command that only the newer release knows.
fn new_command() -> Command {
    Command { cluster_version: NEW, body: Some(command::Body::Noop(Noop {})), ..Command::default() }
}

/// Starts a node of a release.
async fn start(cluster: &mut Cluster, id: u64, supported: u32) {
    let mut config = cluster.config(id);
    config.engine.supported_cluster_version = supported;
    let node = Node::start(config).await.unwrap();
    cluster.adopt(node);
}

async fn at_version(cluster: &Cluster, version: u32) {
    let nodes: Vec<_> = cluster.nodes().collect();
    eventually(&format!("the cluster is at version {version}"), || {
        nodes.iter().all(|node| node.status().cluster_version == version)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_new_waits_until_every_member_knows_it() {
    let mut cluster = Cluster::of(3);
    let start_one = |mut config: NodeConfig| {
        config.engine.supported_cluster_version = if config.node_id == 3 { OLD } else { NEW };
        Node::start(config)
    };
    cluster.start_all_as(start_one).await;
    write(cluster.node(1), space()).await;
    at_version(&cluster, OLD).await;
    let all_reported = |cluster: &Cluster| {
        let states = cluster.node(1).status().members.into_iter().map(|member| member.state);
        states.map(|state| state.map(|state| state.supported_cluster_version)).collect::<Vec<_>>()
    };
    eventually("the nodes know each other's releases", || all_reported(&cluster) == [Some(NEW), Some(NEW), Some(OLD)])
        .await;

    for id in [1, 2, 3] {
        let refused = cluster.node(id).propose(new_command(), in_time()).await;
        assert!(matches!(refused, Err(ProposeError::VersionTooNew { needed: NEW, current: OLD })), "{refused:?}");
    }
    // What both releases know goes on.
    write(cluster.node(3), memory("m1", "tea")).await;
    assert_eq!(cluster.node(2).status().cluster_version, OLD);

    cluster.stop(3).await;
    start(&mut cluster, 3, NEW).await;
    cluster.ready().await;
    at_version(&cluster, NEW).await;
    for id in [1, 2, 3] {
        cluster.node(id).propose(new_command(), in_time()).await.unwrap();
    }
    for node in cluster.nodes() {
        assert_eq!(count(node, ReadLevel::Linearizable).await, 1);
        assert!(node.is_alive());
    }
    cluster.assert_equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_release_does_not_start_in_a_newer_cluster() {
    let mut cluster = Cluster::of(1);
    start(&mut cluster, 1, NEW).await;
    cluster.ready().await;
    write(cluster.node(1), space()).await;
    at_version(&cluster, NEW).await;
    cluster.stop(1).await;
    // It would not understand its own log.
    let refused = cluster.try_start(1).await.err().unwrap().to_string();
    assert!(refused.contains("version 2") && refused.contains("start a newer release"), "{refused}");
    start(&mut cluster, 1, NEW).await;
    cluster.ready().await;
    assert!(missing(cluster.node(1), &["m1".to_string()]).await.len() == 1, "it answers");
}
