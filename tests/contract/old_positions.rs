//! Half a million changes later a position is not kept any more, and a watch from there is told so, whatever it travels over.

use cairn_client::{ErrorKind, Memory, NewSpace};
use cairn_tests::TestCluster;
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::json;

use crate::expect::{next_change, refused};
use crate::face::Face;

/// One more than the changes that a node keeps for watches; see `Limits::feed_changes_max` of the engine.
const CHANGES: usize = 500_001;
const WATCH: &str = "MemoryService.WatchMemories";

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_from_a_position_that_is_not_kept_is_told_so() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client();
    client.create_space(NewSpace::new("old", 2)).await.unwrap();
    let space = client.space("old");
    let first = space.add(Memory::new("first").id("first")).await.unwrap().position;
    let memories = (0..CHANGES).map(|number| Memory::new("m").id(format!("m{number}")));
    let steps: Vec<_> = space.import("many").stream(futures::stream::iter(memories)).try_collect().await.unwrap();
    assert_eq!(steps.last().unwrap().acknowledged, CHANGES as u64);

    for face in [Face::grpc(&cluster).await, Face::http(&cluster)] {
        let request = json!({"space": "old", "after": first.as_str()});
        refused(&face, WATCH, request, "OUT_OF_RANGE", "POSITION_NOT_KEPT", "").await;
    }
    let error = space.watch().after(first).stream().next().await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::OutOfRange, Some("POSITION_NOT_KEPT")), "{error}");
    // As the error says: list anew, and watch from there.
    let listed = space.list().page_size(1).await.unwrap().position;
    let mut watch = space.watch().after(listed).stream();
    space.delete(["first"]).await.unwrap();
    assert_eq!(next_change(&mut watch).await.id, "first");
}
