//! What keeps one caller, or many spaces, from taking a node's memory: answers that are not read, messages that are nested
//! deeply, and indexes.

use std::time::{Duration, Instant};

use cairn_proto::v1;
use cairn_proto::v1::import_memories_request::Message;
use futures::stream;
use prost::Message as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::bad_input::RawCodec;
use crate::support::{TestNode, by_vector, memory, reason, space, vector};

/// Short enough for a test, and long enough for a machine that is busy with others.
const STALL: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn an_import_whose_acknowledgements_are_not_read_is_shed_and_goes_on_later() {
    const BATCH: u64 = 200;
    let mut node = TestNode::start_with(|config| {
        config.limits.imports_in_flight = 1;
        config.limits.stream_stall_timeout = STALL;
    })
    .await;
    node.create(space("notes", 4, "")).await;
    let batch = |number: u64| {
        // Long ids make long acknowledgements, which soon fill what connection and stream hold.
        let id = |n: u64| format!("{n:0>250}");
        let memories = (0..BATCH).map(|n| memory(&id(number * BATCH + n), "", &[])).collect();
        let message = Message::Batch(v1::ImportBatch { offset: number * BATCH, memories });
        v1::ImportMemoriesRequest { message: Some(message) }
    };
    let header = |import_id: &str| {
        let header = v1::ImportHeader { space: "notes".into(), import_id: import_id.into(), ..Default::default() };
        v1::ImportMemoriesRequest { message: Some(Message::Header(header)) }
    };
    let first = header("i");
    let (sender, messages) = tokio::sync::mpsc::channel(1);
    let sending = tokio::spawn(async move {
        let mut sent = 0;
        if sender.send(first).await.is_err() {
            return sent;
        }
        // Ends when the node takes no more.
        while sent < 500 && sender.send(batch(sent)).await.is_ok() {
            sent += 1;
        }
        sent
    });
    let mut responses = node.memories.import_memories(ReceiverStream::new(messages)).await.unwrap().into_inner();
    // The place of the only import is free again once this one is shed, though it is still not read.
    let begun = Instant::now();
    while let Err(status) = node.memories.import_memories(stream::iter([header("other")])).await {
        assert_eq!(reason(&status), "OVERLOADED", "{status:?}");
        assert!(begun.elapsed() < PATIENCE, "the import is never shed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut acknowledged = 0;
    let status = loop {
        match responses.message().await {
            Ok(Some(response)) => acknowledged = response.acknowledged_offset,
            Ok(None) => panic!("the import ended in order after {acknowledged}"),
            Err(status) => break status,
        }
    };
    assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "SLOW_READER"));
    assert!(status.get_error_details().retry_info().is_some());
    drop(responses);
    let sent = sending.await.unwrap() * BATCH;
    assert!(acknowledged > 0 && acknowledged < sent, "{acknowledged} of {sent}");
    assert!(node.count("notes").await >= acknowledged, "what was acknowledged is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_over_http_that_is_not_read_is_shed() {
    let mut node = TestNode::start_with(|config| {
        config.limits.streams_in_flight = 1;
        config.limits.stream_stall_timeout = STALL;
    })
    .await;
    node.create(space("notes", 4, "")).await;
    let unread = node.open("/v1/spaces/notes/memories:watch?include_memory=true").await;
    let text = "x".repeat(500_000);
    let begun = Instant::now();
    let mut stream = loop {
        // Until the sockets between them are full, whatever the system lets them hold.
        node.add("notes", vec![memory("", &text, &[]), memory("", &text, &[])]).await;
        let request = v1::WatchMemoriesRequest { space: "notes".into(), ..Default::default() };
        match node.memories.watch_memories(request).await {
            Ok(stream) => break stream.into_inner(),
            Err(status) => assert_eq!(reason(&status), "OVERLOADED", "{status:?}"),
        }
        assert!(begun.elapsed() < PATIENCE, "the watch is never shed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(stream.message().await.unwrap().is_some(), "its place serves another one");
    drop(unread);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_nested_without_end_are_refused() {
    let node = TestNode::with_notes().await;
    // A filter of `not`s, as bytes: the generated type cannot even be dropped at this depth.
    let leaf = v1::Condition { field: "kind".into(), test: Some(v1::condition::Test::Exists(true)) };
    let mut filter = v1::Filter { node: Some(v1::filter::Node::Where(leaf)) }.encode_to_vec();
    let request = v1::CountMemoriesRequest { space: "notes".into(), ..Default::default() }.encode_to_vec();
    let within = |tag: u8, inner: &[u8]| {
        let mut bytes = vec![tag];
        prost::encoding::encode_varint(inner.len() as u64, &mut bytes);
        bytes.extend_from_slice(inner);
        bytes
    };
    for _ in 0..20_000 {
        // `Filter.not` is field 3.
        filter = within(3 << 3 | 2, &filter);
    }
    // `CountMemoriesRequest.filter` is field 3.
    let message = [request, within(3 << 3 | 2, &filter)].concat();
    let mut raw = tonic::client::Grpc::new(node.channel.clone());
    raw.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/cairn.v1.MemoryService/CountMemories");
    let refused = raw.unary(tonic::Request::new(message), path, RawCodec).await.map(drop).unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");

    let json = format!("{}{}", "{\"filter\": ".to_owned() + &"{\"not\": ".repeat(20_000), "}".repeat(20_001));
    let nested = |path: &'static str, body: String| {
        let node = &node;
        async move { node.http("POST", path, &["content-type: application/json"], body.as_bytes()).await.status }
    };
    assert_eq!(nested("/v1/spaces/notes/memories:count", json).await, 400);
    let lists = format!(r#"{{"memories": [{{"metadata": {{"a": {}1{}}}}}]}}"#, "[".repeat(20_000), "]".repeat(20_000));
    assert_eq!(nested("/v1/spaces/notes/memories", lists).await, 400);
    assert_eq!(node.get("/livez").await.0, 200);
}

async fn statistics(node: &mut TestNode, name: &str) -> v1::SpaceStatistics {
    let request = v1::GetSpaceRequest { name: name.into(), ..Default::default() };
    node.spaces.get_space(request).await.unwrap().into_inner().statistics.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn indexes_keep_to_their_memory_and_leave_it_when_they_are_idle() {
    let mut node = TestNode::start_with(|config| {
        config.storage.index_memory = 1 << 20;
        config.storage.index_idle = Duration::from_secs(10);
    })
    .await;
    let values = |n: u32| {
        let mut values = vec![0.0; 512];
        values[n as usize % 512] = 1.0;
        values
    };
    for (name, memories) in [("small", 100), ("large", 1_000)] {
        node.create(space(name, 512, "")).await;
        let numbers: Vec<u32> = (0..memories).collect();
        for some in numbers.chunks(500) {
            let memories =
                some.iter().map(|n| v1::Memory { vectors: vec![vector(&values(*n))], ..memory("", "", &[]) });
            node.add(name, memories.collect()).await;
        }
    }
    assert_eq!(
        node.memories.search_memories(by_vector("small", &values(7))).await.unwrap().into_inner().hits.len(),
        10
    );
    assert_eq!(statistics(&mut node, "small").await.index_tier, "flat");
    let refused = node.memories.search_memories(by_vector("large", &values(7))).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::ResourceExhausted, "INDEX_MEMORY"), "{refused:?}");
    assert!(refused.message().contains("storage.index_memory"), "{refused:?}");
    assert_eq!(node.count("large").await, 1_000, "it is lists and counts that need no index");

    let begun = Instant::now();
    while statistics(&mut node, "small").await.index_tier != "unloaded" {
        assert!(begun.elapsed() < PATIENCE, "the index never leaves");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let found = node.memories.search_memories(by_vector("small", &values(7))).await.unwrap().into_inner();
    assert_eq!(found.hits.len(), 10, "and it comes back for the next search");
}
