//! UpdateMemory and GetMemoryHistory as a client sees them; what each mask does to a record is tested in the engine.

use cairn_proto::v1;
use tonic::{Code, Status};

use crate::support::{TestNode, by_text, by_vector, memory, reason, space, text, violations};

fn request(space: &str, paths: &[&str], memory: v1::Memory) -> v1::UpdateMemoryRequest {
    let paths = paths.iter().map(|path| (*path).to_owned()).collect();
    v1::UpdateMemoryRequest {
        space: space.into(),
        memory: Some(memory),
        update_mask: Some(prost_types::FieldMask { paths }),
        ..Default::default()
    }
}

async fn update(node: &mut TestNode, request: v1::UpdateMemoryRequest) -> Result<v1::Memory, Status> {
    let response = node.memories.update_memory(request).await?.into_inner();
    assert!(!response.position.is_empty());
    Ok(response.memory.unwrap())
}

async fn history(node: &mut TestNode, id: &str) -> Result<Vec<v1::Revision>, Status> {
    let request = v1::GetMemoryHistoryRequest { space: "notes".into(), id: id.into(), ..Default::default() };
    Ok(node.memories.get_memory_history(request).await?.into_inner().revisions)
}

async fn best(node: &mut TestNode, query: &str) -> (String, f64) {
    let found = node.memories.search_memories(by_text("words", query)).await.unwrap().into_inner();
    let hit = &found.hits[0];
    (hit.memory.as_ref().unwrap().id.clone(), hit.score)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_content_is_embedded_again() {
    let mut node = TestNode::start().await;
    node.create(space("words", 384, "hash")).await;
    let disk = "The nightly backup failed because the disk was full";
    let coffee = "Maria drinks her coffee black, without sugar";
    node.add("words", vec![memory("a", disk, &[]), memory("b", "Something about gardens", &[])]).await;
    assert_eq!(best(&mut node, disk).await.0, "a");

    let updated = update(&mut node, request("words", &["content"], memory("a", coffee, &[]))).await.unwrap();
    assert_eq!((updated.content.as_str(), updated.version), (coffee, 2));
    let (id, score) = best(&mut node, coffee).await;
    assert_eq!(id, "a");
    assert!(score > 0.999, "the vector is that of the new text: {score}");
    assert!(best(&mut node, disk).await.1 < 0.5, "nothing is found by the old text");

    // Without a mask, and as a whole, it is no different.
    update(&mut node, request("words", &[], memory("a", disk, &[]))).await.unwrap();
    assert!(best(&mut node, disk).await.1 > 0.999);
    update(&mut node, request("words", &["*"], memory("a", coffee, &[]))).await.unwrap();
    assert!(best(&mut node, coffee).await.1 > 0.999);

    // The caller's own vector is taken as it is.
    let own = memory("a", disk, &[0.05; 384]);
    update(&mut node, request("words", &["content", "vectors"], own)).await.unwrap();
    assert!(best(&mut node, disk).await.1 < 0.9);
    let found = node.memories.search_memories(by_vector("words", &[0.05; 384])).await.unwrap().into_inner();
    assert_eq!(found.hits[0].memory.as_ref().unwrap().id, "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_are_embedded_anew_where_the_space_changes_meanwhile() {
    let mut node = TestNode::start().await;
    node.create(space("words", 384, "hash")).await;
    node.add("words", vec![memory("a", "nothing yet", &[])]).await;
    let mut spaces = node.spaces.clone();
    let relabel = tokio::spawn(async move {
        for number in 0..40 {
            let mut space = space("words", 384, "hash");
            space.embeddings[0].name = "default".into();
            space.embeddings[0].model = format!("m{}", number % 2);
            let request = v1::UpdateSpaceRequest {
                space: Some(space),
                update_mask: Some(prost_types::FieldMask { paths: vec!["embeddings.default.model".into()] }),
                ..Default::default()
            };
            spaces.update_space(request).await.unwrap();
        }
    });
    let mut written = 0;
    while !relabel.is_finished() || written == 0 {
        let change = request("words", &["content"], memory("a", &format!("text number {written}"), &[]));
        match update(&mut node, change).await {
            Ok(_) => written += 1,
            // It met a change each time that the server tried.
            Err(status) => assert_eq!(reason(&status), "EMBEDDER_CHANGED", "{status:?}"),
        }
    }
    relabel.await.unwrap();
    assert!(best(&mut node, &format!("text number {}", written - 1)).await.1 > 0.999);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_gets_its_vector_from_the_moment_on_at_which_its_space_has_an_embedder() {
    let mut node = TestNode::start().await;
    node.create(space("words", 384, "")).await;
    node.add("words", vec![memory("a", "tea", &[])]).await;
    node.add("words", vec![memory("b", "tea", &[])]).await;
    let mut with_embedder = space("words", 384, "hash");
    with_embedder.embeddings[0].name = "default".into();
    let request = v1::UpdateSpaceRequest {
        space: Some(with_embedder),
        update_mask: Some(prost_types::FieldMask { paths: vec!["embeddings.default.embedder".into()] }),
        ..Default::default()
    };
    node.spaces.update_space(request).await.unwrap();
    node.add("words", vec![memory("c", "tea", &[])]).await;
    assert_eq!(best(&mut node, "tea").await.0, "c");
    let found = node.memories.search_memories(by_vector("words", &[0.05; 384])).await.unwrap().into_inner();
    assert_eq!(found.hits.len(), 1, "the others were written without a vector");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_content_without_an_embedder_needs_a_vector() {
    let mut node = TestNode::with_notes().await;
    node.add("notes", vec![memory("a", "tea", &[1.0, 0.0, 0.0, 0.0])]).await;
    let status = update(&mut node, request("notes", &["content"], memory("a", "coffee", &[]))).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::FailedPrecondition, "VECTOR_NEEDED"));
    let new = memory("a", "coffee", &[0.0, 1.0, 0.0, 0.0]);
    update(&mut node, request("notes", &["content", "vectors"], new)).await.unwrap();
    let search = by_vector("notes", &[0.0, 1.0, 0.0, 0.0]);
    let found = node.memories.search_memories(search).await.unwrap().into_inner();
    assert!(found.hits[0].score > 0.999);
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_of_an_update_say_what_to_do() {
    let mut node = TestNode::with_notes().await;
    node.add("notes", vec![memory("a", "tea", &[])]).await;
    let kind = |id: &str| v1::Memory { kind: "fact".into(), ..memory(id, "", &[]) };

    let stale = v1::UpdateMemoryRequest { expected_version: 7, ..request("notes", &["kind"], kind("a")) };
    let status = update(&mut node, stale).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Aborted, "VERSION_MISMATCH"));
    let status = update(&mut node, request("notes", &["kind"], kind("nobody"))).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::NotFound, "MEMORY_NOT_FOUND"));

    let large = |key: &str| {
        let mut memory = memory("a", "", &[]);
        memory.metadata.insert(key.into(), text(&"x".repeat(40 << 10)));
        memory
    };
    update(&mut node, request("notes", &["metadata.one"], large("one"))).await.unwrap();
    let cases = [
        (request("notes", &["color"], kind("a")), "update_mask.paths[0]"),
        (request("notes", &[], memory("a", "", &[])), "update_mask"),
        (request("notes", &["kind"], kind("")), "memory.id"),
        (request("notes", &["vectors"], memory("a", "", &[1.0])), "memory.vectors[0].dense.values"),
        (request("notes", &["metadata.two"], large("two")), "memory.metadata"),
        (request("", &["kind"], kind("a")), "space"),
    ];
    for (bad, field) in cases {
        let status = update(&mut node, bad).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{field}: {status:?}");
        assert_eq!(violations(&status)[0].0, field);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_update_is_applied_once_also_after_a_restart() {
    let mut node = TestNode::with_notes().await;
    node.add("notes", vec![memory("a", "tea", &[])]).await;
    let once = v1::UpdateMemoryRequest {
        request_id: "update-1".into(),
        expected_version: 1,
        ..request("notes", &["kind"], v1::Memory { kind: "fact".into(), ..memory("a", "", &[]) })
    };
    let first = update(&mut node, once.clone()).await.unwrap();
    assert_eq!(update(&mut node, once.clone()).await.unwrap(), first);
    let mut node = node.restart().await;
    assert_eq!(update(&mut node, once).await.unwrap(), first);
    assert_eq!(first.version, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_tells_who_and_why_and_goes_with_its_memory() {
    let mut node = TestNode::start().await;
    node.create(v1::Space { history_depth: 2, ..space("notes", 4, "") }).await;
    node.add("notes", vec![memory("a", "tea", &[])]).await;
    for kind in ["one", "two", "three"] {
        let new = v1::UpdateMemoryRequest {
            actor: format!("agent {kind}"),
            reason: format!("because {kind}"),
            ..request("notes", &["kind"], v1::Memory { kind: kind.into(), ..memory("a", "", &[]) })
        };
        update(&mut node, new).await.unwrap();
    }
    let revisions = history(&mut node, "a").await.unwrap();
    let said: Vec<_> = revisions
        .iter()
        .map(|revision| (revision.actor.as_str(), revision.reason.as_str(), revision.principal.as_str()))
        .collect();
    assert_eq!(
        said,
        [
            ("agent three", "because three", "anonymous"),
            ("agent two", "because two", "anonymous"),
            ("agent one", "because one", "anonymous"),
        ]
    );
    assert!(revisions.iter().all(|revision| revision.change() == v1::ChangeType::Updated));
    assert!(revisions.iter().all(|revision| revision.changed_at.is_some()));

    let ids = v1::delete_memories_request::Target::Ids(v1::MemoryIds { ids: vec!["a".into()] });
    let delete = v1::DeleteMemoriesRequest { space: "notes".into(), target: Some(ids), ..Default::default() };
    node.memories.delete_memories(delete).await.unwrap();
    let status = history(&mut node, "a").await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::NotFound, "MEMORY_NOT_FOUND"));

    for (id, page_size, field) in [("", 0, "id"), ("a", 1_001, "page_size"), ("a", -1, "page_size")] {
        let bad = v1::GetMemoryHistoryRequest { space: "notes".into(), id: id.into(), page_size, ..Default::default() };
        let status = node.memories.get_memory_history(bad).await.unwrap_err();
        assert_eq!((status.code(), violations(&status)[0].0.as_str()), (Code::InvalidArgument, field));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_and_histories_are_served_as_json_too() {
    let mut node = TestNode::start().await;
    node.create(v1::Space { history_depth: 5, ..space("notes", 4, "hash") }).await;
    node.add("notes", vec![memory("a", "tea", &[])]).await;
    let path = "/v1/spaces/notes/memories/a";
    let patch = async |body: serde_json::Value| {
        node.http("PATCH", path, &["content-type: application/json"], body.to_string().as_bytes()).await
    };
    let change = serde_json::json!({
        "memory": {"content": "coffee", "metadata": {"cup": {"map_value": {"entries": {"size": 2}}}}},
        "update_mask": ["content", "metadata.cup.size"],
        "expected_version": "1",
        "actor": "json",
        "reason": "said so",
    });
    let answer = patch(change.clone()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let updated = answer.json();
    assert_eq!(
        (updated["memory"]["content"].as_str(), updated["memory"]["version"].as_str()),
        (Some("coffee"), Some("2"))
    );
    assert!(!updated["position"].as_str().unwrap().is_empty());

    let stale = patch(change).await;
    assert_eq!((stale.status, stale.json()["reason"].as_str()), (409, Some("VERSION_MISMATCH")), "{}", stale.body);
    let unknown = patch(serde_json::json!({"memory": {"kind": "x"}, "update_mask": "color"})).await;
    assert_eq!(
        (unknown.status, unknown.json()["reason"].as_str()),
        (400, Some("INVALID_ARGUMENT")),
        "{}",
        unknown.body
    );

    let history = node.http("GET", &format!("{path}/history?page_size=1"), &[], b"").await.json();
    let newest = &history["revisions"][0];
    assert_eq!((newest["change"].as_str(), newest["actor"].as_str()), (Some("CHANGE_TYPE_UPDATED"), Some("json")));
    let token = history["next_page_token"].as_str().unwrap();
    let rest = node.http("GET", &format!("{path}/history?page_size=1&page_token={token}"), &[], b"").await.json();
    assert_eq!(rest["revisions"][0]["memory"]["content"].as_str(), Some("tea"));
}
