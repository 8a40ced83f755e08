//! The index of one space and embedding.

use std::ops::Range;

use roaring::RoaringBitmap;

use crate::attributes::{Attributes, Matches};
use crate::budget::{MemoryBudget, Reservation};
use crate::candidates::IndexKind;
use crate::checkpoint::{ChangeStamps, MEMORIES_SHIFT, vectors_shift};
use crate::error::IndexError;
use crate::filter::{FieldSource, Filter};
use crate::graph::Plan;
use crate::metric::Metric;
use crate::originals::{NoRecords, Records, VectorStorage};
use crate::prepared::{PreparedVector, VectorPreparer};
use crate::schema::Schema;
use crate::slots::{MemoryKey, Place, Slots};
use crate::tiers::{Thresholds, Tiers, Way};
use crate::vectors::{FlatSearch, VectorStore};

use reindex::Reindex;

/// What a partition is made for.
#[derive(Debug, Clone)]
pub struct PartitionOptions {
    /// Values a vector, 1 to 4096.
    pub dimension: usize,
    /// How vectors are compared.
    pub metric: Metric,
    /// What finds candidates once there are many vectors.
    pub kind: IndexKind,
    /// Where the vectors are by which candidates are scored exactly.
    pub storage: VectorStorage,
    /// Which metadata fields are indexed.
    pub schema: Schema,
    /// Where the bytes are counted.
    pub budget: MemoryBudget,
}

/// How hard to look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SearchParams {
    /// Compare with every match.
    pub exact: bool,
    /// How many candidates a graph search keeps; 0: the default.
    pub effort: u32,
}

/// A search for the nearest memories.
#[derive(Debug, Clone, Copy)]
pub struct SearchRequest<'a> {
    /// The query, as many values as the partition's dimension.
    pub query: &'a [f32],
    /// How many hits at most; 0 gives none.
    pub limit: usize,
    /// Which memories; `None`: all.
    pub matches: Option<&'a Matches<'a>>,
    /// How hard to look.
    pub params: SearchParams,
}

/// A memory that was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    /// Where it is in the partition.
    pub slot: u32,
    /// Its name in the store.
    pub key: MemoryKey,
    /// Higher is better; see [`Metric`].
    pub score: f64,
    /// In the metric's own terms; see [`Metric`].
    pub distance: f64,
}

/// How a search was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// There was nothing to compare with.
    Empty,
    /// Every match was compared.
    Flat,
    /// The graph was walked.
    Graph,
    /// The graph was walked with the filter in mind.
    FilteredGraph,
}

impl Strategy {
    /// The name in the public API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Flat => "flat",
            Self::Graph => "graph",
            Self::FilteredGraph => "filtered_graph",
        }
    }
}

/// The outcome of a search.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchOutput {
    /// Best first; ties by the bytes of the memories' ids.
    pub hits: Vec<Hit>,
    /// Vectors whose codes were compared.
    pub compared: u64,
    /// Vectors that were compared exactly.
    pub rescored: u64,
    /// How it was done.
    pub strategy: Strategy,
}

/// Where vectors are to be linked into the graph.
pub struct LinkPlans(Vec<Plan>);

/// The index of one space and embedding: attributes of all its memories, and the vectors of those that have one.
///
/// Invariants: a slot is live in `slots` exactly when it is in `attributes`; every slot with a vector is live.
pub struct Partition {
    options: PartitionOptions,
    slots: Slots,
    attributes: Attributes,
    vectors: Tiers,
    /// The attributes under another schema, while they are being made.
    reindex: Option<Box<Reindex>>,
    stamps: ChangeStamps,
    /// What slots and attributes hold of the budget; the vectors' arenas count for themselves.
    reservation: Reservation,
}

impl Partition {
    /// An empty partition. Fails for a dimension outside of 1..=4096.
    pub fn new(options: PartitionOptions) -> Result<Self, IndexError> {
        let store = VectorStore::new(options.dimension, options.metric, options.storage, &options.budget)?;
        let vectors = Tiers::new(store, options.kind, &options.budget);
        Ok(Self {
            slots: Slots::default(),
            attributes: Attributes::new(options.schema.clone()),
            vectors,
            reindex: None,
            stamps: ChangeStamps::new(MEMORIES_SHIFT, vectors_shift(options.dimension)),
            reservation: options.budget.empty(),
            options,
        })
    }

    /// A partition out of its parts, which belong together.
    pub(crate) fn restored(options: PartitionOptions, slots: Slots, attributes: Attributes, vectors: Tiers) -> Self {
        let stamps = ChangeStamps::new(MEMORIES_SHIFT, vectors_shift(options.dimension));
        let reservation = options.budget.empty();
        let mut made = Self { options, slots, attributes, vectors, reindex: None, stamps, reservation };
        let gone = made.vectors.graph().map(|graph| graph.gone().clone()).unwrap_or_default();
        gone.iter().for_each(|slot| made.slots.hold(slot));
        made.settle();
        made
    }

    /// Lets the partition keep a graph over its vectors once there are at least `vectors`; 0: the measured default. Without this,
    /// every search is flat and exact. Vectors that are there already wait for [`Self::maintain`] to link them.
    pub fn enable_graph(&mut self, vectors: u64) {
        self.vectors.set_thresholds(Thresholds::graph_from(vectors));
    }

    /// As [`Self::enable_graph`], and writes do no upkeep however much is left: the caller sees to that, between writes.
    pub fn enable_graph_without_upkeep(&mut self, vectors: u64) {
        let thresholds = Thresholds { waiting_max: u64::MAX, ..Thresholds::graph_from(vectors) };
        self.vectors.set_thresholds(thresholds);
    }

    /// Whether searches go over a graph: there is one, and most vectors are linked into it.
    pub fn has_graph(&self) -> bool {
        self.vectors.is_linked()
    }

    /// What the partition was made for.
    pub fn options(&self) -> &PartitionOptions {
        &self.options
    }

    /// Adds a memory, or replaces all that is known of it. `id` is the caller's id, by whose bytes ties in scores are broken;
    /// a memory without a vector is never a hit of a search. Visible to the next search. Returns the memory's slot, which
    /// stays its own until it is removed or gets another vector. On an error nothing has changed.
    pub fn upsert<S: FieldSource + ?Sized>(
        &mut self,
        key: MemoryKey,
        id: &[u8],
        fields: &S,
        vector: Option<&[f32]>,
    ) -> Result<u32, IndexError> {
        let prepared = vector.map(|vector| self.vectors.store().preparer().prepare(vector)).transpose()?;
        self.upsert_prepared(key, id, fields, prepared.as_ref())
    }

    /// What makes vectors ready for [`Self::upsert_prepared`].
    pub fn preparer(&self) -> VectorPreparer {
        self.vectors.store().preparer().clone()
    }

    /// [`Self::upsert`] of a vector that was made ready before, which takes a tenth of the time.
    ///
    /// # Errors
    /// [`IndexError::PreparedForAnother`] where another dimension, metric or storage was in mind; and as for `upsert`.
    pub fn upsert_prepared<S: FieldSource + ?Sized>(
        &mut self,
        key: MemoryKey,
        id: &[u8],
        fields: &S,
        vector: Option<&PreparedVector>,
    ) -> Result<u32, IndexError> {
        if vector.is_some_and(|vector| !self.vectors.store().preparer().has_made(vector)) {
            return Err(IndexError::PreparedForAnother);
        }
        let place = self.slots.place(&key)?;
        let row = self.attributes.read(fields);
        // Every value can cost a place of its own in its field's order, beside the slot and its key.
        self.options.budget.check(row.len() as u64 * 8 + id.len() as u64 + 512)?;
        // Where only the fields change, as most often, nothing has to be linked anew.
        let vectors = self.vectors.store();
        let is_kept = matches!(place, Place::Taken(slot) if vector.is_some_and(|vector| vectors.is_same(slot, vector)));
        let new_vector = vector.filter(|_| !is_kept);
        let (before, slot) = match place {
            // The graph knows the slot by the vector that it has now.
            Place::Taken(slot) if new_vector.is_some() && self.vectors.holds(slot) => {
                (Some(slot), self.slots.next_free()?)
            }
            Place::Taken(slot) => (Some(slot), slot),
            Place::Free(slot) => (None, slot),
        };
        if new_vector.is_some() {
            self.vectors.reserve(slot)?;
        }
        if let Some(before) = before {
            self.attributes.remove(before);
            self.stamps.memories.mark(before);
            if before != slot || vector.is_none() {
                self.stamps.vectors.mark(before);
                self.vectors.remove(before);
            }
            if before != slot {
                self.slots.remove(&key);
                self.hold(before);
            }
        }
        if before != Some(slot) {
            self.slots.insert(slot, key, id);
        }
        self.stamps.memories.mark(slot);
        self.attributes.insert(slot, row);
        if let Some(reindex) = &mut self.reindex {
            before.iter().for_each(|before| reindex.remove(*before));
            reindex.replace(slot, fields);
        }
        if let Some(vector) = new_vector {
            self.stamps.vectors.mark(slot);
            self.vectors.insert(slot, vector);
        }
        self.settle();
        Ok(slot)
    }

    /// Keeps a slot without a memory from being used while the graph may still name it.
    fn hold(&mut self, slot: u32) {
        if self.vectors.holds(slot) {
            self.slots.hold(slot);
        }
    }

    /// Forgets a memory and overwrites its bytes. Returns whether it was there.
    pub fn remove(&mut self, key: &MemoryKey) -> bool {
        let Some(slot) = self.slots.remove(key) else { return false };
        self.stamps.memories.mark(slot);
        self.stamps.vectors.mark(slot);
        self.attributes.remove(slot);
        if let Some(reindex) = &mut self.reindex {
            reindex.remove(slot);
        }
        self.vectors.remove(slot);
        self.hold(slot);
        self.settle();
        true
    }

    /// Whether [`Self::upsert`] and [`Self::search`] would take this vector: its dimension, that all values are finite, and
    /// under cosine that it is not zero.
    pub fn check_vector(&self, vector: &[f32]) -> Result<(), IndexError> {
        self.vectors.store().preparer().check(vector)
    }

    /// The memories that match. The filter must have passed [`Filter::check`] with the partition's schema.
    pub fn matches(&self, filter: &Filter) -> Matches<'_> {
        let unknown = self.reindex.as_ref().and_then(|reindex| reindex.matches(filter, self.attributes.live()));
        unknown.unwrap_or_else(|| self.attributes.matches(filter))
    }

    /// The nearest memories among the matches, min(limit, matches with a vector) of them; in a large partition, unless
    /// `exact` is asked for, some of the nearest may be missed in favour of others that are nearly as near. Where the matches are not
    /// exact, or the vectors are elsewhere, the records are needed: use [`Self::search_checked`].
    pub fn search(&self, request: &SearchRequest<'_>) -> Result<SearchOutput, IndexError> {
        self.search_with(request, None, &mut NoRecords)
    }

    /// The nearest memories among the matches that the records accept. They are asked only about slots that are not certain,
    /// at most once about each, best first, and only until the limit is full.
    pub fn search_checked(
        &self,
        request: &SearchRequest<'_>,
        records: &mut dyn Records,
    ) -> Result<SearchOutput, IndexError> {
        let uncertain = request.matches.filter(|matches| !matches.is_exact());
        self.search_with(request, uncertain.map(Matches::certain), records)
    }

    fn search_with(
        &self,
        request: &SearchRequest<'_>,
        certain: Option<&RoaringBitmap>,
        records: &mut dyn Records,
    ) -> Result<SearchOutput, IndexError> {
        self.check_vector(request.query)?;
        let some = request.matches.filter(|matches| !matches.is_everybody(self.attributes.live()));
        let mask = some.map(Matches::possible);
        let is_empty = self.vectors.store().present().is_empty() || mask.is_some_and(RoaringBitmap::is_empty);
        if request.limit == 0 || is_empty {
            return Ok(SearchOutput { hits: Vec::new(), compared: 0, rescored: 0, strategy: Strategy::Empty });
        }
        let query = self.vectors.store().query(request.query);
        let search = FlatSearch { query: &query, limit: request.limit, mask, certain, slots: &self.slots };
        let how = (request.params.exact, request.params.effort as usize);
        let searched = self.vectors.search(&search, how, records);
        let found = searched.found;
        let hits = found.hits.into_iter().map(|(slot, score)| self.hit(slot, score)).collect();
        let strategy = match searched.way {
            Way::Flat => Strategy::Flat,
            Way::Graph => Strategy::Graph,
            Way::FilteredGraph => Strategy::FilteredGraph,
        };
        Ok(SearchOutput { hits, compared: found.compared, rescored: found.rescored, strategy })
    }

    fn hit(&self, slot: u32, score: f64) -> Hit {
        let key = self.slots.key_of(slot).unwrap_or_default();
        Hit { slot, key, score, distance: self.options.metric.distance(score) }
    }

    /// The slots of all memories.
    pub fn live(&self) -> &RoaringBitmap {
        self.attributes.live()
    }

    /// The slot of a memory.
    pub fn slot_of(&self, key: &MemoryKey) -> Option<u32> {
        self.slots.find(key)
    }

    /// The memory in a slot.
    pub fn key_of(&self, slot: u32) -> Option<MemoryKey> {
        self.slots.key_of(slot)
    }

    /// How many memories there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is no memory.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many memories have a vector.
    pub fn vectors(&self) -> u64 {
        self.vectors.store().present().len()
    }

    /// Bytes of memory that the partition holds: arenas exactly, slots and attributes estimated.
    pub fn bytes(&self) -> u64 {
        size_of::<Self>() as u64 + self.reservation.bytes() + self.vectors.bytes() + self.stamps.bytes()
    }

    /// Does so many steps of upkeep of a large partition's graph, each of about a tenth of a millisecond: linking a vector, and
    /// mending rows that name removed ones. Returns how many steps are left. Searches find and miss the same memories
    /// meanwhile, only more slowly; writes do upkeep too where too much is left. Call it between writes, in steps that keep
    /// the write lock short.
    pub fn maintain(&mut self, steps: usize) -> u64 {
        let left = self.vectors.maintain(steps);
        self.settle();
        left
    }

    /// How many steps of upkeep are left.
    pub fn upkeep_left(&self) -> u64 {
        self.vectors.upkeep_left()
    }

    /// Does the longer part of linking up to so many vectors, on so many threads, while others may search. Give the outcome to
    /// [`Self::join`].
    pub fn plan(&self, count: usize, threads: usize) -> LinkPlans {
        let batch = self.vectors.next_to_link(count);
        self.plan_part(&batch, 0..batch.len(), threads)
    }

    /// The slots of vectors to be linked next, at most so many. Where all of them are planned, in parts or together, before the first is
    /// joined, the graph depends on the order of the writes alone, and not on the number of threads or parts.
    pub fn next_batch(&self, count_max: usize) -> Vec<u32> {
        self.vectors.next_batch(count_max)
    }

    /// As [`Self::plan`], for those slots in a part of a batch whose vectors wait. Parts are to be joined in their order, and nothing else
    /// may link vectors between the first plan of a batch and its last join: a plan may name any slot before it in the batch.
    ///
    /// # Panics
    ///
    /// When the batch does not have that part.
    pub fn plan_part(&self, batch: &[u32], part: Range<usize>, threads: usize) -> LinkPlans {
        LinkPlans(self.vectors.plan(batch, part, threads))
    }

    /// Does the shorter part of linking vectors. Those that were changed or removed since the plan was made are left out.
    pub fn join(&mut self, plans: LinkPlans) {
        self.vectors.join(plans.0);
        self.settle();
    }

    /// Mends rows that name removed vectors, in so many steps of less than a tenth of a millisecond each. [`Self::maintain`] does
    /// it too.
    pub fn sweep(&mut self, steps: usize) {
        self.vectors.sweep(steps);
        self.settle();
    }

    /// Links all vectors that wait, on so many threads. The outcome does not depend on their number.
    pub fn link_all(&mut self, threads: usize) {
        self.vectors.link_all(threads);
        self.settle();
    }

    /// How many vectors wait to be linked into the graph.
    pub fn waiting(&self) -> u64 {
        self.vectors.waiting()
    }

    /// How many vectors searches over the graph cannot reach: always 0, and a fault where it is not. Looks at every edge.
    pub fn unreachable(&self) -> usize {
        self.vectors.unreachable()
    }

    /// How many of the vectors in these slots it is not sure that searches can reach: always 0, like [`Self::unreachable`]. Takes some
    /// tenths of a millisecond for a thousand slots.
    pub fn astray(&self, slots: std::ops::Range<u32>) -> u64 {
        self.vectors.graph().map_or(0, |graph| graph.astray(slots))
    }

    /// How many slots were ever used.
    pub fn slots_used(&self) -> u32 {
        self.slots.used()
    }

    pub(crate) fn slots(&self) -> &Slots {
        &self.slots
    }

    pub(crate) fn attributes(&self) -> &Attributes {
        &self.attributes
    }

    pub(crate) fn tiers(&self) -> &Tiers {
        &self.vectors
    }

    pub(crate) fn stamps(&self) -> &ChangeStamps {
        &self.stamps
    }

    pub(crate) fn stamps_mut(&mut self) -> &mut ChangeStamps {
        &mut self.stamps
    }

    fn settle(&mut self) {
        if let Some(released) = self.vectors.take_released() {
            self.slots.release(&released);
        }
        let reindex = self.reindex.as_ref().map_or(0, |reindex| reindex.bytes());
        self.reservation.settle(self.slots.bytes() + self.attributes.bytes() + reindex);
    }

    #[cfg(test)]
    pub(crate) fn set_thresholds(&mut self, thresholds: Thresholds) {
        self.vectors.set_thresholds(thresholds);
    }

    #[cfg(test)]
    pub(crate) fn into_store(self) -> VectorStore {
        self.vectors.into_store()
    }

    #[cfg(test)]
    pub(crate) fn memory_of(&self, slot: u32) -> (Vec<u8>, Vec<f32>, Vec<f32>) {
        self.vectors.store().memory_of(slot)
    }
}

mod reindex;

#[cfg(test)]
mod checkpoint_tests;
#[cfg(test)]
mod graph_tests;
#[cfg(test)]
mod storage_tests;
#[cfg(test)]
mod tests;
