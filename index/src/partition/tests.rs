//! Partitions as the engine uses them: exact against brute force over random histories, and the table of bad input.

use std::borrow::Cow;
use std::collections::BTreeMap;

use proptest::prelude::{Just, ProptestConfig, Strategy as Values, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::strategy::BoxedStrategy;

use super::*;
use crate::distance::{CODE_OFFSET, VECTOR_LANES};
use crate::filter::{Condition, Field, Scalar, Test};
use crate::schema::FieldType;

pub(super) fn key(number: u32) -> MemoryKey {
    let mut key = [0; 16];
    key[..4].copy_from_slice(&number.wrapping_mul(0x9e37_79b9).to_le_bytes());
    key[8..12].copy_from_slice(&number.to_le_bytes());
    MemoryKey(key)
}

/// Ids whose order is not that of numbers or slots.
pub(super) fn id(number: u32) -> Vec<u8> {
    format!("{:02}-{number}", number * 37 % 50).into_bytes()
}

/// The records as a test has them: whether one matches, and its vector.
pub(super) struct TestRecords<A, V> {
    pub(super) accepts: A,
    pub(super) vector: V,
}

impl<A: FnMut(u32) -> bool, V: FnMut(u32) -> Option<Vec<f32>>> Records for TestRecords<A, V> {
    fn accepts(&mut self, slot: u32) -> bool {
        (self.accepts)(slot)
    }

    fn vector(&mut self, slot: u32, into: &mut Vec<f32>) -> bool {
        let vector = (self.vector)(slot);
        into.extend(vector.iter().flatten());
        vector.is_some()
    }
}

pub(super) fn options(dimension: usize, metric: Metric) -> PartitionOptions {
    let schema = Schema::new([("color".to_owned(), FieldType::Keyword)]).unwrap();
    let (kind, storage, budget) = (IndexKind::Cairn, VectorStorage::MemoryF32, MemoryBudget::unlimited());
    PartitionOptions { dimension, metric, kind, storage, schema, budget }
}

pub(super) fn partition(dimension: usize, metric: Metric) -> Partition {
    Partition::new(options(dimension, metric)).unwrap()
}

pub(super) fn request(query: &[f32], limit: usize) -> SearchRequest<'_> {
    SearchRequest { query, limit, matches: None, params: SearchParams::default() }
}

fn fields(color: &str) -> Vec<(Field, Vec<Scalar>)> {
    vec![(Field::Metadata("color".into()), vec![Scalar::String(color.into())])]
}

pub(super) fn color_is(color: &str) -> Filter {
    let test = Test::Eq(Scalar::String(color.into()));
    Filter::Where(Condition { field: Field::Metadata("color".into()), test })
}

/// What a partition should hold: by number, a color and perhaps a vector.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) color: &'static str,
    pub(super) vector: Option<Vec<f32>>,
}

/// The definition of a search: all scores, in order of score and then id.
pub(super) fn brute_force(
    model: &BTreeMap<u32, Known>,
    metric: Metric,
    query: &[f32],
    wanted: impl Fn(u32, &Known) -> bool,
) -> Vec<(f64, Vec<u8>)> {
    let row = |vector: &[f32]| {
        let mut row = vec![0.0; vector.len().next_multiple_of(VECTOR_LANES)];
        crate::codes::fill_row(vector, metric, &mut row);
        row
    };
    let query = row(query);
    let wanted = model.iter().filter(|(number, known)| wanted(**number, known));
    let with_vector = wanted.filter_map(|(number, known)| Some((*number, known.vector.as_deref()?)));
    let mut scores: Vec<_> =
        with_vector.map(|(number, vector)| (metric.score(&query, &row(vector)), id(number))).collect();
    scores.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    scores
}

pub(super) fn number_of(key: MemoryKey) -> u32 {
    u32::from_le_bytes([key.0[8], key.0[9], key.0[10], key.0[11]])
}

pub(super) fn scores_and_ids(output: &SearchOutput) -> Vec<(f64, Vec<u8>)> {
    output.hits.iter().map(|hit| (hit.score, id(number_of(hit.key)))).collect()
}

pub(super) const COLORS: [&str; 3] = ["red", "green", "blue"];

#[derive(Debug, Clone)]
pub(super) enum Step {
    Upsert(u32, Known),
    Remove(u32),
}

/// Few distinct values, so that ties are common; some vectors are far larger than others.
pub(super) fn vector(dimension: usize) -> BoxedStrategy<Vec<f32>> {
    let coarse = (-2i8..3).prop_map(f32::from);
    let near = proptest::collection::vec(prop_oneof![coarse, -1.0f32..1.0], dimension);
    let coarse_only = proptest::collection::vec((-1i8..2).prop_map(f32::from), dimension);
    let scale = proptest::sample::select(&[1.0f32, 1.0, 1e-20, 1e18][..]);
    let any = (prop_oneof![near, coarse_only], scale).prop_map(|(vector, scale)| {
        let scaled: Vec<f32> = vector.into_iter().map(|value| value * scale).collect();
        scaled
    });
    any.prop_filter("not zero", |vector| vector.iter().any(|value| *value != 0.0)).boxed()
}

pub(super) fn steps(dimension: usize, count: usize) -> impl Values<Value = Vec<Step>> {
    let known = (proptest::sample::select(&COLORS[..]), proptest::option::weighted(0.9, vector(dimension)))
        .prop_map(|(color, vector)| Known { color, vector });
    let step = prop_oneof![
        3 => (0u32..120, known).prop_map(|(number, known)| Step::Upsert(number, known)),
        1 => (0u32..120).prop_map(Step::Remove),
    ];
    proptest::collection::vec(step, 0..count)
}

pub(super) fn run(partition: &mut Partition, model: &mut BTreeMap<u32, Known>, steps: Vec<Step>) {
    for step in steps {
        match step {
            Step::Upsert(number, known) => {
                let fields = fields(known.color);
                let (key, id, vector) = (key(number), id(number), known.vector.as_deref());
                let slot = if number % 2 == 0 {
                    partition.upsert(key, &id, fields.as_slice(), vector).unwrap()
                } else {
                    let prepared = vector.map(|vector| partition.preparer().prepare(vector).unwrap());
                    partition.upsert_prepared(key, &id, fields.as_slice(), prepared.as_ref()).unwrap()
                };
                let key = self::key(number);
                assert_eq!(partition.key_of(slot), Some(key));
                model.insert(number, known);
            }
            Step::Remove(number) => {
                assert_eq!(partition.remove(&key(number)), model.remove(&number).is_some());
                assert_eq!(partition.slot_of(&key(number)), None);
            }
        }
    }
}

pub(super) fn metric() -> impl Values<Value = Metric> {
    proptest::sample::select(&[Metric::Cosine, Metric::Dot, Metric::L2][..])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn searches_equal_brute_force_after_any_history(
        (metric, steps, queries) in (metric(), 1usize..20).prop_flat_map(|(metric, dimension)| {
            (Just(metric), steps(dimension, 160), proptest::collection::vec((vector(dimension), 0usize..130), 1..6))
        }),
    ) {
        let dimension = queries[0].0.len();
        let (mut partition, mut model) = (partition(dimension, metric), BTreeMap::new());
        run(&mut partition, &mut model, steps);
        prop_assert_eq!(partition.len(), model.len());
        prop_assert_eq!(partition.vectors(), model.values().filter(|known| known.vector.is_some()).count() as u64);
        for (query, limit) in &queries {
            let mut expected = brute_force(&model, metric, query, |_, _| true);
            expected.truncate(*limit);
            let found = partition.search(&request(query, *limit)).unwrap();
            prop_assert_eq!(scores_and_ids(&found), expected);
            for color in COLORS {
                let matches = partition.matches(&color_is(color));
                let request = SearchRequest { matches: Some(&matches), ..request(query, *limit) };
                let mut expected = brute_force(&model, metric, query, |_, known| known.color == color);
                expected.truncate(*limit);
                prop_assert_eq!(scores_and_ids(&partition.search(&request).unwrap()), expected);
            }
        }
    }

    #[test]
    fn uncertain_matches_are_asked_for_best_first(
        (metric, steps, query) in metric().prop_flat_map(|metric| (Just(metric), steps(5, 120), vector(5))),
        limit in 1usize..20,
        modulus in 1u32..5,
    ) {
        let (mut partition, mut model) = (partition(5, metric), BTreeMap::new());
        run(&mut partition, &mut model, steps);
        // Red ones match for certain; of the others, those for which the engine's look at the record says so.
        let unknown = Filter::Where(Condition { field: Field::Metadata("n".into()), test: Test::Exists(true) });
        let matches = partition.matches(&Filter::Any(vec![color_is("red"), unknown]));
        let mut asked = Vec::new();
        let accepts = |number: u32| number.is_multiple_of(modulus);
        let request = SearchRequest { matches: Some(&matches), ..request(&query, limit) };
        let mut is_accepted = |slot| {
            let number = number_of(partition.key_of(slot).unwrap());
            asked.push(number);
            accepts(number)
        };
        let mut records = TestRecords { accepts: &mut is_accepted, vector: |_| None };
        let found = partition.search_checked(&request, &mut records).unwrap();
        let mut expected = brute_force(&model, metric, &query, |number, known| known.color == "red" || accepts(number));
        expected.truncate(limit);
        prop_assert_eq!(scores_and_ids(&found), expected.clone());
        // Nobody is asked about who ranks behind the last hit, nor about certain ones, nor twice.
        let all = brute_force(&model, metric, &query, |_, _| true);
        let rank = |id: &[u8]| all.iter().position(|(_, known)| known == id).unwrap();
        let last = if expected.len() == limit { rank(&expected[limit - 1].1) } else { all.len() };
        let ranks: Vec<usize> = asked.iter().map(|number| rank(&id(*number))).collect();
        prop_assert!(ranks.is_sorted_by(|a, b| a < b) && ranks.iter().all(|rank| *rank <= last));
        prop_assert!(asked.iter().all(|number| model[number].color != "red"));
    }

    #[test]
    fn every_memory_finds_itself(metric in metric(), steps in steps(12, 160)) {
        let (mut partition, mut model) = (partition(12, metric), BTreeMap::new());
        run(&mut partition, &mut model, steps);
        for (number, known) in &model {
            let Some(vector) = &known.vector else { continue };
            let limit = model.len();
            let found = partition.search(&request(vector, limit)).unwrap();
            let own = found.hits.iter().find(|hit| hit.key == key(*number));
            prop_assert!(own.is_some());
            if metric == Metric::L2 {
                prop_assert_eq!(own.unwrap().distance, 0.0);
                prop_assert_eq!(found.hits[0].distance, 0.0);
            }
        }
    }

    #[test]
    fn the_same_history_gives_the_same_slots(steps in steps(3, 100)) {
        let (mut one, mut other) = (partition(3, Metric::Dot), partition(3, Metric::Dot));
        run(&mut one, &mut BTreeMap::new(), steps.clone());
        run(&mut other, &mut BTreeMap::new(), steps);
        prop_assert!(one.live() == other.live());
        prop_assert!(one.live().iter().all(|slot| one.key_of(slot) == other.key_of(slot)));
    }
}

/// Several chunks, sparse and dense masks, and enough vectors that the bounds leave most of them out.
#[test]
fn large_partitions_are_exact_too() {
    let mut state = 1u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
        let (mut partition, mut model) = (partition(70, metric), BTreeMap::new());
        let mut vector = || (0..70).map(|_| random()).collect::<Vec<f32>>();
        for number in 0..5000 {
            let color = if number % 100 == 7 { "red" } else { COLORS[1 + number as usize % 2] };
            let known = Known { color, vector: (number % 50 != 3).then(&mut vector) };
            run(&mut partition, &mut model, vec![Step::Upsert(number, known)]);
        }
        run(&mut partition, &mut model, (0..5000).step_by(7).map(Step::Remove).collect());
        for _ in 0..10 {
            let query = vector();
            let found = partition.search(&request(&query, 10)).unwrap();
            assert_eq!(scores_and_ids(&found), brute_force(&model, metric, &query, |_, _| true)[..10]);
            assert!(found.rescored < 600, "{metric:?}: {}", found.rescored);
            for color in COLORS {
                let matches = partition.matches(&color_is(color));
                let request = SearchRequest { matches: Some(&matches), ..request(&query, 10) };
                let expected = brute_force(&model, metric, &query, |_, known| known.color == color);
                assert_eq!(scores_and_ids(&partition.search(&request).unwrap()), expected[..10]);
            }
        }
    }
}

#[test]
fn bad_vectors_are_refused_and_change_nothing() {
    let mut partition = partition(3, Metric::Cosine);
    let cases = [
        (vec![1.0, f32::NAN, 0.0], IndexError::NotFinite { position: 1 }),
        (vec![1.0, 0.0, f32::INFINITY], IndexError::NotFinite { position: 2 }),
        (vec![f32::NEG_INFINITY, 0.0, 0.0], IndexError::NotFinite { position: 0 }),
        (vec![0.0, -0.0, 0.0], IndexError::ZeroVector),
        (vec![1.0, 2.0], IndexError::WrongDimension { expected: 3, found: 2 }),
        (vec![1.0; 4], IndexError::WrongDimension { expected: 3, found: 4 }),
        (vec![], IndexError::WrongDimension { expected: 3, found: 0 }),
    ];
    for (vector, error) in cases {
        assert_eq!(partition.upsert(key(1), b"1", &(), Some(&vector)), Err(error.clone()));
        assert_eq!(partition.search(&request(&vector, 1)).unwrap_err(), error);
        assert!(error.is_deterministic() && partition.is_empty());
    }
    partition.upsert(key(1), b"1", &(), Some(&[1e-45, 0.0, 0.0])).unwrap();
    let found = partition.search(&request(&[1e38, 0.0, 0.0], 1)).unwrap();
    assert_eq!((found.hits[0].score, found.hits[0].distance), (1.0, 0.0));
}

#[test]
fn zero_vectors_are_fine_where_they_mean_something() {
    for metric in [Metric::Dot, Metric::L2] {
        let mut partition = partition(2, metric);
        partition.upsert(key(1), b"1", &(), Some(&[0.0, 0.0])).unwrap();
        partition.upsert(key(2), b"2", &(), Some(&[3.0, 4.0])).unwrap();
        let found = partition.search(&request(&[0.0, 0.0], 2)).unwrap();
        let scores: Vec<f64> = found.hits.iter().map(|hit| hit.score).collect();
        assert_eq!(scores, if metric == Metric::Dot { [0.0, 0.0] } else { [0.0, -25.0] });
    }
}

#[test]
fn edges_give_correct_results() {
    for dimension in [0, 4097] {
        let refused = Partition::new(options(dimension, Metric::Dot)).err();
        assert_eq!(refused, Some(IndexError::UnsupportedDimension(dimension)));
    }
    let mut partition = partition(4096, Metric::L2);
    let vector = vec![0.5; 4096];
    let nothing = |output: SearchOutput| output.hits.is_empty() && output.strategy == Strategy::Empty;
    assert!(nothing(partition.search(&request(&vector, 10)).unwrap()));
    partition.upsert(key(1), b"1", &(), None).unwrap();
    assert!(nothing(partition.search(&request(&vector, 10)).unwrap()), "a memory without a vector is no hit");
    partition.upsert(key(2), b"2", &(), Some(&vector)).unwrap();
    assert!(nothing(partition.search(&request(&vector, 0)).unwrap()));
    assert_eq!(partition.search(&request(&vector, usize::MAX)).unwrap().hits.len(), 1);
    let none = partition.matches(&Filter::Any(vec![]));
    let masked = SearchRequest { matches: Some(&none), ..request(&vector, 3) };
    assert!(nothing(partition.search(&masked).unwrap()));
    let stale = Matches::exactly(Cow::Owned((0..9000).collect()));
    let masked = SearchRequest { matches: Some(&stale), ..request(&vector, 3) };
    assert_eq!(partition.search(&masked).unwrap().hits.len(), 1, "slots that were never used are no hits");
    let unknown = Filter::Where(Condition { field: Field::Metadata("never".into()), test: Test::Exists(true) });
    let found = partition.matches(&unknown);
    assert_eq!((found.is_exact(), found.possible().len(), found.certain().len()), (false, 2, 0));
    assert!(!partition.remove(&key(3)));
    assert!(partition.remove(&key(1)) && partition.remove(&key(2)) && partition.is_empty());
    assert!(nothing(partition.search(&request(&vector, 10)).unwrap()), "all deleted");
}

#[test]
fn removed_and_replaced_vectors_leave_no_bytes() {
    for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
        let mut partition = partition(5, metric);
        let vector = [0.5, -0.25, 3.0, 1.0, 2.0];
        let slots: Vec<u32> = (0..3).map(|n| partition.upsert(key(n), &id(n), &(), Some(&vector)).unwrap()).collect();
        let (codes, values, _) = partition.memory_of(slots[1]);
        assert!(codes[..5].iter().any(|code| i32::from(*code) != CODE_OFFSET) && values[0] != 0.0);
        partition.remove(&key(1));
        partition.upsert(key(2), &id(2), &(), None).unwrap();
        for slot in &slots[1..] {
            let (codes, values, terms) = partition.memory_of(*slot);
            assert!(codes.iter().all(|byte| *byte == 0) && values.iter().chain(&terms).all(|value| *value == 0.0));
        }
        assert_eq!(partition.upsert(key(9), &id(9), &(), Some(&vector)), Ok(slots[1]), "the slot is used again");
        assert_eq!(partition.search(&request(&vector, 9)).unwrap().hits.len(), 2);
    }
}

#[test]
fn memory_limits_are_errors_that_change_nothing() {
    let budget = MemoryBudget::new(200_000);
    let mut partition =
        Partition::new(PartitionOptions { budget: budget.clone(), ..options(384, Metric::Cosine) }).unwrap();
    let vector = vec![1.0; 384];
    let mut count = 0;
    let error = loop {
        match partition.upsert(key(count), &id(count), fields("red").as_slice(), Some(&vector)) {
            Ok(_) => count += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, IndexError::MemoryLimit { limit: 200_000, .. }) && !error.is_deterministic());
    assert!(count > 30 && budget.used() <= 200_000, "{count} {}", budget.used());
    assert_eq!(partition.len(), count as usize);
    assert_eq!(partition.search(&request(&vector, 1000)).unwrap().hits.len(), count as usize);
    assert!(partition.bytes() >= budget.used());
    assert!(partition.remove(&key(0)));
    partition.upsert(key(500), b"x", &(), Some(&vector)).unwrap();
    drop(partition);
    assert_eq!(budget.used(), 0);
}
