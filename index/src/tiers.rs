//! The two tiers of a partition's vectors: all are searched flat while they are few; above that, a graph leads to them.
//!
//! ```text
//!                    few                                  many
//!   search  ──▶ flat over all        ──▶ graph, and flat over the vectors that it has not linked yet
//!   write   ──▶ kept                 ──▶ kept, and waits in the exact buffer until it is linked
//! ```
//!
//! A new vector is found at once, by the flat scan of the buffer. [`Tiers::maintain`] links what waits; if it is not called
//! often enough, writes link two for each that they add.
//!
//! A search picks the cheaper way: where a filter leaves few, these are scanned flat; else the graph is walked over the
//! matches, and if that finds too few, they are scanned flat after all.

use std::sync::{Mutex, PoisonError};

use roaring::RoaringBitmap;

use crate::budget::MemoryBudget;
use crate::error::IndexError;
use crate::graph::{Admitted, Graph, Scratch, Target};
use crate::metric::Metric;
use crate::vectors::{Exact, FlatSearch, Found, VectorStore};

/// When a partition has a graph, and when it is walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Thresholds {
    /// From this many vectors on there is a graph,
    pub(crate) graph_from: u64,
    /// and below that many there is none any more.
    pub(crate) flat_below: u64,
    /// The most vectors that may wait before writes link them.
    pub(crate) waiting_max: u64,
    /// A walk is worth it if there are more candidates than this many times its width.
    pub(crate) flat_per_width: u64,
}

impl Thresholds {
    /// For a partition that may have a graph. First estimates, from a few runs on a busy machine; to be measured before the graph is
    /// switched on.
    pub(crate) const WITH_GRAPH: Self =
        Self { graph_from: 12_000, flat_below: 8_000, waiting_max: 2_000, flat_per_width: 60 };
    /// Never a graph.
    pub(crate) const FLAT: Self = Self { graph_from: u64::MAX, ..Self::WITH_GRAPH };
}

/// How many vectors a write links while too many wait.
const LINKED_PER_WRITE: usize = 2;
/// The width of a walk where the caller does not say: recall@10 of 0.97 and more.
const WIDTH_DEFAULT: usize = 64;
/// So many matches are scanned flat where a walk found too few of them near the query.
const SCANNED_WHERE_RARE: u64 = 40_000;
/// So many more than the hits are scored exactly.
const RESCORED_EXTRA: usize = 16;

/// The vectors of a partition and the way to the nearest of them.
///
/// Invariant: with a graph, every slot with a vector either has a node or waits; without one, none waits.
pub(crate) struct Tiers {
    store: VectorStore,
    graph: Option<Box<Graph>>,
    waiting: RoaringBitmap,
    thresholds: Thresholds,
    budget: MemoryBudget,
    /// Scratch space of searches that are over.
    idle: Mutex<Vec<Scratch>>,
}

/// What a search of the tiers found, and how.
pub(crate) struct TierFound {
    pub(crate) found: Found,
    pub(crate) way: Way,
}

/// How a search went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Flat,
    Graph,
    FilteredGraph,
}

impl Tiers {
    pub(crate) fn new(dimension: usize, metric: Metric, budget: &MemoryBudget) -> Result<Self, IndexError> {
        Ok(Self {
            store: VectorStore::new(dimension, metric, budget)?,
            graph: None,
            waiting: RoaringBitmap::new(),
            thresholds: Thresholds::FLAT,
            budget: budget.clone(),
            idle: Mutex::default(),
        })
    }

    pub(crate) fn store(&self) -> &VectorStore {
        &self.store
    }

    /// Sets when there is a graph; best before there are vectors.
    pub(crate) fn set_thresholds(&mut self, thresholds: Thresholds) {
        self.thresholds = thresholds;
    }

    /// Makes room for a vector, so that [`Self::insert`] cannot fail.
    pub(crate) fn reserve(&mut self, slot: u32) -> Result<(), IndexError> {
        self.store.reserve(slot)
    }

    /// Keeps a checked vector in a slot for which there is room, instead of one that may be there.
    pub(crate) fn insert(&mut self, slot: u32, vector: &[f32]) {
        if let Some(graph) = &mut self.graph {
            graph.unlink(&self.store, slot);
            self.waiting.insert(slot);
        }
        self.store.insert(slot, vector);
        let count = self.store.present().len();
        if self.graph.is_none() && count >= self.thresholds.graph_from {
            self.graph = Some(Box::new(Graph::new(&self.budget)));
            self.waiting = self.store.present().clone();
        }
        if self.waiting.len() > self.thresholds.waiting_max {
            self.maintain(LINKED_PER_WRITE);
        }
    }

    /// Forgets the vector of a slot and overwrites its bytes. Returns whether there was one.
    pub(crate) fn remove(&mut self, slot: u32) -> bool {
        if let Some(graph) = &mut self.graph {
            graph.unlink(&self.store, slot);
            self.waiting.remove(slot);
        }
        let removed = self.store.remove(slot);
        if self.store.present().len() < self.thresholds.flat_below {
            self.graph = None;
            self.waiting.clear();
        }
        removed
    }

    /// Links up to so many of the vectors that wait. Returns how many still wait. Where memory is short, they keep waiting.
    pub(crate) fn maintain(&mut self, steps: usize) -> u64 {
        let Some(graph) = &mut self.graph else { return 0 };
        for _ in 0..steps {
            let Some(slot) = self.waiting.min() else { break };
            if graph.reserve(slot).is_err() {
                break;
            }
            self.waiting.remove(slot);
            graph.link(&self.store, slot);
        }
        self.waiting.len()
    }

    /// How many vectors wait to be linked.
    pub(crate) fn waiting(&self) -> u64 {
        self.waiting.len()
    }

    /// How many vectors no walk can reach: always 0.
    pub(crate) fn unreachable(&self) -> usize {
        self.graph.as_ref().map_or(0, |graph| graph.unreachable())
    }

    /// The nearest vectors among the candidates for which `accept` holds; see [`VectorStore::search`]. Unless `exact`, a graph
    /// may be walked that keeps `width` nodes (0: the default), and some of the nearest may be missed.
    pub(crate) fn search(
        &self,
        search: &FlatSearch<'_>,
        (exact, width): (bool, usize),
        accept: &mut dyn FnMut(u32) -> bool,
    ) -> TierFound {
        let width = if width == 0 { WIDTH_DEFAULT } else { width }.max(search.limit + search.limit / 2);
        // What is tested on records cannot be tested on the way.
        let graph = self.graph.as_deref().filter(|_| !exact && search.certain.is_none());
        if let Some(graph) = graph
            && let Some(found) = self.search_graph(graph, search, width)
        {
            return found;
        }
        TierFound { found: self.store.search(search, accept), way: Way::Flat }
    }

    /// `None` where a flat scan is cheaper, or the graph gave less than there is.
    fn search_graph(&self, graph: &Graph, search: &FlatSearch<'_>, width: usize) -> Option<TierFound> {
        let all = self.store.present().len();
        let is_linked = graph.len() as u64 > all / 2;
        let candidates = search.mask.map_or(all, |mask| mask.intersection_len(self.store.present()));
        let per_hit = all as f64 / candidates.max(1) as f64;
        // So wide that by chance there are more than enough matches among the nearest.
        let checked_width = width.max(((search.limit as f64 * 1.7 + 8.0) * per_hit) as usize);
        if !is_linked || candidates <= self.thresholds.flat_per_width * checked_width as u64 {
            return None;
        }
        let mask = search.mask.filter(|_| candidates < all);
        let Some(mask) = mask else {
            let (slots, compared) = self.walk(graph, search, Admitted::All, &[], width);
            return Some(TierFound { found: self.finish(search, slots, compared), way: Way::Graph });
        };
        // The nearest of all, less those that do not match, are the nearest matches, if enough are left.
        let (mut slots, mut compared) = self.walk(graph, search, Admitted::All, &[], checked_width);
        slots.retain(|slot| mask.contains(*slot));
        if slots.len() < search.limit {
            // Matches are rare around the query; so go over matches only, from where there are some.
            if candidates <= SCANNED_WHERE_RARE {
                return None;
            }
            let bits = dense_bits(mask);
            let over_matches = self.walk(graph, search, Admitted::Only(&bits), &sample(mask, width), width * 2);
            slots = over_matches.0;
            compared += over_matches.1;
        }
        let found = self.finish(search, slots, compared);
        let is_enough = found.hits.len() as u64 >= candidates.min(search.limit as u64);
        is_enough.then_some(TierFound { found, way: Way::FilteredGraph })
    }

    /// The nodes that a walk keeps, best first by their codes.
    fn walk(
        &self,
        graph: &Graph,
        search: &FlatSearch<'_>,
        admitted: Admitted<'_>,
        seeds: &[u32],
        width: usize,
    ) -> (Vec<u32>, u64) {
        let target = Target::of_query(search.query, self.store.metric());
        let mut scratch = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        graph.walk(&self.store, &target, admitted, seeds, width, &mut scratch);
        let found = (scratch.found().map(|node| node.slot).collect(), scratch.compared());
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(scratch);
        found
    }

    /// Scores the best of a walk exactly, and adds what waits.
    fn finish(&self, search: &FlatSearch<'_>, mut slots: Vec<u32>, compared: u64) -> Found {
        slots.truncate(search.limit + RESCORED_EXTRA);
        let found = Found { compared, ..self.store.score_all(search, &slots) };
        if self.waiting.is_empty() {
            return found;
        }
        let waiting = search.mask.map_or_else(|| self.waiting.clone(), |mask| mask & &self.waiting);
        let buffered = self.store.search(&FlatSearch { mask: Some(&waiting), ..*search }, &mut |_| true);
        merge(search, &found, &buffered)
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> u64 {
        self.store.bytes()
            + self.graph.as_ref().map_or(0, |graph| graph.bytes())
            + self.waiting.serialized_size() as u64
    }
}

/// The best of two lists, in order.
fn merge(search: &FlatSearch<'_>, one: &Found, other: &Found) -> Found {
    let mut all: Vec<Exact<'_>> = one
        .hits
        .iter()
        .chain(&other.hits)
        .map(|(slot, score)| Exact { score: *score, id: search.slots.id_of(*slot), slot: *slot })
        .collect();
    all.sort_unstable_by(|a, b| b.cmp(a));
    all.truncate(search.limit);
    Found {
        hits: all.into_iter().map(|hit| (hit.slot, hit.score)).collect(),
        compared: one.compared + other.compared,
        rescored: one.rescored + other.rescored,
    }
}

/// One bit for each slot.
fn dense_bits(mask: &RoaringBitmap) -> Vec<u64> {
    let mut bits = vec![0; mask.max().map_or(0, |last| last as usize / 64 + 1)];
    for slot in mask {
        bits[slot as usize / 64] |= 1 << (slot % 64);
    }
    bits
}

/// Some slots of a mask, evenly spread.
fn sample(mask: &RoaringBitmap, count: usize) -> Vec<u32> {
    let step = (mask.len() as usize / count.max(1)).max(1);
    mask.iter().step_by(step).collect()
}
