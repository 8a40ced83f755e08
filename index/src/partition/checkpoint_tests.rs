//! What comes back is what was captured; what was written meanwhile is left out and can be added; no bytes make it panic.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use proptest::prelude::{Just, Strategy as Values, any, prop_assert_eq, proptest};

use super::tests::{
    COLORS, Known, Step, brute_force, color_is, key, metric, options, request, run, scores_and_ids, steps, vector,
};
use super::*;
use crate::checkpoint::{CHECKPOINT_FORMAT, Capture, ChunkId, ChunkKind, Restore, RestoreError};
use crate::filter::{Field, Scalar};
use crate::graph::{Graph, cases};
use crate::rotation::next_random;
use crate::tiers::Thresholds;

const SMALL: Thresholds = Thresholds { graph_from: 40, flat_below: 20, waiting_max: 6, flat_per_width: 0 };
const STORAGES: [VectorStorage; 2] = [VectorStorage::MemoryF32, VectorStorage::MemoryF16];

fn partition_with(dimension: usize, metric: Metric, storage: VectorStorage) -> Partition {
    Partition::new(PartitionOptions { storage, ..options(dimension, metric) }).unwrap()
}

/// A captured partition.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Image {
    head: Vec<u8>,
    chunks: BTreeMap<ChunkId, Vec<u8>>,
}

/// Captures a partition; `between` is called before each block.
fn capture(partition: &mut Partition, mut between: impl FnMut(&mut Partition)) -> Image {
    let Capture { head, chunks } = partition.capture().unwrap();
    let mut image = Image { head, chunks: BTreeMap::new() };
    for chunk in chunks {
        let mut bytes = Vec::new();
        let mut next = chunk.slots.start;
        while next < chunk.slots.end {
            between(partition);
            next = partition.write_block(chunk.id.kind, next..chunk.slots.end, &mut bytes);
        }
        image.chunks.insert(chunk.id, bytes);
    }
    image
}

fn restore(image: &Image, like: &Partition, touched: HashSet<MemoryKey>) -> Result<Partition, RestoreError> {
    let mut restore = Restore::begin(like.options().clone(), &image.head, touched)?;
    for (id, bytes) in &image.chunks {
        match (id.kind, &mut restore.graph) {
            (ChunkKind::Memories, _) => restore.memories.add(bytes)?,
            (ChunkKind::Vectors, _) => restore.vectors.add(bytes)?,
            (ChunkKind::Graph, Some(graph)) => graph.add(bytes)?,
            (ChunkKind::Graph, None) => return Err(RestoreError::Damaged("a graph that the head does not know")),
        }
    }
    let mut restored = restore.finish()?;
    restored.set_thresholds(SMALL);
    Ok(restored)
}

fn exactly<'a>(query: &'a [f32], limit: usize) -> SearchRequest<'a> {
    SearchRequest { params: SearchParams { exact: true, effort: 0 }, ..request(query, limit) }
}

/// Both give the same answers, over graphs and exactly.
fn assert_equal(one: &Partition, other: &Partition, query: &[f32]) {
    assert_eq!((one.len(), one.vectors(), one.waiting()), (other.len(), other.vectors(), other.waiting()));
    for color in COLORS {
        assert_eq!(one.matches(&color_is(color)), other.matches(&color_is(color)));
    }
    for request in [request(query, 12), exactly(query, 12)] {
        assert_eq!(one.search(&request).unwrap(), other.search(&request).unwrap());
    }
}

/// A graph that is not Cairn's own is not kept; it is made anew after the vectors are there.
#[test]
fn an_index_that_is_not_kept_is_made_anew() {
    for kind in IndexKind::ALL {
        let mut partition = Partition::new(PartitionOptions { kind: *kind, ..options(8, Metric::Cosine) }).unwrap();
        partition.set_thresholds(SMALL);
        let (mut model, mut state) = (BTreeMap::new(), 5);
        for number in 0..200 {
            let vector = (0..8).map(|_| (next_random(&mut state) >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect();
            run(&mut partition, &mut model, vec![Step::Upsert(number, Known { color: "red", vector: Some(vector) })]);
        }
        partition.maintain(500);
        let image = capture(&mut partition, |_| ());
        assert_eq!(image.chunks.keys().any(|id| id.kind == ChunkKind::Graph), *kind == IndexKind::Cairn);
        let mut restored = restore(&image, &partition, HashSet::new()).unwrap();
        for is_linked in [*kind == IndexKind::Cairn, true] {
            assert_eq!(restored.has_graph(), is_linked);
            for (number, known) in &model {
                let found = restored.search(&request(known.vector.as_ref().unwrap(), 1)).unwrap();
                assert_eq!(found.hits[0].key, key(*number));
            }
            restored.maintain(500);
        }
    }
}

proptest! {
    #![proptest_config(cases(96))]

    /// Nothing is written meanwhile: what comes back is captured to the same bytes, edge by edge, and lives on alike.
    #[test]
    fn what_comes_back_is_what_was_captured(
        (metric, first, second, query) in metric().prop_flat_map(|metric| {
            (Just(metric), steps(9, 250), steps(9, 120), vector(9))
        }),
        storage in proptest::sample::select(&STORAGES[..]),
        linked in any::<bool>(),
    ) {
        let (mut partition, mut model) = (partition_with(9, metric, storage), BTreeMap::new());
        partition.set_thresholds(SMALL);
        run(&mut partition, &mut model, first);
        if linked {
            partition.maintain(500);
        }
        let image = capture(&mut partition, |_| ());
        let mut restored = restore(&image, &partition, HashSet::new()).unwrap();
        assert_equal(&partition, &restored, &query);
        prop_assert_eq!(restored.unreachable(), 0);
        for id in image.chunks.keys() {
            prop_assert_eq!(restored.stamp(*id), 0, "nothing is to be written again");
        }
        prop_assert_eq!(&capture(&mut restored, |_| ()), &image);
        let mut same_model = model.clone();
        run(&mut partition, &mut model, second.clone());
        run(&mut restored, &mut same_model, second);
        for exact in [exactly(&query, 12), exactly(&query, 1000)] {
            prop_assert_eq!(partition.search(&exact).unwrap().hits, restored.search(&exact).unwrap().hits);
        }
        while restored.maintain(100) > 0 {}
        prop_assert_eq!(restored.unreachable(), 0);
        restored.tiers().graph().into_iter().for_each(Graph::check);
    }

    /// Memories come, go and change while blocks are written, and the upkeep goes on. They are left out, and added as they are then.
    #[test]
    fn what_was_written_meanwhile_is_left_out_and_can_be_added(
        (metric, first, meanwhile) in metric().prop_flat_map(|metric| (Just(metric), steps(9, 300), steps(9, 40))),
        each in 1usize..6,
    ) {
        let (mut partition, mut model) = (partition_with(9, metric, VectorStorage::MemoryF32), BTreeMap::new());
        partition.set_thresholds(SMALL);
        run(&mut partition, &mut model, first);
        partition.maintain(60);
        let (mut left, mut touched) = (meanwhile.into_iter(), BTreeSet::new());
        let image = capture(&mut partition, |partition| {
            for step in left.by_ref().take(each) {
                let (Step::Upsert(number, _) | Step::Remove(number)) = &step;
                touched.insert(*number);
                run(partition, &mut model, vec![step]);
            }
            partition.maintain(3);
        });
        let keys = touched.iter().map(|number| key(*number)).collect();
        let mut restored = restore(&image, &partition, keys).unwrap();
        prop_assert_eq!(restored.unreachable(), 0);
        restored.tiers().graph().into_iter().for_each(Graph::check);
        let mut added: BTreeMap<u32, Known> = model.clone();
        added.retain(|number, _| !touched.contains(number));
        prop_assert_eq!(restored.len(), added.len());
        for (number, known) in &model {
            if touched.contains(number) {
                run(&mut restored, &mut added, vec![Step::Upsert(*number, known.clone())]);
            }
        }
        for with_all_linked in [false, true] {
            if with_all_linked {
                while restored.maintain(100) > 0 {}
            }
            prop_assert_eq!((restored.unreachable(), restored.len()), (0, model.len()));
            restored.tiers().graph().into_iter().for_each(Graph::check);
            for known in model.values() {
                let Some(vector) = &known.vector else { continue };
                let expected = brute_force(&model, metric, vector, |_, _| true);
                let found = scores_and_ids(&restored.search(&exactly(vector, 5)).unwrap());
                prop_assert_eq!(&found[..], &expected[..5.min(expected.len())]);
                let nearest = scores_and_ids(&restored.search(&request(vector, 5)).unwrap());
                prop_assert_eq!(nearest.len(), 5.min(expected.len()));
            }
        }
    }

    /// Whatever the bytes are, they are refused or make a partition that can be searched and changed.
    #[test]
    fn no_bytes_make_it_panic(
        (first, query, more) in (steps(5, 200), vector(5), steps(5, 60)),
        place in any::<proptest::sample::Index>(),
        value in any::<u8>(),
        cut in any::<bool>(),
    ) {
        let (mut partition, mut model) = (partition_with(5, Metric::L2, VectorStorage::MemoryF32), BTreeMap::new());
        partition.set_thresholds(SMALL);
        run(&mut partition, &mut model, first);
        partition.maintain(100);
        let mut image = capture(&mut partition, |_| ());
        let total = image.head.len() + image.chunks.values().map(Vec::len).sum::<usize>();
        let mut at = place.index(total);
        for bytes in std::iter::once(&mut image.head).chain(image.chunks.values_mut()) {
            if at < bytes.len() {
                if cut { bytes.truncate(at) } else { bytes[at] = value }
                break;
            }
            at -= bytes.len();
        }
        if let Ok(mut restored) = restore(&image, &partition, HashSet::new()) {
            prop_assert_eq!(restored.unreachable(), 0);
            restored.search(&request(&query, 9)).unwrap();
            for step in more {
                match step {
                    Step::Remove(number) => drop(restored.remove(&key(number))),
                    Step::Upsert(number, known) => {
                        let fields: &[(Field, Vec<Scalar>)] = &[];
                        restored.upsert(key(number), b"id", fields, known.vector.as_deref()).unwrap();
                    }
                }
            }
            while restored.maintain(50) > 0 {}
            prop_assert_eq!(restored.unreachable(), 0);
        }
    }
}

fn many(count: u32) -> (Partition, BTreeMap<u32, Known>) {
    let (mut partition, mut model) = (partition_with(3, Metric::Cosine, VectorStorage::MemoryF32), BTreeMap::new());
    partition.set_thresholds(Thresholds { waiting_max: u64::MAX, ..SMALL });
    let mut state = 3;
    for number in 0..count {
        let vector = Some((0..3).map(|_| (crate::rotation::next_random(&mut state) >> 40) as f32 + 1.0).collect());
        run(&mut partition, &mut model, vec![Step::Upsert(number, Known { color: "red", vector })]);
    }
    partition.link_all(2);
    (partition, model)
}

#[test]
fn only_what_changed_gets_another_stamp() {
    let (mut partition, mut model) = many(8200);
    let image = capture(&mut partition, |_| ());
    assert_eq!(image.chunks.len(), 6, "two of each kind");
    let mut restored = restore(&image, &partition, HashSet::new()).unwrap();
    assert_eq!(capture(&mut restored, |_| ()), image);
    let changed = |partition: &Partition| -> Vec<(ChunkKind, u32)> {
        let ids = image.chunks.keys().filter(|id| partition.stamp(**id) != 0);
        ids.map(|id| (id.kind, id.number)).collect()
    };
    assert!(changed(&restored).is_empty());
    let known = Known { color: "blue", ..model[&8195].clone() };
    run(&mut restored, &mut model, vec![Step::Upsert(8195, known)]);
    assert_eq!(changed(&restored), [(ChunkKind::Memories, 1)]);
    run(&mut restored, &mut model, vec![Step::Remove(5)]);
    assert!(changed(&restored).contains(&(ChunkKind::Vectors, 0)));
    assert!(!changed(&restored).contains(&(ChunkKind::Vectors, 1)));
}

#[test]
fn what_is_missing_or_of_another_partition_is_refused() {
    let (mut partition, _) = many(60);
    let image = capture(&mut partition, |_| ());
    for id in image.chunks.keys() {
        let mut less = image.clone();
        less.chunks.remove(id);
        assert_eq!(restore(&less, &partition, HashSet::new()).err(), Some(RestoreError::Damaged("chunks are missing")));
    }
    let mut newer = image.clone();
    newer.head[0] = CHECKPOINT_FORMAT + 1;
    assert_eq!(restore(&newer, &partition, HashSet::new()).err(), Some(RestoreError::UnknownFormat { found: 2 }));
    for (other, what) in [
        (partition_with(3, Metric::Dot, VectorStorage::MemoryF32), "metric"),
        (partition_with(3, Metric::Cosine, VectorStorage::MemoryF16), "storage"),
        (partition_with(4, Metric::Cosine, VectorStorage::MemoryF32), "dimension"),
    ] {
        assert_eq!(restore(&image, &other, HashSet::new()).err(), Some(RestoreError::OfAnother(what)));
    }
}

/// Memories without vectors may take all slots of a chunk of the graph's rows.
#[test]
fn slots_without_nodes_are_no_hindrance() {
    let (mut partition, mut model) = (partition_with(3, Metric::Cosine, VectorStorage::MemoryF32), BTreeMap::new());
    partition.set_thresholds(SMALL);
    for number in 0..17_000 {
        let vector = (number > 16_500).then(|| vec![1.0, number as f32, (number % 97) as f32]);
        run(&mut partition, &mut model, vec![Step::Upsert(number, Known { color: "red", vector })]);
    }
    while partition.maintain(100) > 0 {}
    (16_550..16_700).for_each(|number| run(&mut partition, &mut model, vec![Step::Remove(number)]));
    while partition.maintain(100) > 0 {}
    let image = capture(&mut partition, |_| ());
    let mut restored = restore(&image, &partition, HashSet::new()).unwrap();
    assert_eq!(restored.unreachable(), 0);
    assert_eq!(capture(&mut restored, |_| ()), image);
}
