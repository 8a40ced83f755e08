//! ImportMemories: batches, acknowledgements, and what is refused.

use cairn_proto::v1;
use cairn_proto::v1::import_memories_request::Message;
use futures::stream;
use tonic::{Code, Status};

use crate::support::{TestNode, memory, reason, violations};

fn header(import_id: &str) -> v1::ImportMemoriesRequest {
    let header = v1::ImportHeader { space: "notes".into(), import_id: import_id.into(), ..Default::default() };
    v1::ImportMemoriesRequest { message: Some(Message::Header(header)) }
}

fn batch(offset: u64, ids: &[&str]) -> v1::ImportMemoriesRequest {
    batch_of(offset, ids.iter().map(|id| memory(id, "text", &[])).collect())
}

fn batch_of(offset: u64, memories: Vec<v1::Memory>) -> v1::ImportMemoriesRequest {
    v1::ImportMemoriesRequest { message: Some(Message::Batch(v1::ImportBatch { offset, memories })) }
}

/// Sends a whole stream; returns what was acknowledged, and the failure where it ended in one.
async fn import(
    node: &mut TestNode,
    messages: Vec<v1::ImportMemoriesRequest>,
) -> (Vec<v1::ImportMemoriesResponse>, Option<Status>) {
    let mut responses = match node.memories.import_memories(stream::iter(messages)).await {
        Ok(responses) => responses.into_inner(),
        Err(status) => return (Vec::new(), Some(status)),
    };
    let mut acknowledged = Vec::new();
    loop {
        match responses.message().await {
            Ok(Some(response)) => acknowledged.push(response),
            Ok(None) => return (acknowledged, None),
            Err(status) => return (acknowledged, Some(status)),
        }
    }
}

fn offsets(acknowledged: &[v1::ImportMemoriesResponse]) -> Vec<u64> {
    acknowledged.iter().map(|response| response.acknowledged_offset).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_are_acknowledged_in_order_and_applied_once() {
    let mut node = TestNode::with_notes().await;
    let batches = vec![header("i"), batch(0, &["a", "b"]), batch(2, &["c"]), batch(3, &["a"])];
    let (acknowledged, failure) = import(&mut node, batches.clone()).await;
    assert!(failure.is_none(), "{failure:?}");
    assert_eq!(offsets(&acknowledged), [2, 3, 4]);
    let last = &acknowledged[2].results[0];
    assert_eq!((last.outcome(), last.version), (v1::WriteOutcome::Replaced, 2), "a later batch replaces");
    assert_eq!(node.count("notes").await, 3);

    // All of it again, and again from the midst: the same answers, and nothing is written.
    let (again, failure) = import(&mut node, batches).await;
    assert!(failure.is_none());
    assert_eq!(
        again.iter().map(|response| &response.results).collect::<Vec<_>>(),
        acknowledged.iter().map(|response| &response.results).collect::<Vec<_>>()
    );
    let (again, _) = import(&mut node, vec![header("i"), batch(2, &["c"])]).await;
    assert_eq!(offsets(&again), [3]);
    let get = v1::GetMemoriesRequest { space: "notes".into(), ids: vec!["a".into(), "c".into()], ..Default::default() };
    let found = node.memories.get_memories(get).await.unwrap().into_inner().memories;
    assert_eq!(found.iter().map(|memory| memory.version).collect::<Vec<_>>(), [2, 1]);
    // Under another id it is another import.
    let (other, _) = import(&mut node, vec![header("j"), batch(0, &["c"])]).await;
    assert_eq!(other[0].results[0].version, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn gaps_and_overlaps_name_the_offset_that_is_expected() {
    let mut node = TestNode::with_notes().await;
    for wrong in [0, 1, 3] {
        let messages =
            vec![header(&format!("i{wrong}")), batch(0, &["a", "b"]), batch(wrong, &["c"]), batch(3, &["d"])];
        let (acknowledged, failure) = import(&mut node, messages).await;
        let status = failure.unwrap();
        assert_eq!((offsets(&acknowledged), status.code()), (vec![2], Code::InvalidArgument));
        let (field, what) = violations(&status).remove(0);
        assert_eq!((field.as_str(), what.contains("2 is expected")), ("batch.offset", true), "{what}");
    }
    assert_eq!(node.count("notes").await, 2, "nothing behind the failure was written");
    let (_, failure) = import(&mut node, vec![header("i0"), batch(0, &["a", "x"])]).await;
    let status = failure.unwrap();
    assert_eq!(status.code(), Code::InvalidArgument, "another batch at the same offset");
    assert!(violations(&status)[0].0.starts_with("batch.offset"), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_named() {
    let mut node = TestNode::with_notes().await;
    let elsewhere = v1::ImportHeader { space: "nowhere".into(), import_id: "i".into(), ..Default::default() };
    let elsewhere = v1::ImportMemoriesRequest { message: Some(Message::Header(elsewhere)) };
    let (_, failure) = import(&mut node, vec![elsewhere, batch(0, &["a"])]).await;
    let status = failure.unwrap();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::NotFound, "SPACE_NOT_FOUND"));

    let large = batch_of(0, (0..4).map(|_| memory("", &"x".repeat(900_000), &[])).collect());
    let huge = batch_of(0, (0..5).map(|_| memory("", &"x".repeat(1_000_000), &[])).collect());
    let cases = [
        (vec![batch(0, &["a"])], "header", "first message"),
        (vec![v1::ImportMemoriesRequest { message: None }], "header", "first message"),
        (vec![header(""), batch(0, &["a"])], "header.import_id", "64"),
        (vec![header(&"x".repeat(65)), batch(0, &["a"])], "header.import_id", "64"),
        (vec![header("i"), header("i")], "batch", "must be set"),
        (vec![header("i"), batch(0, &[])], "batch.memories", "1000"),
        (vec![header("i"), batch(0, &["a", "a"])], "batch.memories[1].id", "the same"),
        (
            vec![header("i"), batch_of(0, vec![memory("", "x", &[1.0])])],
            "batch.memories[0].vectors[0].dense.values",
            "4",
        ),
        (vec![header("i"), batch(u64::MAX, &["a"])], "batch.offset", "no import"),
        (vec![header("i"), large], "batch.memories", "3145728"),
        (vec![header("i"), huge], "batch", "4 MiB"),
    ];
    for (messages, field, what) in cases {
        let (acknowledged, failure) = import(&mut node, messages).await;
        let status = failure.unwrap_or_else(|| panic!("{field} is accepted"));
        assert_eq!((acknowledged.len(), status.code()), (0, Code::InvalidArgument), "{field}: {status:?}");
        let found = violations(&status);
        assert!(found[0].0 == field && found[0].1.contains(what), "{field} ({what}) is not {found:?}");
    }
    assert_eq!(node.count("notes").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn text_is_embedded_and_an_alias_is_taken_for_its_space() {
    let mut node = TestNode::start().await;
    node.create(crate::support::space("words", 64, "hash")).await;
    let alias = v1::SetAliasRequest { alias: "notes".into(), space: "words".into(), request_id: String::new() };
    node.spaces.set_alias(alias).await.unwrap();
    let (acknowledged, failure) = import(&mut node, vec![header("i"), batch(0, &["a"])]).await;
    assert!(failure.is_none() && acknowledged.len() == 1, "{failure:?}");
    let get = v1::GetSpaceRequest { name: "words".into(), consistency: None };
    let statistics = node.spaces.get_space(get).await.unwrap().into_inner().statistics.unwrap();
    assert_eq!((statistics.memories, statistics.vectors), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn imports_are_bounded() {
    let mut node = TestNode::start_with(|config| config.limits.imports_in_flight = 1).await;
    let (first, messages) = tokio::sync::mpsc::channel(1);
    let open = node.memories.import_memories(tokio_stream::wrappers::ReceiverStream::new(messages)).await.unwrap();
    let (_, failure) = import(&mut node, vec![header("i")]).await;
    let status = failure.unwrap();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "OVERLOADED"));
    drop((first, open));
}
