//! What a node makes of calls that are not meant for it, and of peers that do not answer.

use std::time::Duration;

use cairn_proto::peer::peer_service_client::PeerServiceClient;
use cairn_proto::peer::{FetchKeyringRequest, HelloRequest, PeerHeader, ReadIndexRequest};
use cairn_raft::ReadLevel;
use tonic::Code;

use crate::support::{Cluster, absent, count, in_time, memory, space, write};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_not_meant_for_a_node_is_refused() {
    let cluster = Cluster::running(1).await;
    let address = format!("http://{}", cluster.peer_address(1));
    let mut client = PeerServiceClient::connect(address).await.unwrap();
    let fitting = PeerHeader {
        cluster_id: cluster.node(1).status().cluster_id.to_vec().into(),
        group: 0,
        from_node_id: 2,
        from_incarnation: vec![5; 16].into(),
        to_node_id: 1,
    };
    let mut ask = async |header: Option<PeerHeader>| {
        client.read_index(ReadIndexRequest { header }).await.map(drop).map_err(|status| status.code())
    };
    assert_eq!(ask(Some(fitting.clone())).await, Ok(()));
    assert_eq!(ask(None).await, Err(Code::InvalidArgument));
    let wrong = [
        PeerHeader { cluster_id: vec![9; 16].into(), ..fitting.clone() },
        PeerHeader { group: 1, ..fitting.clone() },
        PeerHeader { to_node_id: 3, ..fitting.clone() },
        // Node 2 has been seen in another directory above.
        PeerHeader { from_incarnation: vec![6; 16].into(), ..fitting.clone() },
    ];
    for header in wrong {
        assert_eq!(ask(Some(header.clone())).await, Err(Code::FailedPrecondition), "{header:?}");
    }
    let short = PeerHeader { from_incarnation: vec![6; 3].into(), ..fitting };
    assert_eq!(ask(Some(short)).await, Err(Code::InvalidArgument));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keyring_is_handed_to_one_directory_per_id() {
    let cluster = Cluster::running(1).await;
    let address = format!("http://{}", cluster.peer_address(1));
    let mut client = PeerServiceClient::connect(address).await.unwrap();
    let fetch = |incarnation: u8, opened: bool| FetchKeyringRequest {
        node_id: 2,
        incarnation: vec![incarnation; 16].into(),
        opened,
    };
    let refused = client.fetch_keyring(fetch(3, false)).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound, "keys are for members: {refused}");
    cluster.node(1).add_member(absent(2), in_time()).await.unwrap();
    let first = client.fetch_keyring(fetch(3, false)).await.unwrap().into_inner();
    assert!(first.known_nodes.iter().any(|node| node.node_id == 1));
    assert!(first.known_nodes.iter().all(|node| node.node_id != 2), "a caller that opened nothing is not remembered");
    client.fetch_keyring(fetch(1, false)).await.unwrap();
    client.fetch_keyring(fetch(1, true)).await.unwrap();
    for opened in [false, true] {
        let refused = client.fetch_keyring(fetch(2, opened)).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
    }
    let hello = HelloRequest { node_id: 2, incarnation: vec![2; 16].into(), ..HelloRequest::default() };
    assert!(client.hello(hello).await.unwrap().into_inner().id_in_use);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_takes_calls_and_never_answers_holds_nobody_up() {
    let mut cluster = Cluster::running(3).await;
    write(cluster.node(1), space()).await;
    let silent = cluster.follower().await;
    cluster.stop(silent).await;
    // The system completes connections to a listening socket even if nobody takes them.
    let listener = std::net::TcpListener::bind(cluster.peer_address(silent)).unwrap();
    for n in 0..10 {
        let node = cluster.nodes().nth(n % 2).unwrap();
        write(node, memory(&format!("m{n}"), "tea")).await;
        assert_eq!(count(node, ReadLevel::Linearizable).await, n as u64 + 1);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    drop(listener);
    cluster.start(silent).await;
    assert_eq!(count(cluster.node(silent), ReadLevel::Linearizable).await, 10);
}
