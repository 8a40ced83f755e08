//! Each method does what its comment in the `.proto` files says.

use std::collections::BTreeSet;
use std::time::Duration;

use cairn_proto::v1;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::support::{TestNode, by_text, by_vector, equals, memory, reason, space, text};

#[tokio::test(flavor = "multi_thread")]
async fn spaces_are_made_read_listed_and_deleted() {
    let mut node = TestNode::start().await;
    let made = node.create(space("alpha", 8, "hash")).await;
    assert_eq!((made.name.as_str(), made.version, made.embeddings[0].name.as_str()), ("alpha", 1, "default"));
    node.create(space("beta", 3, "")).await;

    let got = node.spaces.get_space(v1::GetSpaceRequest { name: "alpha".into(), consistency: None }).await.unwrap();
    let got = got.into_inner();
    assert_eq!(got.space.unwrap().id, made.id);
    assert_eq!(got.statistics.unwrap().memories, 0);
    assert!(!got.position.is_empty());

    let list = v1::ListSpacesRequest { page_size: 1, ..Default::default() };
    let first = node.spaces.list_spaces(list.clone()).await.unwrap().into_inner();
    assert_eq!(first.spaces[0].name, "alpha");
    let next = v1::ListSpacesRequest { page_token: first.next_page_token, ..list };
    let second = node.spaces.list_spaces(next).await.unwrap().into_inner();
    assert_eq!((second.spaces[0].name.as_str(), second.next_page_token.as_str()), ("beta", ""));

    let again = v1::CreateSpaceRequest { space: Some(space("alpha", 8, "")), request_id: String::new() };
    let status = node.spaces.create_space(again).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::AlreadyExists, "SPACE_ALREADY_EXISTS"));

    node.add("alpha", vec![memory("a", "one", &[]), memory("b", "two", &[])]).await;
    let delete = v1::DeleteSpaceRequest { name: "alpha".into(), request_id: String::new() };
    let deleted = node.spaces.delete_space(delete).await.unwrap().into_inner();
    assert_eq!(deleted.deleted_count, 2);
    let status =
        node.spaces.get_space(v1::GetSpaceRequest { name: "alpha".into(), consistency: None }).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::NotFound, "SPACE_NOT_FOUND"));
}

#[tokio::test(flavor = "multi_thread")]
async fn memories_are_written_read_listed_counted_and_deleted() {
    let mut node = TestNode::with_notes().await;
    let mut tagged = memory("a", "first", &[1.0, 0.0, 0.0, 0.0]);
    tagged.metadata.insert("topic".into(), text("tea"));
    let written =
        node.add("notes", vec![tagged, memory("b", "second", &[0.0, 1.0, 0.0, 0.0]), memory("", "third", &[])]).await;
    assert_eq!(written.results.len(), 3);
    assert!(written.results.iter().all(|result| result.outcome() == v1::WriteOutcome::Created && result.version == 1));
    assert_eq!(written.results[2].id.len(), 36, "an id is made where none is given");

    let replaced = node.add("notes", vec![memory("b", "second, again", &[0.0, 1.0, 0.0, 0.0])]).await;
    assert_eq!(replaced.results[0].outcome(), v1::WriteOutcome::Replaced);
    assert_eq!(replaced.results[0].version, 2);

    let get = v1::GetMemoriesRequest {
        space: "notes".into(),
        ids: vec!["b".into(), "nobody".into()],
        include_vectors: true,
        ..Default::default()
    };
    let got = node.memories.get_memories(get).await.unwrap().into_inner();
    assert_eq!(
        (got.memories[0].content.as_str(), got.missing_ids.as_slice()),
        ("second, again", &["nobody".to_owned()][..])
    );
    assert_eq!(got.memories[0].vectors.len(), 1);
    assert_eq!(node.count("notes").await, 3);

    let filtered = v1::CountMemoriesRequest {
        space: "notes".into(),
        filter: Some(equals("metadata.topic", text("tea"))),
        ..Default::default()
    };
    assert_eq!(node.memories.count_memories(filtered).await.unwrap().into_inner().count, 1);

    let mut found = BTreeSet::new();
    let mut list = v1::ListMemoriesRequest { space: "notes".into(), page_size: 2, ..Default::default() };
    loop {
        let page = node.memories.list_memories(list.clone()).await.unwrap().into_inner();
        found.extend(page.memories.into_iter().map(|memory| memory.content));
        if page.next_page_token.is_empty() {
            break;
        }
        list.page_token = page.next_page_token;
    }
    assert_eq!(found, BTreeSet::from(["first".into(), "second, again".into(), "third".into()]));

    let by_id = v1::delete_memories_request::Target::Ids(v1::MemoryIds { ids: vec!["a".into(), "nobody".into()] });
    let delete = v1::DeleteMemoriesRequest { space: "notes".into(), target: Some(by_id), ..Default::default() };
    assert_eq!(node.memories.delete_memories(delete).await.unwrap().into_inner().deleted_count, 1);
    let all = v1::delete_memories_request::Target::Selection(v1::Selection { all: true, ..Default::default() });
    let delete = v1::DeleteMemoriesRequest { space: "notes".into(), target: Some(all), ..Default::default() };
    assert_eq!(node.memories.delete_memories(delete).await.unwrap().into_inner().deleted_count, 2);
    assert_eq!(node.count("notes").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_by_vector_is_ordered_filtered_and_explained() {
    let mut node = TestNode::with_notes().await;
    let mut near = memory("near", "near", &[1.0, 0.1, 0.0, 0.0]);
    near.metadata.insert("topic".into(), text("tea"));
    let far = memory("far", "far", &[0.0, 0.0, 1.0, 0.0]);
    node.add("notes", vec![far, near, memory("blind", "no vector", &[])]).await;

    let request = v1::SearchMemoriesRequest { explain: true, ..by_vector("notes", &[1.0, 0.0, 0.0, 0.0]) };
    let found = node.memories.search_memories(request.clone()).await.unwrap().into_inner();
    let ids: Vec<_> = found.hits.iter().map(|hit| hit.memory.as_ref().unwrap().id.as_str()).collect();
    assert_eq!(ids, ["near", "far"], "best first; a memory without a vector is no hit");
    assert!(found.hits[0].score > 0.99 && (found.hits[0].score + found.hits[0].distance - 1.0).abs() < 1e-6);
    assert!(!found.plan.unwrap().strategy.is_empty());

    let filtered = v1::SearchMemoriesRequest { filter: Some(equals("metadata.topic", text("tea"))), ..request };
    assert_eq!(node.memories.search_memories(filtered).await.unwrap().into_inner().hits.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn text_becomes_vectors_where_the_space_has_an_embedder() {
    let mut node = TestNode::start().await;
    node.create(space("words", 384, "hash")).await;
    let memories = vec![
        memory("coffee", "Maria drinks her coffee black, without sugar", &[]),
        memory("disk", "The nightly backup failed because the disk was full", &[]),
        memory("own", "A memory that brings its own vector", &[0.05; 384]),
        memory("empty", "", &[]),
    ];
    node.add("words", memories).await;
    let found = node.memories.search_memories(by_text("words", "how does maria like her coffee?")).await.unwrap();
    let hits = found.into_inner().hits;
    assert_eq!(hits[0].memory.as_ref().unwrap().id, "coffee");
    assert_eq!(hits.len(), 3, "a memory without content has no vector");

    node.create(space("vectors", 4, "")).await;
    let status = node.memories.search_memories(by_text("vectors", "coffee")).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::FailedPrecondition, "NO_EMBEDDER"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_id_returns_the_first_outcome() {
    let mut node = TestNode::with_notes().await;
    let request = v1::AddMemoriesRequest {
        space: "notes".into(),
        memories: vec![memory("", "once", &[])],
        request_id: "request-1".into(),
        ..Default::default()
    };
    let first = node.memories.add_memories(request.clone()).await.unwrap().into_inner();
    let again = node.memories.add_memories(request.clone()).await.unwrap().into_inner();
    assert_eq!(first.results, again.results);
    assert_eq!(node.count("notes").await, 1);

    let other = v1::AddMemoriesRequest { memories: vec![memory("", "twice", &[])], ..request };
    let status = node.memories.add_memories(other).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_freshness_is_served() {
    use v1::consistency::Level;

    let mut node = TestNode::with_notes().await;
    let position = node.add("notes", vec![memory("a", "one", &[])]).await.position;
    let levels = [
        Level::Linearizable(v1::Linearizable {}),
        Level::AtLeast(position),
        Level::MaxStaleness(prost_types::Duration { seconds: 60, nanos: 0 }),
    ];
    for level in levels {
        let consistency = Some(v1::Consistency { level: Some(level.clone()) });
        let request = v1::CountMemoriesRequest { space: "notes".into(), consistency, ..Default::default() };
        let response = node.memories.count_memories(request).await.unwrap().into_inner();
        assert_eq!(response.count, 1, "{level:?}");
        assert!(!response.position.is_empty(), "{level:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cluster_tells_its_state() {
    let mut node = TestNode::with_notes().await;
    node.add("notes", vec![memory("a", "one", &[])]).await;
    let mut status = v1::GetClusterStatusResponse::default();
    // Members count their memories once a second.
    for _ in 0..100 {
        status = node.cluster.get_cluster_status(v1::GetClusterStatusRequest {}).await.unwrap().into_inner();
        if status.members[0].state.as_ref().is_some_and(|state| state.memories == 1) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!((status.node_id, status.leader_id, status.members.len()), (1, 1, 1));
    assert_eq!(status.cluster_id.len(), 36, "a UUID");
    let member = &status.members[0];
    assert_eq!(member.role(), v1::MemberRole::Leader);
    assert_eq!(member.client_address, node.handle.addresses().grpc.to_string());
    assert!(member.reachable);
    let state = member.state.as_ref().unwrap();
    assert_eq!(state.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(state.memories, 1);
    assert!(state.applied_index > 0 && !state.digest.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_are_listed_with_their_counts() {
    let mut node = TestNode::with_notes().await;
    let mut nested = memory("a", "one", &[]);
    nested.scope = Some(v1::Scope { namespace: Some("team/alpha".into()), ..Default::default() });
    node.add("notes", vec![nested]).await;
    let request = v1::ListNamespacesRequest { space: "notes".into(), ..Default::default() };
    let response = node.memories.list_namespaces(request).await.unwrap().into_inner();
    assert_eq!((response.namespaces[0].path.as_str(), response.namespaces[0].memory_count), ("team/alpha", 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_reflection_answer() {
    let node = TestNode::start().await;
    let mut health = HealthClient::new(node.channel.clone());
    for service in ["", "cairn.v1.MemoryService", "cairn.v1.SpaceService", "cairn.v1.ClusterService"] {
        let mut serving = false;
        // The service follows the probes twice a second.
        for _ in 0..40 {
            let request = HealthCheckRequest { service: service.into() };
            serving = health.check(request).await.is_ok_and(|answer| answer.into_inner().status == 1);
            if serving {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(serving, "{service:?} is SERVING");
    }

    let mut reflection = ServerReflectionClient::new(node.channel.clone());
    let request = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let mut answers = reflection.server_reflection_info(futures::stream::iter([request])).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = answer else { panic!("{answer:?}") };
    let names: BTreeSet<_> = list.service.into_iter().map(|service| service.name).collect();
    assert!(names.contains("cairn.v1.MemoryService"), "{names:?}");
    assert!(names.iter().all(|name| !name.contains("peer") && !name.contains("storage")), "{names:?}");
}
