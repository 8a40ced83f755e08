//! The index of one space and embedding.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use roaring::RoaringBitmap;

use crate::error::IndexError;
use crate::filter::{FieldSource, Filter};
use crate::schema::Schema;

/// How two vectors are compared. A score is always better when higher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Score: cosine of the angle. Distance: 1 - score.
    Cosine,
    /// Score: inner product. Distance: -score.
    Dot,
    /// Score: -(squared Euclidean distance). Distance: squared Euclidean distance.
    L2,
}

/// The name of a memory in the store: 16 bytes that the engine derives from its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct MemoryKey(pub [u8; 16]);

/// A limit on the memory of several partitions together. Clones share the limit.
#[derive(Debug, Clone)]
pub struct MemoryBudget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limit: u64,
    used: AtomicU64,
}

impl MemoryBudget {
    /// At most this many bytes.
    pub fn new(limit_bytes: u64) -> Self {
        Self { shared: Arc::new(Shared { limit: limit_bytes, used: AtomicU64::new(0) }) }
    }

    /// No limit, but the bytes are counted.
    pub fn unlimited() -> Self {
        Self::new(u64::MAX)
    }

    /// Bytes in use by all partitions of this budget.
    pub fn used(&self) -> u64 {
        self.shared.used.load(Ordering::Relaxed)
    }

    /// Bytes that are left.
    pub fn available(&self) -> u64 {
        self.shared.limit.saturating_sub(self.used())
    }
}

/// What a partition is made for.
#[derive(Debug, Clone)]
pub struct PartitionOptions {
    /// Values a vector, 1 to 4096.
    pub dimension: usize,
    /// How vectors are compared.
    pub metric: Metric,
    /// Which metadata fields are indexed.
    pub schema: Schema,
    /// Where the bytes are counted.
    pub budget: MemoryBudget,
}

/// The memories that match a filter, as far as the index can tell.
#[derive(Debug, Clone, PartialEq)]
pub struct Matches {
    /// Slots of all memories that match, and, unless `exact`, of some that may.
    pub bitmap: RoaringBitmap,
    /// Those of `bitmap` that match for certain. Equal to `bitmap` where `exact`.
    pub certain: RoaringBitmap,
    /// Whether `bitmap` is the very set; else the records of `bitmap` without `certain` must be tested.
    pub exact: bool,
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
    pub matches: Option<&'a Matches>,
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

/// The outcome of a search.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchOutput {
    /// Best first; ties by the memories' ids.
    pub hits: Vec<Hit>,
    /// Vectors whose codes were compared.
    pub compared: u64,
    /// Vectors that were compared exactly.
    pub rescored: u64,
    /// How it was done.
    pub strategy: Strategy,
}

/// The index of one space and embedding: attributes of all its memories, and the vectors of those that have one.
pub struct Partition {
    options: PartitionOptions,
}

impl Partition {
    /// An empty partition. Fails for a dimension outside of 1..=4096.
    pub fn new(options: PartitionOptions) -> Result<Self, IndexError> {
        Ok(Self { options })
    }

    /// What the partition was made for.
    pub fn options(&self) -> &PartitionOptions {
        &self.options
    }

    /// Adds a memory, or replaces what is known of it. `id` is the caller's id (ties in scores are broken by its bytes).
    /// Visible to the next search. Returns the memory's slot, which stays its own until it is removed.
    pub fn upsert(
        &mut self,
        key: MemoryKey,
        id: &[u8],
        fields: &dyn FieldSource,
        vector: Option<&[f32]>,
    ) -> Result<u32, IndexError> {
        let _ = (key, id, fields, vector);
        todo!()
    }

    /// Checks a vector as [`Self::upsert`] and [`Self::search`] do.
    pub fn check_vector(&self, vector: &[f32]) -> Result<(), IndexError> {
        let _ = vector;
        todo!()
    }

    /// Forgets a memory and overwrites its bytes. Returns whether it was there.
    pub fn remove(&mut self, key: &MemoryKey) -> bool {
        let _ = key;
        todo!()
    }

    /// The memories that match. The filter must have passed [`Filter::check`].
    pub fn matches(&self, filter: &Filter) -> Matches {
        let _ = filter;
        todo!()
    }

    /// The nearest memories among the matches. Where these are not exact, their records must be tested: use
    /// [`Self::search_checked`].
    pub fn search(&self, request: &SearchRequest<'_>) -> Result<SearchOutput, IndexError> {
        self.search_checked(request, &mut |_| true)
    }

    /// The nearest memories among the matches for which `accept` holds. It is asked only of slots that are not certain,
    /// at most once each, and only of those that would be hits.
    pub fn search_checked(
        &self,
        request: &SearchRequest<'_>,
        accept: &mut dyn FnMut(u32) -> bool,
    ) -> Result<SearchOutput, IndexError> {
        let _ = (request, accept);
        todo!()
    }

    /// The slot of a memory.
    pub fn slot_of(&self, key: &MemoryKey) -> Option<u32> {
        let _ = key;
        todo!()
    }

    /// The memory in a slot.
    pub fn key_of(&self, slot: u32) -> Option<MemoryKey> {
        let _ = slot;
        todo!()
    }

    /// How many memories there are.
    pub fn len(&self) -> usize {
        todo!()
    }

    /// Whether there is no memory.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many memories have a vector.
    pub fn vectors(&self) -> usize {
        todo!()
    }

    /// Bytes of memory that the partition holds.
    pub fn bytes(&self) -> u64 {
        todo!()
    }
}
