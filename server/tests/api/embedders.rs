//! Spaces whose texts become vectors on a server of the configuration: here one in this process.

use axum::routing::post;
use axum::{Json, Router};
use cairn_proto::v1;
use cairn_server::config::OpenAiEntry;
use serde_json::{Value, json};
use tonic::Code;

use crate::support::{TestNode, by_text, memory, reason, space};

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
    TestNode::start_with(|config| config.embedders.openai = vec![entry, dead]).await
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
