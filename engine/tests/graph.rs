//! Spaces that are large enough for a graph: searches find what was acknowledged, whatever the upkeep is doing meanwhile.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use std::sync::Arc;

use cairn_engine::{Engine, Options};
use cairn_proto::v1;
use cairn_proto::v1::condition::Test;
use cairn_proto::v1::delete_memories_request::Target;
use common::{Bed, condition, me, memory, query, space, text, vector};

const SPACE: &str = "many";
const DIMENSION: usize = 12;
/// So small that a test's spaces have graphs.
const GRAPH_FROM: u64 = 150;

fn values(seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..DIMENSION).map(|_| next()).collect()
}

fn numbered(number: u64) -> v1::Memory {
    let kind = if number.is_multiple_of(3) { "third" } else { "other" };
    v1::Memory { kind: kind.into(), vectors: vec![vector(&values(number))], ..memory(&format!("m{number}"), "text") }
}

/// A bed whose engine keeps graphs over small spaces.
fn bed() -> Bed {
    bed_of(v1::IndexKind::Cairn)
}

/// The kinds of index that this build has.
const KINDS: &[v1::IndexKind] = &[
    v1::IndexKind::Cairn,
    #[cfg(feature = "hnsw-rs")]
    v1::IndexKind::HnswRs,
];

fn bed_of(kind: v1::IndexKind) -> Bed {
    let mut bed = Bed::new();
    bed.options = Options { index_graph_from: GRAPH_FROM, ..bed.options };
    reopen(&mut bed);
    let mut many = space(SPACE, DIMENSION as u32);
    let Some(v1::embedding::Kind::Dense(dense)) = &mut many.embeddings[0].kind else { panic!() };
    dense.set_index_kind(kind);
    bed.create_space(many).unwrap();
    // A space is loaded by its first search; from then on writes change its index.
    assert!(bed.search(&query(SPACE, &values(0))).unwrap().is_empty());
    bed
}

/// Closes the engine and opens it again.
fn reopen(bed: &mut Bed) {
    bed.engine.flush().unwrap();
    let elsewhere = Options { dir: bed.dir.path().join("elsewhere"), ..bed.options.clone() };
    // The store admits one engine at a time.
    bed.engine = Engine::open(&elsewhere, Arc::clone(&bed.keyring)).unwrap();
    bed.engine = Engine::open(&bed.options, Arc::clone(&bed.keyring)).unwrap();
}

fn tier(bed: &Bed) -> String {
    let request = v1::GetSpaceRequest { name: SPACE.into(), ..Default::default() };
    let read = bed.engine.get_space(&me(), &request, &bed.at()).unwrap();
    read.statistics.unwrap().index_tier
}

fn wait_for_graph(bed: &Bed) {
    while tier(bed) != "graph" {
        std::thread::yield_now();
    }
}

fn nearest(bed: &Bed, number: u64) -> String {
    let request = v1::SearchMemoriesRequest { limit: 1, ..query(SPACE, &values(number)) };
    bed.search(&request).unwrap()[0].memory.as_ref().unwrap().id.clone()
}

fn strategy(bed: &Bed, request: v1::SearchMemoriesRequest) -> String {
    let request = v1::SearchMemoriesRequest { explain: true, ..request };
    let found = bed.engine.search_memories(&me(), &request, &bed.at()).unwrap();
    found.plan.unwrap().strategy
}

fn exactly() -> Option<v1::SearchParams> {
    Some(v1::SearchParams { exact: true, ..Default::default() })
}

fn delete_ids(bed: &mut Bed, numbers: impl Iterator<Item = u64>) -> u64 {
    let ids = numbers.map(|number| format!("m{number}")).collect();
    let target = Some(Target::Ids(v1::MemoryIds { ids }));
    bed.delete(v1::DeleteMemoriesRequest { space: SPACE.into(), target, request_id: String::new() }).unwrap()
}

#[test]
fn every_acknowledged_write_is_found_at_once_while_the_graph_is_built() {
    KINDS.iter().for_each(|kind| write_and_find(bed_of(*kind)));
}

fn write_and_find(mut bed: Bed) {
    for number in 0..700 {
        bed.add(SPACE, vec![numbered(number)]).unwrap();
        assert_eq!(nearest(&bed, number), format!("m{number}"));
    }
    wait_for_graph(&bed);
    assert_eq!(strategy(&bed, query(SPACE, &values(3))), "graph");
    let exact = v1::SearchMemoriesRequest { params: exactly(), ..query(SPACE, &values(3)) };
    assert_eq!(strategy(&bed, exact), "flat");
    for number in 0..700 {
        assert_eq!(nearest(&bed, number), format!("m{number}"));
    }
    // A replaced vector is found under its new value only.
    for number in 0..60 {
        let moved = v1::Memory { id: format!("m{number}"), ..numbered(number + 10_000) };
        bed.add(SPACE, vec![moved]).unwrap();
        assert_eq!(nearest(&bed, number + 10_000), format!("m{number}"));
        assert_ne!(nearest(&bed, number), format!("m{number}"));
    }
    // What is deleted is gone with the reply.
    for number in 60..200 {
        assert_eq!(delete_ids(&mut bed, number..number + 1), 1);
        assert_ne!(nearest(&bed, number), format!("m{number}"));
    }
    for number in 200..700 {
        assert_eq!(nearest(&bed, number), format!("m{number}"));
    }
}

#[test]
fn filters_and_limits_give_all_there_is_over_a_graph() {
    KINDS.iter().for_each(|kind| filter_and_limit(bed_of(*kind)));
}

fn filter_and_limit(mut bed: Bed) {
    bed.add(SPACE, (0..600).map(numbered).collect()).unwrap();
    wait_for_graph(&bed);
    let thirds = Some(condition("kind", Test::Eq(text("third"))));
    for limit in [1, 10, 199, 200, 201, 500] {
        let request = v1::SearchMemoriesRequest { limit, filter: thirds.clone(), ..query(SPACE, &values(1)) };
        let hits = bed.search(&request).unwrap();
        assert_eq!(hits.len(), limit.min(200) as usize);
        assert!(hits.iter().all(|hit| hit.memory.as_ref().unwrap().kind == "third"));
        assert!(hits.is_sorted_by(|a, b| a.score >= b.score));
    }
    // A whole kind is removed by one command; the rest answers as before.
    let selection = v1::Selection { filter: thirds.clone(), ..Default::default() };
    let target = Some(Target::Selection(selection));
    let delete = v1::DeleteMemoriesRequest { space: SPACE.into(), target, request_id: String::new() };
    assert_eq!(bed.delete(delete).unwrap(), 200);
    let request = v1::SearchMemoriesRequest { filter: thirds, ..query(SPACE, &values(1)) };
    assert!(bed.search(&request).unwrap().is_empty());
    for number in (0..600).filter(|number| number % 3 != 0) {
        assert_eq!(nearest(&bed, number), format!("m{number}"));
    }
    // With few left, the graph goes.
    assert_eq!(delete_ids(&mut bed, (0..500).filter(|number| number % 3 != 0)), 333);
    assert_eq!(tier(&bed), "flat");
    assert_eq!(nearest(&bed, 599), "m599");
}

#[test]
fn a_restart_searches_flat_at_once_and_over_the_graph_soon() {
    KINDS.iter().for_each(|kind| restart(bed_of(*kind)));
}

fn restart(mut bed: Bed) {
    bed.add(SPACE, (0..900).map(numbered).collect()).unwrap();
    delete_ids(&mut bed, 100..150);
    let digest = bed.engine.applied().digest;
    reopen(&mut bed);
    assert_eq!(tier(&bed), "unloaded");
    for number in 150..300 {
        assert_eq!(nearest(&bed, number), format!("m{number}"));
    }
    wait_for_graph(&bed);
    for number in 150..900 {
        assert_eq!(nearest(&bed, number), format!("m{number}"));
    }
    assert_ne!(nearest(&bed, 120), "m120");
    assert_eq!(bed.engine.applied().digest, digest, "the index is no part of the state");
    // An engine without graphs answers exact searches alike, and has the same state.
    let exact = v1::SearchMemoriesRequest { params: exactly(), limit: 20, ..query(SPACE, &values(7)) };
    let over_graph = bed.search(&exact).unwrap();
    bed.options.index_graph_from = u64::MAX;
    reopen(&mut bed);
    assert_eq!(bed.search(&exact).unwrap(), over_graph);
    assert_eq!(tier(&bed), "flat");
}

/// Readers and the writer go on while the upkeep links; nobody ever sees a hit that is not there, or misses one that is.
#[test]
fn searches_beside_writes_and_upkeep_see_whole_states() {
    let mut bed = bed();
    bed.add(SPACE, (0..400).map(numbered).collect()).unwrap();
    let engine = std::mem::replace(&mut bed.engine, {
        let elsewhere = Options { dir: bed.dir.path().join("elsewhere"), ..bed.options.clone() };
        Engine::open(&elsewhere, Arc::clone(&bed.keyring)).unwrap()
    });
    let (at, is_over) = (bed.at(), std::sync::atomic::AtomicBool::new(false));
    std::thread::scope(|scope| {
        let search = || {
            let mut rounds = 0;
            while rounds < 2 || !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                for number in 0..400 {
                    let request = v1::SearchMemoriesRequest { limit: 1, ..query(SPACE, &values(number)) };
                    let found = engine.search_memories(&me(), &request, &at).unwrap();
                    assert_eq!(found.hits[0].memory.as_ref().unwrap().id, format!("m{number}"));
                }
                rounds += 1;
            }
        };
        scope.spawn(search);
        for number in 400..1000 {
            let request =
                v1::AddMemoriesRequest { space: SPACE.into(), memories: vec![numbered(number)], ..Default::default() };
            let mut command = engine.prepare(&me(), cairn_engine::WriteRequest::AddMemories(request)).unwrap();
            command.stamp_micros = bed.now;
            let log_id = cairn_engine::LogId { term: 1, node_id: 1, index: at.index + number - 399 };
            let body = cairn_engine::EntryBody::Command(command);
            engine.apply(&[cairn_engine::ApplyEntry { log_id, body }]).unwrap();
        }
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

/// A request that replaces many memories shows at once, in the index and in the records alike, though the store is written
/// without a lock.
#[test]
fn a_search_beside_writes_sees_all_of_a_request_or_nothing() {
    const MEMORIES: u64 = 40;
    let mut bed = bed();
    let version = |round: u64| (0..MEMORIES).map(move |n| v1::Memory { kind: format!("k{round}"), ..numbered(n) });
    bed.add(SPACE, version(0).collect()).unwrap();
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let Bed { engine, log, now, .. } = &bed;
    std::thread::scope(|scope| {
        let search = || {
            let mut last = 0;
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                let request = v1::SearchMemoriesRequest { limit: 100, ..query(SPACE, &values(7)) };
                let at = cairn_engine::ReadPoint { index: 0, time_micros: *now };
                let found = engine.search_memories(&me(), &request, &at).unwrap().hits;
                let kinds: Vec<_> = found.iter().map(|hit| hit.memory.as_ref().unwrap().kind.clone()).collect();
                assert_eq!(kinds.len() as u64, MEMORIES);
                assert!(kinds.iter().all(|kind| *kind == kinds[0]), "{kinds:?}");
                let round: u64 = kinds[0][1..].parse().unwrap();
                assert!(round >= last, "round {round} after {last}");
                last = round;
                // By the index's own attributes: what it matches, the records say too.
                let filter = condition("kind", v1::condition::Test::Eq(text(&format!("k{}", round + 1))));
                let request = v1::SearchMemoriesRequest { filter: Some(filter), ..request };
                let found = engine.search_memories(&me(), &request, &at).unwrap().hits.len() as u64;
                assert!(found == 0 || found == MEMORIES, "{found}");
            }
            assert!(last > 0);
        };
        let searching = [scope.spawn(search), scope.spawn(search)];
        for round in 1..150 {
            let memories = version(round).collect();
            let request = v1::AddMemoriesRequest { space: SPACE.into(), memories, ..Default::default() };
            let mut command = engine.prepare(&me(), cairn_engine::WriteRequest::AddMemories(request)).unwrap();
            command.stamp_micros = *now;
            let log_id = cairn_engine::LogId { term: 1, node_id: 1, index: log.len() as u64 + round };
            engine
                .apply(&[cairn_engine::ApplyEntry { log_id, body: cairn_engine::EntryBody::Command(command) }])
                .unwrap();
        }
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        searching.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// The vectors for exact scores in memory, in memory with half the bits, and in the store only.
#[test]
fn spaces_keep_their_vectors_where_they_are_told_to() {
    const LONG: usize = 512;
    let mut bed = bed();
    let storages = [v1::RescoreStorage::MemoryF32, v1::RescoreStorage::MemoryF16, v1::RescoreStorage::Disk];
    let long = |number: u64| {
        let parts = (0..LONG as u64 / DIMENSION as u64 + 1).map(|part| values(number * 1000 + part));
        parts.flatten().take(LONG).collect::<Vec<f32>>()
    };
    for storage in storages {
        let name = storage.as_str_name().to_lowercase();
        let mut space = space(&name, LONG as u32);
        let Some(v1::embedding::Kind::Dense(dense)) = &mut space.embeddings[0].kind else { panic!() };
        dense.set_rescore_storage(storage);
        bed.create_space(space).unwrap();
        assert!(bed.search(&query(&name, &long(0))).unwrap().is_empty());
        let with_vector = |number| v1::Memory { vectors: vec![vector(&long(number))], ..numbered(number) };
        bed.add(&name, (0..300).map(with_vector).collect()).unwrap();
    }
    let answers = |bed: &Bed, storage: v1::RescoreStorage, exact: bool| {
        let name = storage.as_str_name().to_lowercase();
        let params = Some(v1::SearchParams { exact, ..Default::default() });
        let search = |number| {
            let request = v1::SearchMemoriesRequest { params, ..query(&name, &long(number)) };
            let hits = bed.search(&request).unwrap();
            hits.into_iter().map(|hit| (hit.memory.unwrap().id, hit.score)).collect::<Vec<_>>()
        };
        (0..40).map(search).collect::<Vec<_>>()
    };
    let [full, half, disk] = storages;
    assert_eq!(answers(&bed, full, true), answers(&bed, disk, true));
    for (number, hits) in answers(&bed, half, true).into_iter().enumerate() {
        assert_eq!(hits[0].0, format!("m{number}"));
        assert!((hits[0].1 - 1.0).abs() < 1e-3);
    }
    for storage in storages {
        for (number, hits) in answers(&bed, storage, false).into_iter().enumerate() {
            assert_eq!(hits[0].0, format!("m{number}"), "{storage:?}");
        }
    }
    let bytes = storages.map(|storage| {
        let name = storage.as_str_name().to_lowercase();
        let request = v1::GetSpaceRequest { name, ..Default::default() };
        bed.engine.get_space(&me(), &request, &bed.at()).unwrap().statistics.unwrap().index_bytes / 300
    });
    assert!(bytes[1] + 2 * LONG as u64 <= bytes[0] + 100 && bytes[2] + 2 * LONG as u64 <= bytes[1] + 100, "{bytes:?}");
}
