//! Spaces: their aliases, changes of their settings, and what a delete gives back.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use std::path::Path;
use std::sync::Arc;

use cairn_engine::{
    ApplyEntry, EMBEDDER_CHANGED, Embedded, EmbeddedBy, Engine, EntryBody, Error, ErrorKind, LogId, Options, Position,
    WriteRequest, WriteResponse,
};
use cairn_proto::storage::{Outcome, outcome};
use cairn_proto::v1;
use cairn_proto::v1::condition::Test;
use common::{Bed, SECOND, condition, integer, me, memory, noise, query, space, text, vector};
use proptest::prelude::*;
use tempfile::TempDir;

fn set_alias(bed: &mut Bed, alias: &str, space: &str) -> Result<String, Error> {
    let request = v1::SetAliasRequest { alias: alias.into(), space: space.into(), request_id: String::new() };
    match bed.write(WriteRequest::SetAlias(request))? {
        WriteResponse::SetAlias(response) => Ok(response.previous_space),
        other => panic!("{other:?}"),
    }
}

fn get(bed: &Bed, name: &str) -> Result<v1::Space, Error> {
    let request = v1::GetSpaceRequest { name: name.into(), consistency: None };
    Ok(bed.engine.get_space(&me(), &request, &bed.at())?.space.unwrap())
}

#[test]
fn an_alias_is_a_name_for_everything_but_the_end_of_a_space() {
    let mut bed = Bed::new();
    for name in ["blue", "green"] {
        bed.create_space(space(name, 2)).unwrap();
        bed.add(name, vec![memory("a", name)]).unwrap();
    }
    assert_eq!(set_alias(&mut bed, "live", "blue").unwrap(), "");
    let content = |bed: &Bed| bed.get("live", &["a"]).unwrap().memories[0].content.clone();
    assert_eq!(content(&bed), "blue");
    assert_eq!(set_alias(&mut bed, "live", "green").unwrap(), "blue");
    assert_eq!(content(&bed), "green");
    assert_eq!(bed.count("live", None).unwrap(), 1);
    assert_eq!(get(&bed, "live").unwrap().name, "green");
    assert_eq!(get(&bed, "green").unwrap().aliases, ["live"]);
    assert!(get(&bed, "blue").unwrap().aliases.is_empty());

    let list = v1::ListSpacesRequest::default();
    let listed = bed.engine.list_spaces(&me(), &list, &bed.at()).unwrap().spaces;
    assert_eq!(listed.iter().map(|space| space.aliases.len()).collect::<Vec<_>>(), [0, 1], "an alias is no space");

    let delete = v1::DeleteSpaceRequest { name: "live".into(), ..Default::default() };
    let error = bed.write(WriteRequest::DeleteSpace(delete)).unwrap_err();
    assert!(error.to_string().contains("is an alias of the space \"green\""), "{error}");
    assert_eq!(set_alias(&mut bed, "live", "").unwrap(), "green");
    assert!(matches!(get(&bed, "live").unwrap_err().kind(), ErrorKind::NotFound { .. }));
}

#[test]
fn a_space_has_so_many_aliases_and_no_more() {
    let mut bed = Bed::new();
    bed.create_space(space("notes", 2)).unwrap();
    for number in 0..64 {
        set_alias(&mut bed, &format!("a{number}"), "notes").unwrap();
    }
    let error = set_alias(&mut bed, "more", "notes").unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::FailedPrecondition { reason: "TOO_MANY_ALIASES".into() });
    set_alias(&mut bed, "a0", "").unwrap();
    set_alias(&mut bed, "more", "notes").unwrap();
    let aliases = get(&bed, "notes").unwrap().aliases;
    assert!(aliases.len() == 64 && aliases.is_sorted(), "{aliases:?}");
}

#[test]
fn a_repeated_switch_returns_what_the_first_one_did() {
    let mut bed = Bed::new();
    for name in ["blue", "green"] {
        bed.create_space(space(name, 2)).unwrap();
    }
    set_alias(&mut bed, "live", "blue").unwrap();
    let request = v1::SetAliasRequest { alias: "live".into(), space: "green".into(), request_id: "switch".into() };
    for _ in 0..2 {
        let answer = bed.write(WriteRequest::SetAlias(request.clone())).unwrap();
        let WriteResponse::SetAlias(answer) = answer else { panic!("{answer:?}") };
        assert_eq!(answer.previous_space, "blue");
    }
}

/// Changes what `paths` name to what `change` makes of an empty space.
fn update(bed: &mut Bed, paths: &[&str], change: impl FnOnce(&mut v1::Space)) -> Result<v1::Space, Error> {
    update_at(bed, paths, 0, change)
}

fn update_at(
    bed: &mut Bed,
    paths: &[&str],
    expected_version: u64,
    change: impl FnOnce(&mut v1::Space),
) -> Result<v1::Space, Error> {
    let mut space = v1::Space { name: "notes".into(), ..Default::default() };
    change(&mut space);
    let update_mask = Some(prost_types::FieldMask { paths: paths.iter().map(|path| (*path).to_string()).collect() });
    let request =
        v1::UpdateSpaceRequest { space: Some(space), update_mask, expected_version, request_id: String::new() };
    match bed.write(WriteRequest::UpdateSpace(request))? {
        WriteResponse::UpdateSpace(response) => Ok(response.space.unwrap()),
        other => panic!("{other:?}"),
    }
}

fn field(path: &str, field_type: v1::FieldType) -> v1::IndexedField {
    v1::IndexedField { path: path.into(), r#type: field_type.into() }
}

fn refused(result: Result<v1::Space, Error>) -> String {
    match result.unwrap_err().kind() {
        ErrorKind::InvalidArgument { violations } => format!("{}: {}", violations[0].field, violations[0].description),
        other => panic!("{other:?}"),
    }
}

#[test]
fn settings_change_and_only_those_that_are_named() {
    let mut bed = Bed::new();
    bed.create_space(v1::Space { history_depth: 3, ..space("notes", 2) }).unwrap();
    let ttl = Some(prost_types::Duration { seconds: 60, nanos: 0 });
    let changed = update(&mut bed, &["default_ttl"], |space| {
        (space.default_ttl, space.history_depth) = (ttl, 900);
    });
    let changed = changed.unwrap();
    assert_eq!((changed.default_ttl, changed.history_depth, changed.version), (ttl, 3, 2));
    bed.add("notes", vec![memory("a", "text")]).unwrap();
    assert!(bed.get("notes", &["a"]).unwrap().memories[0].expiry.is_some());
    let changed = update_at(&mut bed, &["history_depth", "default_ttl"], 2, |space| space.history_depth = 5).unwrap();
    assert_eq!((changed.default_ttl, changed.history_depth, changed.version), (None, 5, 3));
    let error = update_at(&mut bed, &["history_depth"], 2, |_| {}).unwrap_err();
    assert_eq!((error.kind(), error.to_string().contains("version 3, not 2")), (&ErrorKind::Aborted, true), "{error}");

    let embedding = |name: &str, embedder: &str, model: &str| v1::Embedding {
        name: name.into(),
        embedder: embedder.into(),
        model: model.into(),
        ..Default::default()
    };
    let paths = ["embeddings.default.embedder", "embeddings.default.model"];
    let changed = update(&mut bed, &paths, |space| space.embeddings.push(embedding("default", "hash", "m1"))).unwrap();
    assert_eq!((changed.embeddings[0].embedder.as_str(), changed.embeddings[0].model.as_str()), ("hash", "m1"));
    assert!(matches!(changed.embeddings[0].kind, Some(v1::embedding::Kind::Dense(dense)) if dense.dimension == 2));
    let changed = update(&mut bed, &paths[..1], |space| space.embeddings.push(embedding("", "", "m2"))).unwrap();
    assert_eq!((changed.embeddings[0].embedder.as_str(), changed.embeddings[0].model.as_str()), ("", "m1"));
    let error = update(&mut bed, &["embeddings.other.model"], |_| {}).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NotFound { .. }), "{error}");
}

#[test]
fn what_cannot_change_and_what_is_out_of_range_is_named() {
    let mut bed = Bed::new();
    bed.create_space(space("notes", 2)).unwrap();
    assert!(refused(update(&mut bed, &[], |_| {})).starts_with("update_mask.paths: has 0 paths"));
    for path in ["name", "embeddings", "embeddings.default.dense", "aliases", "version", ""] {
        let what = refused(update(&mut bed, &["history_depth", path], |_| {}));
        assert!(what.starts_with("update_mask.paths[1]: must be fields"), "{path}: {what}");
    }
    let what = refused(update(&mut bed, &["history_depth"], |space| space.history_depth = 1_001));
    assert_eq!(what, "space.history_depth: is 1001; at most 1000 is allowed");
    let what = refused(update(&mut bed, &["fields"], |space| space.fields = vec![field("a..b", v1::FieldType::Bool)]));
    assert!(what.starts_with("space.fields[0].path: "), "{what}");
    let no_time = Some(prost_types::Duration { seconds: 0, nanos: 0 });
    let what = refused(update(&mut bed, &["default_ttl"], |space| space.default_ttl = no_time));
    assert!(what.starts_with("space.default_ttl: "), "{what}");
    // What the mask does not name is not looked at.
    update(&mut bed, &["dedup_by_content"], |space| space.default_ttl = no_time).unwrap();
}

/// Does all steps that are left; returns how many there were.
fn build(bed: &mut Bed) -> usize {
    let mut steps = 0;
    while let Some(command) = bed.engine.prepare_build().unwrap() {
        bed.apply(command);
        steps += 1;
    }
    steps
}

#[test]
fn content_that_was_there_before_counts_once_it_was_looked_at() {
    let mut bed = Bed::new();
    bed.create_space(space("notes", 2)).unwrap();
    bed.add("notes", (0..50).map(|id| memory(&format!("m{id}"), &format!("text {}", id % 40))).collect()).unwrap();
    update(&mut bed, &["dedup_by_content"], |space| space.dedup_by_content = true).unwrap();
    let building = get(&bed, "notes").unwrap().building;
    assert_eq!(building, [v1::FieldProgress { path: "dedup_by_content".into(), done: 0, total: 50 }]);
    // What is written from now on counts at once.
    bed.add("notes", vec![memory("new", "new text")]).unwrap();
    let again = bed.add("notes", vec![memory("newer", "new text")]).unwrap();
    assert_eq!(again[0].outcome(), v1::WriteOutcome::Deduplicated);
    assert_eq!(build(&mut bed), 1);
    assert!(get(&bed, "notes").unwrap().building.is_empty());
    for number in 0..40 {
        let again = bed.add("notes", vec![memory("another", &format!("text {number}"))]).unwrap();
        assert_eq!(again[0].outcome(), v1::WriteOutcome::Deduplicated, "text {number}");
    }
    update(&mut bed, &["dedup_by_content"], |_| {}).unwrap();
    assert_eq!(bed.add("notes", vec![memory("another", "text 1")]).unwrap()[0].outcome(), v1::WriteOutcome::Created);
}

/// Every count and search over a field, against the plain meaning.
fn check_field(engine: &Engine, bed: &Bed, ranks: &std::collections::BTreeMap<String, i64>) {
    for bound in -1..4 {
        let filter = condition("metadata.rank", Test::Lt(integer(bound)));
        let expected = ranks.values().filter(|rank| **rank < bound).count();
        let request =
            v1::CountMemoriesRequest { space: "notes".into(), filter: Some(filter.clone()), ..Default::default() };
        assert_eq!(engine.count_memories(&me(), &request, &bed.at()).unwrap().count, expected as u64, "< {bound}");
        let request = v1::SearchMemoriesRequest { filter: Some(filter), limit: 1_000, ..query("notes", &[1.0, 0.0]) };
        let hits = engine.search_memories(&me(), &request, &bed.at()).unwrap().hits;
        assert_eq!(hits.len(), expected);
    }
}

fn ranked(id: &str, rank: i64) -> v1::Memory {
    v1::Memory {
        metadata: [("rank".to_string(), integer(rank))].into(),
        vectors: vec![vector(&[1.0, 0.5])],
        ..memory(id, "x")
    }
}

#[test]
fn a_field_that_is_added_filters_correctly_before_during_and_after() {
    let mut bed = Bed::new();
    bed.create_space(space("notes", 2)).unwrap();
    let mut ranks = std::collections::BTreeMap::new();
    for id in 0..300 {
        ranks.insert(format!("m{id}"), id % 4);
    }
    bed.add("notes", ranks.iter().map(|(id, rank)| ranked(id, *rank)).collect()).unwrap();
    check_field(&bed.engine, &bed, &ranks);
    update(&mut bed, &["fields"], |space| space.fields = vec![field("rank", v1::FieldType::Integer)]).unwrap();
    let progress = |bed: &Bed| get(bed, "notes").unwrap().building;
    assert_eq!(progress(&bed), [v1::FieldProgress { path: "rank".into(), done: 0, total: 300 }]);
    let record_checks = |bed: &Bed| {
        let filter = Some(condition("metadata.rank", Test::Lt(integer(2))));
        let request = v1::SearchMemoriesRequest { filter, explain: true, ..query("notes", &[1.0, 0.0]) };
        bed.engine.search_memories(&me(), &request, &bed.at()).unwrap().plan.unwrap().record_checks
    };
    let mut steps = 0;
    while bed.engine.advance_upkeep(100).unwrap() {
        steps += 1;
        assert!(record_checks(&bed), "until all of it is there");
        assert!(progress(&bed)[0].done >= steps * 90, "{:?}", progress(&bed));
        // Written, changed and removed in its midst.
        let (new, changed) = (format!("new{steps}"), format!("m{steps}"));
        bed.add("notes", vec![ranked(&new, 1), ranked(&changed, 3)]).unwrap();
        ranks.extend([(new, 1), (changed, 3)]);
        let gone = format!("m{}", 200 + steps);
        let target = v1::delete_memories_request::Target::Ids(v1::MemoryIds { ids: vec![gone.clone()] });
        bed.delete(v1::DeleteMemoriesRequest { space: "notes".into(), target: Some(target), ..Default::default() })
            .unwrap();
        ranks.remove(&gone);
        check_field(&bed.engine, &bed, &ranks);
    }
    assert!(steps >= 2, "{steps} steps");
    assert!(progress(&bed).is_empty() && !record_checks(&bed));
    check_field(&bed.engine, &bed, &ranks);

    // An operand that the field cannot have is refused now, and allowed again once the field is gone.
    let wrong = Some(condition("metadata.rank", Test::Eq(text("x"))));
    assert!(bed.count("notes", wrong.clone()).is_err());
    update(&mut bed, &["fields"], |_| {}).unwrap();
    assert_eq!(bed.count("notes", wrong).unwrap(), 0);
    check_field(&bed.engine, &bed, &ranks);
    while bed.engine.advance_upkeep(100).unwrap() {}
    check_field(&bed.engine, &bed, &ranks);
}

#[test]
fn a_field_survives_a_restart_in_the_midst() {
    let mut bed = Bed::new();
    bed.create_space(space("notes", 2)).unwrap();
    let ranks: std::collections::BTreeMap<_, _> = (0..200).map(|id| (format!("m{id}"), id % 4)).collect();
    bed.add("notes", ranks.iter().map(|(id, rank)| ranked(id, *rank)).collect()).unwrap();
    check_field(&bed.engine, &bed, &ranks);
    update(&mut bed, &["fields"], |space| space.fields = vec![field("rank", v1::FieldType::Integer)]).unwrap();
    assert!(bed.engine.advance_upkeep(50).unwrap());
    bed.engine.flush().unwrap();
    let dir = TempDir::new().unwrap();
    let options = bed.crashed_copy(&dir.path().join("copy"));
    let again = Engine::open(&options, Arc::clone(&bed.keyring)).unwrap();
    check_field(&again, &bed, &ranks);
    let request = v1::GetSpaceRequest { name: "notes".into(), consistency: None };
    let found = again.get_space(&me(), &request, &bed.at()).unwrap().space.unwrap();
    assert!(found.building.is_empty() && found.fields.len() == 1, "made anew, it has the field from the start");
}

#[derive(Clone, Debug)]
enum Step {
    Add { ids: Vec<u8>, rank: i64 },
    Fields(u8),
    Advance,
    Dedup(bool),
    Build,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (proptest::collection::btree_set(0u8..90, 1..40), 0i64..4)
            .prop_map(|(ids, rank)| Step::Add { ids: ids.into_iter().collect(), rank }),
        2 => (0u8..4).prop_map(Step::Fields),
        4 => Just(Step::Advance),
        1 => proptest::bool::ANY.prop_map(Step::Dedup),
        1 => Just(Step::Build),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    /// However fields come and go while memories are written, filters mean the same on every replica.
    #[test]
    fn fields_that_come_and_go_change_no_answer(steps in proptest::collection::vec(step(), 1..25)) {
        let mut bed = Bed::new();
        bed.create_space(space("notes", 2)).unwrap();
        let mut ranks = std::collections::BTreeMap::new();
        for step in &steps {
            bed.now += SECOND;
            match step {
                Step::Add { ids, rank } => {
                    // Each content once in its space: no memory keeps another one from being written.
                    let wire = |id: &u8| v1::Memory { content: format!("{id}"), ..ranked(&format!("m{id}"), *rank) };
                    bed.add("notes", ids.iter().map(wire).collect()).unwrap();
                    ranks.extend(ids.iter().map(|id| (format!("m{id}"), *rank)));
                }
                Step::Fields(which) => {
                    let fields = match which {
                        0 => vec![],
                        1 => vec![field("rank", v1::FieldType::Integer)],
                        2 => vec![field("rank", v1::FieldType::Float), field("other", v1::FieldType::Bool)],
                        _ => vec![field("other", v1::FieldType::Keyword)],
                    };
                    update(&mut bed, &["fields"], |space| space.fields = fields).unwrap();
                }
                Step::Advance => drop(bed.engine.advance_upkeep(16).unwrap()),
                Step::Dedup(dedup) => {
                    update(&mut bed, &["dedup_by_content"], |space| space.dedup_by_content = *dedup).unwrap();
                }
                Step::Build => drop(build(&mut bed)),
            }
            check_field(&bed.engine, &bed, &ranks);
        }
        let dir = TempDir::new().unwrap();
        let options = Options { dir: dir.path().join("other"), ..bed.options.clone() };
        let other = Engine::open(&options, Arc::clone(&bed.keyring)).unwrap();
        other.apply(&bed.log).unwrap();
        prop_assert_eq!(other.applied(), bed.engine.applied());
        check_field(&other, &bed, &ranks);
    }
}

fn bytes_on_disk(dir: &Path) -> u64 {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().metadata().map_or(0, |metadata| metadata.len())).sum()
}

#[test]
fn a_deleted_space_gives_its_bytes_back() {
    let mut bed = Bed::new();
    for name in ["large", "small"] {
        bed.create_space(space(name, 2)).unwrap();
    }
    for batch in 0..40 {
        let memories = (0..20).map(|id| memory(&format!("m{batch}-{id}"), &noise(batch * 20 + id, 8_000))).collect();
        bed.add("large", memories).unwrap();
    }
    bed.add("small", vec![memory("a", "kept")]).unwrap();
    bed.engine.flush().unwrap();
    let full = bytes_on_disk(&bed.options.dir);
    bed.write(WriteRequest::DeleteSpace(v1::DeleteSpaceRequest { name: "large".into(), ..Default::default() }))
        .unwrap();
    while bed.engine.advance_upkeep(100).unwrap() {}
    let left = bytes_on_disk(&bed.options.dir);
    assert!(left < full / 2, "{full} bytes before, {left} after");
    assert_eq!(bed.get("small", &["a"]).unwrap().memories[0].content, "kept");
}

/// What the applying thread remembers of spaces between commands must be forgotten with each change of one, whether that
/// lies in a batch of its own or in the midst of one.
#[test]
fn writes_meet_the_space_that_bears_the_name_by_then() {
    for together in [false, true] {
        let mut bed = Bed::new();
        for name in ["blue", "green"] {
            bed.create_space(space(name, 2)).unwrap();
        }
        set_alias(&mut bed, "live", "blue").unwrap();
        let delete = v1::DeleteSpaceRequest { name: "blue".into(), ..Default::default() };
        let again = v1::CreateSpaceRequest { space: Some(space("blue", 3)), request_id: String::new() };
        let switch = v1::SetAliasRequest { alias: "live".into(), space: "green".into(), request_id: String::new() };
        let requests = vec![
            add_request("live", memory("a", "to blue")),
            WriteRequest::SetAlias(switch),
            add_request("live", memory("b", "to green")),
            add_request("blue", memory("c", "lost with blue")),
            WriteRequest::DeleteSpace(delete),
            add_request("blue", memory("d", "refused")),
            WriteRequest::CreateSpace(again),
            add_request(
                "blue",
                v1::Memory { vectors: vec![vector(&[1.0, 2.0, 3.0])], ..memory("e", "to the new blue") },
            ),
            add_request("live", memory("f", "to green")),
        ];
        let commands = requests.into_iter().map(|request| bed.engine.prepare(&me(), request).unwrap()).collect();
        let outcomes = bed.apply_all(commands, together);
        let failed = |outcome: &Outcome| matches!(outcome.result, Some(outcome::Result::Failure(_)));
        let failures: Vec<usize> = (0..outcomes.len()).filter(|&place| failed(&outcomes[place])).collect();
        assert_eq!(failures, [5], "together: {together}");
        assert_eq!((bed.count("live", None).unwrap(), bed.count("blue", None).unwrap()), (2, 1));
        assert_eq!(bed.get("blue", &["e"]).unwrap().memories[0].content, "to the new blue");
    }
}

fn add_request(space: &str, memory: v1::Memory) -> WriteRequest {
    WriteRequest::AddMemories(v1::AddMemoriesRequest {
        space: space.into(),
        memories: vec![memory],
        ..Default::default()
    })
}

#[test]
fn a_space_is_known_from_a_write_to_it_until_a_space_changes() {
    let mut bed = Bed::new();
    let id = bed.create_space(space("notes", 2)).unwrap().id;
    assert_eq!(bed.engine.known_space(&me(), "notes"), None);
    bed.add("notes", vec![memory("a", "tea")]).unwrap();
    let known = bed.engine.known_space(&me(), "notes").unwrap();
    assert_eq!((known.id, known.embeddings[0].embedder.as_str()), (id, ""));
    bed.create_space(space("more", 2)).unwrap();
    assert_eq!(bed.engine.known_space(&me(), "notes"), None);
}

/// A node may believe of a space that it has no embedder although it has one by now: the text must not be kept without its
/// vector.
#[test]
fn what_was_written_without_a_vector_is_refused_where_the_space_has_an_embedder_by_then() {
    let mut bed = Bed::new();
    let space_id = bed.create_space(space("notes", 2)).unwrap().id;
    let by = EmbeddedBy { space_id, embedder: String::new(), model: String::new() };
    let embedded = Embedded { by, vectors: vec![None] };
    let prepare = |bed: &Bed| {
        bed.engine.prepare_embedded(&me(), add_request("notes", memory("a", "tea")), embedded.clone()).unwrap()
    };
    let (early, late) = (prepare(&bed), prepare(&bed));
    let outcome = bed.apply(early);
    assert!(bed.engine.respond(&outcome, Position::at(1)).is_ok());
    let mut with_embedder = space("notes", 2);
    with_embedder.embeddings[0].embedder = "hash".into();
    with_embedder.embeddings[0].name = "default".into();
    let update = v1::UpdateSpaceRequest {
        space: Some(with_embedder),
        update_mask: Some(prost_types::FieldMask { paths: vec!["embeddings.default.embedder".into()] }),
        ..Default::default()
    };
    bed.write(WriteRequest::UpdateSpace(update)).unwrap();
    let outcome = bed.apply(late);
    let refused = bed.engine.respond(&outcome, Position::at(1)).unwrap_err();
    assert_eq!(*refused.kind(), ErrorKind::FailedPrecondition { reason: EMBEDDER_CHANGED.into() }, "{refused}");
}

/// Readers remember spaces too; what they find must be of the state that their position names.
#[test]
fn a_name_means_what_it_meant_at_the_position_of_the_read() {
    const SWITCHES: u64 = 400;
    let mut bed = Bed::new();
    for name in ["blue", "green"] {
        bed.create_space(space(name, 2)).unwrap();
        bed.add(name, vec![memory("a", name)]).unwrap();
    }
    set_alias(&mut bed, "live", "blue").unwrap();
    let first = bed.log.len() as u64;
    let target = |index: u64| if (index - first).is_multiple_of(2) { "blue" } else { "green" };
    let entries: Vec<ApplyEntry> = (first + 1..=first + SWITCHES)
        .map(|index| {
            let request =
                v1::SetAliasRequest { alias: "live".into(), space: target(index).into(), request_id: String::new() };
            let mut command = bed.engine.prepare(&me(), WriteRequest::SetAlias(request)).unwrap();
            command.stamp_micros = bed.now;
            ApplyEntry { log_id: LogId { term: 1, node_id: 1, index }, body: EntryBody::Command(command) }
        })
        .collect();
    let (engine, at) = (&bed.engine, bed.at());
    std::thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| {
                let request =
                    v1::GetMemoriesRequest { space: "live".into(), ids: vec!["a".into()], ..Default::default() };
                loop {
                    let found = engine.get_memories(&me(), &request, &at).unwrap();
                    let index = Position::decode("position", &found.position).unwrap().index;
                    assert_eq!(found.memories[0].content, target(index), "at {index}");
                    if index == first + SWITCHES {
                        return;
                    }
                }
            });
        }
        for entry in &entries {
            engine.apply(std::slice::from_ref(entry)).unwrap();
        }
    });
}
