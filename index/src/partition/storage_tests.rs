//! Vectors that are not in memory as they were given: the same answers from the records, and nearly the same from 16 bits.

use std::collections::BTreeMap;

use proptest::prelude::{Just, Strategy as Values, prop_assert, prop_assert_eq, proptest};

use super::tests::{
    Known, Step, TestRecords, brute_force, id, key, metric, number_of, options, request, run, scores_and_ids, steps,
    vector,
};
use super::*;
use crate::graph::cases;
use crate::rotation::next_random;
use crate::tiers::Thresholds;

const SMALL: Thresholds = Thresholds { graph_from: 40, flat_below: 20, waiting_max: 6, flat_per_width: 0 };

fn partition(dimension: usize, metric: Metric, storage: VectorStorage) -> Partition {
    Partition::new(PartitionOptions { storage, ..options(dimension, metric) }).unwrap()
}

fn search(partition: &Partition, model: &BTreeMap<u32, Known>, request: &SearchRequest<'_>) -> SearchOutput {
    let vector = |slot| model.get(&number_of(partition.key_of(slot).unwrap()))?.vector.clone();
    partition.search_checked(request, &mut TestRecords { accepts: |_| true, vector }).unwrap()
}

proptest! {
    #![proptest_config(cases(96))]

    #[test]
    fn vectors_in_the_records_give_the_same_answers(
        (metric, steps, query) in (metric(), 1usize..20).prop_flat_map(|(metric, dimension)| {
            (Just(metric), steps(dimension, 200), vector(dimension))
        }),
        limit in 1usize..40,
        kind in proptest::sample::select(IndexKind::ALL),
    ) {
        let mut model = BTreeMap::new();
        let mut flat = partition(query.len(), metric, VectorStorage::Elsewhere);
        run(&mut flat, &mut model, steps.clone());
        let mut expected = brute_force(&model, metric, &query, |_, _| true);
        let all = expected.clone();
        expected.truncate(limit);
        prop_assert_eq!(scores_and_ids(&search(&flat, &model, &request(&query, limit))), expected.clone());
        prop_assert!(flat.search(&request(&query, limit)).unwrap().hits.is_empty(), "without records there are none");
        let storage = VectorStorage::Elsewhere;
        let mut graph = Partition::new(PartitionOptions { kind, storage, ..options(query.len(), metric) }).unwrap();
        graph.set_thresholds(SMALL);
        run(&mut graph, &mut BTreeMap::new(), steps);
        graph.maintain(500);
        let found = scores_and_ids(&search(&graph, &model, &request(&query, limit)));
        prop_assert_eq!(found.len(), expected.len());
        prop_assert!(found.iter().all(|hit| all.contains(hit)), "scores are exact");
    }

    #[test]
    fn vectors_in_sixteen_bits_score_nearly_the_same(
        (metric, steps, query) in (metric(), 1usize..40).prop_flat_map(|(metric, dimension)| {
            (Just(metric), steps(dimension, 160), vector(dimension))
        }),
    ) {
        let mut model = BTreeMap::new();
        let mut rounded = partition(query.len(), metric, VectorStorage::MemoryF16);
        run(&mut rounded, &mut model, steps);
        let squared = |vector: &[f32]| vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>();
        let exact: BTreeMap<_, _> =
            brute_force(&model, metric, &query, |_, _| true).into_iter().map(|(score, id)| (id, score)).collect();
        let found = rounded.search(&request(&query, 200)).unwrap();
        prop_assert_eq!(found.hits.len(), exact.len());
        prop_assert!(found.hits.is_sorted_by(|a, b| a.score >= b.score));
        for hit in &found.hits {
            let number = number_of(hit.key);
            let own = squared(model[&number].vector.as_ref().unwrap());
            let size = if metric == Metric::Cosine { 1.0 } else { squared(&query) + own };
            let difference = (hit.score - exact[&id(number)]).abs();
            prop_assert!(difference <= size * 2e-3 + 1e-30, "{difference} of {size}");
        }
        // What is kept is wiped like everything else.
        for (number, _) in model.iter().filter(|(_, known)| known.vector.is_some()) {
            let slot = rounded.slot_of(&key(*number)).unwrap();
            rounded.remove(&key(*number));
            prop_assert!(rounded.memory_of(slot).1.iter().all(|value| *value == 0.0));
        }
    }
}

/// Wide vectors have their signs kept, by which walks rule out most of what they meet.
#[test]
fn wide_vectors_are_found_over_a_graph_and_leave_no_signs() {
    for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
        let (mut state, mut model) = (3, BTreeMap::new());
        let mut wide = partition(520, metric, VectorStorage::MemoryF32);
        wide.set_thresholds(SMALL);
        let mut random = || (next_random(&mut state) >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
        for number in 0..500_u32 {
            let mut centre = u64::from(number % 20);
            let mut near = || (next_random(&mut centre) >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
            let vector = (0..520).map(|_| near() + 0.5 * random()).collect();
            run(&mut wide, &mut model, vec![Step::Upsert(number, Known { color: "red", vector: Some(vector) })]);
        }
        run(&mut wide, &mut model, (0..100).map(Step::Remove).collect());
        wide.maintain(2000);
        let mut found = 0;
        for known in model.values().step_by(8).filter_map(|known| known.vector.as_ref()) {
            let truth = brute_force(&model, metric, known, |_, _| true);
            let output = wide.search(&request(known, 10)).unwrap();
            assert_eq!((output.strategy, output.hits.len()), (crate::Strategy::Graph, 10));
            found += scores_and_ids(&output).iter().filter(|hit| truth[..10].contains(hit)).count();
        }
        assert!(found > 485, "{metric:?}: {found} of 500");
        let (slot, store) = (wide.slot_of(&key(200)).unwrap(), wide.tiers().store());
        let is_signed = |at: usize| store.signs_of(slot).unwrap()[at / 64] >> (at % 64) & 1 == 1;
        assert!((0..520).all(|at| is_signed(at) == (store.codes_of(slot)[at] >= 128)));
        // What is kept of a vector comes back with its signs, and goes with it.
        let mut bytes = Vec::new();
        store.write_slot(slot, &mut bytes);
        let mut other = partition(520, metric, VectorStorage::MemoryF32).into_store();
        other.read_slot(7, &mut crate::checkpoint::Input::new(&bytes)).unwrap();
        assert_eq!(other.signs_of(7), store.signs_of(slot));
        assert!(other.remove(7) && other.signs_of(7).unwrap().iter().all(|signs| *signs == 0));
    }
}

#[test]
fn a_large_vector_takes_less_than_two_kibibytes_without_its_original() {
    const COUNT: u32 = 2_000;
    let bytes = |storage: VectorStorage| {
        let mut partition = partition(1536, Metric::Cosine, storage);
        partition.set_thresholds(Thresholds { graph_from: 500, ..SMALL });
        for number in 0..COUNT {
            let vector: Vec<f32> = (0..1536).map(|i| ((i * 7 + number * 13) % 101) as f32 - 50.0).collect();
            partition.upsert(key(number), &id(number), &(), Some(&vector)).unwrap();
        }
        // As many as there is room for, since the last piece of memory is rarely full.
        (partition.bytes() as f64 / f64::from(COUNT)) as u64
    };
    assert!(bytes(VectorStorage::Elsewhere) < 2_252, "{}", bytes(VectorStorage::Elsewhere));
    let (half, full) = (bytes(VectorStorage::MemoryF16), bytes(VectorStorage::MemoryF32));
    assert!(half < full - 2_500, "{half} {full}");
}
