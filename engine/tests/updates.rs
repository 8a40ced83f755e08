//! Updates and histories: what is refused and why, vectors that never outlive their text, versions, retries, and that
//! nothing is left of what was deleted.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use std::sync::Arc;

use cairn_engine::{
    EMBEDDER_CHANGED, Embedded, EmbeddedBy, Engine, Error, ErrorKind, Position, WriteRequest, WriteResponse, inspect,
};
use cairn_proto::v1;
use cairn_proto::v1::condition::Test;
use cairn_proto::v1::memory::Expiry;
use cairn_proto::v1::value::Kind;
use common::{Bed, SECOND, condition, integer, me, memory, query, space, text, vector};

fn bed(history_depth: u32) -> Bed {
    let mut bed = Bed::new();
    let field = v1::IndexedField { path: "topic".into(), r#type: v1::FieldType::Keyword as i32 };
    bed.create_space(v1::Space { history_depth, fields: vec![field], ..space("notes", 2) }).unwrap();
    bed
}

fn request(paths: &[&str], memory: v1::Memory) -> v1::UpdateMemoryRequest {
    let paths = paths.iter().map(|path| path.to_string()).collect();
    v1::UpdateMemoryRequest {
        space: "notes".into(),
        memory: Some(memory),
        update_mask: Some(prost_types::FieldMask { paths }),
        ..Default::default()
    }
}

fn write(bed: &mut Bed, request: v1::UpdateMemoryRequest) -> Result<v1::Memory, Error> {
    match bed.write(WriteRequest::UpdateMemory(request))? {
        WriteResponse::UpdateMemory(response) => Ok(response.memory.unwrap()),
        other => panic!("{other:?}"),
    }
}

fn update(bed: &mut Bed, paths: &[&str], memory: v1::Memory) -> Result<v1::Memory, Error> {
    write(bed, request(paths, memory))
}

fn history(bed: &Bed, id: &str) -> Result<Vec<v1::Revision>, Error> {
    let request = v1::GetMemoryHistoryRequest { space: "notes".into(), id: id.into(), ..Default::default() };
    Ok(bed.engine.get_memory_history(&me(), &request, &bed.at())?.revisions)
}

fn with(key: &str, value: v1::Value) -> v1::Memory {
    v1::Memory { metadata: [(key.to_string(), value)].into(), ..memory("a", "") }
}

fn map(key: &str, value: v1::Value) -> v1::Value {
    v1::Value { kind: Some(Kind::MapValue(v1::MapValue { entries: [(key.to_string(), value)].into() })) }
}

fn reason(error: &Error) -> &str {
    match error.kind() {
        ErrorKind::FailedPrecondition { reason } => reason,
        other => panic!("{other:?}: {error}"),
    }
}

/// An update that must be refused, the field that is named, and what is said of it.
fn bad_updates() -> Vec<(v1::UpdateMemoryRequest, &'static str, &'static str)> {
    let plain = || memory("a", "x");
    let long = "x".repeat(256);
    let expires = |expiry| v1::Memory { expiry: Some(expiry), ..plain() };
    let ttl = |seconds| Expiry::Ttl(prost_types::Duration { seconds, nanos: 0 });
    let never = prost_types::Timestamp { seconds: i64::MAX, nanos: 0 };
    let scope = |user: &str| v1::Memory {
        scope: Some(v1::Scope { user_id: Some(user.into()), ..Default::default() }),
        ..plain()
    };
    let deep = (0..17).fold(integer(1), |inner, _| map("a", inner));
    let many: Vec<String> = (0..257).map(|number| format!("metadata.k{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let long_path = format!("metadata.{long}");
    let levels = format!("metadata.{}", ["a"; 17].join("."));
    vec![
        (request(&["kind"], memory("", "x")), "memory.id", "must not be empty"),
        (request(&["kind"], memory(&long, "x")), "memory.id", "255"),
        (v1::UpdateMemoryRequest { memory: None, ..request(&["kind"], plain()) }, "memory.id", "must not be empty"),
        (v1::UpdateMemoryRequest { space: String::new(), ..request(&["kind"], plain()) }, "space", "must not be empty"),
        (v1::UpdateMemoryRequest { actor: long.clone(), ..request(&["kind"], plain()) }, "actor", "255"),
        (v1::UpdateMemoryRequest { reason: "x".repeat(1_025), ..request(&["kind"], plain()) }, "reason", "1024"),
        (v1::UpdateMemoryRequest { request_id: "x".repeat(65), ..request(&["kind"], plain()) }, "request_id", "64"),
        (request(&["colour"], plain()), "update_mask.paths[0]", "can be updated"),
        (request(&["kind", "version"], plain()), "update_mask.paths[1]", "can be updated"),
        (request(&["id"], plain()), "update_mask.paths[0]", "can be updated"),
        (request(&["scope.team"], plain()), "update_mask.paths[0]", "can be updated"),
        (request(&["metadata."], plain()), "update_mask.paths[0]", "empty segments"),
        (request(&[&long_path], plain()), "update_mask.paths[0]", "255"),
        (request(&[&levels], plain()), "update_mask.paths[0]", "16"),
        (request(&many, plain()), "update_mask.paths", "256"),
        (request(&["*", "kind"], plain()), "update_mask.paths", "nothing beside"),
        (request(&[], memory("a", "")), "update_mask", "must name a field"),
        (request(&["created_at"], plain()), "memory.created_at", "cannot be removed"),
        (request(&["ttl"], expires(Expiry::ExpiresAt(never))), "memory.expires_at", "names `ttl`"),
        (request(&["expires_at"], expires(ttl(1))), "memory.ttl", "names `expires_at`"),
        (request(&["ttl"], expires(ttl(0))), "memory.ttl", "at least 1 microsecond"),
        (request(&["expires_at"], expires(Expiry::ExpiresAt(never))), "memory.expires_at", "9999"),
        (request(&["created_at"], v1::Memory { created_at: Some(never), ..plain() }), "memory.created_at", "9999"),
        (request(&["content"], memory("a", &"x".repeat((1 << 20) + 1))), "memory.content", "1048576"),
        (request(&["kind"], v1::Memory { kind: long.clone(), ..plain() }), "memory.kind", "255"),
        (request(&["importance"], v1::Memory { importance: Some(1.5), ..plain() }), "memory.importance", "0 to 1"),
        (request(&["scope.user_id"], scope("")), "memory.scope.user_id", "empty"),
        (request(&["scope"], scope(&long)), "memory.scope.user_id", "255"),
        (request(&["metadata.a.b"], with("a", integer(1))), "memory.metadata.a", "must be a map"),
        (request(&[], with("a.b", integer(1))), "memory.metadata.a.b", "dot"),
        (request(&["metadata.a"], with("a", v1::Value { kind: None })), "memory.metadata.a", "one of its kinds"),
        (request(&["metadata.a"], with("a", text(&"x".repeat(1 << 16)))), "memory.metadata", "65536"),
        (request(&["metadata"], with("a", deep)), "memory.metadata.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a", "levels"),
        (
            request(&["vectors"], v1::Memory { vectors: vec![vector(&[1.0, f32::NAN])], ..plain() }),
            "memory.vectors[0].dense.values",
            "finite",
        ),
        (
            request(&["vectors"], v1::Memory { vectors: vec![vector(&[1.0])], ..plain() }),
            "memory.vectors[0].dense.values",
            "dimension is 2",
        ),
        (
            request(&["vectors"], v1::Memory { vectors: vec![vector(&[0.0, 0.0])], ..plain() }),
            "memory.vectors[0].dense.values",
            "all zero",
        ),
    ]
}

#[test]
fn everything_that_is_wrong_with_an_update_names_its_field() {
    let mut bed = bed(0);
    bed.add("notes", vec![v1::Memory { vectors: vec![vector(&[1.0, 0.0])], ..memory("a", "tea") }]).unwrap();
    let before = bed.get("notes", &["a"]).unwrap().memories;
    for (bad, field, what) in bad_updates() {
        let case = format!("{field} ({what})");
        let error = write(&mut bed, bad).expect_err(&case);
        let ErrorKind::InvalidArgument { violations } = error.kind() else { panic!("{case}: {error:?}") };
        let named = violations.iter().any(|v| v.field == field && v.description.contains(what));
        assert!(named, "{case} is not among {violations:?}");
    }
    assert_eq!(bed.get("notes", &["a"]).unwrap().memories, before, "nothing has changed");
}

#[test]
fn fields_that_the_mask_does_not_name_are_not_looked_at() {
    let mut bed = bed(0);
    bed.add("notes", vec![memory("a", "tea")]).unwrap();
    let sent = v1::Memory { kind: "x".repeat(1_000), importance: Some(0.5), version: 77, ..memory("a", "other") };
    let updated = update(&mut bed, &["importance"], sent).unwrap();
    assert_eq!((updated.importance, updated.kind.as_str(), updated.content.as_str()), (Some(0.5), "", "tea"));
    assert_eq!(updated.version, 2);
}

#[test]
fn what_comes_of_a_merge_is_within_the_limits_too() {
    let mut bed = bed(0);
    bed.add("notes", vec![with("a", text(&"x".repeat(40_000)))]).unwrap();
    let error = update(&mut bed, &["metadata.b"], with("b", text(&"x".repeat(40_000)))).unwrap_err();
    assert!(error.to_string().starts_with("memory.metadata: has 80"), "{error}");
    assert!(error.to_string().ends_with("at most 65536 are allowed"), "{error}");
    let kept = &bed.get("notes", &["a"]).unwrap().memories[0];
    assert_eq!((kept.version, kept.metadata.len()), (1, 1), "nothing has changed");
    update(&mut bed, &["metadata.a", "metadata.b"], with("b", text(&"x".repeat(40_000)))).unwrap();
}

#[test]
fn a_vector_never_stands_for_a_text_that_is_gone() {
    let mut bed = bed(0);
    bed.add("notes", vec![v1::Memory { vectors: vec![vector(&[1.0, 0.0])], ..memory("a", "tea") }]).unwrap();
    assert_eq!(bed.search(&query("notes", &[1.0, 0.0])).unwrap().len(), 1);

    let error = update(&mut bed, &["content"], memory("a", "coffee")).unwrap_err();
    assert_eq!(reason(&error), "VECTOR_NEEDED");
    assert_eq!(reason(&update(&mut bed, &[], memory("a", "coffee")).unwrap_err()), "VECTOR_NEEDED");
    assert_eq!(reason(&update(&mut bed, &["content"], memory("a", "")).unwrap_err()), "VECTOR_NEEDED");
    assert_eq!(bed.get("notes", &["a"]).unwrap().memories[0].content, "tea");

    let new = v1::Memory { vectors: vec![vector(&[0.0, 1.0])], ..memory("a", "coffee") };
    update(&mut bed, &["content", "vectors"], new).unwrap();
    let score = |bed: &Bed| bed.search(&query("notes", &[1.0, 0.0])).unwrap().first().map(|hit| hit.score);
    assert_eq!(score(&bed), Some(0.0), "the index has the new vector");
    update(&mut bed, &["kind"], v1::Memory { kind: "fact".into(), ..memory("a", "") }).unwrap();
    assert_eq!(score(&bed), Some(0.0), "an update of another field leaves it");

    update(&mut bed, &["content", "vectors"], memory("a", "water")).unwrap();
    assert_eq!(score(&bed), None, "a text without a vector is no hit");
    // The partition is made anew from the rows.
    bed.engine.flush().unwrap();
    let options = bed.crashed_copy(&bed.dir.path().join("copy"));
    let again = Engine::open(&options, Arc::clone(&bed.keyring)).unwrap();
    assert!(again.search_memories(&me(), &query("notes", &[1.0, 0.0]), &bed.at()).unwrap().hits.is_empty());
}

#[test]
fn vectors_of_an_embedder_that_the_space_does_not_name_any_more_are_refused() {
    let mut bed = Bed::new();
    let named = |embedder: &str| {
        let mut space = space("words", 2);
        space.embeddings[0].embedder = embedder.into();
        space
    };
    let by = |space: &v1::Space| EmbeddedBy { space_id: space.id, embedder: "hash".into(), model: String::new() };
    let first = bed.create_space(named("hash")).unwrap();
    let vectors = || vec![Some(vector(&[0.0, 1.0]))];
    let update = WriteRequest::UpdateMemory(v1::UpdateMemoryRequest {
        space: "words".into(),
        ..request(&["content"], memory("a", "coffee"))
    });
    let add = WriteRequest::AddMemories(v1::AddMemoriesRequest {
        space: "words".into(),
        memories: vec![memory("a", "tea")],
        ..Default::default()
    });
    assert_eq!(update.texts_to_embed(), Some(("words", vec![Some("coffee")])));
    assert_eq!(add.texts_to_embed(), Some(("words", vec![Some("tea")])));
    let outcome = |bed: &mut Bed, request: &WriteRequest, by: EmbeddedBy| {
        let embedded = Embedded { by, vectors: vectors() };
        let command = bed.engine.prepare_embedded(&me(), request.clone(), embedded).unwrap();
        let outcome = bed.apply(command);
        bed.engine.respond(&outcome, Position::at(bed.log.len() as u64))
    };
    outcome(&mut bed, &add, by(&first)).unwrap();
    outcome(&mut bed, &update, by(&first)).unwrap();
    assert_eq!(
        bed.get("words", &["a"]).unwrap().memories[0].vectors,
        vec![v1::Vector { embedding: "default".into(), ..vector(&[0.0, 1.0]) }]
    );

    // The space is another one by the time the write is applied: of the same name, with another embedder or the same.
    for embedder in ["gpt", "hash", ""] {
        let delete = v1::DeleteSpaceRequest { name: "words".into(), ..Default::default() };
        bed.write(WriteRequest::DeleteSpace(delete)).unwrap();
        let now = bed.create_space(named(embedder)).unwrap();
        bed.add("words", vec![v1::Memory { vectors: vec![vector(&[1.0, 0.0])], ..memory("a", "tea") }]).unwrap();
        for request in [&update, &add] {
            assert_eq!(reason(&outcome(&mut bed, request, by(&first)).unwrap_err()), EMBEDDER_CHANGED);
        }
        let same = EmbeddedBy { embedder: embedder.into(), ..by(&now) };
        let other_model = EmbeddedBy { model: "large".into(), ..same.clone() };
        assert_eq!(reason(&outcome(&mut bed, &update, other_model).unwrap_err()), EMBEDDER_CHANGED);
        assert_eq!(bed.get("words", &["a"]).unwrap().memories[0].content, "tea", "nothing has changed");
        outcome(&mut bed, &update, same).unwrap();
    }
}

#[test]
fn a_version_that_is_not_there_aborts() {
    let mut bed = bed(0);
    bed.add("notes", vec![memory("a", "tea")]).unwrap();
    let expecting = |version| v1::UpdateMemoryRequest {
        expected_version: version,
        ..request(&["kind"], v1::Memory { kind: "fact".into(), ..memory("a", "") })
    };
    assert_eq!(write(&mut bed, expecting(1)).unwrap().version, 2);
    let error = write(&mut bed, expecting(1)).unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Aborted);
    assert_eq!(error.to_string(), "memory \"a\" has version 2, not 1: read it again");
    assert_eq!(write(&mut bed, expecting(2)).unwrap().version, 3);
    let error = write(&mut bed, request(&["kind"], memory("nobody", ""))).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NotFound { resource_type, .. } if resource_type == "memory"), "{error}");
}

#[test]
fn a_retry_after_a_crash_is_applied_once() {
    let mut bed = bed(5);
    bed.add("notes", vec![memory("a", "tea")]).unwrap();
    bed.engine.flush().unwrap();
    let once = v1::UpdateMemoryRequest {
        request_id: "r1".into(),
        expected_version: 1,
        ..request(&["kind"], v1::Memory { kind: "fact".into(), ..memory("a", "") })
    };
    let first = write(&mut bed, once.clone()).unwrap();
    let options = bed.crashed_copy(&bed.dir.path().join("crashed"));
    let before = bed.engine.applied();
    bed.engine = Engine::open(&options, Arc::clone(&bed.keyring)).unwrap();
    assert_ne!(bed.engine.applied(), before, "the update was not on disk");
    bed.engine.apply(&bed.log).unwrap();
    assert_eq!(bed.engine.applied(), before);
    assert_eq!(write(&mut bed, once.clone()).unwrap(), first, "although the version is not 1 any more");
    assert_eq!(history(&bed, "a").unwrap().len(), 2);

    let other = v1::UpdateMemoryRequest { memory: Some(memory("a", "")), ..once };
    let error = write(&mut bed, other).unwrap_err();
    assert!(error.to_string().starts_with("request_id: "), "{error}");
}

#[test]
fn indexes_and_orderings_follow_an_update() {
    let mut bed = bed(0);
    let tagged = |id: &str, topic: &str| v1::Memory { id: id.into(), ..with("topic", text(topic)) };
    bed.add("notes", vec![tagged("a", "tea"), tagged("b", "tea")]).unwrap();
    let about = |topic: &str| Some(condition("metadata.topic", Test::Eq(text(topic))));
    assert_eq!(bed.count("notes", about("tea")).unwrap(), 2);
    update(&mut bed, &["metadata.topic"], tagged("a", "coffee")).unwrap();
    assert_eq!((bed.count("notes", about("tea")).unwrap(), bed.count("notes", about("coffee")).unwrap()), (1, 1));

    let ids = |bed: &Bed, order: &str| {
        let request = v1::ListMemoriesRequest { space: "notes".into(), order_by: order.into(), ..Default::default() };
        let page = bed.engine.list_memories(&me(), &request, &bed.at()).unwrap();
        page.memories.into_iter().map(|memory| memory.id).collect::<Vec<_>>()
    };
    bed.now += SECOND;
    update(&mut bed, &["kind"], v1::Memory { kind: "fact".into(), ..memory("b", "") }).unwrap();
    assert_eq!(ids(&bed, "updated_at desc"), ["b", "a"]);
    let year_2000 = Some(prost_types::Timestamp { seconds: 946_684_800, nanos: 0 });
    update(&mut bed, &["created_at"], v1::Memory { created_at: year_2000, ..memory("a", "") }).unwrap();
    assert_eq!(ids(&bed, "created_at"), ["a", "b"]);
    assert_eq!(ids(&bed, "created_at desc"), ["b", "a"]);
    assert_eq!(bed.count("notes", None).unwrap(), 2);
}

#[test]
fn a_history_is_bounded_names_who_and_why_and_goes_with_its_memory() {
    let mut bed = bed(3);
    bed.add("notes", vec![memory("a", "v1")]).unwrap();
    for version in 2..=9 {
        bed.now += SECOND;
        let content = format!("v{version}");
        let new = v1::UpdateMemoryRequest {
            actor: format!("actor {version}"),
            reason: format!("reason {version}"),
            ..request(&["content", "vectors"], memory("a", &content))
        };
        write(&mut bed, new).unwrap();
    }
    let revisions = history(&bed, "a").unwrap();
    let said: Vec<_> = revisions
        .iter()
        .map(|revision| {
            let content = revision.memory.as_ref().unwrap().content.as_str();
            (content, revision.actor.as_str(), revision.reason.as_str(), revision.principal.as_str())
        })
        .collect();
    assert_eq!(
        said,
        [
            ("v9", "actor 9", "reason 9", "tester"),
            ("v8", "actor 8", "reason 8", "tester"),
            ("v7", "actor 7", "reason 7", "tester"),
            ("v6", "actor 6", "reason 6", "tester"),
        ]
    );

    let rows = |bed: &Bed| {
        bed.engine.flush().unwrap();
        let copy = bed.crashed_copy(&bed.dir.path().join(format!("copy-{}", bed.log.len())));
        let report = inspect(&copy.dir).unwrap();
        report.rows.iter().find(|rows| rows.kind == "history").map_or(0, |rows| rows.rows)
    };
    assert_eq!(rows(&bed), 3);
    let target = Some(v1::delete_memories_request::Target::Ids(v1::MemoryIds { ids: vec!["a".into()] }));
    bed.delete(v1::DeleteMemoriesRequest { space: "notes".into(), target, ..Default::default() }).unwrap();
    assert_eq!(rows(&bed), 0, "no row is left");
    assert!(matches!(history(&bed, "a").unwrap_err().kind(), ErrorKind::NotFound { .. }));
    bed.add("notes", vec![memory("a", "new")]).unwrap();
    assert_eq!(history(&bed, "a").unwrap().len(), 1, "a memory of the same id begins anew");
}

#[test]
fn a_history_follows_the_depth_that_its_space_is_given() {
    let mut bed = bed(5);
    let deepen = |bed: &mut Bed, history_depth: u32| {
        let request = v1::UpdateSpaceRequest {
            space: Some(v1::Space { name: "notes".into(), history_depth, ..Default::default() }),
            update_mask: Some(prost_types::FieldMask { paths: vec!["history_depth".into()] }),
            ..Default::default()
        };
        bed.write(WriteRequest::UpdateSpace(request)).unwrap();
    };
    let versions = |bed: &Bed| {
        let revisions = history(bed, "a").unwrap();
        revisions.iter().map(|revision| revision.memory.as_ref().unwrap().version).collect::<Vec<_>>()
    };
    for _ in 0..5 {
        bed.add("notes", vec![memory("a", "x")]).unwrap();
    }
    assert_eq!(versions(&bed), [5, 4, 3, 2, 1]);
    deepen(&mut bed, 2);
    assert_eq!(versions(&bed), [5, 4, 3], "what is beyond the depth is hidden at once");
    bed.add("notes", vec![memory("a", "x")]).unwrap();
    deepen(&mut bed, 5);
    assert_eq!(versions(&bed), [6, 5, 4], "and gone with the next write");
    deepen(&mut bed, 0);
    bed.add("notes", vec![memory("a", "x")]).unwrap();
    deepen(&mut bed, 5);
    assert_eq!(versions(&bed), [7]);
    bed.add("notes", vec![memory("a", "x")]).unwrap();
    assert_eq!(versions(&bed), [8, 7]);
}

#[test]
fn pages_of_a_history_belong_together() {
    let mut bed = bed(100);
    for _ in 0..5 {
        bed.add("notes", vec![memory("a", "x"), memory("b", "x")]).unwrap();
    }
    let ask = |page_size, page_token: &str, id: &str| {
        let request = v1::GetMemoryHistoryRequest {
            space: "notes".into(),
            id: id.into(),
            page_size,
            page_token: page_token.into(),
            consistency: None,
        };
        bed.engine.get_memory_history(&me(), &request, &bed.at())
    };
    let versions = |page: &v1::GetMemoryHistoryResponse| {
        page.revisions.iter().map(|revision| revision.memory.as_ref().unwrap().version).collect::<Vec<_>>()
    };
    let first = ask(2, "", "a").unwrap();
    assert_eq!(versions(&first), [5, 4]);
    let second = ask(2, &first.next_page_token, "a").unwrap();
    assert_eq!(versions(&second), [3, 2]);
    let third = ask(2, &second.next_page_token, "a").unwrap();
    assert_eq!((versions(&third), third.next_page_token.as_str()), (vec![1], ""));
    let all = ask(5, "", "a").unwrap();
    assert_eq!((all.revisions.len(), all.next_page_token.as_str()), (5, ""));
    let field = |error: Error| match error.kind() {
        ErrorKind::InvalidArgument { violations } => violations[0].field.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(field(ask(2, &first.next_page_token, "b").unwrap_err()), "page_token");
    assert_eq!(field(ask(2, "abc", "a").unwrap_err()), "page_token");
    assert_eq!(field(ask(1_001, "", "a").unwrap_err()), "page_size");
    assert_eq!(field(ask(-1, "", "a").unwrap_err()), "page_size");
    assert_eq!(field(ask(2, "", "").unwrap_err()), "id");
    assert_eq!(field(ask(2, "", &"x".repeat(256)).unwrap_err()), "id");
}

/// Texts that are long enough to be packed come back everywhere, and are told apart by their hash like short ones.
#[test]
fn long_texts_come_back_in_reads_updates_and_histories() {
    let mut bed = Bed::new();
    bed.create_space(v1::Space { history_depth: 3, dedup_by_content: true, ..space("notes", 2) }).unwrap();
    let (tea, coffee) = ("she drinks tea in the morning; ".repeat(40), "and coffee after lunch; ".repeat(60));
    let short = memory("c", "short");
    let both = vec![memory("a", &tea), short, memory("b", &coffee)];
    bed.add("notes", both).unwrap();
    let content = |bed: &Bed, id: &str| bed.get("notes", &[id]).unwrap().memories.remove(0).content;
    assert_eq!([content(&bed, "a"), content(&bed, "b"), content(&bed, "c")], [&tea, &coffee, "short"]);

    let again = bed.add("notes", vec![memory("d", &tea)]).unwrap();
    assert_eq!((again[0].outcome(), again[0].id.as_str()), (v1::WriteOutcome::Deduplicated, "a"));

    let longer = format!("{tea}{coffee}");
    let changed = v1::Memory { vectors: vec![vector(&[1.0, 0.0])], ..memory("a", &longer) };
    let updated = update(&mut bed, &["content", "vectors"], changed).unwrap();
    assert_eq!(updated.content, longer);
    assert_eq!(updated.content_hash, <sha2::Sha256 as sha2::Digest>::digest(longer.as_bytes()).to_vec());
    let found = bed.search(&query("notes", &[1.0, 0.0])).unwrap();
    assert_eq!(found[0].memory.as_ref().unwrap().content, longer);
    let versions: Vec<String> =
        history(&bed, "a").unwrap().into_iter().map(|revision| revision.memory.unwrap().content).collect();
    assert_eq!(versions, [longer, tea]);
}
