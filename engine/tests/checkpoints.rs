//! Checkpoints of indexes: a restart has the index as it was, with all that has happened since; and whatever is wrong with the files,
//! answers stay right.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_engine::{Engine, IndexCounts, Limits, Options, WriteRequest};
use cairn_proto::v1;
use cairn_proto::v1::condition::Test;
use cairn_proto::v1::delete_memories_request::Target;
use common::{Bed, condition, files, me, memory, query, space, text, vector};

const SPACE: &str = "many";
const DIMENSION: usize = 12;

/// Deterministic numbers.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state >> 11
}

fn values(seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..DIMENSION).map(|_| (random(&mut state) % 2_001) as f32 - 1_000.0).collect()
}

fn numbered(number: u64, seed: u64) -> v1::Memory {
    let kind = if seed.is_multiple_of(3) { "third" } else { "other" };
    v1::Memory { kind: kind.into(), vectors: vec![vector(&values(seed))], ..memory(&format!("m{number}"), "text") }
}

/// A bed whose engine keeps graphs and checkpoints of small spaces.
fn bed_with(limits: Limits) -> Bed {
    let mut bed = Bed::with_limits(limits);
    bed.options =
        Options { index_graph_from: 150, index_checkpoint_from: 40, index_checkpoint_thread: false, ..bed.options };
    reopen(&mut bed);
    bed.create_space(space(SPACE, DIMENSION as u32)).unwrap();
    assert!(bed.search(&query(SPACE, &values(0))).unwrap().is_empty());
    bed
}

fn bed() -> Bed {
    bed_with(Limits::default())
}

/// Closes the engine and opens it again; `between`: what happens to its directory meanwhile.
fn reopen_after(bed: &mut Bed, between: impl FnOnce(&Path)) {
    bed.engine.flush().unwrap();
    let elsewhere = Options { dir: bed.dir.path().join("elsewhere"), ..bed.options.clone() };
    bed.engine = Engine::open(&elsewhere, Arc::clone(&bed.keyring)).unwrap();
    between(&bed.options.dir);
    bed.engine = Engine::open(&bed.options, Arc::clone(&bed.keyring)).unwrap();
}

fn reopen(bed: &mut Bed) {
    reopen_after(bed, |_| ());
}

/// The one space's directory of checkpoints.
fn checkpoint_dir(store: &Path) -> PathBuf {
    files(&store.join("index")).remove(0)
}

fn fill(bed: &mut Bed, numbers: std::ops::Range<u64>) {
    bed.add(SPACE, numbers.map(|number| numbered(number, number)).collect()).unwrap();
}

fn delete(bed: &mut Bed, numbers: impl Iterator<Item = u64>) -> u64 {
    let ids = numbers.map(|number| format!("m{number}")).collect();
    let target = Some(Target::Ids(v1::MemoryIds { ids }));
    bed.delete(v1::DeleteMemoriesRequest { space: SPACE.into(), target, request_id: String::new() }).unwrap()
}

/// Every memory of the model is the nearest to its own vector, flat and over the graph, and nothing else is there.
fn assert_right(bed: &Bed, model: &BTreeMap<u64, u64>) {
    for exact in [true, false] {
        let params = Some(v1::SearchParams { exact, ..Default::default() });
        for (number, seed) in model {
            let request = v1::SearchMemoriesRequest { limit: 1, params, ..query(SPACE, &values(*seed)) };
            let found = bed.search(&request).unwrap();
            assert_eq!(found[0].memory.as_ref().unwrap().id, format!("m{number}"), "exact: {exact}");
        }
    }
    let all = v1::SearchMemoriesRequest { limit: 1000, ..query(SPACE, &values(1)) };
    assert_eq!(bed.search(&all).unwrap().len(), model.len());
    let thirds = model.values().filter(|seed| seed.is_multiple_of(3)).count();
    let filter = Some(condition("kind", Test::Eq(text("third"))));
    let request = v1::SearchMemoriesRequest { filter: filter.clone(), ..all };
    assert_eq!((bed.search(&request).unwrap().len(), bed.count(SPACE, filter).unwrap()), (thirds, thirds as u64));
    bed.engine.begin_index_round(100);
    assert_eq!(bed.engine.index_counts().unreachable, 0);
}

fn counts(bed: &Bed) -> IndexCounts {
    bed.engine.index_counts()
}

/// Random histories with checkpoints and restarts in between: whatever came last counts.
#[test]
fn what_happened_after_a_checkpoint_counts_after_a_restart() {
    for seed in 1..3u64 {
        let (mut bed, mut model, mut state) = (bed(), BTreeMap::new(), seed * 77);
        let mut restarts_with_checkpoint = 0;
        for _ in 0..100 {
            let number = random(&mut state) % 400;
            match random(&mut state) % 20 {
                0..=8 => {
                    let new: Vec<u64> = (number..number + 1 + random(&mut state) % 30).collect();
                    let seed = random(&mut state);
                    bed.add(SPACE, new.iter().map(|number| numbered(*number, seed + number)).collect()).unwrap();
                    model.extend(new.iter().map(|number| (*number, seed + number)));
                }
                9..=12 => {
                    let gone: Vec<u64> = (number..=number + random(&mut state) % 20).collect();
                    let there = gone.iter().filter(|number| model.remove(number).is_some()).count();
                    assert_eq!(delete(&mut bed, gone.into_iter()), there as u64);
                }
                13..=16 => drop(bed.engine.checkpoint_indexes()),
                17 => bed.engine.flush().unwrap(),
                _ => {
                    reopen(&mut bed);
                    drop(bed.search(&query(SPACE, &values(0))).unwrap());
                    restarts_with_checkpoint += counts(&bed).checkpoints_loaded;
                }
            }
        }
        reopen(&mut bed);
        assert_right(&bed, &model);
        assert!(restarts_with_checkpoint > 0);
        // The same out of the records alone.
        reopen_after(&mut bed, |store| std::fs::remove_dir_all(store.join("index")).unwrap());
        assert_right(&bed, &model);
        assert_eq!((counts(&bed).checkpoints_loaded, counts(&bed).made), (0, 1));
    }
}

#[test]
fn a_restart_has_the_linked_graph_at_once_and_writes_only_what_changes() {
    let mut bed = bed();
    fill(&mut bed, 0..500);
    while counts(&bed).waiting > 0 {
        std::thread::yield_now();
    }
    bed.engine.checkpoint_indexes();
    reopen(&mut bed);
    let model: BTreeMap<u64, u64> = (0..500).map(|number| (number, number)).collect();
    assert_right(&bed, &model);
    let after = counts(&bed);
    assert_eq!((after.checkpoints_loaded, after.made, after.waiting, after.checkpoints_unusable), (1, 0, 0, 0));
    assert_eq!(bed.engine.checkpoint_indexes(), 0, "nothing has changed");
    let before = files(&checkpoint_dir(&bed.options.dir));
    let update = v1::UpdateMemoryRequest {
        space: SPACE.into(),
        memory: Some(v1::Memory { id: "m7".into(), kind: "fourth".into(), ..Default::default() }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["kind".into()] }),
        ..Default::default()
    };
    bed.write(WriteRequest::UpdateMemory(update)).unwrap();
    assert_eq!(bed.engine.checkpoint_indexes(), 1);
    let now = files(&checkpoint_dir(&bed.options.dir));
    let kept = before.iter().filter(|file| now.contains(file)).count();
    assert_eq!(
        (before.len(), now.len(), kept),
        (4, 4, 3),
        "the vectors' and the graph's file, and the manifest's name"
    );
    reopen(&mut bed);
    assert_right(&bed, &model);
    let fourth = v1::SearchMemoriesRequest {
        filter: Some(condition("kind", Test::Eq(text("fourth")))),
        ..query(SPACE, &values(1))
    };
    let found = bed.search(&fourth).unwrap();
    assert_eq!((found.len(), found[0].memory.as_ref().unwrap().id.as_str()), (1, "m7"));
}

#[test]
fn whatever_is_wrong_with_the_files_the_index_is_made_from_the_records() {
    let mut bed = bed();
    fill(&mut bed, 0..200);
    bed.engine.checkpoint_indexes();
    assert_eq!(counts(&bed).checkpoints_saved, 1);
    delete(&mut bed, 20..30);
    bed.engine.flush().unwrap();
    let sound = bed.options.dir.clone();
    let names: Vec<_> =
        files(&checkpoint_dir(&sound)).iter().map(|file| file.file_name().unwrap().to_owned()).collect();
    assert_eq!(names.len(), 4);
    // Searches a copy whose file was damaged, and says what it found.
    let all = v1::SearchMemoriesRequest { limit: 300, ..query(SPACE, &values(25)) };
    let search_damaged = |name: &std::ffi::OsStr, damage: &dyn Fn(&Path)| {
        let copy = tempfile::TempDir::new_in(bed.dir.path()).unwrap();
        common::copy_dir(&sound, &copy.path().join("store"));
        damage(&checkpoint_dir(&copy.path().join("store")).join(name));
        let options = Options { dir: copy.path().join("store"), ..bed.options.clone() };
        let engine = Engine::open(&options, Arc::clone(&bed.keyring)).unwrap();
        let found = engine.search_memories(&me(), &all, &bed.at()).unwrap().hits.len();
        let counted = engine.index_counts();
        (found, counted.checkpoints_loaded, counted.made, counted.checkpoints_unusable)
    };
    type Damage = Box<dyn Fn(&mut Vec<u8>)>;
    let mut damages: Vec<(String, Damage)> = Vec::new();
    for place in [0, 1, 8, 26, 28, 36, 40, 117, 150] {
        damages.push((format!("byte {place} flipped"), Box::new(move |bytes| bytes[place] ^= 0x10)));
    }
    for part in [2, 1] {
        let damage = move |bytes: &mut Vec<u8>| {
            let place = bytes.len() / part - 1;
            bytes[place] ^= 1;
        };
        damages.push((format!("a byte at 1/{part} flipped"), Box::new(damage)));
    }
    for part in [1, 20] {
        damages.push((format!("cut at 1/{part}"), Box::new(move |bytes| bytes.truncate(bytes.len() / part - 1))));
    }
    damages.push(("longer".into(), Box::new(|bytes| bytes.push(0))));
    damages.push(("empty".into(), Box::new(Vec::clear)));
    for name in &names {
        for (what, damage) in &damages {
            let damaged = search_damaged(name, &|path| {
                let mut bytes = std::fs::read(path).unwrap();
                damage(&mut bytes);
                std::fs::write(path, bytes).unwrap();
            });
            assert_eq!(damaged, (190, 0, 1, 1), "{name:?} {what}");
        }
        let without = search_damaged(name, &|path| std::fs::remove_file(path).unwrap());
        // Without a manifest there is no checkpoint.
        assert_eq!(without, (190, 0, 1, u64::from(name != "MANIFEST")), "{name:?} is missing");
    }
    assert_eq!(search_damaged(&names[0], &|_| ()), (190, 1, 0, 0), "the copy itself is sound");
}

#[test]
fn a_checkpoint_of_another_space_is_refused() {
    let mut bed = bed();
    fill(&mut bed, 0..100);
    bed.create_space(space("other", DIMENSION as u32)).unwrap();
    let memories = (0..100).map(|number| numbered(number, number + 1_000)).collect();
    bed.add("other", memories).unwrap();
    bed.search(&query("other", &values(1))).unwrap();
    assert_eq!(bed.engine.checkpoint_indexes(), 2);
    reopen_after(&mut bed, |store| {
        let dirs = files(&store.join("index"));
        for file in files(&dirs[1]) {
            std::fs::remove_file(file).unwrap();
        }
        for file in files(&dirs[0]) {
            std::fs::copy(&file, dirs[1].join(file.file_name().unwrap())).unwrap();
        }
    });
    for (name, offset) in [(SPACE, 0), ("other", 1_000)] {
        for number in 0..100 {
            let request = v1::SearchMemoriesRequest { limit: 1, ..query(name, &values(number + offset)) };
            assert_eq!(bed.search(&request).unwrap()[0].memory.as_ref().unwrap().id, format!("m{number}"), "{name}");
        }
    }
    assert_eq!((counts(&bed).checkpoints_loaded, counts(&bed).checkpoints_unusable), (1, 1));
}

#[test]
fn nothing_of_a_tenant_lies_readable_in_a_checkpoint() {
    let mut bed = bed();
    let secret = |number: u64| v1::Memory {
        scope: Some(v1::Scope { user_id: Some("SECRETUSER".into()), ..Default::default() }),
        kind: "SECRETKIND".into(),
        ..numbered(number, number)
    };
    let named = |number| v1::Memory { id: format!("SECRETID{number}"), ..secret(number) };
    bed.add(SPACE, (0..200).map(named).collect()).unwrap();
    while counts(&bed).waiting > 0 {
        std::thread::yield_now();
    }
    bed.engine.checkpoint_indexes();
    let vector_bytes: Vec<u8> = values(3)[..3].iter().flat_map(|value| value.to_le_bytes()).collect();
    let files = files(&checkpoint_dir(&bed.options.dir));
    assert_eq!(files.len(), 4);
    let holds = |bytes: &[u8], secret: &[u8]| bytes.windows(secret.len()).any(|window| window == secret);
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        assert!(!holds(&bytes, b"SECRET") && !holds(&bytes, &vector_bytes), "{}", file.display());
        // Codes and rows of the graph have runs and repetitions; what is sealed has none.
        let zeros = bytes[150..].iter().filter(|byte| **byte == 0).count();
        assert!(bytes.len() < 2_000 || zeros < bytes.len() / 64, "{}: {zeros} zeros", file.display());
    }
}

fn model(count: u64) -> BTreeMap<u64, u64> {
    (0..count).map(|number| (number, number)).collect()
}

#[test]
fn a_checkpoint_is_left_aside_where_the_feed_was_cut_behind_it() {
    let mut bed = bed_with(Limits { feed_changes_max: 60, ..Limits::default() });
    fill(&mut bed, 0..100);
    bed.engine.checkpoint_indexes();
    fill(&mut bed, 100..120);
    reopen(&mut bed);
    assert_right(&bed, &model(120));
    assert_eq!(counts(&bed).checkpoints_loaded, 1);
    // Nothing more is written, though another engine without checkpoints changes much.
    reopen(&mut bed);
    let with_checkpoints = bed.options.clone();
    bed.options.index_checkpoint_from = u64::MAX;
    reopen(&mut bed);
    for start in (120..320).step_by(50) {
        fill(&mut bed, start..start + 50);
    }
    bed.options = with_checkpoints;
    reopen(&mut bed);
    assert_right(&bed, &model(320));
    assert_eq!((counts(&bed).checkpoints_loaded, counts(&bed).checkpoints_unusable), (0, 1));
}

#[test]
fn a_crash_may_leave_a_store_that_knows_less_than_the_checkpoint() {
    let mut bed = bed();
    fill(&mut bed, 0..60);
    bed.engine.flush().unwrap();
    fill(&mut bed, 60..100);
    bed.engine.checkpoint_indexes();
    let behind = bed.crashed_copy(&bed.dir.path().join("behind"));
    let engine = Engine::open(&behind, Arc::clone(&bed.keyring)).unwrap();
    let applied = engine.applied().log_id.map_or(0, |id| id.index);
    assert_eq!(applied + 1, bed.log.len() as u64);
    let all = v1::SearchMemoriesRequest { limit: 1000, ..query(SPACE, &values(1)) };
    let found = |engine: &Engine| {
        let at = cairn_engine::ReadPoint { index: 0, time_micros: bed.now };
        engine.search_memories(&me(), &all, &at).unwrap().hits.len()
    };
    assert_eq!(found(&engine), 60);
    assert_eq!((engine.index_counts().checkpoints_loaded, engine.index_counts().checkpoints_unusable), (0, 1));
    engine.apply(&bed.log).unwrap();
    assert_eq!(found(&engine), 100);
}

#[test]
fn other_fields_make_another_index() {
    let mut bed = bed();
    let with_rank = |number: u64| v1::Memory {
        metadata: [("rank".to_string(), common::integer((number % 5) as i64))].into(),
        ..numbered(number, number)
    };
    bed.add(SPACE, (0..100).map(with_rank).collect()).unwrap();
    bed.engine.checkpoint_indexes();
    let field = v1::IndexedField { path: "rank".into(), r#type: v1::FieldType::Integer.into() };
    let update = v1::UpdateSpaceRequest {
        space: Some(v1::Space { name: SPACE.into(), fields: vec![field], ..Default::default() }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["fields".into()] }),
        ..Default::default()
    };
    bed.write(WriteRequest::UpdateSpace(update)).unwrap();
    let fours = Some(condition("metadata.rank", Test::Eq(common::integer(4))));
    reopen(&mut bed);
    assert_eq!(bed.count(SPACE, fours.clone()).unwrap(), 20);
    bed.search(&query(SPACE, &values(1))).unwrap();
    assert_eq!((counts(&bed).checkpoints_loaded, counts(&bed).made), (0, 1));
    // In the partition in use the fields are made anew beside the old ones, and none of the old rows may be kept.
    bed.engine.checkpoint_indexes();
    reopen(&mut bed);
    let found =
        bed.search(&v1::SearchMemoriesRequest { filter: fours, limit: 50, ..query(SPACE, &values(1)) }).unwrap();
    assert_eq!((found.len(), counts(&bed).checkpoints_loaded), (20, 1));
}

/// The thread of the engine writes and removes checkpoints without being asked.
#[test]
fn a_deleted_space_leaves_no_checkpoint() {
    let mut bed = bed();
    bed.options.index_checkpoint_thread = true;
    reopen(&mut bed);
    bed.search(&query(SPACE, &values(0))).unwrap();
    fill(&mut bed, 0..100);
    while counts(&bed).checkpoints_saved == 0 {
        std::thread::yield_now();
    }
    let dir = checkpoint_dir(&bed.options.dir);
    let copy = bed.dir.path().join("copy");
    common::copy_dir(&dir, &copy);
    bed.write(WriteRequest::DeleteSpace(v1::DeleteSpaceRequest { name: SPACE.into(), ..Default::default() })).unwrap();
    while dir.exists() {
        std::thread::yield_now();
    }
    // One that a crash left behind goes at the next start.
    reopen_after(&mut bed, |_| common::copy_dir(&copy, &dir));
    assert!(!dir.exists());
}
