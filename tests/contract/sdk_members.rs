//! A node that comes and goes, in the SDK's own words.

use std::time::{Duration, Instant};

use cairn_client::proto::MemberRole;
use cairn_client::{Client, ErrorKind};
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
    promote(&client, id).await;
    cluster.wait_until_ready().await.unwrap();
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
