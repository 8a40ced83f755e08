//! A node that joins, votes, leads, rests and leaves, and what each step refuses.

use std::time::{Duration, Instant};

use cairn_tests::TestCluster;
use serde_json::{Value, json};

use crate::expect::{answered, refused};
use crate::face::Face;

/// How long a newcomer may take until it has caught up, on a machine that is busy with others.
const PATIENCE: Duration = Duration::from_secs(60);

const PROMOTE: &str = "ClusterService.PromoteMember";
const REMOVE: &str = "ClusterService.RemoveMember";
const LEAD: &str = "ClusterService.TransferLeadership";
const DRAIN: &str = "ClusterService.DrainNode";
const ADD: &str = "ClusterService.AddMember";

pub(crate) async fn run(face: &Face, cluster: &mut TestCluster) {
    let id = cluster.newcomer().unwrap();
    let addresses = (cluster.node(id).peer.to_string(), cluster.node(id).grpc.to_string());
    let this = json!({"node_id": id});
    refused(face, PROMOTE, this.clone(), "NOT_FOUND", "NODE_NOT_FOUND", "").await;
    refused(face, REMOVE, this.clone(), "NOT_FOUND", "NODE_NOT_FOUND", "").await;
    let nameless = json!({"node_id": id, "peer_address": "nowhere", "client_address": addresses.1});
    refused(face, ADD, nameless, "INVALID_ARGUMENT", "INVALID_ARGUMENT", "peer_address").await;

    let newcomer = json!({"node_id": id, "peer_address": addresses.0, "client_address": addresses.1});
    let learner = json!({"member": {"node_id": id, "role": "MEMBER_ROLE_LEARNER"}});
    answered(face, ADD, newcomer.clone(), &learner).await;
    answered(face, ADD, newcomer.clone(), &learner).await;
    refused(face, LEAD, this.clone(), "FAILED_PRECONDITION", "CHANGE_REFUSED", "").await;
    let other = json!({"node_id": id, "peer_address": "127.0.0.1:1", "client_address": addresses.1});
    refused(face, ADD, other, "ALREADY_EXISTS", "NODE_ALREADY_EXISTS", "").await;
    cluster.start_node(id).unwrap();
    promote(face, &this).await;
    cluster.wait_until_ready().await.unwrap();

    answered(face, LEAD, this.clone(), &json!({"leader_id": id})).await;
    // A node that rests does not lead.
    answered(face, DRAIN, json!({"node_id": id, "drain": true}), &json!({"state": {"draining": true}})).await;
    answered(face, DRAIN, json!({"node_id": id, "drain": false}), &json!({"state": {"draining": false}})).await;
    refused(face, DRAIN, json!({"node_id": 99, "drain": true}), "NOT_FOUND", "NODE_NOT_FOUND", "").await;
    answered(face, LEAD, json!({"node_id": 1}), &json!({"leader_id": 1})).await;

    let left = answered(face, REMOVE, this, &json!({"members": "*"})).await;
    let remain = left["members"].as_array().unwrap().iter().map(|member| member["node_id"].to_string());
    assert!(remain.clone().count() > 0 && remain.into_iter().all(|found| found.trim_matches('"') != id.to_string()));
    refused(face, ADD, newcomer, "FAILED_PRECONDITION", "NODE_ID_RETIRED", "").await;
    cluster.kill(id).unwrap();
}

/// Gives the newcomer a vote as soon as it may have one.
async fn promote(face: &Face, this: &Value) {
    let begun = Instant::now();
    loop {
        match face.call(PROMOTE, this.clone(), 1).await {
            Ok(answers) => {
                assert_ne!(answers[0]["member"]["role"], "MEMBER_ROLE_LEARNER", "{answers:?}");
                return;
            }
            Err(refusal) => {
                assert_eq!(
                    (refusal.code.as_str(), refusal.reason.as_str()),
                    ("FAILED_PRECONDITION", "NODE_NOT_CAUGHT_UP")
                );
                assert!(begun.elapsed() < PATIENCE, "the newcomer never catches up");
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
