//! Partitions large enough for a graph, which the thresholds of these tests make small: the same histories as for flat ones.

use std::collections::BTreeMap;

use proptest::prelude::{Just, ProptestConfig, Strategy as Values, prop_assert, prop_assert_eq, proptest};

use super::tests::{
    COLORS, Known, Step, brute_force, color_is, id, key, metric, number_of, partition, request, run, scores_and_ids,
    steps, vector,
};
use super::*;
use crate::rotation::next_random;
use crate::tiers::Thresholds;

const SMALL: Thresholds = Thresholds { graph_from: 40, flat_below: 20, waiting_max: 6, flat_per_width: 0 };

fn with_graph(dimension: usize, metric: Metric) -> Partition {
    let mut partition = partition(dimension, metric);
    partition.set_thresholds(SMALL);
    partition
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_graph_changes_neither_scores_nor_counts(
        (metric, first, second, query) in metric().prop_flat_map(|metric| {
            (Just(metric), steps(9, 250), steps(9, 120), vector(9))
        }),
        limit in 1usize..40,
    ) {
        let (mut partition, mut model) = (with_graph(9, metric), BTreeMap::new());
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
    fn every_memory_finds_itself_over_the_graph(metric in metric(), first in steps(12, 300), second in steps(12, 300)) {
        let (mut partition, mut model) = (with_graph(12, metric), BTreeMap::new());
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

fn random_vector(state: &mut u64, dimension: usize) -> Vec<f32> {
    (0..dimension).map(|_| (next_random(state) >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect()
}

/// The share of the true ten nearest that are found, over some queries.
fn recall(partition: &Partition, model: &BTreeMap<u32, Known>, color: Option<&str>, state: &mut u64) -> f64 {
    let queries = 40;
    let mut found = 0;
    for _ in 0..queries {
        let query = random_vector(state, 24);
        let wanted = |_: u32, known: &Known| color.is_none_or(|color| known.color == color);
        let truth = brute_force(model, Metric::Cosine, &query, wanted);
        let matches = color.map(|color| partition.matches(&color_is(color)));
        let output = partition.search(&SearchRequest { matches: matches.as_ref(), ..request(&query, 10) }).unwrap();
        assert_eq!(output.hits.len(), 10);
        assert_eq!(output.strategy, if color.is_some() { Strategy::FilteredGraph } else { Strategy::Graph });
        found += truth[..10].iter().filter(|hit| scores_and_ids(&output).contains(hit)).count();
    }
    found as f64 / f64::from(queries * 10)
}

/// All vectors are replaced ten times over; the graph must not wear out.
#[test]
fn recall_stays_after_ten_turnovers() {
    const COUNT: u32 = 1500;
    let mut state = 7;
    let (mut worn, mut model) = (with_graph(24, Metric::Cosine), BTreeMap::new());
    for turn in 0..=10 {
        for number in 0..COUNT {
            let number = turn * COUNT + number;
            let known = Known { color: COLORS[number as usize % 3], vector: Some(random_vector(&mut state, 24)) };
            run(&mut worn, &mut model, vec![Step::Upsert(number, known)]);
            if turn > 0 {
                run(&mut worn, &mut model, vec![Step::Remove(number - COUNT)]);
            }
        }
    }
    worn.maintain(usize::MAX);
    assert_eq!((worn.len(), worn.waiting(), worn.unreachable()), (COUNT as usize, 0, 0));
    let mut fresh = with_graph(24, Metric::Cosine);
    let steps = model.iter().map(|(number, known)| Step::Upsert(*number, known.clone())).collect();
    run(&mut fresh, &mut BTreeMap::new(), steps);
    fresh.maintain(usize::MAX);
    for color in [None, Some("green")] {
        let (of_worn, of_fresh) = (recall(&worn, &model, color, &mut 1), recall(&fresh, &model, color, &mut 1));
        assert!(of_worn >= of_fresh - 0.02 && of_worn > 0.95, "{color:?}: {of_worn} {of_fresh}");
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
