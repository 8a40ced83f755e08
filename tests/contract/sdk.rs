//! The contract in the SDK's own words: every call of it answers, and refuses.

use cairn_client::{
    ChangeKind, Client, ErrorKind, FieldType, Memory, Namespace, NewSpace, Order, Query, Scope, Space, field,
};
use cairn_tests::TestCluster;
use futures::{StreamExt as _, TryStreamExt as _};

use crate::expect::next_change;

/// A story and its refusals, each call through a client of the next node.
pub(crate) async fn run(cluster: &TestCluster) {
    // Newcomers of the other faces have come and gone.
    let running = cluster.nodes().iter().filter(|node| node.process_id().is_some());
    let clients: Vec<_> = running.map(|node| cluster.client_of(node.id)).collect();
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

    filters(first, last).await;
    follow(&there, added.position.as_str()).await;
    import(&here, &there).await;
    read(&here, &there).await;
    change_and_look_back(&here, &there).await;
    spaces(first, last).await;
    missing(last).await;

    first.set_alias("sdk-alias", "sdk-story").await.unwrap();
    assert_eq!(last.space("sdk-alias").count().await.unwrap().count, 11);
    first.remove_alias("sdk-alias").await.unwrap();
    assert_eq!(last.space("sdk-alias").count().await.unwrap_err().kind(), ErrorKind::NotFound);

    assert_eq!(here.delete(["milk", "nobody"]).await.unwrap().count, 1);
    assert_eq!(there.list().stream().count().await, 10);
    assert_eq!(last.delete_space("sdk-story").await.unwrap().count, 10);
}

async fn filters(first: &Client, last: &Client) {
    first.create_space(NewSpace::new("sdk-filters", 2)).await.unwrap();
    let (here, there) = (first.space("sdk-filters"), last.space("sdk-filters"));
    let memory = |id: &str, n: i64, word: &str| Memory::new(id).id(id).metadata("n", n).metadata("word", word);
    let two = [memory("a", 1, "tea").kind("fact"), memory("b", 2, "teapot")];
    here.add_all(two).await.unwrap();
    let (n, word, kind) = (|| field("metadata.n"), || field("metadata.word"), || field("kind"));
    let cases = [
        (n().ne(1), vec!["b"]),
        (n().is_in([1, 7]), vec!["a"]),
        (n().not_in([1, 7]), vec!["b"]),
        (n().gt(1), vec!["b"]),
        (n().gte(1), vec!["a", "b"]),
        (n().lt(2), vec!["a"]),
        (n().lte(2), vec!["a", "b"]),
        (word().contains("apo"), vec!["b"]),
        (word().starts_with("tea"), vec!["a", "b"]),
        (kind().exists(), vec!["a"]),
        (kind().is_missing(), vec!["b"]),
        (n().gt(0).and(kind().exists()), vec!["a"]),
        (n().gt(1).or(kind().exists()), vec!["a", "b"]),
    ];
    for (filter, ids) in cases {
        let asked = format!("{filter:?}");
        let list = there.list().filter(filter).order(Order::Created);
        let found: Vec<_> = list.stream().map_ok(|memory| memory.id).try_collect().await.unwrap();
        assert_eq!(found, ids, "{asked}");
    }
    let error = there.search(Query::vector(vec![1.0, 0.0])).filter(field("colour").exists()).await.unwrap_err();
    assert_eq!(error.violations()[0].field, "filter.where.field");
    let error = there.delete_matching(Scope::new(), Some(field("kind").gt(1))).await.unwrap_err();
    assert_eq!(error.violations()[0].field, "selection.filter.where.gt");
    first.delete_space("sdk-filters").await.unwrap();
}

async fn read(here: &Space, there: &Space) {
    here.add(Memory::new("stand-up at nine").id("nine").namespace("team/x")).await.unwrap();
    let found = there.get(["nine", "nobody"]).await.unwrap();
    assert_eq!(
        (found.memories[0].content.as_str(), found.missing_ids),
        ("stand-up at nine", vec!["nobody".to_owned()])
    );
    let page = there.list().order(Order::Created).page_size(2).await.unwrap();
    assert_eq!((page.memories.len(), page.next_page_token.is_some()), (2, true));
    let below: Vec<_> = there.namespaces().below("team").stream().try_collect().await.unwrap();
    assert_eq!(below, [Namespace { path: "team/x".into(), memory_count: 1 }]);
    let kinds = [
        there.list().page_token("abc").await.unwrap_err().kind(),
        there.namespaces().below("a//b").await.unwrap_err().kind(),
        there.get(Vec::<String>::new()).await.unwrap_err().kind(),
        there.search(Query::vector(vec![1.0; 4])).limit(5_000).await.unwrap_err().kind(),
        there.delete(Vec::<String>::new()).await.unwrap_err().kind(),
    ];
    assert_eq!(kinds, [ErrorKind::InvalidArgument; 5]);
    let error = there.search("words").await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::FailedPrecondition, Some("NO_EMBEDDER")));
    here.delete(["nine"]).await.unwrap();
}

async fn change_and_look_back(here: &Space, there: &Space) {
    let change = here.update("milk").content("soy milk").vector(vec![0.0, 0.0, 1.0, 0.0]).metadata("size", "large");
    let changed = change.expected_version(1).actor("ada").reason("changed her mind").await.unwrap().memory;
    assert_eq!((changed.version, changed.content.as_str()), (2, "soy milk"));
    let told: Vec<_> = there.history("milk").page_size(1).stream().try_collect().await.unwrap();
    let told: Vec<_> =
        told.iter().map(|one| (one.memory.version, one.memory.content.as_str(), one.actor.as_str())).collect();
    assert_eq!(told, [(2, "soy milk", "ada"), (1, "oat milk", "")]);

    let error = there.update("milk").kind("fact").expected_version(1).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::Conflict, Some("VERSION_MISMATCH")));
    let error = there.update("milk").content("rice milk").await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::FailedPrecondition, Some("VECTOR_NEEDED")));
    let gone = [there.update("nobody").kind("x").await.unwrap_err(), there.history("nobody").await.unwrap_err()];
    assert!(gone.iter().all(|error| error.kind() == ErrorKind::NotFound), "{gone:?}");
}

async fn spaces(first: &Client, last: &Client) {
    let changed =
        first.update_space("sdk-story").history_depth(1).fields([("topic", FieldType::Keyword)]).await.unwrap();
    assert_eq!((changed.space.history_depth, changed.space.fields.len()), (1, 1));
    let info = last.space("sdk-story").info().at_least(changed.position).await.unwrap();
    assert_eq!((info.space.version, info.statistics.memories), (2, 11));
    let names: Vec<_> = last.spaces().page_size(1).stream().try_collect().await.unwrap();
    assert!(names.iter().any(|space| space.name == "sdk-story"), "{names:?}");
    let status = last.status().await.unwrap();
    assert!(status.leader_id > 0 && !status.members.is_empty(), "{status:?}");

    let error = last.update_space("sdk-story").history_depth(2).expected_version(1).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::Conflict, Some("VERSION_MISMATCH")));
    let error = first.create_space(NewSpace::new("sdk-story", 4)).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::AlreadyExists, Some("SPACE_ALREADY_EXISTS")));
    let error = last.spaces().page_size(5_000).await.unwrap_err();
    assert_eq!((error.kind(), error.violations()[0].field.as_str()), (ErrorKind::InvalidArgument, "page_size"));
    // The server of `told` makes vectors of dimension 4.
    let wide = first.create_space(NewSpace::new("sdk-told", 5).embedder("told")).await.unwrap_err();
    let field = (wide.kind(), wide.violations()[0].field.as_str());
    assert_eq!(field, (ErrorKind::InvalidArgument, "space.embeddings[0].dense.dimension"));
    first.create_space(NewSpace::new("sdk-told", 5)).await.unwrap();
    let wide = last.update_space("sdk-told").embedder("default", "told").await.unwrap_err();
    let field = (wide.kind(), wide.violations()[0].field.as_str());
    assert_eq!(field, (ErrorKind::InvalidArgument, "space.embeddings[0].embedder"));
    let unknown = last.update_space("sdk-told").embedder("default", "tole").await.unwrap_err();
    assert_eq!((unknown.kind(), unknown.reason()), (ErrorKind::FailedPrecondition, Some("UNKNOWN_EMBEDDER")));
    last.delete_space("sdk-told").await.unwrap();
}

/// Every call about a space that is not there.
async fn missing(client: &Client) {
    let space = client.space("nowhere");
    let nothing = || futures::stream::iter([Memory::new("x")]);
    let errors = [
        space.add(Memory::new("x")).await.unwrap_err(),
        space.update("a").kind("x").await.unwrap_err(),
        space.delete(["a"]).await.unwrap_err(),
        space.search(Query::vector(vec![1.0; 4])).await.unwrap_err(),
        space.list().await.unwrap_err(),
        space.get(["a"]).await.unwrap_err(),
        space.history("a").await.unwrap_err(),
        space.namespaces().await.unwrap_err(),
        space.info().await.unwrap_err(),
        space.watch().stream().next().await.unwrap().unwrap_err(),
        space.import("monday").stream(nothing()).next().await.unwrap().unwrap_err(),
        client.update_space("nowhere").history_depth(1).await.unwrap_err(),
        client.delete_space("nowhere").await.unwrap_err(),
        client.set_alias("nobody", "nowhere").await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!((error.kind(), error.reason()), (ErrorKind::NotFound, Some("SPACE_NOT_FOUND")), "{error}");
    }
}

/// A change after `position` is told, and one before it is not.
async fn follow(space: &Space, position: &str) {
    space.add(Memory::new("tea").id("tea").user("ada")).await.unwrap();
    space.delete(["tea"]).await.unwrap();
    let mut watch = space.watch().after(position).scope(Scope::new().user("ada")).stream();
    for expected in [ChangeKind::Created, ChangeKind::Deleted] {
        let change = next_change(&mut watch).await;
        assert_eq!((change.id.as_str(), change.kind), ("tea", expected));
    }
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
