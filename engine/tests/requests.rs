//! What requests are told: every limit by field and number, paging, exactly-once, expiry.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use std::time::Duration;

use cairn_engine::crypto::TenantId;
use cairn_engine::{Error, ErrorKind, Limits, Position, Principal, WriteRequest, WriteResponse};
use cairn_proto::v1;
use cairn_proto::v1::condition::Test;
use cairn_proto::v1::delete_memories_request::Target;
use cairn_proto::v1::memory::Expiry;
use cairn_proto::v1::value::Kind;
use common::{Bed, SECOND, condition, integer, me, memory, query, space, text, vector};

fn violations(error: &Error) -> Vec<String> {
    match error.kind() {
        ErrorKind::InvalidArgument { violations } => {
            violations.iter().map(|violation| format!("{}: {}", violation.field, violation.description)).collect()
        }
        other => panic!("{other:?}: {error}"),
    }
}

fn refused<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    violations(&result.unwrap_err()).join("; ")
}

fn ttl(seconds: i64) -> Option<Expiry> {
    Some(Expiry::Ttl(prost_types::Duration { seconds, nanos: 0 }))
}

fn bed() -> Bed {
    let mut bed = Bed::new();
    bed.create_space(space("notes", 2)).unwrap();
    bed
}

#[test]
fn every_limit_of_a_memory_names_field_and_limit() {
    let mut bed = bed();
    let mut one = |change: &dyn Fn(&mut v1::Memory)| {
        let mut bad = memory("a", "text");
        change(&mut bad);
        refused(bed.add("notes", vec![memory("first", ""), bad]))
    };
    assert_eq!(one(&|m| m.id = "x".repeat(256)), "memories[1].id: has 256 bytes; at most 255 are allowed");
    assert_eq!(one(&|m| m.kind = "x".repeat(256)), "memories[1].kind: has 256 bytes; at most 255 are allowed");
    assert_eq!(
        one(&|m| m.content = "x".repeat(1_048_577)),
        "memories[1].content: has 1048577 bytes; at most 1048576 are allowed"
    );
    assert_eq!(one(&|m| m.importance = Some(1.5)), "memories[1].importance: is 1.5; it must be 0 to 1");
    assert_eq!(one(&|m| m.importance = Some(f32::NAN)), "memories[1].importance: is NaN; it must be 0 to 1");
    let scope = |change: fn(&mut v1::Scope)| {
        move |m: &mut v1::Memory| {
            let mut scope = v1::Scope::default();
            change(&mut scope);
            m.scope = Some(scope);
        }
    };
    assert_eq!(
        one(&scope(|s| s.user_id = Some(String::new()))),
        "memories[1].scope.user_id: must not be empty; at most 255 bytes"
    );
    assert_eq!(
        one(&scope(|s| s.namespace = Some("a//b".into()))),
        "memories[1].scope.namespace: must be segments with `/` between them, none of them empty"
    );
    assert_eq!(
        one(&|m| m.vectors = vec![vector(&[1.0, 2.0, 3.0])]),
        "memories[1].vectors[0].dense.values: has 3 values; the space's dimension is 2"
    );
    assert_eq!(
        one(&|m| m.vectors = vec![vector(&[1.0, f32::INFINITY])]),
        "memories[1].vectors[0].dense.values: value 1 is inf; all must be finite"
    );
    assert_eq!(
        one(&|m| m.vectors = vec![vector(&[0.0, 0.0])]),
        "memories[1].vectors[0].dense.values: must not be all zero, since the space's metric is cosine"
    );
    assert_eq!(
        one(&|m| m.vectors = vec![v1::Vector { embedding: "other".into(), ..vector(&[1.0, 0.0]) }]),
        "memories[1].vectors[0].embedding: is \"other\"; the space has the embedding \"default\""
    );
    assert_eq!(one(&|m| m.expiry = ttl(0)), "memories[1].ttl: must be at least 1 microsecond and at most 10,000 years");
    assert_eq!(one(&|m| m.id = "first".into()), "memories[1].id: is the same as that of memories[0]");
    assert!(
        one(&|m| m.vectors = vec![vector(&[1.0, 0.0]); 2]).starts_with("memories[1].vectors: has 2 vectors; at most 1")
    );
}

#[test]
fn metadata_is_bounded_in_bytes_and_levels() {
    let mut bed = bed();
    let mut one = |key: &str, value: v1::Value| {
        let mut bad = memory("a", "");
        bad.metadata.insert(key.into(), value);
        bed.add("notes", vec![bad]).map(|_| ())
    };
    assert_eq!(
        refused(one("a.b", text("x"))),
        "memories[0].metadata.a.b: keys must not be empty and must not hold a dot"
    );
    assert_eq!(refused(one("a", v1::Value { kind: None })), "memories[0].metadata.a: must set one of its kinds");
    let nan = v1::Value { kind: Some(Kind::DoubleValue(f64::NAN)) };
    let list = v1::Value { kind: Some(Kind::ListValue(v1::ListValue { values: vec![integer(1), nan] })) };
    assert_eq!(refused(one("a", list)), "memories[0].metadata.a[1]: must be a finite number");
    assert!(one("a", text(&"x".repeat(65_500))).is_ok());
    let large = refused(one("a", text(&"x".repeat(65_536))));
    assert!(large.starts_with("memories[0].metadata: has 65"), "{large}");
    assert!(large.ends_with("at most 65536 are allowed"), "{large}");
    let nested = |levels: usize| {
        (0..levels).fold(integer(1), |inner, _| v1::Value {
            kind: Some(Kind::ListValue(v1::ListValue { values: vec![inner] })),
        })
    };
    assert!(one("a", nested(15)).is_ok());
    assert!(refused(one("a", nested(16))).contains("metadata is more than 16 levels deep here"));
}

#[test]
fn calls_are_bounded_in_items_and_bytes() {
    let mut bed = bed();
    assert_eq!(refused(bed.add("notes", Vec::new())), "memories: has 0 items; 1 to 1000 are allowed");
    let many = vec![memory("", ""); 1_001];
    assert_eq!(refused(bed.add("notes", many)), "memories: has 1001 items; 1 to 1000 are allowed");
    let large = vec![memory("", &"x".repeat(1_000_000)); 4];
    let said = refused(bed.add("notes", large));
    assert!(said.starts_with("memories: the call has 4000") && said.ends_with("at most 3145728 are allowed"), "{said}");
    let request = v1::AddMemoriesRequest {
        space: "notes".into(),
        memories: vec![memory("", "")],
        request_id: "x".repeat(65),
        ..Default::default()
    };
    let said = refused(bed.write(WriteRequest::AddMemories(request)));
    assert_eq!(said, "request_id: has 65 bytes; at most 64 are allowed");
    let too_many = v1::GetMemoriesRequest { space: "notes".into(), ids: vec!["x".into(); 1_001], ..Default::default() };
    let said = refused(bed.engine.get_memories(&me(), &too_many, &bed.at()));
    assert_eq!(said, "ids: has 1001 items; 1 to 1000 are allowed");
}

#[test]
fn spaces_are_checked_and_unserved_kinds_say_so() {
    let mut bed = Bed::new();
    let mut create = |change: fn(&mut v1::Space)| {
        let mut bad = space("notes", 2);
        change(&mut bad);
        bed.create_space(bad)
    };
    let unimplemented = |result: Result<v1::Space, Error>| *result.unwrap_err().kind() == ErrorKind::Unimplemented;
    assert!(refused(create(|s| s.name = "Notes".into())).starts_with("space.name: must be 1 to 63"));
    assert!(refused(create(|s| s.embeddings.clear())).starts_with("space.embeddings: must hold exactly one"));
    assert!(unimplemented(create(|s| s.embeddings.push(s.embeddings[0].clone()))));
    #[cfg(not(feature = "hnsw-rs"))]
    {
        let error = create(|s| {
            let Some(v1::embedding::Kind::Dense(dense)) = &mut s.embeddings[0].kind else { panic!() };
            dense.set_index_kind(v1::IndexKind::HnswRs);
        })
        .unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unimplemented);
        let said = error.to_string();
        assert!(said.contains("space.embeddings[0].dense.index_kind") && said.contains("feature hnsw-rs"), "{said}");
    }
    let dimension = |result| refused::<v1::Space>(result);
    assert_eq!(
        dimension(create(|s| s.embeddings = space("x", 4_097).embeddings)),
        "space.embeddings[0].dense.dimension: is 4097; it must be 1 to 4096"
    );
    assert_eq!(refused(create(|s| s.history_depth = 1_001)), "space.history_depth: is 1001; at most 1000 is allowed");
    assert!(
        refused(create(|s| s.fields = vec![v1::IndexedField { path: "a..b".into(), r#type: 1 }]))
            .starts_with("space.fields[0].path: must be a dotted path")
    );
    assert!(create(|_| {}).is_ok());
    let again = create(|_| {}).unwrap_err();
    assert!(matches!(again.kind(), ErrorKind::AlreadyExists { resource_type, .. } if resource_type == "space"));
}

#[test]
fn unknown_spaces_and_tenants_are_not_found() {
    let mut bed = bed();
    for result in [bed.add("other", vec![memory("a", "")]).map(|_| ()), bed.get("other", &["a"]).map(|_| ())] {
        let error = result.unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::NotFound { resource_name, .. } if resource_name == "other"),
            "{error}"
        );
    }
    let stranger = Principal::new(TenantId(77), "stranger");
    let request = v1::CountMemoriesRequest { space: "notes".into(), ..Default::default() };
    let error = bed.engine.count_memories(&stranger, &request, &bed.at()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NotFound { resource_type, .. } if resource_type == "tenant"));
}

#[test]
fn tenants_never_see_each_other() {
    let mut bed = bed();
    let tenant = bed.engine.prepare_create_tenant(TenantId(2), "other").unwrap();
    bed.apply(tenant);
    let other = Principal::new(TenantId(2), "tester");
    let create = v1::CreateSpaceRequest { space: Some(space("notes", 2)), ..Default::default() };
    bed.write_as(&other, WriteRequest::CreateSpace(create)).unwrap();
    let of = |content: &str| v1::AddMemoriesRequest {
        space: "notes".into(),
        memories: vec![v1::Memory { vectors: vec![vector(&[1.0, 0.0])], ..memory("same", content) }],
        request_id: "same".into(),
        ..Default::default()
    };
    bed.write(WriteRequest::AddMemories(of("mine"))).unwrap();
    bed.write_as(&other, WriteRequest::AddMemories(of("theirs"))).unwrap();
    for (principal, content) in [(me(), "mine"), (other.clone(), "theirs")] {
        let hits = bed.engine.search_memories(&principal, &query("notes", &[1.0, 0.0]), &bed.at()).unwrap().hits;
        let found: Vec<_> = hits.into_iter().map(|hit| hit.memory.unwrap().content).collect();
        assert_eq!(found, [content]);
    }
    let all = v1::Selection { all: true, ..Default::default() };
    let target = Some(Target::Selection(all));
    bed.delete(v1::DeleteMemoriesRequest { space: "notes".into(), target, ..Default::default() }).unwrap();
    let request = v1::CountMemoriesRequest { space: "notes".into(), ..Default::default() };
    assert_eq!(bed.engine.count_memories(&other, &request, &bed.at()).unwrap().count, 1);
    // A page token of one tenant means nothing to another.
    bed.write(WriteRequest::AddMemories(v1::AddMemoriesRequest {
        space: "notes".into(),
        memories: vec![memory("a", ""), memory("b", "")],
        ..Default::default()
    }))
    .unwrap();
    let list = v1::ListMemoriesRequest { space: "notes".into(), page_size: 1, ..Default::default() };
    let page_token = bed.engine.list_memories(&me(), &list, &bed.at()).unwrap().next_page_token;
    let list = v1::ListMemoriesRequest { page_token, ..list };
    assert!(refused(bed.engine.list_memories(&other, &list, &bed.at())).starts_with("page_token: is not a token"));
}

#[test]
fn a_space_without_an_index_filters_and_does_not_search() {
    let mut bed = Bed::new();
    let mut bare = space("bare", 2);
    let Some(v1::embedding::Kind::Dense(dense)) = &mut bare.embeddings[0].kind else { panic!() };
    dense.set_index_kind(v1::IndexKind::None);
    bed.create_space(bare).unwrap();
    let one = v1::Memory { kind: "fact".into(), vectors: vec![vector(&[1.0, 0.0])], ..memory("a", "") };
    bed.add("bare", vec![one, memory("b", "")]).unwrap();
    assert_eq!(bed.count("bare", Some(condition("kind", Test::Eq(text("fact"))))).unwrap(), 1);
    assert_eq!(bed.get("bare", &["a"]).unwrap().memories[0].vectors.len(), 1);
    let error = bed.search(&query("bare", &[1.0, 0.0])).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::FailedPrecondition { reason } if reason == "NO_INDEX"), "{error}");
}

#[test]
fn an_index_without_memory_sheds_searches_and_keeps_the_records() {
    let mut bed = Bed::new();
    bed.create_space(space("notes", 1024)).unwrap();
    let options =
        cairn_engine::Options { index_bytes_max: 64 * 1024, dir: bed.dir.path().join("small"), ..bed.options.clone() };
    let small = cairn_engine::Engine::open(&options, std::sync::Arc::clone(&bed.keyring)).unwrap();
    let search = query("notes", &[0.5; 1024]);
    small.apply(&bed.log).unwrap();
    assert!(small.search_memories(&me(), &search, &bed.at()).unwrap().hits.is_empty());
    for n in 0..40 {
        let one = v1::Memory { vectors: vec![vector(&[0.5; 1024])], ..memory(&format!("m{n}"), "") };
        bed.add("notes", vec![one]).unwrap();
    }
    small.apply(&bed.log).unwrap();
    for _ in 0..2 {
        let error = small.search_memories(&me(), &search, &bed.at()).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::IndexMemory { .. }), "{error}");
    }
    let request = v1::CountMemoriesRequest { space: "notes".into(), ..Default::default() };
    assert_eq!(small.count_memories(&me(), &request, &bed.at()).unwrap().count, 40);
    assert_eq!(small.applied().digest, bed.engine.applied().digest);
}

#[test]
fn a_selection_must_say_what_it_means() {
    let mut bed = bed();
    bed.add("notes", vec![memory("a", ""), memory("b", "")]).unwrap();
    let mut delete = |selection: v1::Selection| {
        let target = Some(Target::Selection(selection));
        bed.delete(v1::DeleteMemoriesRequest { space: "notes".into(), target, request_id: String::new() })
    };
    assert_eq!(refused(delete(v1::Selection::default())), "selection: must hold a scope value or a filter, or set all");
    let empty_scope = v1::Selection { scope: Some(v1::Scope::default()), ..Default::default() };
    assert!(refused(delete(empty_scope)).starts_with("selection: must hold"));
    let both = v1::Selection { filter: Some(condition("kind", Test::Eq(text("x")))), all: true, ..Default::default() };
    assert!(refused(delete(both)).starts_with("selection.all: must not be set"));
    let wrong = v1::Selection { filter: Some(condition("kind", Test::Eq(integer(1)))), ..Default::default() };
    assert!(refused(delete(wrong)).starts_with("selection.filter.where.eq: "));
    assert_eq!(delete(v1::Selection { all: true, ..Default::default() }).unwrap(), 2);
}

#[test]
fn filters_are_checked_against_the_schema() {
    let mut bed = Bed::new();
    let fields = vec![v1::IndexedField { path: "rank".into(), r#type: v1::FieldType::Integer as i32 }];
    bed.create_space(v1::Space { fields, ..space("notes", 2) }).unwrap();
    let filter = |field: &str, test: Test| bed.count("notes", Some(condition(field, test)));
    assert!(refused(filter("metadata.rank", Test::Eq(text("x")))).starts_with("filter.where.eq: "));
    assert!(filter("metadata.other", Test::Eq(text("x"))).is_ok(), "other fields take any type");
    assert!(refused(filter("nothing", Test::Exists(true))).starts_with("filter.where.field: is not scope.agent_id"));
    assert!(refused(filter("kind", Test::Eq(v1::Value { kind: None }))).starts_with("filter.where.eq: must be set"));
    let empty = v1::Filter { node: None };
    assert!(refused(bed.count("notes", Some(empty))).starts_with("filter: must set one of"));
    let deep = (0..16).fold(condition("kind", Test::Exists(true)), |inner, _| v1::Filter {
        node: Some(v1::filter::Node::Not(Box::new(inner))),
    });
    assert!(refused(bed.count("notes", Some(deep))).ends_with("has more than 16 levels"));
}

#[test]
fn searches_are_checked_and_their_ties_go_by_id() {
    let mut bed = bed();
    let near = |id: &str| v1::Memory { vectors: vec![vector(&[1.0, 0.0])], ..memory(id, "") };
    bed.add("notes", vec![near("c"), near("a"), near("b"), memory("none", "")]).unwrap();
    let ids = |hits: Vec<v1::SearchHit>| -> Vec<String> { hits.into_iter().map(|h| h.memory.unwrap().id).collect() };
    let two = v1::SearchMemoriesRequest { limit: 2, ..query("notes", &[1.0, 0.0]) };
    assert_eq!(ids(bed.search(&two).unwrap()), ["a", "b"]);
    assert_eq!(ids(bed.search(&query("notes", &[1.0, 0.0])).unwrap()), ["a", "b", "c"]);
    let high = v1::SearchMemoriesRequest { min_score: Some(0.9), ..query("notes", &[0.0, 1.0]) };
    assert!(bed.search(&high).unwrap().is_empty());
    assert!(
        refused(bed.search(&v1::SearchMemoriesRequest { limit: 1_001, ..two.clone() })).starts_with("limit: is 1001")
    );
    assert_eq!(
        refused(bed.search(&query("notes", &[1.0]))),
        "vectors.vectors[0].dense.values: has 1 values; the space's dimension is 2"
    );
    assert!(refused(bed.search(&query("notes", &[0.0, 0.0]))).contains("must not be all zero"));
    assert!(refused(bed.search(&v1::SearchMemoriesRequest { query: None, ..two.clone() })).starts_with("query: "));
    let explained = v1::SearchMemoriesRequest { explain: true, ..two };
    let plan = bed.engine.search_memories(&me(), &explained, &bed.at()).unwrap().plan.unwrap();
    assert_eq!((plan.strategy.as_str(), plan.vectors, plan.matches), ("flat", 3, Some(4)));
}

#[test]
fn a_request_is_carried_out_once_for_a_day() {
    let mut bed = bed();
    let request = |content: &str| {
        WriteRequest::AddMemories(v1::AddMemoriesRequest {
            space: "notes".into(),
            memories: vec![memory("", content)],
            request_id: "once".into(),
            ..Default::default()
        })
    };
    let WriteResponse::AddMemories(first) = bed.write(request("x")).unwrap() else { panic!() };
    bed.now += 23 * 3600 * SECOND;
    let WriteResponse::AddMemories(retry) = bed.write(request("x")).unwrap() else { panic!() };
    assert_eq!(first.results, retry.results, "the generated id too");
    assert_eq!(bed.count("notes", None).unwrap(), 1);
    assert!(refused(bed.write(request("y"))).starts_with("request_id: was used for a request with another body"));
    let other = Principal::new(TenantId::DEFAULT, "someone else");
    assert!(bed.write_as(&other, request("y")).is_ok(), "ids are each caller's own");
    bed.now += 2 * 3600 * SECOND;
    assert!(bed.write(request("y")).is_ok(), "forgotten after a day");
}

#[test]
fn a_full_table_of_requests_sheds_and_recovers_by_age() {
    let mut bed = Bed::with_limits(Limits {
        dedup_rows_max: 4,
        dedup_age: Duration::from_secs(10),
        dedup_age_generated: Duration::from_secs(10),
        ..Limits::default()
    });
    bed.create_space(space("notes", 2)).unwrap();
    for _ in 0..3 {
        bed.add("notes", vec![memory("a", "")]).unwrap();
    }
    let error = bed.add("notes", vec![memory("b", "")]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::ResourceExhausted { .. }), "{error}");
    assert_eq!(bed.count("notes", None).unwrap(), 1, "a shed write has no effect");
    bed.now += 11 * SECOND;
    bed.add("notes", vec![memory("b", "")]).unwrap();
}

#[test]
fn a_retried_delete_returns_the_total() {
    let mut bed = Bed::with_limits(Limits { delete_scan_rows_max: 4, ..Limits::default() });
    bed.create_space(space("notes", 2)).unwrap();
    bed.add("notes", (0..11).map(|n| memory(&format!("m{n}"), "")).collect()).unwrap();
    let selection = v1::Selection { all: true, ..Default::default() };
    let request = WriteRequest::DeleteMemories(v1::DeleteMemoriesRequest {
        space: "notes".into(),
        target: Some(Target::Selection(selection)),
        request_id: "wipe".into(),
    });
    // The first call gets as far as one command, then its client goes away.
    let command = bed.engine.prepare(&me(), request.clone()).unwrap();
    let outcome = bed.apply(command);
    assert_eq!(bed.engine.respond(&outcome, Position::at(1)).unwrap(), WriteResponse::Unfinished);
    assert_eq!(bed.count("notes", None).unwrap(), 7);
    for _ in 0..2 {
        let WriteResponse::DeleteMemories(response) = bed.write(request.clone()).unwrap() else { panic!() };
        assert_eq!(response.deleted_count, 11);
    }
}

#[test]
fn expired_memories_are_hidden_at_once_and_removed_by_command() {
    let mut bed = bed();
    let short = v1::Memory { expiry: ttl(5), vectors: vec![vector(&[1.0, 0.0])], ..memory("short", "x") };
    let long = v1::Memory { vectors: vec![vector(&[0.0, 1.0])], ..memory("long", "y") };
    bed.add("notes", vec![short, long]).unwrap();
    assert_eq!(bed.search(&query("notes", &[1.0, 0.0])).unwrap().len(), 2);
    bed.now += 5 * SECOND;
    assert_eq!(bed.get("notes", &["short"]).unwrap().missing_ids, ["short"]);
    assert_eq!(bed.count("notes", None).unwrap(), 1);
    assert_eq!(bed.search(&query("notes", &[1.0, 0.0])).unwrap().len(), 1);
    assert_eq!(bed.engine.memories().unwrap(), 2, "still stored");
    let command = bed.engine.prepare_expiry(bed.now).unwrap().unwrap();
    bed.apply(command);
    assert_eq!(bed.engine.memories().unwrap(), 1);
    assert_eq!(bed.search(&query("notes", &[1.0, 0.0])).unwrap().len(), 1);
}

#[test]
fn the_memories_of_one_call_are_listed_in_the_order_of_the_call() {
    let mut bed = bed();
    let order = ["d", "a", "e", "c", "b", "g", "f"];
    bed.add("notes", order.map(|id| memory(id, "")).to_vec()).unwrap();
    for order_by in ["created_at", "updated_at"] {
        let order_by = order_by.to_string();
        let request = v1::ListMemoriesRequest { space: "notes".into(), order_by, ..Default::default() };
        let listed = bed.engine.list_memories(&me(), &request, &bed.at()).unwrap().memories;
        assert_eq!(listed.into_iter().map(|memory| memory.id).collect::<Vec<_>>(), order);
    }
}

#[test]
fn pages_hold_together_and_their_tokens_belong_to_their_arguments() {
    let mut bed = bed();
    for n in 0..7 {
        bed.now += SECOND;
        bed.add("notes", vec![memory(&format!("m{n}"), "")]).unwrap();
    }
    let list = |request: &v1::ListMemoriesRequest| bed.engine.list_memories(&me(), request, &bed.at());
    let mut request = v1::ListMemoriesRequest { space: "notes".into(), page_size: 3, ..Default::default() };
    for (order_by, expected) in [("", "6543210"), ("created_at", "0123456"), ("updated_at desc", "6543210")] {
        request.order_by = order_by.into();
        request.page_token.clear();
        let mut seen = String::new();
        loop {
            let page = list(&request).unwrap();
            seen.extend(page.memories.iter().map(|memory| memory.id.trim_start_matches('m')));
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                break;
            }
        }
        assert_eq!(seen, expected);
    }
    request.page_token = list(&request).unwrap().next_page_token;
    let other = v1::ListMemoriesRequest { order_by: "created_at".into(), ..request.clone() };
    assert_eq!(refused(list(&other)), "page_token: belongs to a request with other arguments");
    let foreign = v1::ListMemoriesRequest { page_token: "AAAA".into(), ..request.clone() };
    assert_eq!(refused(list(&foreign)), "page_token: is not a token that this server returned");
    assert!(refused(list(&v1::ListMemoriesRequest { page_size: -1, ..request })).starts_with("page_size: is -1"));
}

#[test]
fn a_page_ends_early_at_three_mebibytes() {
    let mut bed = bed();
    for n in 0..5 {
        bed.add("notes", vec![memory(&format!("m{n}"), &"x".repeat(1_000_000))]).unwrap();
    }
    let request = v1::ListMemoriesRequest { space: "notes".into(), page_size: 100, ..Default::default() };
    let page = bed.engine.list_memories(&me(), &request, &bed.at()).unwrap();
    assert_eq!(page.memories.len(), 3);
    assert!(!page.next_page_token.is_empty());
}

#[test]
fn spaces_are_listed_by_name_and_gone_when_deleted() {
    let mut bed = Bed::new();
    for name in ["c", "a", "b"] {
        bed.create_space(space(name, 2)).unwrap();
    }
    let names = |bed: &Bed| {
        let mut request = v1::ListSpacesRequest { page_size: 2, ..Default::default() };
        let mut names = Vec::new();
        loop {
            let page = bed.engine.list_spaces(&me(), &request, &bed.at()).unwrap();
            names.extend(page.spaces.into_iter().map(|space| space.name));
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                return names;
            }
        }
    };
    assert_eq!(names(&bed), ["a", "b", "c"]);
    bed.add("b", vec![memory("x", "")]).unwrap();
    let request = WriteRequest::DeleteSpace(v1::DeleteSpaceRequest { name: "b".into(), request_id: String::new() });
    let WriteResponse::DeleteSpace(deleted) = bed.write(request).unwrap() else { panic!() };
    assert_eq!(deleted.deleted_count, 1);
    assert_eq!(names(&bed), ["a", "c"]);
    let reborn = bed.create_space(space("b", 2)).unwrap();
    assert_eq!(reborn.id, 4, "numbers are never used again");
    assert_eq!(bed.count("b", None).unwrap(), 0);
}

#[test]
fn content_is_kept_once_within_a_scope_where_the_space_says_so() {
    let mut bed = Bed::new();
    bed.create_space(v1::Space { dedup_by_content: true, ..space("once", 2) }).unwrap();
    let of = |id: &str, user: &str| v1::Memory {
        scope: Some(v1::Scope { user_id: Some(user.into()), ..Default::default() }),
        ..memory(id, "same")
    };
    let results = bed.add("once", vec![of("a", "ann"), of("b", "ann"), of("c", "bob")]).unwrap();
    let said: Vec<_> = results.iter().map(|r| format!("{} {:?}", r.id, r.outcome())).collect();
    assert_eq!(said, ["a Created", "a Deduplicated", "c Created"]);
    bed.delete(v1::DeleteMemoriesRequest {
        space: "once".into(),
        target: Some(Target::Ids(v1::MemoryIds { ids: vec!["a".into()] })),
        request_id: String::new(),
    })
    .unwrap();
    assert_eq!(bed.add("once", vec![of("b", "ann")]).unwrap()[0].outcome(), v1::WriteOutcome::Created);
}

#[test]
fn reads_wait_for_no_one_and_say_what_they_saw() {
    let mut bed = bed();
    bed.add("notes", vec![memory("a", "")]).unwrap();
    let mut ahead = bed.at();
    ahead.index += 1;
    let request = v1::CountMemoriesRequest { space: "notes".into(), ..Default::default() };
    let error = bed.engine.count_memories(&me(), &request, &ahead).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable);
    let seen = bed.engine.count_memories(&me(), &request, &bed.at()).unwrap().position;
    assert_eq!(Position::decode("position", &seen).unwrap(), Position::at(bed.log.len() as u64));
}
