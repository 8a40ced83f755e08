//! Each limit of the API gives INVALID_ARGUMENT that names the field and the limit, before anything is changed.

use cairn_proto::v1;
use cairn_proto::v1::memory_service_client::MemoryServiceClient;
use tonic::{Code, Status};

use crate::support::{TestNode, by_text, by_vector, equals, memory, reason, space, text, vector, violations};

/// A status must refuse `field` with a description that holds `limit`.
#[track_caller]
fn refuses(case: &str, answer: Result<(), Status>, field: &str, limit: &str) {
    let status = answer.expect_err(case);
    assert_eq!(status.code(), Code::InvalidArgument, "{case}: {status:?}");
    assert_eq!(reason(&status), "INVALID_ARGUMENT", "{case}");
    let found = violations(&status);
    let named = found.iter().any(|(name, description)| name == field && description.contains(limit));
    assert!(named, "{case}: {field} ({limit}) is not among {found:?}");
    assert!(status.message().contains(&found[0].0), "{case}: {}", status.message());
}

fn add(memories: Vec<v1::Memory>) -> v1::AddMemoriesRequest {
    v1::AddMemoriesRequest { space: "notes".into(), memories, ..Default::default() }
}

fn scoped(scope: v1::Scope) -> v1::Memory {
    v1::Memory { scope: Some(scope), ..memory("", "x", &[]) }
}

fn with_metadata(key: &str, value: v1::Value) -> v1::Memory {
    let mut memory = memory("", "x", &[]);
    memory.metadata.insert(key.into(), value);
    memory
}

fn nested(levels: usize) -> v1::Value {
    (0..levels).fold(text("leaf"), |value, _| {
        let entries = [("a".to_owned(), value)].into();
        v1::Value { kind: Some(v1::value::Kind::MapValue(v1::MapValue { entries })) }
    })
}

fn long(bytes: usize) -> String {
    "x".repeat(bytes)
}

/// Memories that must be refused, the field below `memories[0]`, and the limit.
fn bad_memories() -> Vec<(v1::Memory, &'static str, &'static str)> {
    let number = |value| v1::Value { kind: Some(v1::value::Kind::DoubleValue(value)) };
    let scope = |agent: &str, namespace: &str| {
        let set = |text: &str| (text != "-").then(|| text.to_owned());
        scoped(v1::Scope { agent_id: set(agent), namespace: set(namespace), ..Default::default() })
    };
    let four = [1.0, 0.0, 0.0, 0.0];
    let expiry = |expiry| v1::Memory { expiry: Some(expiry), ..memory("", "x", &[]) };
    vec![
        (memory(&long(256), "x", &[]), "id", "255"),
        (v1::Memory { kind: long(256), ..memory("", "x", &[]) }, "kind", "255"),
        (memory("", &long((1 << 20) + 1), &[]), "content", "1048576"),
        (scope(&long(256), "-"), "scope.agent_id", "255"),
        (scope("", "-"), "scope.agent_id", "empty"),
        (scope("-", "a//b"), "scope.namespace", "segments"),
        (with_metadata("a.b", text("x")), "metadata.a.b", "dot"),
        (with_metadata("a", number(f64::NAN)), "metadata.a", "finite"),
        (with_metadata("a", text(&long(65 << 10))), "metadata", "65536"),
        (with_metadata("a", v1::Value { kind: None }), "metadata.a", "kind"),
        (v1::Memory { importance: Some(1.5), ..memory("", "x", &[]) }, "importance", "0 to 1"),
        (v1::Memory { importance: Some(f32::NAN), ..memory("", "x", &[]) }, "importance", "0 to 1"),
        (expiry(v1::memory::Expiry::Ttl(prost_types::Duration { seconds: -1, nanos: 0 })), "ttl", "at least"),
        (memory("", "x", &[1.0]), "vectors[0].dense.values", "4"),
        (memory("", "x", &[0.0; 4]), "vectors[0].dense.values", "zero"),
        (memory("", "x", &[f32::NAN, 0.0, 0.0, 0.0]), "vectors[0].dense.values", "finite"),
        (v1::Memory { vectors: vec![v1::Vector::default()], ..memory("", "x", &[]) }, "vectors[0]", "dense"),
        (v1::Memory { vectors: vec![vector(&four), vector(&four)], ..memory("", "x", &[]) }, "vectors", "one"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_limit_of_a_memory_is_named() {
    let mut node = TestNode::with_notes().await;
    for (bad, field, limit) in bad_memories() {
        let case = format!("{field} ({limit})");
        let answer = node.memories.add_memories(add(vec![bad])).await.map(drop);
        refuses(&case, answer, &format!("memories[0].{field}"), limit);
    }
    let deep = node.memories.add_memories(add(vec![with_metadata("a", nested(17))])).await.unwrap_err();
    assert!(violations(&deep)[0].0.starts_with("memories[0].metadata.a.a"), "{deep:?}");
    assert_eq!(node.count("notes").await, 0, "nothing was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_limit_of_a_write_is_named() {
    let mut node = TestNode::with_notes().await;
    let one = || vec![memory("", "x", &[])];
    let thousand_and_one: Vec<_> = (0..1_001).map(|_| memory("", "x", &[])).collect();
    let large: Vec<_> = (0..4).map(|_| memory("", &long(900 << 10), &[])).collect();
    let cases = [
        ("no memories", add(Vec::new()), "memories", "1000"),
        ("too many memories", add(thousand_and_one), "memories", "1000"),
        ("more than 3 MiB", add(large), "memories", "3145728"),
        ("empty space", v1::AddMemoriesRequest { space: String::new(), ..add(one()) }, "space", "empty"),
        ("long space", v1::AddMemoriesRequest { space: long(64), ..add(one()) }, "space", "63"),
        ("long request id", v1::AddMemoriesRequest { request_id: long(65), ..add(one()) }, "request_id", "64"),
        ("long actor", v1::AddMemoriesRequest { actor: long(256), ..add(one()) }, "actor", "255"),
        ("long reason", v1::AddMemoriesRequest { reason: long(1_025), ..add(one()) }, "reason", "1024"),
        ("unknown mode", v1::AddMemoriesRequest { write_mode: 9, ..add(one()) }, "write_mode", "UPSERT"),
        ("an id twice", add(vec![memory("a", "x", &[]), memory("a", "y", &[])]), "memories[1].id", "memories[0]"),
        ("the second of two", add(vec![memory("a", "x", &[]), memory(&long(300), "y", &[])]), "memories[1].id", "255"),
    ];
    for (case, request, field, limit) in cases {
        refuses(case, node.memories.add_memories(request).await.map(drop), field, limit);
    }
    assert_eq!(node.count("notes").await, 0, "nothing was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_limit_of_a_read_is_named() {
    let mut node = TestNode::with_notes().await;
    let four = [1.0, 0.0, 0.0, 0.0];
    let search = || by_vector("notes", &four);
    let number = v1::Value { kind: Some(v1::value::Kind::IntegerValue(1)) };
    let cases = [
        ("no query", v1::SearchMemoriesRequest { query: None, ..search() }, "query", "text"),
        ("large limit", v1::SearchMemoriesRequest { limit: 1_001, ..search() }, "limit", "1000"),
        ("negative limit", v1::SearchMemoriesRequest { limit: -1, ..search() }, "limit", "1000"),
        ("wrong dimension", by_vector("notes", &[1.0]), "vectors.vectors[0].dense.values", "4"),
        ("zero vector", by_vector("notes", &[0.0; 4]), "vectors.vectors[0].dense.values", "zero"),
        ("infinite", by_vector("notes", &[f32::INFINITY, 0.0, 0.0, 0.0]), "vectors.vectors[0].dense.values", "finite"),
        ("blank text", by_text("notes", " "), "text", "empty"),
        (
            "unknown field",
            v1::SearchMemoriesRequest { filter: Some(equals("color", text("x"))), ..search() },
            "filter.where.field",
            "",
        ),
        (
            "wrong type",
            v1::SearchMemoriesRequest { filter: Some(equals("kind", number)), ..search() },
            "filter.where.eq",
            "",
        ),
    ];
    for (case, request, field, limit) in cases {
        refuses(case, node.memories.search_memories(request).await.map(drop), field, limit);
    }

    let get = |ids: Vec<String>| v1::GetMemoriesRequest { space: "notes".into(), ids, ..Default::default() };
    refuses("no ids", node.memories.get_memories(get(vec![])).await.map(drop), "ids", "1000");
    let many = (0..1_001).map(|id| id.to_string()).collect();
    refuses("too many ids", node.memories.get_memories(get(many)).await.map(drop), "ids", "1000");

    let list = v1::ListMemoriesRequest { space: "notes".into(), ..Default::default() };
    let cases = [
        ("large page", v1::ListMemoriesRequest { page_size: 1_001, ..list.clone() }, "page_size", "1000"),
        ("negative page", v1::ListMemoriesRequest { page_size: -1, ..list.clone() }, "page_size", "1000"),
        ("foreign token", v1::ListMemoriesRequest { page_token: "abc".into(), ..list.clone() }, "page_token", ""),
        ("unknown order", v1::ListMemoriesRequest { order_by: "beauty".into(), ..list }, "order_by", "created_at"),
    ];
    for (case, request, field, limit) in cases {
        refuses(case, node.memories.list_memories(request).await.map(drop), field, limit);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_token_serves_its_own_list_only() {
    let mut node = TestNode::with_notes().await;
    node.add("notes", (0..3).map(|id| memory(&id.to_string(), "x", &[])).collect()).await;
    let list = v1::ListMemoriesRequest { space: "notes".into(), page_size: 1, ..Default::default() };
    let token = node.memories.list_memories(list.clone()).await.unwrap().into_inner().next_page_token;
    let scope = Some(v1::Scope { user_id: Some("maria".into()), ..Default::default() });
    let other = v1::ListMemoriesRequest { page_token: token, scope, ..list };
    refuses("other arguments", node.memories.list_memories(other).await.map(drop), "page_token", "");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_limit_of_a_space_is_named() {
    let mut node = TestNode::start().await;
    let field = |path: &str| v1::IndexedField { path: path.into(), r#type: v1::FieldType::Keyword.into() };
    let fields = |count: usize| (0..count).map(|number| field(&format!("f{number}"))).collect();
    let good = || space("good", 4, "");
    let cases = [
        ("upper case", space("Bad", 4, ""), "space.name", "63"),
        ("long name", space(&long(64), 4, ""), "space.name", "63"),
        ("no embedding", v1::Space { embeddings: vec![], ..good() }, "space.embeddings", "one"),
        ("dimension 0", space("a", 0, ""), "space.embeddings[0].dense.dimension", "4096"),
        ("dimension 4097", space("a", 4_097, ""), "space.embeddings[0].dense.dimension", "4096"),
        ("65 fields", v1::Space { fields: fields(65), ..good() }, "space.fields", "64"),
        (
            "a field twice",
            v1::Space { fields: vec![field("a"), field("a")], ..good() },
            "space.fields[1].path",
            "twice",
        ),
        ("deep history", v1::Space { history_depth: 1_001, ..good() }, "space.history_depth", "1000"),
    ];
    for (case, bad, field, limit) in cases {
        let request = v1::CreateSpaceRequest { space: Some(bad), request_id: String::new() };
        refuses(case, node.spaces.create_space(request).await.map(drop), field, limit);
    }
    let nothing = v1::CreateSpaceRequest::default();
    refuses("no space", node.spaces.create_space(nothing).await.map(drop), "space.name", "63");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_must_say_what_it_means() {
    use v1::delete_memories_request::Target;

    let mut node = TestNode::with_notes().await;
    node.add("notes", vec![memory("a", "x", &[])]).await;
    let selection = |selection| Some(Target::Selection(selection));
    let user = Some(v1::Scope { user_id: Some("maria".into()), ..Default::default() });
    let cases = [
        ("no target", None, "target"),
        ("empty selection", selection(v1::Selection::default()), "selection"),
        (
            "empty scope",
            selection(v1::Selection { scope: Some(v1::Scope::default()), ..Default::default() }),
            "selection",
        ),
        ("all and a scope", selection(v1::Selection { scope: user, filter: None, all: true }), "selection.all"),
        ("no ids", Some(Target::Ids(v1::MemoryIds::default())), "ids.ids"),
    ];
    for (case, target, field) in cases {
        let request = v1::DeleteMemoriesRequest { space: "notes".into(), target, ..Default::default() };
        refuses(case, node.memories.delete_memories(request).await.map(drop), field, "");
    }
    assert_eq!(node.count("notes").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_freshness_is_checked() {
    use v1::consistency::Level;

    let mut node = TestNode::with_notes().await;
    let staleness = |seconds, nanos| Level::MaxStaleness(prost_types::Duration { seconds, nanos });
    let cases = [
        ("a foreign position", Level::AtLeast("abc".into()), "consistency.at_least"),
        ("no staleness", staleness(0, 0), "consistency.max_staleness"),
        ("negative staleness", staleness(-1, 0), "consistency.max_staleness"),
        ("more than an hour", staleness(3_600, 1), "consistency.max_staleness"),
    ];
    for (case, level, field) in cases {
        let consistency = Some(v1::Consistency { level: Some(level) });
        let request = v1::CountMemoriesRequest { space: "notes".into(), consistency, ..Default::default() };
        refuses(case, node.memories.count_memories(request).await.map(drop), field, "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_space_is_not_found_by_every_method() {
    let mut node = TestNode::start().await;
    let name = || "nowhere".to_owned();
    let ids = vec!["a".to_owned()];
    let target = Some(v1::delete_memories_request::Target::Ids(v1::MemoryIds { ids: ids.clone() }));
    let memories = vec![memory("", "x", &[])];
    let api = &mut node.memories;
    let answers = [
        api.add_memories(v1::AddMemoriesRequest { space: name(), memories, ..Default::default() }).await.map(drop),
        api.get_memories(v1::GetMemoriesRequest { space: name(), ids, ..Default::default() }).await.map(drop),
        api.list_memories(v1::ListMemoriesRequest { space: name(), ..Default::default() }).await.map(drop),
        api.count_memories(v1::CountMemoriesRequest { space: name(), ..Default::default() }).await.map(drop),
        api.search_memories(by_vector("nowhere", &[1.0])).await.map(drop),
        api.search_memories(by_text("nowhere", "x")).await.map(drop),
        api.delete_memories(v1::DeleteMemoriesRequest { space: name(), target, ..Default::default() }).await.map(drop),
        api.update_memory(v1::UpdateMemoryRequest {
            space: name(),
            memory: Some(memory("a", "x", &[])),
            ..Default::default()
        })
        .await
        .map(drop),
        api.get_memory_history(v1::GetMemoryHistoryRequest { space: name(), id: "a".into(), ..Default::default() })
            .await
            .map(drop),
        node.spaces.get_space(v1::GetSpaceRequest { name: name(), consistency: None }).await.map(drop),
        node.spaces.delete_space(v1::DeleteSpaceRequest { name: name(), request_id: String::new() }).await.map(drop),
    ];
    for (position, answer) in answers.into_iter().enumerate() {
        let status = answer.unwrap_err();
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::NotFound, "SPACE_NOT_FOUND"),
            "{position}: {status:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_too_large_or_no_messages_are_the_callers_fault() {
    let mut node = TestNode::with_notes().await;
    let large: Vec<_> = (0..5).map(|_| memory("", &long(1 << 20), &[])).collect();
    refuses("5 MiB", node.memories.add_memories(add(large)).await.map(drop), "request", "4 MiB");

    // Bytes that are a valid frame and no AddMemoriesRequest: field 1 must be text and is cut off.
    let mut raw = tonic::client::Grpc::new(node.channel.clone());
    raw.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/cairn.v1.MemoryService/AddMemories");
    let answer: Result<tonic::Response<Vec<u8>>, Status> =
        raw.unary(tonic::Request::new(vec![0x0a, 0x7f, 0x01]), path, RawCodec).await;
    refuses("no message", answer.map(drop), "request", "not a message");

    let mut again = MemoryServiceClient::new(node.channel.clone());
    assert!(again.add_memories(add(vec![memory("", "x", &[])])).await.is_ok(), "the connection still serves");
}

/// Sends bytes as they are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawCodec;

impl tonic::codec::Codec for RawCodec {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl tonic::codec::Encoder for RawCodec {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut tonic::codec::EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(buffer, &item);
        Ok(())
    }
}

impl tonic::codec::Decoder for RawCodec {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut tonic::codec::DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let length = bytes::Buf::remaining(buffer);
        Ok(Some(bytes::Buf::copy_to_bytes(buffer, length).to_vec()))
    }
}
