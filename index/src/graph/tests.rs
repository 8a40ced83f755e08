//! The graph's invariants after random histories, and what walks find.

use proptest::prelude::*;

use super::*;
use crate::distance::with_each_kernels;
use crate::metric::Metric;
use crate::originals::VectorStorage;
use crate::rotation::next_random;

const DIMENSION: usize = 8;
/// From how many nodes on rows are longer here, so that histories cross it.
const MANY: usize = 100;

/// A store with its graph, driven as a partition does: by numbers, which get another slot with each vector.
struct Pair {
    dimension: usize,
    store: VectorStore,
    graph: Graph,
    slots: std::collections::BTreeMap<u32, u32>,
}

impl Pair {
    fn new(metric: Metric) -> Self {
        Self::with_dimension(metric, DIMENSION)
    }

    fn with_dimension(metric: Metric, dimension: usize) -> Self {
        let budget = MemoryBudget::unlimited();
        let store = VectorStore::new(dimension, metric, VectorStorage::MemoryF32, &budget).unwrap();
        let mut graph = Graph::new(&budget, 0);
        graph.many = MANY;
        Self { dimension, store, graph, slots: Default::default() }
    }

    fn insert(&mut self, number: u32, vector: &[f32]) {
        self.remove(number);
        let slot = (0..).find(|slot| !self.store.present().contains(*slot) && !self.graph.holds(*slot)).unwrap();
        self.store.reserve(slot).unwrap();
        let prepared = self.store.preparer().prepare(vector).unwrap();
        self.store.insert(slot, &prepared);
        self.graph.reserve(slot).unwrap();
        self.graph.link(&self.store, slot);
        self.slots.insert(number, slot);
    }

    /// Adds vectors in slots that were never used, as planned together; between plan and join a memory may go.
    fn insert_planned(&mut self, first: u32, count: u32, gone: Option<u32>, is_forgotten: bool) -> usize {
        let mut scratch = Scratch::default();
        for slot in first..first + count {
            self.store.reserve(slot).unwrap();
            let prepared =
                self.store.preparer().prepare(&wide_vector(u64::from(slot) * 3 + 1, self.dimension)).unwrap();
            self.store.insert(slot, &prepared);
            self.graph.reserve(slot).unwrap();
        }
        let batch: Vec<u32> = (first..first + count).collect();
        let mut plan = |place: usize| self.graph.plan(&self.store, batch[place], &batch[..place], &mut scratch);
        let mut plans: Vec<Plan> = (0..batch.len()).map(&mut plan).collect();
        gone.into_iter().for_each(|number| self.remove(number));
        let full = plans.iter().map(|plan| plan.full.len()).sum();
        for plan in &mut plans {
            if is_forgotten {
                plan.full.clear();
            }
            self.graph.join(&self.store, plan);
            self.slots.insert(plan.slot, plan.slot);
        }
        full
    }

    fn remove(&mut self, number: u32) {
        let Some(slot) = self.slots.remove(&number) else { return };
        self.graph.unlink(&self.store, slot);
        self.store.remove(slot);
    }

    fn sweep(&mut self) -> roaring::RoaringBitmap {
        loop {
            if let Some(released) = self.graph.sweep(&self.store, 7) {
                return released;
            }
        }
    }

    fn find(&self, vector: &[f32], width: usize) -> Vec<u32> {
        let query = self.store.query(vector);
        let target = Target::of_query(&query, self.store.metric());
        let mut scratch = Scratch::default();
        self.graph.walk(&self.store, &target, width, &mut scratch);
        let number_of = |slot: u32| *self.slots.iter().find(|(_, known)| **known == slot).unwrap().0;
        scratch.found().map(|node| number_of(node.slot)).collect()
    }
}

/// How many cases a property is tried with, unless the environment says.
pub(crate) fn cases(default: u32) -> ProptestConfig {
    let wanted = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig::with_cases(wanted.unwrap_or(default))
}

/// Few distinct directions for even seeds, so that many vectors are equal or nearly so.
fn vector(seed: u64) -> Vec<f32> {
    wide_vector(seed, DIMENSION)
}

fn wide_vector(seed: u64, dimension: usize) -> Vec<f32> {
    let mut state = if seed.is_multiple_of(2) { seed % 40 } else { seed };
    (0..dimension).map(|_| (next_random(&mut state) >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect()
}

/// What a plan makes of full rows is what becomes of them without it, whatever has changed in between.
#[test]
fn full_rows_are_picked_alike_before_and_under_the_lock() {
    for metric in [Metric::Cosine, Metric::L2] {
        let (mut planned, mut forgotten) = (Pair::new(metric), Pair::new(metric));
        let (mut state, mut full) = (1, 0);
        for batch in 0..300 {
            let gone = (batch % 3 == 0).then(|| (next_random(&mut state) % (batch * 4 + 1)) as u32);
            let first = batch as u32 * 4;
            full += planned.insert_planned(first, 4, gone, false);
            forgotten.insert_planned(first, 4, gone, true);
            for slot in (0..first + 4).filter(|slot| planned.graph.contains(*slot)) {
                assert_eq!(planned.graph.neighbours(slot), forgotten.graph.neighbours(slot), "{slot} of {first}");
            }
        }
        assert!(full > 100, "{full}");
        assert!((0..1200).any(|slot| planned.graph.neighbours(slot).len() == DEGREE_MAX));
        planned.graph.check();
    }
}

proptest! {
    #![proptest_config(cases(96))]

    #[test]
    fn every_node_stays_reachable(
        metric in proptest::sample::select(&[Metric::Cosine, Metric::Dot, Metric::L2][..]),
        steps in proptest::collection::vec((0u32..150, any::<u64>(), 0u8..6), 0..500),
    ) {
        let mut pair = Pair::new(metric);
        let mut live = std::collections::BTreeSet::new();
        for (number, (slot, seed, kind)) in steps.into_iter().enumerate() {
            if kind < 2 {
                pair.remove(slot);
                live.remove(&slot);
            } else if kind == 2 {
                pair.graph.sweep(&pair.store, seed as usize % 100);
            } else {
                pair.insert(slot, &vector(seed));
                live.insert(slot);
            }
            if number % 64 == 0 {
                pair.graph.check();
            }
        }
        pair.graph.check();
        prop_assert_eq!(pair.graph.len(), live.len());
        pair.sweep();
        pair.sweep();
        prop_assert!(pair.graph.gone.is_empty());
        pair.graph.check();
        // A walk that may keep all nodes finds all, whatever it looks for.
        let mut found = pair.find(&vector(1), 200);
        found.sort_unstable();
        prop_assert_eq!(found, live.into_iter().collect::<Vec<_>>());
    }
}

/// Thousands of equal vectors fill each other's rows; the few others must stay reachable, also when many are removed.
#[test]
fn crowds_of_equal_vectors_cut_nobody_off() {
    let mut pair = Pair::new(Metric::Cosine);
    for slot in 0..2000 {
        let seed = if slot % 100 == 7 { u64::from(slot) * 2 + 1 } else { 2 };
        pair.insert(slot, &vector(seed));
    }
    pair.graph.check();
    for slot in (0..2000).filter(|slot| slot % 3 == 0) {
        pair.remove(slot);
    }
    pair.graph.check();
    for slot in (7..2000).step_by(100).filter(|slot| slot % 3 != 0) {
        let found = pair.find(&vector(u64::from(slot) * 2 + 1), 48);
        assert!(found.contains(&slot), "{slot}");
    }
}

#[test]
fn a_node_that_is_gone_leaves_no_trace_in_the_graph() {
    let mut pair = Pair::new(Metric::L2);
    for slot in 0..300 {
        pair.insert(slot, &vector(u64::from(slot) * 2 + 1));
    }
    let entry = pair.graph.entries.slots()[0];
    let codes = pair.store.codes_of(entry).to_vec();
    pair.remove(entry);
    assert!(!pair.graph.entries.codes().chunks(codes.len()).any(|known| known == codes));
    pair.graph.check();
    assert!((0..300).any(|slot| pair.graph.neighbours(slot).contains(&entry)));
    assert_eq!(pair.sweep().iter().collect::<Vec<_>>(), [entry]);
    assert!(pair.graph.rows.row(entry).iter().all(|value| *value == 0));
    assert!(!(0..300).any(|slot| pair.graph.neighbours(slot).contains(&entry)), "every row was mended");
    pair.graph.check();
    for slot in 0..300 {
        pair.remove(slot);
    }
    assert_eq!((pair.graph.len(), pair.graph.root), (0, None));
    assert!(pair.find(&vector(3), 10).is_empty());
    pair.insert(5, &vector(5));
    assert_eq!(pair.find(&vector(5), 10), [5]);
}

/// Everything that a graph is made of: each slot's parent and row, the root, the entries.
type Told = (Vec<(u32, Vec<u32>)>, Option<u32>, Vec<u32>);

fn told(graph: &Graph) -> Told {
    let node = |slot: u32| (graph.parents[slot as usize], graph.neighbours(slot).to_vec());
    let nodes = (0..graph.parents.len() as u32).map(node).collect();
    (nodes, graph.root, graph.entries.slots().to_vec())
}

/// A graph after insertions one by one and in batches, removals and sweeps, and what a walk finds in it.
fn some_history(metric: Metric, dimension: usize) -> (Told, Vec<u32>) {
    let mut pair = Pair::with_dimension(metric, dimension);
    (0..400).for_each(|slot| pair.insert(slot, &wide_vector(u64::from(slot) * 3 + 1, dimension)));
    for first in (400..520).step_by(8) {
        pair.insert_planned(first, 8, Some(first / 3), false);
    }
    (0..400).step_by(5).for_each(|slot| pair.remove(slot));
    pair.sweep();
    (0..60).for_each(|slot| pair.insert(slot * 5, &wide_vector(u64::from(slot) + 9_000, dimension)));
    pair.graph.check();
    let found = pair.find(&wide_vector(77, dimension), 40);
    (told(&pair.graph), found)
}

/// Kernels differ in how they compute, never in what; so graphs do not depend on the processor. From 512 dimensions on, signs are
/// used too.
#[test]
fn all_instruction_sets_make_the_same_graph() {
    for (metric, dimension) in [(Metric::Cosine, 24), (Metric::L2, 24), (Metric::Cosine, 520), (Metric::Dot, 520)] {
        let made = with_each_kernels(|| some_history(metric, dimension));
        let (first, expected) = &made[0];
        for (name, history) in &made {
            assert!(history == expected, "{name} and {first} differ for {metric:?} in {dimension} dimensions");
        }
    }
}
