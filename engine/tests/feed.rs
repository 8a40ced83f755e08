//! The feed: what those who watch a space are told, from any position, on any replica.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use std::sync::Arc;

use cairn_engine::{Engine, Error, ErrorKind, FeedCursor, Limits, Options, ReadPoint, WriteRequest};
use cairn_proto::v1;
use cairn_proto::v1::ChangeType::{Created, Deleted, Expired, Updated};
use common::{Bed, SECOND, me, memory, space};
use proptest::prelude::*;
use tempfile::TempDir;

fn watch(space: &str, after: &str) -> v1::WatchMemoriesRequest {
    v1::WatchMemoriesRequest { space: space.into(), after: after.into(), ..Default::default() }
}

fn open(engine: &Engine, request: &v1::WatchMemoriesRequest, at: &ReadPoint) -> Result<FeedCursor, Error> {
    engine.open_feed(&me(), request, at)
}

/// Everything behind a cursor, page by page; the cursor stands behind it then.
fn read_all(engine: &Engine, cursor: &mut FeedCursor, at: &ReadPoint) -> Vec<v1::MemoryChange> {
    let mut changes = Vec::new();
    loop {
        let page = engine.read_feed(&me(), cursor, at).unwrap();
        changes.extend(page.changes);
        *cursor = page.cursor;
        if page.caught_up {
            return changes;
        }
    }
}

fn changes(bed: &Bed, request: &v1::WatchMemoriesRequest) -> Vec<v1::MemoryChange> {
    let mut cursor = open(&bed.engine, request, &bed.at()).unwrap();
    read_all(&bed.engine, &mut cursor, &bed.at())
}

fn said(changes: &[v1::MemoryChange]) -> Vec<(v1::ChangeType, &str, u64)> {
    changes.iter().map(|change| (change.r#type(), change.id.as_str(), change.version)).collect()
}

/// A position before everything that happens in a space.
fn start(bed: &Bed, space: &str) -> String {
    open(&bed.engine, &watch(space, ""), &bed.at()).unwrap().position()
}

fn owned(id: &str, user: &str, namespace: Option<&str>) -> v1::Memory {
    let scope = v1::Scope { user_id: Some(user.into()), namespace: namespace.map(str::to_owned), ..Default::default() };
    v1::Memory { scope: Some(scope), ..memory(id, "text") }
}

fn delete_all(space: &str) -> v1::DeleteMemoriesRequest {
    let selection = v1::Selection { all: true, ..Default::default() };
    v1::DeleteMemoriesRequest {
        space: space.into(),
        target: Some(v1::delete_memories_request::Target::Selection(selection)),
        request_id: String::new(),
    }
}

#[test]
fn every_sort_of_change_is_told() {
    let mut bed = Bed::new();
    bed.create_space(space("notes", 2)).unwrap();
    let from = start(&bed, "notes");
    let ttl = |seconds| Some(v1::memory::Expiry::Ttl(prost_types::Duration { seconds, nanos: 0 }));
    bed.add("notes", vec![memory("a", "one"), v1::Memory { expiry: ttl(10), ..memory("b", "two") }]).unwrap();
    bed.add("notes", vec![memory("a", "one more"), v1::Memory { expiry: ttl(5), ..memory("c", "three") }]).unwrap();
    bed.now += 7 * SECOND;
    // Nobody has removed `c` yet; its place is taken all the same.
    bed.add("notes", vec![memory("c", "four")]).unwrap();
    bed.now += 7 * SECOND;
    let expiry = bed.engine.prepare_expiry(bed.now).unwrap().unwrap();
    bed.apply(expiry);
    bed.delete(delete_all("notes")).unwrap();
    let told = changes(&bed, &watch("notes", &from));
    let expected = [
        (Created, "a", 1),
        (Created, "b", 1),
        (Updated, "a", 2),
        (Created, "c", 1),
        (Expired, "c", 1),
        (Created, "c", 1),
        (Expired, "b", 1),
    ];
    assert_eq!(said(&told)[..7], expected);
    let mut deleted = said(&told)[7..].to_vec();
    deleted.sort_unstable_by_key(|change| change.1);
    assert_eq!(deleted, [(Deleted, "a", 2), (Deleted, "c", 1)]);
    assert_eq!(told[6].changed_at.unwrap().seconds * SECOND, bed.now);
}

#[test]
fn a_watch_without_a_position_begins_now() {
    let mut bed = Bed::new();
    bed.create_space(space("notes", 2)).unwrap();
    bed.add("notes", vec![memory("a", "one")]).unwrap();
    let mut cursor = open(&bed.engine, &watch("notes", ""), &bed.at()).unwrap();
    bed.add("notes", vec![memory("b", "two")]).unwrap();
    assert_eq!(said(&read_all(&bed.engine, &mut cursor, &bed.at())), [(Created, "b", 1)]);
    assert!(read_all(&bed.engine, &mut cursor, &bed.at()).is_empty());
}

#[test]
fn a_scope_narrows_and_a_namespace_takes_in_what_lies_below() {
    let mut bed = Bed::new();
    bed.create_space(space("notes", 2)).unwrap();
    let from = start(&bed, "notes");
    let memories = vec![owned("a", "ann", Some("team/x")), owned("b", "bob", Some("teams")), owned("c", "ann", None)];
    bed.add("notes", memories).unwrap();
    let of = |scope: v1::Scope| v1::WatchMemoriesRequest { scope: Some(scope), ..watch("notes", &from) };
    let ann = of(v1::Scope { user_id: Some("ann".into()), ..Default::default() });
    assert_eq!(said(&changes(&bed, &ann)), [(Created, "a", 1), (Created, "c", 1)]);
    let team = of(v1::Scope { namespace: Some("team".into()), ..Default::default() });
    assert_eq!(said(&changes(&bed, &team)), [(Created, "a", 1)]);
}

#[test]
fn a_memory_that_leaves_a_scope_is_gone_for_those_who_watch_it() {
    let mut bed = Bed::new();
    bed.create_space(space("notes", 2)).unwrap();
    let from = start(&bed, "notes");
    bed.add("notes", vec![owned("a", "ann", None), owned("b", "bob", None)]).unwrap();
    bed.add("notes", vec![owned("a", "bob", None), memory("b", "nobody's")]).unwrap();
    let of = |user: &str| v1::WatchMemoriesRequest {
        scope: Some(v1::Scope { user_id: Some(user.into()), ..Default::default() }),
        include_memory: true,
        ..watch("notes", &from)
    };
    let ann = changes(&bed, &of("ann"));
    assert_eq!(said(&ann), [(Created, "a", 1), (Deleted, "a", 2)]);
    assert!(ann[1].memory.is_none(), "what is another's now is not shown");
    assert_eq!(said(&changes(&bed, &of("bob"))), [(Created, "b", 1), (Updated, "a", 2), (Deleted, "b", 2)]);
    let all = changes(&bed, &watch("notes", &from));
    assert_eq!(said(&all), [(Created, "a", 1), (Created, "b", 1), (Updated, "a", 2), (Updated, "b", 2)]);
}

#[test]
fn memories_come_along_where_they_are_still_what_they_were() {
    let mut bed = Bed::new();
    bed.create_space(space("notes", 2)).unwrap();
    let from = start(&bed, "notes");
    bed.add("notes", vec![memory("a", "first"), memory("b", "kept")]).unwrap();
    bed.now += SECOND;
    bed.delete(delete_all("notes")).unwrap();
    bed.add("notes", vec![memory("a", "second")]).unwrap();
    let request = v1::WatchMemoriesRequest { include_memory: true, ..watch("notes", &from) };
    let contents: Vec<_> =
        changes(&bed, &request).into_iter().map(|change| change.memory.map(|memory| memory.content)).collect();
    assert_eq!(contents[..4], [None, None, None, None]);
    assert_eq!(contents[4].as_deref(), Some("second"));
}

#[test]
fn what_is_dropped_is_out_of_range_and_never_skipped() {
    let mut bed = Bed::with_limits(Limits { feed_changes_max: 10, ..Limits::default() });
    bed.create_space(space("notes", 2)).unwrap();
    let from = start(&bed, "notes");
    let mut cursor = open(&bed.engine, &watch("notes", ""), &bed.at()).unwrap();
    let mut told = Vec::new();
    for number in 0..12 {
        bed.add("notes", vec![memory(&format!("m{number}"), "text")]).unwrap();
        told.push(bed.log.len());
    }
    let error = open(&bed.engine, &watch("notes", &from), &bed.at()).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::OutOfRange);
    assert!(error.to_string().contains("list the memories anew"), "{error}");
    let error = bed.engine.read_feed(&me(), &cursor, &bed.at()).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::OutOfRange, "also for one that was open and fell behind");
    // The message names the oldest position that serves, and it does.
    let oldest = error.to_string();
    let oldest = oldest.split("only those behind ").nth(1).unwrap().split(':').next().unwrap().to_owned();
    cursor = open(&bed.engine, &watch("notes", &oldest), &bed.at()).unwrap();
    assert_eq!(read_all(&bed.engine, &mut cursor, &bed.at()).len(), 10);
}

#[test]
fn a_space_that_is_gone_and_positions_that_are_none_are_refused() {
    let mut bed = Bed::new();
    bed.create_space(space("notes", 2)).unwrap();
    let mut cursor = open(&bed.engine, &watch("notes", ""), &bed.at()).unwrap();
    let error = open(&bed.engine, &watch("notes", "soon"), &bed.at()).unwrap_err();
    assert!(error.to_string().starts_with("after: "), "{error}");
    let ahead = cairn_engine::Position::at(1_000).encode();
    assert_eq!(*open(&bed.engine, &watch("notes", &ahead), &bed.at()).unwrap_err().kind(), ErrorKind::Unavailable);
    let elsewhere = cairn_engine::Position { group: cairn_engine::GroupId(3), index: 1 }.encode();
    assert!(open(&bed.engine, &watch("notes", &elsewhere), &bed.at()).is_err());
    assert!(matches!(
        open(&bed.engine, &watch("other", ""), &bed.at()).unwrap_err().kind(),
        ErrorKind::NotFound { .. }
    ));

    bed.write(WriteRequest::DeleteSpace(v1::DeleteSpaceRequest { name: "notes".into(), ..Default::default() }))
        .unwrap();
    assert!(!bed.engine.skip_feed(&mut cursor), "the end of a space is news");
    let error = bed.engine.read_feed(&me(), &cursor, &bed.at()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NotFound { .. }), "{error}");
}

#[test]
fn waiting_reads_nothing_and_misses_nothing() {
    let mut bed = Bed::new();
    for name in ["notes", "busy"] {
        bed.create_space(space(name, 2)).unwrap();
    }
    let mut cursor = open(&bed.engine, &watch("notes", ""), &bed.at()).unwrap();
    for _ in 0..5 {
        bed.add("busy", vec![memory("x", "noise")]).unwrap();
        assert!(bed.engine.skip_feed(&mut cursor));
    }
    assert_eq!(cursor.position(), cairn_engine::Position::at(bed.log.len() as u64).encode(), "it moves along");
    bed.add("notes", vec![memory("a", "news")]).unwrap();
    assert!(!bed.engine.skip_feed(&mut cursor));
    assert_eq!(said(&read_all(&bed.engine, &mut cursor, &bed.at())), [(Created, "a", 1)]);
    assert!(bed.engine.skip_feed(&mut cursor));
}

#[test]
fn an_engine_that_was_opened_again_tells_what_came_before() {
    let mut bed = Bed::new();
    bed.create_space(space("notes", 2)).unwrap();
    let from = start(&bed, "notes");
    bed.add("notes", vec![memory("a", "one")]).unwrap();
    bed.engine.flush().unwrap();
    let dir = TempDir::new().unwrap();
    let options = bed.crashed_copy(&dir.path().join("copy"));
    let again = Engine::open(&options, Arc::clone(&bed.keyring)).unwrap();
    let mut cursor = open(&again, &watch("notes", &from), &bed.at()).unwrap();
    assert!(!again.skip_feed(&mut cursor), "there may be news from before the start");
    assert_eq!(said(&read_all(&again, &mut cursor, &bed.at())), [(Created, "a", 1)]);
}

#[derive(Clone, Debug)]
enum Step {
    Add { space: usize, ids: Vec<u8>, ttl: Option<u8> },
    Wipe { space: usize },
    Wait { seconds: u8 },
    Expire,
}

fn step() -> impl Strategy<Value = Step> {
    let ids = proptest::collection::btree_set(0u8..20, 1..8).prop_map(|ids| ids.into_iter().collect());
    prop_oneof![
        6 => (0usize..2, ids, proptest::option::of(1u8..20)).prop_map(|(space, ids, ttl)| Step::Add { space, ids, ttl }),
        1 => (0usize..2).prop_map(|space| Step::Wipe { space }),
        2 => (0u8..15).prop_map(|seconds| Step::Wait { seconds }),
        2 => Just(Step::Expire),
    ]
}

const SPACES: [&str; 2] = ["left", "right"];

fn carry_out(bed: &mut Bed, step: &Step) {
    match step {
        Step::Add { space, ids, ttl } => {
            let expiry =
                ttl.map(|ttl| v1::memory::Expiry::Ttl(prost_types::Duration { seconds: i64::from(ttl), nanos: 0 }));
            let user = |id: &u8| if id.is_multiple_of(2) { "even" } else { "odd" };
            let wire = |id: &u8| v1::Memory { expiry, ..owned(&format!("id{id}"), user(id), None) };
            bed.add(SPACES[*space], ids.iter().map(wire).collect()).unwrap();
        }
        Step::Wipe { space } => drop(bed.delete(delete_all(SPACES[*space])).unwrap()),
        Step::Wait { seconds } => bed.now += i64::from(*seconds) * SECOND,
        Step::Expire => {
            if let Some(command) = bed.engine.prepare_expiry(bed.now).unwrap() {
                bed.apply(command);
            }
        }
    }
}

/// What a reader of the changes holds to be there: the version of each memory.
fn replayed(changes: &[v1::MemoryChange]) -> std::collections::BTreeMap<String, u64> {
    let mut memories = std::collections::BTreeMap::new();
    for change in changes {
        match change.r#type() {
            Created => assert_eq!(memories.insert(change.id.clone(), change.version), None, "created twice"),
            Updated => assert!(memories.insert(change.id.clone(), change.version).is_some(), "updated out of nothing"),
            Deleted | Expired => assert_eq!(memories.remove(&change.id), Some(change.version), "removed once"),
            v1::ChangeType::Unspecified => panic!("a change without a type"),
        }
    }
    memories
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// However a watch is broken off and resumed, on whichever replica, it tells the same as one that never was; and who
    /// applies the changes to nothing holds what the space holds.
    #[test]
    fn a_watch_can_be_resumed_behind_any_change(steps in proptest::collection::vec(step(), 1..25), cut in 0usize..1_000) {
        let mut bed = Bed::with_limits(Limits { delete_scan_rows_max: 3, ..Limits::default() });
        for name in SPACES {
            bed.create_space(space(name, 2)).unwrap();
        }
        let from = [start(&bed, "left"), start(&bed, "right")];
        for step in &steps {
            carry_out(&mut bed, step);
        }
        let dir = TempDir::new().unwrap();
        let options = Options { dir: dir.path().join("other"), ..bed.options.clone() };
        let other = Engine::open(&options, Arc::clone(&bed.keyring)).unwrap();
        other.apply(&bed.log).unwrap();
        for (name, from) in SPACES.iter().zip(&from) {
            let all = changes(&bed, &watch(name, from));
            let expected: std::collections::BTreeMap<String, u64> = {
                // Before the first removal by time, also what has expired is there for the feed.
                let at = ReadPoint { time_micros: 0, ..bed.at() };
                let list = v1::ListMemoriesRequest { space: (*name).into(), page_size: 1_000, ..Default::default() };
                let listed = bed.engine.list_memories(&me(), &list, &at).unwrap().memories;
                listed.into_iter().map(|memory| (memory.id, memory.version)).collect()
            };
            prop_assert_eq!(replayed(&all), expected);
            if all.is_empty() {
                continue;
            }
            let (before, behind) = all.split_at(cut % all.len() + 1);
            let mut cursor = open(&other, &watch(name, &before[before.len() - 1].position), &bed.at()).unwrap();
            prop_assert_eq!(read_all(&other, &mut cursor, &bed.at()), behind);

            let scope = Some(v1::Scope { user_id: Some("even".into()), ..Default::default() });
            let even = changes(&bed, &v1::WatchMemoriesRequest { scope, ..watch(name, from) });
            let is_even = |change: &&v1::MemoryChange| change.id[2..].parse::<u8>().unwrap().is_multiple_of(2);
            prop_assert_eq!(even, all.iter().filter(is_even).cloned().collect::<Vec<_>>());
        }
    }
}
