//! A node that comes and goes, in the SDK's own words.

use std::time::{Duration, Instant};

use cairn_client::proto::MemberRole;
use cairn_client::{Client, ErrorKind, Memory, NewSpace, Query};
use cairn_tests::TestCluster;

/// See `members.rs`.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn run(cluster: &mut TestCluster) {
    let id = cluster.newcomer().unwrap();
    let (peer, grpc) = (cluster.node(id).peer.to_string(), cluster.node(id).grpc.to_string());
    // Through a node that stays.
    let client = cluster.client_of(1);
    let before = client.status().await.unwrap().members.len();
    let reason = |error: cairn_client::Error| (error.kind(), error.reason().unwrap_or_default().to_owned());
    let not_found = (ErrorKind::NotFound, "NODE_NOT_FOUND".to_owned());
    assert_eq!(reason(client.promote_member(id).await.unwrap_err()), not_found);
    assert_eq!(reason(client.remove_member(id).await.unwrap_err()), not_found);
    assert_eq!(reason(client.drain_node(99, true).await.unwrap_err()), not_found);
    let error = client.add_member(id, "nowhere", &grpc).await.unwrap_err();
    assert_eq!((error.kind(), error.violations()[0].field.as_str()), (ErrorKind::InvalidArgument, "peer_address"));

    let added = client.add_member(id, &peer, &grpc).await.unwrap();
    assert_eq!((added.node_id, added.role()), (id, MemberRole::Learner));
    let refused = reason(client.transfer_leadership(Some(id)).await.unwrap_err());
    assert_eq!(refused, (ErrorKind::FailedPrecondition, "CHANGE_REFUSED".to_owned()));
    cluster.start_node(id).unwrap();
    cluster.wait_until_ready().await.unwrap();
    // Without a vote it is a replica that serves what was written a moment ago, and takes writes for the leader.
    client.create_space(NewSpace::new("sdk-replica", 2)).await.unwrap();
    let replica = cluster.client_of(id).space("sdk-replica");
    replica.add(Memory::new("tea").id("tea").vector(vec![1.0, 0.0])).await.unwrap();
    client.space("sdk-replica").add(Memory::new("milk").vector(vec![0.0, 1.0])).await.unwrap();
    assert_eq!(replica.count().await.unwrap().count, 2);
    assert_eq!(replica.count().max_staleness(Duration::from_secs(60)).await.unwrap().count, 2);
    let found = replica.search(Query::vector(vec![1.0, 0.0])).limit(1).await.unwrap();
    assert_eq!(found.hits[0].memory.id, "tea");
    client.delete_space("sdk-replica").await.unwrap();
    promote(&client, id).await;
    assert_eq!(client.transfer_leadership(Some(id)).await.unwrap(), id);
    assert!(client.drain_node(id, true).await.unwrap().draining);
    assert!(!client.drain_node(id, false).await.unwrap().draining);
    assert_eq!(client.transfer_leadership(Some(1)).await.unwrap(), 1);

    assert_eq!(client.remove_member(id).await.unwrap().len(), before);
    let retired = reason(client.add_member(id, &peer, &grpc).await.unwrap_err());
    assert_eq!(retired, (ErrorKind::FailedPrecondition, "NODE_ID_RETIRED".to_owned()));
    assert_eq!(client.status().await.unwrap().members.len(), before);
    cluster.kill(id).unwrap();
}

async fn promote(client: &Client, id: u64) {
    let begun = Instant::now();
    while let Err(error) = client.promote_member(id).await {
        assert_eq!(error.reason(), Some("NODE_NOT_CAUGHT_UP"), "{error}");
        assert!(begun.elapsed() < PATIENCE, "the newcomer never catches up");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
