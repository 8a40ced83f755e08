//! The contract in the SDK's own words.

use cairn_client::{ChangeKind, ErrorKind, Memory, NewSpace, Query, Scope, Space, WatchEvent, field};
use cairn_tests::TestCluster;
use futures::StreamExt as _;

/// A story and its refusals, each call through a client of the next node.
pub(crate) async fn run(cluster: &TestCluster) {
    let clients: Vec<_> = cluster.nodes().iter().map(|node| cluster.client_of(node.id)).collect();
    let (first, last) = (&clients[0], &clients[clients.len() - 1]);
    first.create_space(NewSpace::new("sdk-story", 4).history_depth(3)).await.unwrap();
    let (here, there) = (first.space("sdk-story"), last.space("sdk-story"));

    let memory =
        Memory::new("oat milk").id("milk").user("ada").metadata("topic", "coffee").vector(vec![1.0, 0.0, 0.0, 0.0]);
    let added = here.add(memory.clone()).request_id("once").await.unwrap();
    assert_eq!(there.add(memory).request_id("once").await.unwrap().results, added.results);
    let found = there
        .search(Query::vector(vec![1.0, 0.0, 0.0, 0.0]))
        .filter(field("metadata.topic").eq("coffee"))
        .await
        .unwrap();
    assert_eq!(found.hits[0].memory.content, "oat milk");
    assert_eq!(there.count().scope(Scope::new().user("ada")).at_least(added.position.clone()).await.unwrap().count, 1);

    let error = there.add(Memory::new("x").vector(vec![1.0])).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.violations()[0].field.as_str()),
        (ErrorKind::InvalidArgument, "memories[0].vectors[0].dense.values")
    );
    let error = there.add(Memory::new("x").id("milk")).insert_only().await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::AlreadyExists, Some("MEMORY_ALREADY_EXISTS")));
    let error = last.space("nowhere").count().await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::NotFound, Some("SPACE_NOT_FOUND")));

    follow(&there, added.position.as_str()).await;
    import(&here, &there).await;

    first.set_alias("sdk-alias", "sdk-story").await.unwrap();
    assert_eq!(last.space("sdk-alias").count().await.unwrap().count, 11);
    first.remove_alias("sdk-alias").await.unwrap();
    assert_eq!(last.space("sdk-alias").count().await.unwrap_err().kind(), ErrorKind::NotFound);

    assert_eq!(here.delete(["milk", "nobody"]).await.unwrap().count, 1);
    assert_eq!(there.list().stream().count().await, 10);
    assert_eq!(last.delete_space("sdk-story").await.unwrap().count, 10);
}

/// A change after `position` is told, and one before it is not.
async fn follow(space: &Space, position: &str) {
    space.add(Memory::new("tea").id("tea").user("ada")).await.unwrap();
    space.delete(["tea"]).await.unwrap();
    let events = space.watch().after(position).scope(Scope::new().user("ada")).stream();
    let changes = events.filter_map(|event| async move {
        match event.unwrap() {
            WatchEvent::Change(change) => Some((change.id, change.kind)),
            WatchEvent::Progress(_) => None,
        }
    });
    let told: Vec<_> = changes.take(2).collect().await;
    assert_eq!(told, [("tea".to_owned(), ChangeKind::Created), ("tea".to_owned(), ChangeKind::Deleted)]);
}

/// Imported twice under one name, written once.
async fn import(here: &Space, there: &Space) {
    for space in [here, there] {
        let memories = (0..10).map(|number| Memory::new("imported").id(format!("i{number}")));
        let mut progress = space.import("tuesday").stream(futures::stream::iter(memories));
        let mut acknowledged = 0;
        while let Some(step) = progress.next().await {
            acknowledged = step.unwrap().acknowledged;
        }
        assert_eq!(acknowledged, 10);
    }
    let written = there.get(["i0", "i9"]).await.unwrap();
    assert!(written.memories.iter().all(|memory| memory.version == 1), "{written:?}");
}
