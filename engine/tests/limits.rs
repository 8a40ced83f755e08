//! Each limit of a request from both sides: the largest is taken, and one more is refused with the field and the limit.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use std::fmt::Debug;

use cairn_engine::{Error, ErrorKind, Limits, WriteRequest};
use cairn_proto::v1;
use cairn_proto::v1::condition::Test;
use cairn_proto::v1::delete_memories_request::Target;
use cairn_proto::v1::memory::Expiry;
use cairn_proto::v1::value::Kind;
use common::{Bed, condition, integer, me, memory, query, space, text, vector};
use prost_types::{Duration, FieldMask, Timestamp};

fn bed() -> Bed {
    let mut bed = Bed::new();
    bed.create_space(space("notes", 2)).unwrap();
    bed
}

fn long(bytes: usize) -> String {
    "x".repeat(bytes)
}

fn words(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("w{number}")).collect()
}

/// `call` must take `most`, and refuse one more by naming `field` with `limit`.
#[track_caller]
fn edge<T: Debug>(field: &str, limit: &str, most: usize, mut call: impl FnMut(usize) -> Result<T, Error>) {
    if let Err(error) = call(most) {
        panic!("{field}: {most} is refused: {error}");
    }
    let Err(error) = call(most + 1) else { panic!("{field}: {} is taken", most + 1) };
    let ErrorKind::InvalidArgument { violations } = error.kind() else { panic!("{field}: {error:?}") };
    let named = violations.iter().any(|each| each.field == field && each.description.contains(limit));
    assert!(named, "{field} ({limit}) is not among {violations:?}");
}

/// The reason why a state does not allow a call.
#[track_caller]
fn reason<T: Debug>(result: Result<T, Error>) -> String {
    match result.unwrap_err().kind() {
        ErrorKind::FailedPrecondition { reason } => reason.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn words_and_texts_of_a_memory() {
    let mut bed = bed();
    let mut one = |field: &str, most: usize, change: &dyn Fn(&mut v1::Memory, String)| {
        edge(&format!("memories[0].{field}"), &most.to_string(), most, |bytes| {
            let mut changed = memory("a", "");
            change(&mut changed, long(bytes));
            bed.add("notes", vec![changed])
        });
    };
    one("id", 255, &|m, text| m.id = text);
    one("kind", 255, &|m, text| m.kind = text);
    one("content", 1 << 20, &|m, text| m.content = text);
    let scope = |m: &mut v1::Memory, scope| m.scope = Some(scope);
    one("scope.agent_id", 255, &|m, text| scope(m, v1::Scope { agent_id: Some(text), ..Default::default() }));
    one("scope.user_id", 255, &|m, text| scope(m, v1::Scope { user_id: Some(text), ..Default::default() }));
    one("scope.session_id", 255, &|m, text| scope(m, v1::Scope { session_id: Some(text), ..Default::default() }));
    one("scope.namespace", 255, &|m, text| scope(m, v1::Scope { namespace: Some(text), ..Default::default() }));
}

#[test]
fn metadata_of_a_memory() {
    let mut bed = bed();
    let mut with = |key: &str, value: v1::Value| {
        let mut changed = memory("a", "");
        changed.metadata.insert(key.to_owned(), value);
        bed.add("notes", vec![changed])
    };
    // Beside the text there are 15 bytes of tags, lengths and the key.
    edge("memories[0].metadata", "65536", (64 << 10) - 15, |bytes| with("a", text(&long(bytes))));
    // The map of the metadata is the first level.
    let nested = |levels: usize| {
        let map = |inner| v1::MapValue { entries: [("a".to_owned(), inner)].into() };
        (0..levels).fold(integer(1), |inner, _| v1::Value { kind: Some(Kind::MapValue(map(inner))) })
    };
    let deepest = format!("memories[0].metadata{}", ".a".repeat(16));
    edge(&deepest, "16 levels", 15, |levels| with("a", nested(levels)));

    let empty = with("", integer(1)).unwrap_err().to_string();
    assert!(empty.contains("keys must not be empty"), "{empty}");
    let inner = v1::MapValue { entries: [(String::new(), integer(1))].into() };
    let empty = with("a", v1::Value { kind: Some(Kind::MapValue(inner)) }).unwrap_err().to_string();
    assert!(empty.contains("keys must not be empty"), "{empty}");
}

#[test]
fn times_of_a_memory() {
    let mut bed = bed();
    let mut with = |change: &dyn Fn(&mut v1::Memory)| {
        let mut changed = memory("a", "");
        change(&mut changed);
        bed.add("notes", vec![changed])
    };
    let time = |seconds| Timestamp { seconds, nanos: 0 };
    // 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z.
    for (good, bad) in [(-62_135_596_800, -62_135_596_801), (253_402_300_799, 253_402_300_800)] {
        with(&|m| m.created_at = Some(time(good))).unwrap();
        let refused = with(&|m| m.created_at = Some(time(bad))).unwrap_err().to_string();
        assert_eq!(refused, "memories[0].created_at: must be a time in the years 1 to 9999");
        with(&|m| m.expiry = Some(Expiry::ExpiresAt(time(good)))).unwrap();
        let refused = with(&|m| m.expiry = Some(Expiry::ExpiresAt(time(bad)))).unwrap_err().to_string();
        assert_eq!(refused, "memories[0].expires_at: must be a time in the years 1 to 9999");
        let value = |seconds| v1::Value { kind: Some(Kind::TimestampValue(time(seconds))) };
        with(&|m| drop(m.metadata.insert("t".to_owned(), value(good)))).unwrap();
        let refused = with(&|m| drop(m.metadata.insert("t".to_owned(), value(bad)))).unwrap_err().to_string();
        assert_eq!(refused, "memories[0].metadata.t: must be a time in the years 1 to 9999");
    }
    edge("memories[0].ttl", "10,000 years", 315_576_000_000, |seconds| {
        with(&|m| m.expiry = Some(Expiry::Ttl(Duration { seconds: seconds as i64, nanos: 0 })))
    });
}

#[test]
fn calls_that_write() {
    let mut bed = bed();
    let mut add = |request: v1::AddMemoriesRequest| {
        let one = vec![memory("a", "")];
        let memories = if request.memories.is_empty() { one } else { request.memories };
        bed.write(WriteRequest::AddMemories(v1::AddMemoriesRequest { space: "notes".into(), memories, ..request }))
    };
    edge("memories", "1000", 1_000, |count| {
        add(v1::AddMemoriesRequest { memories: vec![memory("", ""); count], ..Default::default() })
    });
    edge("actor", "255", 255, |bytes| add(v1::AddMemoriesRequest { actor: long(bytes), ..Default::default() }));
    edge("reason", "1024", 1_024, |bytes| add(v1::AddMemoriesRequest { reason: long(bytes), ..Default::default() }));
    edge("request_id", "64", 64, |bytes| add(v1::AddMemoriesRequest { request_id: long(bytes), ..Default::default() }));
    // Three of a megabyte less a kilobyte, and what is left of 3 MiB: 3,072 bytes less the space's name, ids and lengths.
    edge("memories", "3145728", 3 * 1_024 - 49, |bytes| {
        let content = |id: &str, bytes| memory(id, &long(bytes));
        let large = (1 << 20) - 1_024;
        let memories = vec![content("a", large), content("b", large), content("c", large), content("d", bytes)];
        add(v1::AddMemoriesRequest { memories, ..Default::default() })
    });

    let ids = |count| v1::DeleteMemoriesRequest {
        space: "notes".into(),
        target: Some(Target::Ids(v1::MemoryIds { ids: words(count) })),
        ..Default::default()
    };
    edge("ids.ids", "1000", 1_000, |count| bed.delete(ids(count)));
}

#[test]
fn masks_of_an_update() {
    let mut bed = bed();
    bed.add("notes", vec![memory("a", "")]).unwrap();
    let mut update = |paths: Vec<String>| {
        let request = v1::UpdateMemoryRequest {
            space: "notes".into(),
            memory: Some(memory("a", "")),
            update_mask: Some(FieldMask { paths }),
            ..Default::default()
        };
        bed.write(WriteRequest::UpdateMemory(request))
    };
    let paths = |count| words(count).into_iter().map(|word| format!("metadata.{word}")).collect();
    edge("update_mask.paths", "256", 256, |count| update(paths(count)));
    edge("update_mask.paths[0]", "255", 255, |bytes| update(vec![format!("metadata.{}", long(bytes))]));
    // The map of the metadata is the first level, and the value itself need be none.
    edge("update_mask.paths[0]", "16", 16, |levels| update(vec![format!("metadata{}", ".a".repeat(levels))]));
}

#[test]
fn spaces() {
    let mut bed = Bed::new();
    let mut number = 0;
    let mut create = |change: &dyn Fn(&mut v1::Space)| {
        number += 1;
        let mut changed = space(&format!("s{number}"), 2);
        change(&mut changed);
        bed.create_space(changed)
    };
    edge("space.name", "63", 63, |bytes| create(&|space| space.name = long(bytes)));
    edge("space.embeddings[0].name", "63", 63, |bytes| create(&|space| space.embeddings[0].name = long(bytes)));
    edge("space.embeddings[0].embedder", "63", 63, |bytes| create(&|space| space.embeddings[0].embedder = long(bytes)));
    edge("space.embeddings[0].model", "255", 255, |bytes| create(&|space| space.embeddings[0].model = long(bytes)));
    edge("space.embeddings[0].dense.dimension", "4096", 4_096, |dimension| {
        create(&|changed| changed.embeddings = space("", dimension as u32).embeddings)
    });
    edge("space.history_depth", "1000", 1_000, |depth| create(&|space| space.history_depth = depth as u32));
    let field = |path: String| v1::IndexedField { path, r#type: v1::FieldType::Keyword.into() };
    edge("space.fields", "64", 64, |count| {
        create(&|space| space.fields = words(count).into_iter().map(field).collect())
    });
    edge("space.fields[0].path", "255", 255, |bytes| create(&|space| space.fields = vec![field(long(bytes))]));
    edge("space.default_ttl", "10,000 years", 315_576_000_000, |seconds| {
        create(&|space| space.default_ttl = Some(Duration { seconds: seconds as i64, nanos: 0 }))
    });
}

#[test]
fn vectors_of_the_largest_dimension() {
    let mut bed = Bed::new();
    bed.create_space(space("large", 4_096)).unwrap();
    edge("memories[0].vectors[0].dense.values", "4096", 4_096, |values| {
        bed.add("large", vec![v1::Memory { vectors: vec![vector(&vec![1.0; values])], ..memory("a", "") }])
    });
    edge("vectors.vectors[0].dense.values", "4096", 4_096, |values| bed.search(&query("large", &vec![1.0; values])));
    let named = |bytes| v1::Vector { embedding: long(bytes), ..vector(&[1.0; 4_096]) };
    let refused = bed.add("large", vec![v1::Memory { vectors: vec![named(64)], ..memory("a", "") }]).unwrap_err();
    assert_eq!(refused.to_string(), "memories[0].vectors[0].embedding: has 64 bytes; at most 63 are allowed");
}

#[test]
fn spaces_of_a_tenant_and_aliases_of_a_space() {
    let mut bed = Bed::with_limits(Limits { spaces_max: 2, ..Limits::default() });
    bed.create_space(space("one", 2)).unwrap();
    bed.create_space(space("two", 2)).unwrap();
    assert_eq!(reason(bed.create_space(space("three", 2))), "TOO_MANY_SPACES");
    let mut alias = |alias: String| {
        let request = v1::SetAliasRequest { alias, space: "one".into(), ..Default::default() };
        bed.write(WriteRequest::SetAlias(request))
    };
    edge("alias", "63", 63, |bytes| alias(long(bytes)));
    for word in words(63) {
        alias(word).unwrap();
    }
    assert_eq!(reason(alias("the-65th".to_owned())), "TOO_MANY_ALIASES");
}

#[test]
fn reads() {
    let bed = bed();
    let (me, at) = (me(), bed.at());
    edge("ids", "1000", 1_000, |count| {
        let request = v1::GetMemoriesRequest { space: "notes".into(), ids: words(count), ..Default::default() };
        bed.engine.get_memories(&me, &request, &at)
    });
    edge("ids[0]", "255", 255, |bytes| bed.get("notes", &[&long(bytes)]));
    edge("page_size", "1000", 1_000, |size| {
        let request = v1::ListMemoriesRequest { space: "notes".into(), page_size: size as i32, ..Default::default() };
        bed.engine.list_memories(&me, &request, &at)
    });
    edge("page_size", "1000", 1_000, |size| {
        let request = v1::ListNamespacesRequest { space: "notes".into(), page_size: size as i32, ..Default::default() };
        bed.engine.list_namespaces(&me, &request, &at)
    });
    edge("page_size", "1000", 1_000, |size| {
        let request = v1::ListSpacesRequest { page_size: size as i32, ..Default::default() };
        bed.engine.list_spaces(&me, &request, &at)
    });
    edge("limit", "1000", 1_000, |limit| {
        bed.search(&v1::SearchMemoriesRequest { limit: limit as i32, ..query("notes", &[1.0, 0.0]) })
    });
    edge("params.effort", "10000", 10_000, |effort| {
        let params = v1::SearchParams { effort: effort as u32, ..Default::default() };
        bed.search(&v1::SearchMemoriesRequest { params: Some(params), ..query("notes", &[1.0, 0.0]) })
    });
    let leaf = || condition("kind", Test::Exists(true));
    let not = |inner| v1::Filter { node: Some(v1::filter::Node::Not(Box::new(inner))) };
    let deepest = format!("filter{}", ".not".repeat(16));
    edge(&deepest, "16 levels", 15, |nots| bed.count("notes", Some((0..nots).fold(leaf(), |inner, _| not(inner)))));
    let refused = bed.count("notes", Some(condition(&format!("metadata.{}", long(256)), Test::Exists(true))));
    assert!(refused.unwrap_err().to_string().contains("at most 255 bytes"));
    bed.count("notes", Some(condition(&format!("metadata.{}", long(255)), Test::Exists(true)))).unwrap();
}

#[test]
fn an_answer_of_more_than_64_mebibytes() {
    let mut bed = bed();
    let ids = words(64);
    for some in ids.chunks(2) {
        let one = |id: &String| v1::Memory { vectors: vec![vector(&[1.0, 0.0])], ..memory(id, &long(1 << 20)) };
        bed.add("notes", some.iter().map(one).collect()).unwrap();
    }
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    assert_eq!(bed.get("notes", &ids[..63]).unwrap().memories.len(), 63);
    assert_eq!(reason(bed.get("notes", &ids)), "ANSWER_TOO_LARGE");
    let search = |limit| bed.search(&v1::SearchMemoriesRequest { limit, ..query("notes", &[1.0, 0.0]) });
    assert_eq!(search(63).unwrap().len(), 63);
    assert_eq!(reason(search(64)), "ANSWER_TOO_LARGE");
}
