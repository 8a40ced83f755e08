//! What calls of the SDK can be told beside what they are about: each option changes what it says it changes.

use std::time::Duration;

use cairn_client::{
    Client, Consistency, ErrorKind, Expiry, FieldType, Memory, Metric, NewSpace, Outcome, Query, RetryPolicy, Scope,
    Space, Timestamp, Value, WatchEvent, field,
};
use cairn_tests::TestCluster;
use futures::{StreamExt as _, TryStreamExt as _};

use crate::expect::next_change;

const HOUR: Duration = Duration::from_secs(3600);
const SPACE: &str = "sdk-options";

pub(crate) async fn run(cluster: &TestCluster) {
    let client = Client::builder()
        .endpoints(cluster.nodes().iter().filter(|node| node.process_id().is_some()).map(|node| node.endpoint()))
        .deadline(Duration::from_secs(60))
        .retry(RetryPolicy::default())
        .build()
        .unwrap();
    let wanted = NewSpace::new(SPACE, 2)
        .metric(Metric::Dot)
        .embedding_name("meaning")
        .model("m-2")
        .field("metadata.topic", FieldType::Keyword)
        .default_ttl(HOUR)
        .dedup_by_content(true);
    client.create_space(wanted).await.unwrap();
    let space = client.space(SPACE);
    assert_eq!(space.name(), SPACE);
    memories(&space).await;
    searches(&space).await;
    updates(&space).await;
    streams(&space).await;
    space_changes(&client, &space).await;
    errors(&client, cluster).await;
    assert_eq!(space.delete_everything().await.unwrap().count, 7);
    client.delete_space(SPACE).await.unwrap();
}

async fn memories(space: &Space) {
    let (made, ends) = (Timestamp::from_micros(1_600_000_000_000_000), Timestamp::from_micros(4_000_000_000_000_000));
    let full = Memory::new("oat milk")
        .id("milk")
        .agent("barista")
        .session("s1")
        .importance(0.5)
        .created_at(made)
        .expires_at(ends)
        .metadata("count", 3)
        .metadata("price", 2.5)
        .metadata("fresh", true)
        .vector(vec![1.0, 0.0]);
    space.add(full.clone()).await.unwrap();
    let others = [Memory::new("tea").id("tea").vector(vec![3.0, 0.0]), Memory::new("news").id("news").ttl(HOUR * 2)];
    let added = space.add_all(others).await.unwrap();
    let again = space.add(full.clone().id("twin")).await.unwrap();
    assert_eq!((again.results[0].id.as_str(), again.results[0].outcome), ("milk", Outcome::Deduplicated));

    let seen = Consistency::AtLeast(added.position);
    let read = space.get(["milk", "tea", "news"]).include_vectors(true).consistency(&seen).await.unwrap();
    let [milk, tea, news] = &read.memories[..] else { panic!("{read:?}") };
    assert_eq!(milk.scope, Scope::new().agent("barista").session("s1"));
    assert_eq!((milk.importance, milk.created_at, milk.ends_at()), (Some(0.5), Some(made), Some(ends)));
    assert_eq!(ends.as_micros(), 4_000_000_000_000_000);
    assert_eq!((milk.vectors[0].embedding.as_str(), milk.vectors[0].values.as_slice()), ("meaning", &[1.0, 0.0][..]));
    let value = |key: &str| milk.metadata[key].clone();
    assert_eq!(
        (value("count").as_integer(), value("price").as_f64(), value("fresh").as_bool()),
        (Some(3), Some(2.5), Some(true))
    );
    // Memories of one call are made a microsecond apart, and end together.
    let lives = |memory: &Memory| memory.ends_at().unwrap().as_micros() - memory.created_at.unwrap().as_micros();
    assert_eq!((lives(tea), lives(news)), (3_600_000_000, 7_199_999_999), "the space's time, and its own");
    let mut pages = space.list().include_vectors(true).page_size(2).pages();
    let first = pages.next().await.unwrap().unwrap();
    assert_eq!((first.memories.len(), pages.try_collect::<Vec<_>>().await.unwrap().len()), (2, 1));
}

async fn searches(space: &Space) {
    let ask = || space.search(Query::vector(vec![1.0, 0.0]));
    let ids = |found: &cairn_client::SearchResult| -> Vec<String> {
        found.hits.iter().map(|hit| hit.memory.id.clone()).collect()
    };
    let all = ask().include_vectors(true).explain(true).await.unwrap();
    assert_eq!((ids(&all), all.hits[0].score), (vec!["tea".to_owned(), "milk".to_owned()], 3.0), "by inner product");
    assert_eq!(all.hits[0].memory.vectors[0].values, [3.0, 0.0]);
    assert_eq!(all.plan.unwrap().vectors, 2);
    let plain = ask().await.unwrap();
    assert_eq!((plain.plan, plain.hits[0].memory.vectors.len()), (None, 0));
    assert_eq!(ids(&ask().min_score(2.0).await.unwrap()), ["tea"]);
    assert_eq!(ids(&ask().exact(true).effort(10).scope(Scope::new().session("s1")).await.unwrap()), ["milk"]);
    let refused = ask().effort(20_000).await.unwrap_err();
    assert_eq!(refused.violations()[0].field, "params.effort");
    let refused = space.search(Query::text("milk")).await.unwrap_err();
    assert_eq!(refused.reason(), Some("NO_EMBEDDER"));
}

async fn updates(space: &Space) {
    let later = Timestamp::from_micros(1_700_000_000_000_000);
    let change = space.update("milk").agent("waiter").session("s2").importance(0.75).created_at(later).ttl(HOUR);
    let changed = change.await.unwrap().memory;
    assert_eq!(changed.scope, Scope::new().agent("waiter").session("s2"));
    assert_eq!((changed.importance, changed.created_at), (Some(0.75), Some(later)));
    assert!(changed.ends_at().unwrap() < Timestamp::from_micros(4_000_000_000_000_000));
    let ends = Timestamp::from_micros(4_100_000_000_000_000);
    assert_eq!(space.update("milk").expires_at(ends).await.unwrap().memory.expires, Some(Expiry::At(ends)));
    assert_eq!(space.update("milk").never_expires().await.unwrap().memory.expires, None);
    let bare = space.update("milk").replace_metadata([("size".to_owned(), Value::from("large"))].into()).await.unwrap();
    assert_eq!(bare.memory.metadata, [("size".to_owned(), Value::from("large"))].into());
    let bare = space.update("milk").clear("importance").content("soy milk").no_vector().await.unwrap();
    assert_eq!((bare.memory.importance, bare.memory.content.as_str()), (None, "soy milk"));
    let found = space.search(Query::vector(vec![1.0, 0.0])).await.unwrap();
    assert_eq!(found.hits.len(), 1, "the vector of the old text is gone");
}

async fn streams(space: &Space) {
    let patience = Duration::from_secs(60);
    let mut watch = space.watch().include_memory(true).patience(patience).stream();
    let begun = watch.next().await.unwrap().unwrap();
    assert_eq!(begun, WatchEvent::Progress(begun.position().clone()), "where it begins");
    let memories = (0..4).map(|number| Memory::new(format!("imported {number}")).id(format!("i{number}")));
    let import = || space.import("options").insert_only().patience(patience);
    let all: Vec<_> = import().stream(futures::stream::iter(memories.clone().take(2))).try_collect().await.unwrap();
    assert_eq!(all.last().unwrap().acknowledged, 2);
    let rest: Vec<_> =
        import().from_offset(2).stream(futures::stream::iter(memories.clone().skip(2))).try_collect().await.unwrap();
    assert_eq!((rest[0].acknowledged, rest[0].results.len()), (4, 2));
    let again = space.import("again").insert_only().stream(futures::stream::iter(memories));
    let refused = again.try_collect::<Vec<_>>().await.unwrap_err();
    assert_eq!((refused.kind(), refused.reason()), (ErrorKind::AlreadyExists, Some("MEMORY_ALREADY_EXISTS")));
    let change = next_change(&mut watch).await;
    assert_eq!((change.id.as_str(), change.memory.unwrap().content.as_str()), ("i0", "imported 0"));
}

async fn space_changes(client: &Client, space: &Space) {
    let changed = client.update_space(SPACE).default_ttl(None).dedup_by_content(false).model("meaning", "m-3");
    let changed = changed.await.unwrap().space;
    assert_eq!((changed.default_ttl, changed.dedup_by_content), (None, false));
    let twin = space.add(Memory::new("imported 0").kind("twin")).await.unwrap();
    assert_eq!(twin.results[0].outcome, Outcome::Created);
    assert_eq!(space.delete_matching(Scope::new(), Some(field("kind").eq("twin"))).await.unwrap().count, 1);
}

/// What an error tells beside its kind.
async fn errors(client: &Client, cluster: &TestCluster) {
    let missing = client.space("nowhere").count().await.unwrap_err();
    assert_eq!(missing.resource(), Some(("space", "nowhere")));
    assert!(missing.message().contains("nowhere"), "{missing}");
    assert!(cluster.nodes().iter().any(|node| Some(node.endpoint().as_str()) == missing.endpoint()), "{missing:?}");
    assert_eq!((missing.attempts(), missing.retry_after()), (1, None));
    assert!(!missing.is_transport() && !missing.is_retryable());

    let nobody = Client::builder().endpoints(["http://127.0.0.1:9"]).retry(RetryPolicy::none()).build().unwrap();
    let unreachable = nobody.status().deadline(Duration::from_secs(5)).await.unwrap_err();
    assert_eq!(unreachable.kind(), ErrorKind::Unavailable, "{unreachable}");
    assert!(unreachable.is_transport() && unreachable.is_retryable());
    let endpoint = cluster.nodes()[0].endpoint();
    let small = Client::builder().endpoints([endpoint]).response_bytes_max(16).build().unwrap();
    let refused = small.status().await.unwrap_err();
    assert!(refused.message().contains("limit is: 16"), "{refused}");
}
