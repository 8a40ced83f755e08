//! Partitions large enough for a graph, which the thresholds of these tests make small: the same histories as for flat ones, with
//! each kind of index that the build has.

use std::collections::BTreeMap;

use proptest::prelude::{Just, Strategy as Values, prop_assert, prop_assert_eq, proptest};

use super::tests::{
    COLORS, Known, Step, brute_force, color_is, id, key, metric, number_of, options, request, run, scores_and_ids,
    steps, vector,
};
use super::*;
use crate::graph::cases;
use crate::parts::in_parts;
use crate::rotation::next_random;
use crate::tiers::Thresholds;

const SMALL: Thresholds = Thresholds { graph_from: 40, flat_below: 20, waiting_max: 6, flat_per_width: 0 };

fn with_graph(dimension: usize, metric: Metric) -> Partition {
    with_index(IndexKind::Cairn, dimension, metric)
}

fn with_index(kind: IndexKind, dimension: usize, metric: Metric) -> Partition {
    let mut partition = Partition::new(PartitionOptions { kind, ..options(dimension, metric) }).unwrap();
    partition.set_thresholds(SMALL);
    partition
}

fn kind() -> impl Values<Value = IndexKind> {
    proptest::sample::select(IndexKind::ALL)
}

proptest! {
    #![proptest_config(cases(128))]

    #[test]
    fn a_graph_changes_neither_scores_nor_counts(
        (metric, first, second, query) in metric().prop_flat_map(|metric| {
            (Just(metric), steps(9, 250), steps(9, 120), vector(9))
        }),
        limit in 1usize..40,
        kind in kind(),
    ) {
        let (mut partition, mut model) = (with_index(kind, 9, metric), BTreeMap::new());
        run(&mut partition, &mut model, first);
        partition.maintain(500);
        run(&mut partition, &mut model, second);
        prop_assert_eq!(partition.unreachable(), 0);
        let matches = partition.matches(&color_is("red"));
        for matches in [None, Some(&matches)] {
            let wanted = |_: u32, known: &Known| matches.is_none() || known.color == "red";
            let expected = brute_force(&model, metric, &query, wanted);
            let request = SearchRequest { matches, ..request(&query, limit) };
            let found = scores_and_ids(&partition.search(&request).unwrap());
            prop_assert_eq!(found.len(), limit.min(expected.len()), "never fewer than there are");
            prop_assert!(found.iter().all(|hit| expected.contains(hit)), "scores are exact");
            prop_assert!(found.is_sorted_by(|a, b| a.0 > b.0 || (a.0 == b.0 && a.1 < b.1)));
            let exact = SearchRequest { params: SearchParams { exact: true, effort: 0 }, ..request };
            prop_assert_eq!(scores_and_ids(&partition.search(&exact).unwrap()), &expected[..limit.min(expected.len())]);
        }
    }

    #[test]
    fn every_memory_finds_itself_over_the_graph(
        (kind, metric) in (kind(), metric()),
        first in steps(12, 300),
        second in steps(12, 300),
    ) {
        let (mut partition, mut model) = (with_index(kind, 12, metric), BTreeMap::new());
        run(&mut partition, &mut model, first);
        partition.maintain(500);
        run(&mut partition, &mut model, second);
        for (number, known) in &model {
            let Some(vector) = &known.vector else { continue };
            // Others may be equal, and under the inner product better.
            let better = brute_force(&model, metric, vector, |_, _| true);
            let rank = better.iter().position(|(_, other)| *other == id(*number)).unwrap();
            let found = partition.search(&request(vector, rank + 1)).unwrap();
            prop_assert!(found.hits.iter().any(|hit| hit.key == key(*number)), "{} of {}", rank, better.len());
        }
    }
}

/// A vector near one of a few centres, so that whole neighbourhoods can be removed.
fn clustered_vector(state: &mut u64, cluster: u64) -> Vec<f32> {
    let centre = random_vector(&mut (cluster * 77 + 1), 16);
    let noise = random_vector(state, 16);
    centre.iter().zip(noise).map(|(centre, noise)| centre + noise * 0.3).collect()
}

/// One of a long history's steps: mostly inserts and replacements, then removals, now and then of a whole neighbourhood.
fn live_a_little(partition: &mut Partition, model: &mut BTreeMap<u32, Known>, state: &mut u64) {
    const CLUSTERS: u64 = 12;
    let (kind, number) = (next_random(state) % 100, (next_random(state) % 900) as u32);
    let cluster = next_random(state) % CLUSTERS;
    match kind {
        0 => {
            // The number says which cluster a memory was last put into.
            let near = model.keys().copied().filter(|number| u64::from(*number) % CLUSTERS == cluster);
            let steps = near.map(Step::Remove).collect();
            run(partition, model, steps);
        }
        1..=30 => run(partition, model, vec![Step::Remove(number)]),
        31..=40 => drop(partition.maintain(next_random(state) as usize % 40)),
        41..=44 => {
            let plans = partition.plan(next_random(state) as usize % 40, 2);
            run(partition, model, vec![Step::Remove(number)]);
            partition.join(plans);
        }
        45..=47 => {
            let known = Known { color: "red", vector: None };
            run(partition, model, vec![Step::Upsert(number, known)]);
        }
        _ => {
            let vector = Some(clustered_vector(state, u64::from(number) % CLUSTERS));
            run(partition, model, vec![Step::Upsert(number, Known { color: "blue", vector })]);
        }
    }
}

proptest! {
    #![proptest_config(cases(24))]

    /// With `PROPTEST_CASES=5000`, thousands of long histories.
    #[test]
    fn every_memory_finds_itself_after_long_histories(
        metric in proptest::sample::select(&[Metric::Cosine, Metric::L2][..]),
        kind in kind(),
        seed in proptest::prelude::any::<u64>(),
        length in 0usize..4000,
    ) {
        let (mut partition, mut model, mut state) = (with_index(kind, 16, metric), BTreeMap::new(), seed);
        for _ in 0..length {
            live_a_little(&mut partition, &mut model, &mut state);
        }
        prop_assert_eq!(partition.unreachable(), 0);
        prop_assert_eq!(partition.len(), model.len());
        for with_all_linked in [false, true] {
            if with_all_linked {
                while partition.maintain(100) > 0 {}
                prop_assert_eq!((partition.upkeep_left(), partition.unreachable()), (0, 0));
                prop_assert!(kind != IndexKind::Cairn || partition.waiting() == 0);
            }
            for (number, known) in &model {
                let Some(vector) = &known.vector else { continue };
                let found = partition.search(&request(vector, 1)).unwrap();
                prop_assert_eq!(found.hits[0].key, key(*number), "{} live", model.len());
            }
        }
    }
}

#[test]
fn a_vector_that_changed_since_it_was_planned_waits_on() {
    let mut state = 1;
    let (mut partition, mut model) = (with_graph(8, Metric::Cosine), BTreeMap::new());
    let mut upsert = |partition: &mut Partition, number: u32| {
        let known = Known { color: "red", vector: Some(random_vector(&mut state, 8)) };
        run(partition, &mut model, vec![Step::Upsert(number, known)]);
    };
    (0..60).for_each(|number| upsert(&mut partition, number));
    partition.link_all(2);
    (60..66).for_each(|number| upsert(&mut partition, number));
    let plans = partition.plan(10, 2);
    upsert(&mut partition, 61);
    partition.remove(&key(62));
    partition.join(plans);
    assert_eq!((partition.waiting(), partition.unreachable()), (1, 0));
    partition.maintain(10);
    assert_eq!(partition.waiting(), 0);
}

#[test]
fn a_memory_whose_fields_change_keeps_its_place_in_the_graph() {
    let mut state = 4;
    let (mut partition, mut model) = (with_graph(8, Metric::L2), BTreeMap::new());
    for number in 0..60 {
        let known = Known { color: "red", vector: Some(random_vector(&mut state, 8)) };
        run(&mut partition, &mut model, vec![Step::Upsert(number, known)]);
    }
    partition.link_all(1);
    let before = partition.slot_of(&key(7));
    let repainted = Known { color: "blue", ..model[&7].clone() };
    run(&mut partition, &mut model, vec![Step::Upsert(7, repainted)]);
    assert_eq!((partition.slot_of(&key(7)), partition.waiting()), (before, 0));
    assert_eq!(partition.matches(&color_is("blue")).possible().iter().collect::<Vec<_>>(), [before.unwrap()]);
    let moved = Known { color: "blue", vector: Some(random_vector(&mut state, 8)) };
    run(&mut partition, &mut model, vec![Step::Upsert(7, moved)]);
    assert_ne!(partition.slot_of(&key(7)), before);
    assert_eq!(partition.waiting(), 1);
}

#[test]
fn a_batch_gives_the_same_graph_on_any_number_of_threads_and_in_any_parts() {
    let build = |link: &dyn Fn(&mut Partition)| {
        let mut state = 5;
        let (mut partition, mut model) = (with_graph(24, Metric::Cosine), BTreeMap::new());
        partition.set_thresholds(Thresholds { waiting_max: 5000, graph_from: 3000, ..SMALL });
        for number in 0..3000 {
            let known = Known { color: "red", vector: Some(random_vector(&mut state, 24)) };
            run(&mut partition, &mut model, vec![Step::Upsert(number, known)]);
        }
        assert_eq!(partition.waiting(), 3000);
        link(&mut partition);
        assert_eq!((partition.waiting(), partition.unreachable()), (0, 0));
        let found: Vec<_> = (0..50)
            .map(|_| partition.search(&request(&random_vector(&mut state, 24), 10)).unwrap())
            .map(|found| (found.compared, scores_and_ids(&found)))
            .collect();
        let recall = recall(&partition, &model, None, &mut 9);
        (found, recall)
    };
    let together = [1, 3].map(|threads| build(&|partition| partition.link_all(threads)));
    let in_parts = [(1, 6), (2, 12), (5, 30)].map(|(threads, part)| {
        build(&|partition| {
            while partition.waiting() > 0 {
                let batch = partition.next_batch(48);
                let parts = in_parts(0..batch.len(), part);
                let plans: Vec<_> = parts.map(|part| partition.plan_part(&batch, part, threads)).collect();
                plans.into_iter().for_each(|plans| partition.join(plans));
            }
        })
    });
    for same in [&together[..], &in_parts] {
        assert!(same[0].1 > 0.95, "{}", same[0].1);
        assert!(same.iter().all(|other| *other == same[0]));
    }
}

/// Notes of one topic come together, so that a batch lies in one place.
#[test]
fn what_comes_topic_by_topic_is_found_as_well() {
    const TOPIC: usize = 40;
    let mut state = 6;
    let (mut partition, mut model) = (with_graph(48, Metric::Cosine), BTreeMap::new());
    partition.set_thresholds(Thresholds { waiting_max: 5000, graph_from: 3000, ..SMALL });
    let topics: Vec<Vec<f32>> = (0..3000 / TOPIC).map(|_| random_vector(&mut state, 48)).collect();
    let mut note = |topic: usize| -> Vec<f32> {
        topics[topic].iter().zip(random_vector(&mut state, 48)).map(|(center, value)| center + value).collect()
    };
    for number in 0..3000 {
        let known = Known { color: "red", vector: Some(note(number as usize / TOPIC)) };
        run(&mut partition, &mut model, vec![Step::Upsert(number, known)]);
    }
    partition.link_all(1);
    let queries: Vec<Vec<f32>> = (0..topics.len() * 4).map(|number| note(number % topics.len())).collect();
    let recall = share_found(&partition, &model, None, &queries, 16);
    assert!(recall > 0.98, "{recall}");
}

/// Notes that differ in a word lie so close together that codes hardly tell them apart: then more of them are scored exactly, and a walk is
/// repeated more widely.
#[test]
fn crowds_are_told_apart() {
    let mut state = 8;
    let (mut partition, mut model) = (with_graph(256, Metric::Cosine), BTreeMap::new());
    partition.set_thresholds(Thresholds { waiting_max: 5000, graph_from: 2000, ..SMALL });
    let centre = random_vector(&mut state, 256);
    let mut note = || -> Vec<f32> {
        centre.iter().zip(random_vector(&mut state, 256)).map(|(centre, value)| centre + 0.1 * value).collect()
    };
    for number in 0..2000 {
        let known = Known { color: "red", vector: Some(note()) };
        run(&mut partition, &mut model, vec![Step::Upsert(number, known)]);
    }
    partition.link_all(1);
    let queries: Vec<Vec<f32>> = model.values().step_by(50).filter_map(|known| known.vector.clone()).collect();
    let recall = share_found(&partition, &model, None, &queries, 0);
    assert!(recall > 0.9, "{recall}");
}

fn random_vector(state: &mut u64, dimension: usize) -> Vec<f32> {
    (0..dimension).map(|_| (next_random(state) >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect()
}

/// The share of the true ten nearest that are found, over some queries.
fn recall(partition: &Partition, model: &BTreeMap<u32, Known>, color: Option<&str>, state: &mut u64) -> f64 {
    let queries: Vec<Vec<f32>> = (0..40).map(|_| random_vector(state, 24)).collect();
    share_found(partition, model, color, &queries, 0)
}

fn share_found(
    partition: &Partition,
    model: &BTreeMap<u32, Known>,
    color: Option<&str>,
    queries: &[Vec<f32>],
    effort: u32,
) -> f64 {
    let mut found = 0;
    for query in queries {
        let wanted = |_: u32, known: &Known| color.is_none_or(|color| known.color == color);
        let truth = brute_force(model, Metric::Cosine, query, wanted);
        let matches = color.map(|color| partition.matches(&color_is(color)));
        let params = SearchParams { exact: false, effort };
        let asked = SearchRequest { matches: matches.as_ref(), params, ..request(query, 10) };
        let output = partition.search(&asked).unwrap();
        assert_eq!(output.hits.len(), 10);
        assert_eq!(output.strategy, if color.is_some() { Strategy::FilteredGraph } else { Strategy::Graph });
        found += truth[..10].iter().filter(|hit| scores_and_ids(&output).contains(hit)).count();
    }
    found as f64 / (queries.len() * 10) as f64
}

/// All vectors are replaced ten times over; the graph must not wear out.
#[test]
fn recall_stays_after_ten_turnovers() {
    IndexKind::ALL.iter().for_each(|kind| turn_over(*kind));
}

fn turn_over(kind: IndexKind) {
    // hnsw_rs is made anew five times in each turn.
    let count = if kind == IndexKind::Cairn { 1500 } else { 400 };
    let mut state = 7;
    let (mut worn, mut model) = (with_index(kind, 24, Metric::Cosine), BTreeMap::new());
    for turn in 0..=10 {
        for number in 0..count {
            let number = turn * count + number;
            let known = Known { color: COLORS[number as usize % 3], vector: Some(random_vector(&mut state, 24)) };
            run(&mut worn, &mut model, vec![Step::Upsert(number, known)]);
            if turn > 0 {
                run(&mut worn, &mut model, vec![Step::Remove(number - count)]);
            }
        }
    }
    worn.maintain(usize::MAX);
    assert_eq!((worn.len(), worn.upkeep_left(), worn.unreachable()), (count as usize, 0, 0));
    let mut fresh = with_index(kind, 24, Metric::Cosine);
    let steps = model.iter().map(|(number, known)| Step::Upsert(*number, known.clone())).collect();
    run(&mut fresh, &mut BTreeMap::new(), steps);
    fresh.maintain(usize::MAX);
    for color in [None, Some("green")] {
        let (of_worn, of_fresh) = (recall(&worn, &model, color, &mut 1), recall(&fresh, &model, color, &mut 1));
        assert!(of_worn >= of_fresh - 0.01 && of_worn > 0.95, "{color:?}: {of_worn} {of_fresh}");
    }
}

#[test]
fn the_graph_comes_and_goes_with_the_size() {
    let mut state = 3;
    let (mut partition, mut model) = (with_graph(8, Metric::L2), BTreeMap::new());
    let strategy = |partition: &Partition| partition.search(&request(&[0.5; 8], 3)).unwrap().strategy;
    for number in 0..60 {
        let known = Known { color: "red", vector: Some(random_vector(&mut state, 8)) };
        run(&mut partition, &mut model, vec![Step::Upsert(number, known)]);
        assert!(partition.waiting() <= 60 && (number >= 39 || partition.waiting() == 0));
    }
    assert_eq!(partition.maintain(100), 0);
    assert_eq!(strategy(&partition), Strategy::Graph);
    let with_graph_bytes = partition.bytes();
    run(&mut partition, &mut model, (0..41).map(Step::Remove).collect());
    assert_eq!(strategy(&partition), Strategy::Flat);
    assert!(partition.bytes() < with_graph_bytes && partition.waiting() == 0);
    assert_eq!(number_of(partition.search(&request(&[0.5; 8], 1)).unwrap().hits[0].key) / 41, 1);
}
