//! Members that come and go as an operator moves them: real processes, and the command line.

#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::process::{Command, Output};

use cairn_client::{Memory, NewSpace};
use cairn_tests::{ClusterError, TestCluster, cairn_binary};

/// Runs `cairn` against one node.
fn cairn(cluster: &TestCluster, through: u64, arguments: &[&str]) -> Output {
    let endpoint = cluster.node(through).endpoint();
    Command::new(cairn_binary())
        .args(arguments)
        .args(["--endpoint", &endpoint, "--timeout", "60s"])
        .env_remove("CAIRN_ENDPOINT")
        .output()
        .unwrap()
}

#[track_caller]
fn ok(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_is_replaced_from_the_command_line() {
    let mut cluster = TestCluster::start(3).await;
    let client = cluster.client();
    client.create_space(NewSpace::new("notes", 2)).await.unwrap();
    for number in 0..50 {
        client.space("notes").add(Memory::new(format!("note {number}")).vector(vec![1.0, 0.5])).await.unwrap();
    }
    cluster.kill(3).unwrap();
    let unasked = cairn(&cluster, 1, &["node", "remove", "3"]);
    assert_eq!(unasked.status.code(), Some(2), "nobody can be asked: {unasked:?}");
    let left = ok(&cairn(&cluster, 1, &["node", "remove", "3", "--yes"]));
    assert_eq!(left.lines().count(), 2, "{left}");

    let id = cluster.newcomer().unwrap();
    let (new, peer, grpc) = (id.to_string(), cluster.node(id).peer.to_string(), cluster.node(id).grpc.to_string());
    let early = cairn(&cluster, 1, &["node", "promote", &new]);
    assert_eq!(early.status.code(), Some(3), "it is no member yet: {early:?}");
    let added = ok(&cairn(&cluster, 1, &["node", "add", &new, "--peer", &peer, "--client", &grpc]));
    assert!(added.contains("learner"), "{added}");
    cluster.start_node(id).unwrap();
    let promoted = ok(&cairn(&cluster, 2, &["node", "promote", &new, "--wait", "60s"]));
    assert!(promoted.contains("voter"), "{promoted}");
    cluster.wait_until_ready().await.unwrap();
    assert_eq!(cluster.client_of(id).space("notes").count().await.unwrap().count, 50);

    let leads = ok(&cairn(&cluster, 1, &["node", "transfer-leader", &new]));
    assert_eq!(leads, format!("node {new} leads\n"));
    let drained = ok(&cairn(&cluster, 2, &["node", "drain", &new]));
    assert!(drained.contains("drained"), "{drained}");
    ok(&cairn(&cluster, 2, &["node", "drain", &new, "--undo"]));
    let listed = ok(&cairn(&cluster, 1, &["node", "ls"]));
    assert_eq!(listed.lines().count(), 3, "{listed}");

    // The dead node returns, with its disk, and is told why it may not.
    cluster.start_node(3).unwrap();
    let refused = cluster.wait_until_ready().await.unwrap_err();
    assert!(
        matches!(&refused, ClusterError::Ended { node: 3, log, .. } if log.contains("removed from its cluster")),
        "{refused}"
    );
    cluster.wait_until_equal().await;
}
