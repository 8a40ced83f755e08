//! The contract of the public API over gRPC, JSON over HTTP and the Rust SDK, on one node and on three, where every call goes
//! to another node than the one before.
//!
//! | file | what is in it |
//! |---|---|
//! | `face.rs` | one way to call any RPC, whatever it travels over |
//! | `grpc.rs`, `http.rs` | the two ways that take any request |
//! | `expect.rs` | what an answer must hold |
//! | `story.rs` | every RPC where all goes well |
//! | `filters.rs` | every test of a filter, by what it finds |
//! | `refusals.rs` | every limit, and what is not there |
//! | `members.rs` | a member that comes, leads and goes |
//! | `sdk.rs`, `sdk_options.rs`, `sdk_members.rs` | all of it in the SDK's own words |
//! | `sdk_calls.rs` | nothing that the SDK offers is left out |
//! | `old_positions.rs` | watches from where nothing is kept any more |

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that meets an error has failed")]

mod expect;
mod face;
mod filters;
mod grpc;
mod http;
mod members;
mod old_positions;
mod refusals;
mod sdk;
mod sdk_calls;
mod sdk_members;
mod sdk_options;
mod story;

use cairn_tests::TestCluster;
use face::Face;

/// An embedder whose dimension is known and whose server is not there.
const SETTINGS: &str = r#"
embedders:
  openai: [ { name: told, url: "http://127.0.0.1:9/v1", model: m-4, dimension: 4, attempts: 1 } ]
"#;

/// Each face has spaces and a newcomer of its own.
async fn hold_to_it(nodes: u64) {
    let mut cluster = TestCluster::start_with(nodes, SETTINGS).await;
    for face in [Face::grpc(&cluster).await, Face::http(&cluster)] {
        story::run(&face, nodes).await;
        filters::run(&face).await;
        refusals::run(&face).await;
        members::run(&face, &mut cluster).await;
        assert_eq!(face.left_out(), Vec::<String>::new());
    }
    sdk::run(&cluster).await;
    sdk_options::run(&cluster).await;
    sdk_members::run(&mut cluster).await;
    cluster.wait_until_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_keeps_the_contract() {
    hold_to_it(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_keep_the_contract() {
    hold_to_it(3).await;
}
