//! What the indexes take: they leave the memory when nobody searches, make room for each other, and say so when that is
//! not enough.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use std::sync::Arc;

use cairn_engine::{Engine, ErrorKind, Options};
use cairn_proto::v1;
use common::{Bed, me, memory, query, space, vector};

const DIMENSION: u32 = 64;
const MEMORIES: u32 = 400;

/// A vector of its own for each number.
fn values(number: u32) -> Vec<f32> {
    let mixed =
        |place: u32| (number.wrapping_mul(0x9e37_79b9) ^ place.wrapping_mul(0x85eb_ca6b)).wrapping_mul(0xc2b2_ae35);
    (0..DIMENSION).map(|place| (mixed(place + 1) >> 16) as f32 - 32_768.0).collect()
}

/// Two spaces whose indexes take the same.
fn two_spaces() -> Bed {
    let mut bed = Bed::new();
    for name in ["red", "blue"] {
        bed.create_space(space(name, DIMENSION)).unwrap();
        let memories = (0..MEMORIES)
            .map(|n| v1::Memory { vectors: vec![vector(&values(n))], ..memory(&format!("{name}-{n}"), "text") });
        bed.add(name, memories.collect()).unwrap();
    }
    bed
}

/// The same store, with a bound on what its indexes take.
fn reopened(bed: Bed, index_bytes_max: u64) -> Bed {
    let Bed { dir, keyring, engine, options, log, now } = bed;
    engine.flush().unwrap();
    drop(engine);
    let options = Options { index_bytes_max, ..options };
    let engine = Engine::open(&options, Arc::clone(&keyring)).unwrap();
    Bed { dir, keyring, engine, options, log, now }
}

fn statistics(bed: &Bed, name: &str) -> v1::SpaceStatistics {
    let request = v1::GetSpaceRequest { name: name.into(), consistency: None };
    bed.engine.get_space(&me(), &request, &bed.at()).unwrap().statistics.unwrap()
}

fn best(bed: &Bed, name: &str, number: u32) -> String {
    let hits = bed.search(&query(name, &values(number))).unwrap();
    hits[0].memory.as_ref().unwrap().id.clone()
}

fn is_refused(bed: &Bed, name: &str) -> bool {
    match bed.search(&query(name, &values(0))) {
        Ok(_) => false,
        Err(error) if matches!(error.kind(), ErrorKind::IndexMemory { .. }) => true,
        Err(error) => panic!("{error:?}"),
    }
}

#[test]
fn an_index_that_nobody_searches_leaves_the_memory_and_comes_back_with_all_changes() {
    let mut bed = two_spaces();
    assert_eq!(best(&bed, "red", 7), "red-7");
    assert_eq!(best(&bed, "blue", 7), "blue-7");
    assert_eq!(bed.engine.begin_index_round(2), 0);
    assert_eq!(best(&bed, "blue", 7), "blue-7");
    assert_eq!(bed.engine.begin_index_round(2), 0);
    assert_eq!(bed.engine.begin_index_round(2), 1, "red was searched three rounds ago, blue two");
    assert_eq!(statistics(&bed, "red").index_tier, "unloaded");
    assert_ne!(statistics(&bed, "blue").index_tier, "unloaded");

    let newcomer = v1::Memory { vectors: vec![vector(&values(1_000))], ..memory("red-new", "text") };
    bed.add("red", vec![newcomer]).unwrap();
    let target = v1::delete_memories_request::Target::Ids(v1::MemoryIds { ids: vec!["red-7".into()] });
    let request = v1::DeleteMemoriesRequest { space: "red".into(), target: Some(target), ..Default::default() };
    assert_eq!(bed.delete(request).unwrap(), 1);
    assert_eq!(statistics(&bed, "red").index_tier, "unloaded", "a write does not bring it back");
    assert_eq!(best(&bed, "red", 1_000), "red-new");
    assert_ne!(best(&bed, "red", 7), "red-7");
}

#[test]
fn an_index_takes_the_place_of_one_that_was_not_searched_lately() {
    let bed = two_spaces();
    assert_eq!(best(&bed, "red", 1), "red-1");
    let bytes = statistics(&bed, "red").index_bytes;
    let bed = reopened(bed, bytes + bytes / 2);

    assert_eq!(best(&bed, "red", 1), "red-1");
    assert!(is_refused(&bed, "blue"), "both were asked for in one round, and there is room for one");
    assert!(is_refused(&bed, "blue"), "nothing is made again and again in vain");
    assert_eq!(best(&bed, "red", 1), "red-1");

    bed.engine.begin_index_round(100);
    assert_eq!(best(&bed, "blue", 1), "blue-1");
    assert_eq!(statistics(&bed, "red").index_tier, "unloaded");
    assert!(is_refused(&bed, "red"));
    bed.engine.begin_index_round(100);
    assert_eq!(best(&bed, "red", 1), "red-1");
}

#[test]
fn an_index_that_outgrows_the_memory_refuses_searches_and_loses_nothing() {
    let bed = two_spaces();
    assert_eq!(best(&bed, "red", 1), "red-1");
    let bytes = statistics(&bed, "red").index_bytes;
    let mut bed = reopened(bed, bytes + bytes / 2);
    assert_eq!(best(&bed, "red", 1), "red-1");
    let more = (0..MEMORIES * 2).map(|n| {
        let vectors = vec![vector(&values(n + 5_000))];
        v1::Memory { vectors, ..memory(&format!("red-more-{n}"), "text") }
    });
    bed.add("red", more.collect()).unwrap();
    assert!(is_refused(&bed, "red"));
    assert_eq!(bed.get("red", &["red-more-3"]).unwrap().memories.len(), 1, "what was acknowledged is there");
    let bed = reopened(bed, 0);
    assert_eq!(best(&bed, "red", 5_003), "red-more-3");
}

#[test]
fn ten_thousand_spaces_are_used_and_let_go() {
    let mut bed = Bed::new();
    let spaces = 10_000u32;
    for n in 0..spaces {
        let name = format!("space-{n}");
        bed.create_space(space(&name, 8)).unwrap();
        bed.add(&name, vec![v1::Memory { vectors: vec![vector(&values(n)[..8])], ..memory("only", "text") }]).unwrap();
    }
    let mut bytes = 0;
    for n in 0..spaces {
        let name = format!("space-{n}");
        assert_eq!(bed.search(&query(&name, &values(n)[..8])).unwrap().len(), 1, "{name}");
        bytes += statistics(&bed, &name).index_bytes;
    }
    assert!(bytes / u64::from(spaces) < 8 * 1024, "{} bytes a space", bytes / u64::from(spaces));
    bed.engine.begin_index_round(0);
    assert_eq!(statistics(&bed, "space-17").index_bytes, 0);
    assert_eq!(bed.search(&query("space-17", &values(17)[..8])).unwrap().len(), 1);
}
