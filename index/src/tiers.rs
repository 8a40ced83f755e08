//! The two tiers of a partition's vectors: all are searched flat while they are few; above that, a graph leads to them.
//!
//! ```text
//!                    few                                  many
//!   search  ──▶ flat over all        ──▶ graph, and flat over the vectors that it has not linked yet
//!   write   ──▶ kept                 ──▶ kept, and waits in the exact buffer until it is linked
//! ```
//!
//! A new vector is found at once, by the flat scan of the buffer. [`Tiers::maintain`] links what waits and mends what removals
//! left; if it is not called often enough, writes do some of it.
//!
//! A search picks the cheaper way: where a filter leaves few, these are scanned flat; else the graph is walked, so much more
//! widely as matches are rarer, and what does not match is left out. If that leaves too few, as where matches lie far from the
//! query, it is walked again more widely, or the matches are scanned flat after all.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use roaring::RoaringBitmap;

use crate::budget::MemoryBudget;
use crate::candidates::{Candidates, IndexKind};
use crate::error::IndexError;
use crate::graph::{Graph, Plan, Scratch};
use crate::near::{Walked, is_blurred, worth_scoring};
use crate::originals::Records;
use crate::parts::in_parts;
use crate::prepared::PreparedVector;
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
    /// A walk is worth it if there are more candidates than this many times its width; half as many where a scan reads all rows
    /// in order, which takes half as long for each.
    pub(crate) flat_per_width: u64,
}

impl Thresholds {
    /// For a partition that may have a graph. Measured: see docs/decisions/0016.
    pub(crate) const WITH_GRAPH: Self =
        Self { graph_from: 12_000, flat_below: 8_000, waiting_max: 2_000, flat_per_width: 40 };
    /// The default with the graph beginning elsewhere; 0: no change. It is given up at two thirds of that, so that a partition whose
    /// size goes up and down a little does not build it again and again.
    pub(crate) fn graph_from(vectors: u64) -> Self {
        if vectors == 0 {
            return Self::WITH_GRAPH;
        }
        let flat_per_width = Self::WITH_GRAPH.flat_per_width.min(vectors / (2 * WIDTH_DEFAULT as u64));
        Self { graph_from: vectors, flat_below: vectors / 3 * 2, flat_per_width, ..Self::WITH_GRAPH }
    }

    /// Never a graph.
    pub(crate) const FLAT: Self = Self { graph_from: u64::MAX, ..Self::WITH_GRAPH };
}

/// How many steps of upkeep a write does while too many vectors wait, or too many slots are held.
const STEPS_PER_WRITE: usize = 2;
/// How many rows a step of upkeep looks at for nodes that are gone.
const SWEPT_PER_STEP: usize = 128;
/// How many slots may be held before writes do upkeep; in this share of all.
const HELD_SHARE: u64 = 32;
/// Fewer are not worth a thread.
const PLANNED_PER_THREAD: usize = 4;
/// When all are linked, so many are planned at once, on the rows of the others: one in so many of those that are linked, and at most this
/// many.
const BATCH_SHARE: usize = 64;
const BATCH_MAX: usize = 512;
/// The width of a walk where the caller does not say: recall@10 of 0.97 and more,
const WIDTH_DEFAULT: usize = 80;
/// in up to so many vectors. See [`default_width`].
const WIDTH_DEFAULT_UP_TO: u64 = 150_000;
/// A walk with a filter must leave one in so many of the matches that were to be expected; else matches are rare around the query.
const STARVED_SHARE: usize = 4;
/// How often a walk is tried with a filter.
const WALKS_MAX: usize = 2;
/// Where codes hardly tell vectors apart, a walk is repeated so many times as wide.
const BLURRED_FACTOR: usize = 4;

/// The vectors of a partition and the way to the nearest of them.
///
/// Invariant: with a graph, every slot with a vector is either found by its walks or waits; without one, none waits.
pub(crate) struct Tiers {
    store: VectorStore,
    kind: IndexKind,
    /// Cairn's own, or what takes its place.
    graph: Option<Box<dyn Candidates>>,
    waiting: RoaringBitmap,
    /// Slots that are held no longer.
    released: Option<RoaringBitmap>,
    thresholds: Thresholds,
    /// The last stamp of the graph that was there before.
    graph_stamp: u64,
    /// How many vectors were ever linked.
    linked: u64,
    budget: MemoryBudget,
    /// Scratch space of searches that are over.
    idle: Mutex<Vec<Scratch>>,
}

/// The width that is wide enough among so many vectors: in the same widths, walks miss more as there are more to find. It grows as the
/// square root; see docs/decisions/0016 for what was measured.
fn default_width(vectors: u64) -> usize {
    let growth = (vectors as f64 / WIDTH_DEFAULT_UP_TO as f64).max(1.0).sqrt();
    (WIDTH_DEFAULT as f64 * growth).round() as usize
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
    /// Without a graph, and with the vectors of an empty store.
    pub(crate) fn new(store: VectorStore, kind: IndexKind, budget: &MemoryBudget) -> Self {
        Self::restored(store, kind, None, budget)
    }

    /// Vectors and a graph that were kept, if it is of the right kind. What the graph does not have waits.
    pub(crate) fn restored(store: VectorStore, kind: IndexKind, graph: Option<Graph>, budget: &MemoryBudget) -> Self {
        let graph = graph.filter(|_| kind == IndexKind::Cairn);
        let waiting = graph.as_ref().map_or_else(RoaringBitmap::new, |graph| {
            store.present().iter().filter(|slot| !graph.contains(*slot)).collect()
        });
        Self {
            store,
            kind,
            graph: graph.map(|graph| Box::new(graph) as _),
            waiting,
            released: None,
            thresholds: Thresholds::FLAT,
            graph_stamp: 0,
            linked: 0,
            budget: budget.clone(),
            idle: Mutex::default(),
        }
    }

    /// The graph, where it is Cairn's own.
    pub(crate) fn graph(&self) -> Option<&Graph> {
        self.graph.as_ref().and_then(|graph| graph.as_graph())
    }

    /// How many vectors were ever linked.
    pub(crate) fn linked(&self) -> u64 {
        self.linked
    }

    pub(crate) fn store(&self) -> &VectorStore {
        &self.store
    }

    #[cfg(test)]
    pub(crate) fn into_store(self) -> VectorStore {
        self.store
    }

    /// Sets when there is a graph. Vectors that are there already wait to be linked.
    pub(crate) fn set_thresholds(&mut self, thresholds: Thresholds) {
        self.thresholds = thresholds;
        self.demote();
        self.promote();
    }

    /// Gives the graph up if there are too few vectors for one.
    fn demote(&mut self) {
        if self.store.present().len() < self.thresholds.flat_below {
            self.give_up();
        }
    }

    fn give_up(&mut self) {
        let Some(graph) = self.graph.take() else { return };
        self.waiting.clear();
        self.graph_stamp = graph.as_graph().map_or(0, |graph| graph.stamps().last());
        self.release(graph.gone().clone());
    }

    /// Begins a graph if there are enough vectors for one.
    fn promote(&mut self) {
        if self.graph.is_none() && self.store.present().len() >= self.thresholds.graph_from {
            self.graph = Some(self.kind.begin(&self.store, &self.budget, self.graph_stamp));
            self.waiting = self.store.present().clone();
        }
    }

    /// Makes room for a vector, so that [`Self::insert`] cannot fail.
    pub(crate) fn reserve(&mut self, slot: u32) -> Result<(), IndexError> {
        self.store.reserve(slot)
    }

    /// Whether the graph knows a slot by its vector, or one that it had, so that it must not be given another one yet.
    pub(crate) fn holds(&self, slot: u32) -> bool {
        self.graph.as_ref().is_some_and(|graph| graph.holds(slot))
    }

    /// The slots that were held and are so no longer, since the last call.
    pub(crate) fn take_released(&mut self) -> Option<RoaringBitmap> {
        self.released.take()
    }

    /// Keeps a vector in a slot that is not held and for which there is room.
    pub(crate) fn insert(&mut self, slot: u32, vector: &PreparedVector) {
        debug_assert!(!self.holds(slot));
        self.store.insert(slot, vector);
        if self.graph.is_some() {
            self.waiting.insert(slot);
        }
        self.promote();
        self.keep_up();
    }

    /// Forgets the vector of a slot and overwrites its bytes. Returns whether there was one.
    pub(crate) fn remove(&mut self, slot: u32) -> bool {
        if let Some(graph) = &mut self.graph {
            graph.unlink(&self.store, slot);
            self.waiting.remove(slot);
        }
        let removed = self.store.remove(slot);
        if self.graph.as_ref().is_some_and(|graph| graph.is_worn()) {
            self.give_up();
            self.promote();
        }
        self.demote();
        self.keep_up();
        removed
    }

    fn release(&mut self, slots: RoaringBitmap) {
        *self.released.get_or_insert_default() |= slots;
    }

    /// Does some of the upkeep where nobody else does enough.
    fn keep_up(&mut self) {
        let Some(graph) = &self.graph else { return };
        let held_max = self.thresholds.waiting_max.max(self.store.present().len() / HELD_SHARE);
        let is_sweep_late = graph.rows_to_sweep() > 0 && graph.gone().len() > held_max;
        if graph.left_to_link(&self.waiting) > self.thresholds.waiting_max || is_sweep_late {
            self.maintain(STEPS_PER_WRITE);
        }
    }

    /// Does so many steps of upkeep: each links one of the vectors that wait, and looks at some rows if a sweep is due. Returns
    /// how many steps are left. Where memory is short, vectors keep waiting.
    pub(crate) fn maintain(&mut self, steps: usize) -> u64 {
        for _ in 0..steps {
            let Some(graph) = &mut self.graph else { return 0 };
            let next = graph.next_to_link(&self.waiting, 1).first().copied();
            let slot = next.filter(|slot| graph.reserve(*slot).is_ok());
            if let Some(slot) = slot {
                if graph.link(&self.store, slot) {
                    self.waiting.remove(slot);
                }
                self.linked += 1;
            }
            if slot.is_none() && graph.rows_to_sweep() == 0 {
                break;
            }
            self.sweep(1);
        }
        if let Some(graph) = &mut self.graph {
            let is_last = graph.left_to_link(&self.waiting) == 0;
            graph.linked(&mut self.waiting, is_last);
        }
        self.upkeep_left()
    }

    /// Looks at some rows for each step, if a sweep is due.
    pub(crate) fn sweep(&mut self, steps: usize) {
        for _ in 0..steps {
            let Some(graph) = self.graph.as_mut().filter(|graph| graph.rows_to_sweep() > 0) else { return };
            if let Some(released) = graph.sweep(&self.store, SWEPT_PER_STEP) {
                self.release(released);
            }
        }
    }

    /// How many steps of upkeep there are to do.
    pub(crate) fn upkeep_left(&self) -> u64 {
        let Some(graph) = &self.graph else { return 0 };
        let sweep = graph.rows_to_sweep().div_ceil(SWEPT_PER_STEP as u64);
        graph.left_to_link(&self.waiting).max(sweep)
    }

    /// So many of the vectors that wait, which are to be linked next.
    pub(crate) fn next_to_link(&self, count: usize) -> Vec<u32> {
        self.graph.as_ref().map_or_else(Vec::new, |graph| graph.next_to_link(&self.waiting, count))
    }

    /// Some of the vectors that wait, at most so many, which may all be planned before the first of them is joined. What is planned knows
    /// of no rows but those of linked vectors, so a batch is small while few are linked. Its size depends on nothing else.
    pub(crate) fn next_batch(&self, count_max: usize) -> Vec<u32> {
        let linked = self.graph.as_ref().map_or(0, |graph| graph.len());
        self.next_to_link((linked / BATCH_SHARE).clamp(1, count_max))
    }

    /// Finds neighbours for those vectors in a part of a batch that wait, on so many threads. Each may get those before it in the
    /// batch too: what is written together is often alike. Only reads; [`Self::join`] does the rest, part by part.
    pub(crate) fn plan(&self, batch: &[u32], part: Range<usize>, threads: usize) -> Vec<Plan> {
        let Some(graph) = &self.graph else { return Vec::new() };
        let waits = |slot: &&u32| self.waiting.contains(**slot);
        let first = batch[..part.start].iter().filter(waits).count();
        let slots: Vec<u32> = batch[..part.end].iter().filter(waits).copied().collect();
        let plan_some = |places: Range<usize>| {
            let mut scratch = self.scratch();
            let plan = |place: usize| graph.plan(&self.store, slots[place], &slots[..place], &mut scratch);
            let plans: Vec<Plan> = places.filter_map(plan).collect();
            self.give_back(scratch);
            plans
        };
        let share = (slots.len() - first).div_ceil(threads.max(1)).max(PLANNED_PER_THREAD);
        if slots.len() - first <= share || !graph.is_planned_in_parallel() {
            let plans = plan_some(first..slots.len());
            graph.planned();
            return plans;
        }
        std::thread::scope(|scope| {
            let plan_some = &plan_some;
            let shares = in_parts(first..slots.len(), share);
            let parts: Vec<_> = shares.map(|places| scope.spawn(move || plan_some(places))).collect();
            // A part whose thread failed keeps waiting.
            parts.into_iter().flat_map(|part| part.join().unwrap_or_default()).collect()
        })
    }

    /// Links vectors as planned; those that have changed since then are left out, and wait on.
    pub(crate) fn join(&mut self, plans: Vec<Plan>) {
        let Some(graph) = &mut self.graph else { return };
        for plan in plans {
            let is_current = self.waiting.contains(plan.slot) && plan.is_for(self.store.codes_of(plan.slot));
            if is_current && graph.reserve(plan.slot).is_ok() {
                if graph.join(&self.store, &plan) {
                    self.waiting.remove(plan.slot);
                }
                self.linked += 1;
            }
        }
        graph.linked(&mut self.waiting, false);
    }

    /// Links all vectors that wait, on so many threads. The outcome does not depend on their number.
    pub(crate) fn link_all(&mut self, threads: usize) {
        while let Some(graph) = &self.graph {
            let (before, batch) = (graph.left_to_link(&self.waiting), self.next_batch(BATCH_MAX));
            let plans = self.plan(&batch, 0..batch.len(), threads);
            self.join(plans);
            if self.graph.as_ref().is_none_or(|graph| graph.left_to_link(&self.waiting) == before) {
                break;
            }
        }
        if let Some(graph) = &mut self.graph {
            graph.linked(&mut self.waiting, true);
        }
    }

    /// How many vectors wait to be linked.
    pub(crate) fn waiting(&self) -> u64 {
        self.waiting.len()
    }

    /// How many vectors no walk can reach: always 0.
    pub(crate) fn unreachable(&self) -> usize {
        self.graph.as_ref().map_or(0, |graph| graph.unreachable())
    }

    /// The nearest vectors among the candidates that the records accept; see [`VectorStore::search`]. Unless `exact`, a graph
    /// may be walked that keeps `width` nodes (0: the default), and some of the nearest may be missed.
    pub(crate) fn search(
        &self,
        search: &FlatSearch<'_>,
        (exact, width): (bool, usize),
        records: &mut dyn Records,
    ) -> TierFound {
        let width = if width == 0 { default_width(self.store.present().len()) } else { width };
        let width = width.max(search.limit + search.limit / 2);
        // What is tested on records cannot be tested on the way.
        let graph = self.graph.as_deref().filter(|_| !exact && search.certain.is_none());
        if let Some(graph) = graph
            && let Some(found) = self.search_graph(graph, search, width, records)
        {
            return found;
        }
        TierFound { found: self.store.search(search, records), way: Way::Flat }
    }

    /// Whether most vectors are linked, so that the graph serves searches.
    pub(crate) fn is_linked(&self) -> bool {
        self.graph.as_ref().is_some_and(|graph| graph.len() as u64 > self.store.present().len() / 2)
    }

    /// `None` where a flat scan is cheaper, or the graph gave less than there is.
    fn search_graph(
        &self,
        graph: &dyn Candidates,
        search: &FlatSearch<'_>,
        width: usize,
        records: &mut dyn Records,
    ) -> Option<TierFound> {
        if !self.is_linked() {
            return None;
        }
        let all = self.store.present().len();
        let matching = search.mask.map(|mask| (mask, mask.intersection_len(self.store.present())));
        let (walked, way) = match matching.filter(|(_, matching)| *matching < all) {
            None => (self.walk_all(graph, search, width)?, Way::Graph),
            Some(matching) => (self.walk_matching(graph, search, matching, width)?, Way::FilteredGraph),
        };
        Some(TierFound { found: self.finish(search, &walked, records), way })
    }

    /// Walks where all vectors are wanted, more widely where codes hardly tell them apart.
    fn walk_all(&self, graph: &dyn Candidates, search: &FlatSearch<'_>, width: usize) -> Option<Walked> {
        let all = self.store.present().len();
        let (mut wide, mut compared) = (width, 0);
        loop {
            if all <= self.thresholds.flat_per_width * 2 * wide as u64 {
                return None;
            }
            let walked = self.walk(graph, search, wide)?;
            compared += walked.compared;
            if wide == width && walked.near.len() == wide && is_blurred(&walked.near, search.limit) {
                wide *= BLURRED_FACTOR;
                continue;
            }
            return Some(Walked { compared, ..walked });
        }
    }

    /// Walks where only some are wanted, and so many of them have a vector: the nearest of all, less those that do not match, are the
    /// nearest matches, if enough are left.
    fn walk_matching(
        &self,
        graph: &dyn Candidates,
        search: &FlatSearch<'_>,
        (mask, matching): (&RoaringBitmap, u64),
        width: usize,
    ) -> Option<Walked> {
        let enough = (width / STARVED_SHARE).max(search.limit + search.limit / 4 + 4);
        let all = self.store.present().len();
        let mut wide = (width as f64 * all as f64 / matching.max(1) as f64) as usize;
        let mut compared = 0;
        for walks in 1..=WALKS_MAX {
            if matching <= self.thresholds.flat_per_width * wide as u64 {
                return None;
            }
            // What leaves out others itself goes as far as it must for its width.
            let mut walked = self.walk(graph, search, if graph.is_masked() { width } else { wide })?;
            compared += walked.compared;
            walked.near.retain(|near| mask.contains(near.slot));
            if walked.near.len() < enough {
                if graph.is_masked() {
                    return None;
                }
                // As wide as it takes where matches are as rare as they were here.
                wide = wide * width / walked.near.len().max(1);
            } else if walks < WALKS_MAX && is_blurred(&walked.near, search.limit) {
                wide *= BLURRED_FACTOR;
            } else {
                return Some(Walked { compared, ..walked });
            }
        }
        None
    }

    /// What a walk keeps.
    fn walk(&self, graph: &dyn Candidates, search: &FlatSearch<'_>, width: usize) -> Option<Walked> {
        let mut scratch = self.scratch();
        let walked = graph.walk(&self.store, search, width, &mut scratch);
        self.give_back(scratch);
        walked
    }

    fn scratch(&self) -> Scratch {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    fn give_back(&self, scratch: Scratch) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(scratch);
    }

    /// Scores the best of a walk exactly, and adds what waits.
    fn finish(&self, search: &FlatSearch<'_>, walked: &Walked, records: &mut dyn Records) -> Found {
        let slots = worth_scoring(&walked.near, search.limit);
        let found = Found { compared: walked.compared, ..self.store.score_all(search, &slots, records) };
        if self.waiting.is_empty() {
            return found;
        }
        let waiting = search.mask.map_or_else(|| self.waiting.clone(), |mask| mask & &self.waiting);
        let buffered = self.store.search(&FlatSearch { mask: Some(&waiting), ..*search }, records);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks_are_wider_among_more_vectors() {
        assert_eq!([0, 12_000, WIDTH_DEFAULT_UP_TO].map(default_width), [WIDTH_DEFAULT; 3]);
        assert_eq!([600_000, 1_000_000, 15_000_000].map(default_width), [160, 207, 800]);
    }
}
