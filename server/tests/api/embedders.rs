//! Spaces whose texts become vectors on a server of the configuration: here one in this process.

use axum::routing::post;
use axum::{Json, Router};
use cairn_proto::v1;
use cairn_server::config::OpenAiEntry;
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::support::{TestNode, by_text, memory, reason, space, violations};

/// Vectors of dimension 4 that hold how often `a`, `b` and `c` stand in the text.
async fn answer(Json(ask): Json<Value>) -> Json<Value> {
    let texts = ask["input"].as_array().unwrap();
    let data = texts.iter().enumerate().map(|(index, text)| {
        let count = |letter: &str| text.as_str().unwrap().matches(letter).count();
        json!({"index": index, "embedding": [count("a"), count("b"), count("c"), 1]})
    });
    Json(json!({"data": data.collect::<Vec<_>>(), "model": ask["model"]}))
}

async fn node() -> TestNode {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/v1/embeddings", post(answer))).await });
    let entry = OpenAiEntry { name: "letters".into(), url, model: "abc-1".into(), ..Default::default() };
    let dead = OpenAiEntry {
        name: "dead".into(),
        url: "http://127.0.0.1:9/v1".into(),
        model: "x".into(),
        attempts: 1,
        ..Default::default()
    };
    let told = OpenAiEntry { name: "told".into(), dimension: 4, ..entry.clone() };
    TestNode::start_with(|config| config.embedders.openai = vec![entry, dead, told]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_become_vectors_of_the_configured_server() {
    let mut node = node().await;
    let made = node.create(space("notes", 4, "letters")).await;
    assert_eq!(made.embeddings[0].model, "abc-1", "a space that names no model gets the embedder's");
    node.add("notes", vec![memory("a", "aaa", &[]), memory("b", "bbb", &[]), memory("c", "ccc", &[])]).await;
    let found = node.memories.search_memories(by_text("notes", "bb")).await.unwrap().into_inner();
    assert_eq!(found.hits[0].memory.as_ref().unwrap().id, "b");
    let (_, metrics) = node.get("/metrics").await;
    assert!(metrics.contains(r#"cairn_embedded_texts_total{embedder="letters"} 4"#), "{metrics}");
    assert!(metrics.contains(r#"cairn_embed_requests_total{embedder="letters",outcome="ok"} 2"#), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn spaces_that_do_not_fit_their_embedder_are_refused() {
    let mut node = node().await;
    node.create(space("wide", 8, "letters")).await;
    let mut older = space("older", 4, "letters");
    older.embeddings[0].model = "abc-0".into();
    node.create(older).await;
    node.create(space("lost", 4, "dead")).await;
    node.create(space("none", 4, "")).await;
    for (name, code, expected) in [
        ("wide", Code::FailedPrecondition, "EMBEDDER_DIMENSION"),
        ("older", Code::FailedPrecondition, "MODEL_MISMATCH"),
        ("lost", Code::Unavailable, "EMBEDDER_UNAVAILABLE"),
        ("none", Code::FailedPrecondition, "NO_EMBEDDER"),
    ] {
        let status = node.memories.search_memories(by_text(name, "a")).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (code, expected), "{name}");
        if name != "none" {
            let memories = vec![memory("", "a", &[])];
            let request = v1::AddMemoriesRequest { space: name.into(), memories, ..Default::default() };
            let status = node.memories.add_memories(request).await.unwrap_err();
            assert_eq!((status.code(), reason(&status).as_str()), (code, expected), "{name}");
            assert_eq!(node.count(name).await, 0, "nothing is written without its vector");
        }
    }
}

/// Gives a space another embedder.
async fn change(node: &mut TestNode, name: &str, embedder: &str) -> Result<v1::Embedding, Status> {
    let request = v1::UpdateSpaceRequest {
        space: Some(space(name, 0, embedder)),
        update_mask: Some(prost_types::FieldMask { paths: vec!["embeddings.default.embedder".into()] }),
        ..Default::default()
    };
    node.spaces.update_space(request).await.map(|changed| changed.into_inner().space.unwrap().embeddings.remove(0))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_embedder_that_does_not_fit_a_space_is_refused_before_the_first_text() {
    let mut node = node().await;
    let create = |name: &str, dimension, embedder: &str| v1::CreateSpaceRequest {
        space: Some(space(name, dimension, embedder)),
        ..Default::default()
    };
    let status = node.spaces.create_space(create("wide", 8, "told")).await.unwrap_err();
    let (field, description) = violations(&status).remove(0);
    assert_eq!((status.code(), field.as_str()), (Code::InvalidArgument, "space.embeddings[0].dense.dimension"));
    assert_eq!(description, "is 8; embedder `told` makes vectors of 4");
    let status = node.spaces.create_space(create("wide", 8, "tole")).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::FailedPrecondition, "UNKNOWN_EMBEDDER"));
    assert!(status.message().contains("dead, hash, letters, told"), "{status:?}");

    node.create(space("wide", 8, "")).await;
    let status = change(&mut node, "wide", "told").await.unwrap_err();
    let (field, description) = violations(&status).remove(0);
    assert_eq!((status.code(), field.as_str()), (Code::InvalidArgument, "space.embeddings[0].embedder"));
    assert_eq!(description, "`told` makes vectors of dimension 4; those of the space have 8");
    let status = change(&mut node, "wide", "tole").await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::FailedPrecondition, "UNKNOWN_EMBEDDER"));
    let status = change(&mut node, "nowhere", "told").await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::NotFound, "SPACE_NOT_FOUND"));

    node.create(space("fits", 4, "")).await;
    let changed = change(&mut node, "fits", "told").await.unwrap();
    assert_eq!((changed.embedder.as_str(), changed.model.as_str()), ("told", "abc-1"));
    node.add("fits", vec![memory("a", "aaa", &[]), memory("b", "bbb", &[])]).await;
    let found = node.memories.search_memories(by_text("fits", "b")).await.unwrap().into_inner();
    assert_eq!(found.hits[0].memory.as_ref().unwrap().id, "b");
    let changed = change(&mut node, "fits", "").await.unwrap();
    assert_eq!(
        (changed.embedder.as_str(), changed.model.as_str()),
        ("", "abc-1"),
        "its vectors are still of that model"
    );
}

/// Nodes may have other configurations than the one on which a space was made.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lacks_the_embedder_of_a_space_refuses_its_texts() {
    let mut node = node().await;
    node.create(space("notes", 4, "told")).await;
    node.add("notes", vec![memory("a", "aaa", &[])]).await;
    let mut node = node.restart().await;
    let memories = vec![memory("b", "bbb", &[])];
    let add = v1::AddMemoriesRequest { space: "notes".into(), memories, ..Default::default() };
    let update = v1::UpdateMemoryRequest {
        space: "notes".into(),
        memory: Some(memory("a", "ccc", &[])),
        update_mask: Some(prost_types::FieldMask { paths: vec!["content".into()] }),
        ..Default::default()
    };
    let refused = [
        node.memories.add_memories(add).await.unwrap_err(),
        node.memories.update_memory(update).await.unwrap_err(),
        node.memories.search_memories(by_text("notes", "aaa")).await.unwrap_err(),
    ];
    for status in refused {
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::FailedPrecondition, "UNKNOWN_EMBEDDER"),
            "{status:?}"
        );
    }
    assert_eq!(node.count("notes").await, 1);
}
