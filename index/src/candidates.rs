//! What finds candidates among many vectors: Cairn's own graph, or hnsw_rs where a space asks for it. [`crate::tiers`] has the
//! rest, which is the same for both: the exact buffer of vectors that are not found yet, exact scores, the flat search.

use roaring::RoaringBitmap;

use crate::budget::MemoryBudget;
use crate::error::IndexError;
use crate::graph::{Graph, Plan, Scratch, Target};
use crate::near::{Near, Walked};
use crate::vectors::{FlatSearch, VectorStore};

/// Which index finds candidates in a large partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IndexKind {
    /// Cairn's own graph.
    #[default]
    Cairn,
    /// The crate hnsw_rs, for comparison; several times slower.
    #[cfg(feature = "hnsw-rs")]
    HnswRs,
}

impl IndexKind {
    /// All that this build has.
    pub const ALL: &[Self] = &[
        Self::Cairn,
        #[cfg(feature = "hnsw-rs")]
        Self::HnswRs,
    ];

    /// An index of this kind over nothing yet. `last_stamp`: of the one that was there before.
    #[cfg_attr(not(feature = "hnsw-rs"), expect(unused_variables, reason = "the graph asks for no store"))]
    pub(crate) fn begin(self, store: &VectorStore, budget: &MemoryBudget, last_stamp: u64) -> Box<dyn Candidates> {
        match self {
            Self::Cairn => Box::new(Graph::new(budget, last_stamp)),
            #[cfg(feature = "hnsw-rs")]
            Self::HnswRs => Box::new(crate::hnsw_rs::HnswRs::new(store, budget)),
        }
    }
}

/// An index of candidates. It knows slots; the vectors are in the store that each call is given, always the same.
///
/// Invariant, which [`crate::tiers`] keeps with it: a slot with a vector is found by walks, or it waits and is searched flat.
pub(crate) trait Candidates: Send + Sync {
    /// Cairn's own graph, which alone is kept in checkpoints.
    fn as_graph(&self) -> Option<&Graph>;

    /// How many vectors walks find.
    fn len(&self) -> usize;

    /// Whether a slot is known by a vector that it has or had, so that it must not be given another one yet.
    fn holds(&self, slot: u32) -> bool;

    /// The slots that are held and have no vector any more.
    fn gone(&self) -> &RoaringBitmap;

    /// Whether so many are gone that it is to be made anew.
    fn is_worn(&self) -> bool {
        false
    }

    /// Some of the waiting vectors, which are to be linked next.
    fn next_to_link(&self, waiting: &RoaringBitmap, count: usize) -> Vec<u32>;

    /// How many of the waiting vectors can be linked.
    fn left_to_link(&self, waiting: &RoaringBitmap) -> u64;

    /// Makes room for a vector, so that linking it cannot fail.
    fn reserve(&mut self, slot: u32) -> Result<(), IndexError>;

    /// Does the longer part of linking a vector. `mates`: vectors that are to be joined before it and wait too. `None` where memory is
    /// short.
    fn plan(&self, store: &VectorStore, slot: u32, mates: &[u32], scratch: &mut Scratch) -> Option<Plan>;

    /// Whether vectors may be planned on several threads, with the same outcome.
    fn is_planned_in_parallel(&self) -> bool;

    /// Called when some vectors have been planned.
    fn planned(&self) {}

    /// Does the shorter part of linking a vector. Returns whether walks find it from now on.
    fn join(&mut self, store: &VectorStore, plan: &Plan) -> bool;

    /// Links a vector. Returns whether walks find it from now on.
    fn link(&mut self, store: &VectorStore, slot: u32) -> bool;

    /// Called when some vectors have been linked: brings it into line which of them wait. `is_last`: no other one can be linked.
    fn linked(&mut self, _waiting: &mut RoaringBitmap, _is_last: bool) {}

    /// Forgets a slot's vector, which is no longer found.
    fn unlink(&mut self, store: &VectorStore, slot: u32);

    /// How many rows are left to mend, if that is due.
    fn rows_to_sweep(&self) -> u64 {
        0
    }

    /// Mends so many rows. Returns slots that are held no longer, if this was the last of them.
    fn sweep(&mut self, _store: &VectorStore, _rows: usize) -> Option<RoaringBitmap> {
        None
    }

    /// Whether walks leave out what the search's mask does not have; else the caller does.
    fn is_masked(&self) -> bool;

    /// The nearest `width` of the vectors. `None`: they could not be found, though they are there.
    fn walk(&self, store: &VectorStore, search: &FlatSearch<'_>, width: usize, scratch: &mut Scratch)
    -> Option<Walked>;

    /// How many of the vectors that should be found cannot be: always 0. Looks at every edge.
    fn unreachable(&self) -> usize;

    /// Bytes held.
    fn bytes(&self) -> u64;
}

impl Candidates for Graph {
    fn as_graph(&self) -> Option<&Graph> {
        Some(self)
    }

    fn len(&self) -> usize {
        self.len()
    }

    fn holds(&self, slot: u32) -> bool {
        self.holds(slot)
    }

    fn gone(&self) -> &RoaringBitmap {
        self.gone()
    }

    fn next_to_link(&self, waiting: &RoaringBitmap, count: usize) -> Vec<u32> {
        waiting.iter().take(count).collect()
    }

    fn left_to_link(&self, waiting: &RoaringBitmap) -> u64 {
        waiting.len()
    }

    fn reserve(&mut self, slot: u32) -> Result<(), IndexError> {
        self.reserve(slot)
    }

    fn plan(&self, store: &VectorStore, slot: u32, mates: &[u32], scratch: &mut Scratch) -> Option<Plan> {
        Some(self.plan(store, slot, mates, scratch))
    }

    fn is_planned_in_parallel(&self) -> bool {
        true
    }

    fn join(&mut self, store: &VectorStore, plan: &Plan) -> bool {
        self.join(store, plan);
        true
    }

    fn link(&mut self, store: &VectorStore, slot: u32) -> bool {
        self.link(store, slot);
        true
    }

    fn unlink(&mut self, store: &VectorStore, slot: u32) {
        self.unlink(store, slot);
    }

    fn rows_to_sweep(&self) -> u64 {
        self.rows_to_sweep()
    }

    fn sweep(&mut self, store: &VectorStore, rows: usize) -> Option<RoaringBitmap> {
        self.sweep(store, rows)
    }

    fn is_masked(&self) -> bool {
        false
    }

    fn walk(
        &self,
        store: &VectorStore,
        search: &FlatSearch<'_>,
        width: usize,
        scratch: &mut Scratch,
    ) -> Option<Walked> {
        let target = Target::of_query(search.query, store.metric());
        self.walk(store, &target, width, scratch);
        let doubt_of = target.doubts(store);
        let near = scratch.found().map(|node| Near { slot: node.slot, score: node.score, doubt: doubt_of(node.slot) });
        Some(Walked { near: near.collect(), compared: scratch.compared() })
    }

    fn unreachable(&self) -> usize {
        self.unreachable()
    }

    fn bytes(&self) -> u64 {
        self.bytes()
    }
}
