//! Changes of the members over gRPC: what is refused, and what each refusal says. What they do is tested with clusters.

use cairn_proto::v1;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::support::{TestNode, reason, space, violations};

fn add(node_id: u64, peer_address: &str, client_address: &str) -> v1::AddMemberRequest {
    v1::AddMemberRequest { node_id, peer_address: peer_address.into(), client_address: client_address.into() }
}

#[track_caller]
fn assert_refused(refused: Result<(), Status>, code: Code, why: &str) {
    let status = refused.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (code, why), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_name_their_field() {
    let mut node = TestNode::start().await;
    let cluster = &mut node.cluster;
    let answers = [
        (cluster.add_member(add(0, "n:1", "n:2")).await.map(drop), "node_id"),
        (cluster.add_member(add(2, "", "n:2")).await.map(drop), "peer_address"),
        (cluster.add_member(add(2, "n:1", "n")).await.map(drop), "client_address"),
        (cluster.promote_member(v1::PromoteMemberRequest { node_id: 0 }).await.map(drop), "node_id"),
        (cluster.remove_member(v1::RemoveMemberRequest { node_id: 0 }).await.map(drop), "node_id"),
    ];
    for (answer, field) in answers {
        let status = answer.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert_eq!(violations(&status)[0].0, field);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_learner_comes_and_goes_and_its_id_is_not_used_again() {
    let mut node = TestNode::start().await;
    let cluster = &mut node.cluster;
    let added = cluster.add_member(add(2, "127.0.0.1:1", "127.0.0.1:2")).await.unwrap().into_inner().member.unwrap();
    assert_eq!((added.node_id, added.role(), added.reachable), (2, v1::MemberRole::Learner, false));
    let elsewhere = cluster.add_member(add(2, "127.0.0.1:3", "127.0.0.1:4")).await.map(drop);
    assert_refused(elsewhere, Code::AlreadyExists, "NODE_ALREADY_EXISTS");
    let absent = cluster.promote_member(v1::PromoteMemberRequest { node_id: 2 }).await.map(drop);
    assert_refused(absent, Code::FailedPrecondition, "NODE_NOT_CAUGHT_UP");
    let unknown = cluster.remove_member(v1::RemoveMemberRequest { node_id: 7 }).await.map(drop);
    assert_refused(unknown, Code::NotFound, "NODE_NOT_FOUND");
    let left = cluster.remove_member(v1::RemoveMemberRequest { node_id: 2 }).await.unwrap().into_inner().members;
    assert_eq!(left.iter().map(|member| member.node_id).collect::<Vec<_>>(), [1]);
    let again = cluster.add_member(add(2, "127.0.0.1:1", "127.0.0.1:2")).await.map(drop);
    assert_refused(again, Code::FailedPrecondition, "NODE_ID_RETIRED");
    let last = cluster.remove_member(v1::RemoveMemberRequest { node_id: 1 }).await.map(drop);
    assert_refused(last, Code::FailedPrecondition, "CHANGE_REFUSED");
    let nobody = cluster.transfer_leadership(v1::TransferLeadershipRequest { node_id: 0 }).await.map(drop);
    assert_refused(nobody, Code::FailedPrecondition, "CHANGE_REFUSED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_node_is_drained_and_comes_back() {
    let mut node = TestNode::start().await;
    let drained = node.cluster.drain_node(v1::DrainNodeRequest { node_id: 0, drain: true }).await.unwrap();
    assert!(drained.into_inner().state.unwrap().draining);
    assert_eq!(node.get("/readyz").await.0, 503);
    let back = node.cluster.drain_node(v1::DrainNodeRequest { node_id: 1, drain: false }).await.unwrap();
    assert!(!back.into_inner().state.unwrap().draining);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_nearly_full_takes_only_deletes() {
    let mut node = TestNode::start_with(|config| config.limits.disk_reserve = 1 << 60).await;
    let request = v1::CreateSpaceRequest { space: Some(space("notes", 2, "")), ..Default::default() };
    let refused = node.spaces.create_space(request).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::ResourceExhausted, "DISK_LOW"), "{refused:?}");
    assert!(refused.get_error_details().retry_info().unwrap().retry_delay.is_some());
    let delete = v1::DeleteSpaceRequest { name: "notes".into(), ..Default::default() };
    let answer = node.spaces.delete_space(delete).await.unwrap_err();
    assert_eq!(answer.code(), Code::NotFound, "a delete is carried out: {answer:?}");
}
