//! The vectors of a partition and the flat search over them.
//!
//! A search reads the 8-bit codes of every candidate, which bounds each score from both sides (`codes.rs` has the proof), and
//! then scores exactly, best bound first, until no other candidate can be among the hits. So it is exact.
//!
//! ```text
//!   codes ──products──▶ bounds ──▶ those that can be among the best k ──exact score, best bound first──▶ hits
//! ```
//!
//! Invariant: `present` holds the slots with a vector; the residual of every other row is 0, and so are its codes and values.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use roaring::RoaringBitmap;

use crate::arena::Arena;
use crate::budget::MemoryBudget;
use crate::codes::{Encoder, Query, code_stride, vector_stride};
use crate::distance::{BoundColumns, CODE_LANES, Rows, kernels};
use crate::error::IndexError;
use crate::metric::Metric;
use crate::originals::{Originals, Records, Room, VectorStorage};
use crate::prepared::{PreparedVector, VectorPreparer};
use crate::slots::{MemoryId, Slots};

/// The largest dimension.
pub(crate) const MAX_DIMENSION: usize = 4096;
/// A chunk's codes, and a chunk's vectors, take up to this many bytes: some huge pages, and still added within a millisecond.
const CODE_CHUNK_BYTES: usize = 8 << 20;
const VECTOR_CHUNK_BYTES: usize = 4 << 20;
/// A scan takes this many rows at a time, so that what it computes of them stays in the nearest cache.
const SCAN_SHIFT: u32 = 9;
/// Where at least one in so many rows is wanted, all are read in order.
const DENSE_SHARE: usize = 2;

/// From so many dimensions on, the signs of a vector's codes are kept beside them: walks are faster then. See docs/decisions/0028.
const SIGNS_FROM: usize = 512;

/// The vectors of a partition, by slot.
pub(crate) struct VectorStore {
    dimension: usize,
    metric: Metric,
    shift: u32,
    preparer: VectorPreparer,
    /// Twice the square of the step between codes of vectors of length 1.
    unit: f32,
    present: RoaringBitmap,
    codes: Arena<u8>,
    /// Of the codes, a bit each; only from [`SIGNS_FROM`] dimensions on.
    signs: Option<Arena<u64>>,
    originals: Originals,
    scale: Arena<f32>,
    residual: Arena<f32>,
    norm: Arena<f32>,
    /// Squared lengths; only under L2.
    squared: Arena<f64>,
}

/// What a flat search is asked for.
#[derive(Clone, Copy)]
pub(crate) struct FlatSearch<'a> {
    pub(crate) query: &'a Query,
    /// At least 1.
    pub(crate) limit: usize,
    /// The candidates; `None`: all.
    pub(crate) mask: Option<&'a RoaringBitmap>,
    /// The candidates that need not be asked about; `None`: all.
    pub(crate) certain: Option<&'a RoaringBitmap>,
    /// Where the ids are that break ties.
    pub(crate) slots: &'a Slots,
}

/// What a flat search found.
pub(crate) struct Found {
    /// Slots with scores, best first.
    pub(crate) hits: Vec<(u32, f64)>,
    /// Vectors whose codes were compared.
    pub(crate) compared: u64,
    /// Vectors that were compared exactly.
    pub(crate) rescored: u64,
}

impl VectorStore {
    /// An empty store. Fails for a dimension outside of 1..=4096.
    pub(crate) fn new(
        dimension: usize,
        metric: Metric,
        storage: VectorStorage,
        budget: &MemoryBudget,
    ) -> Result<Self, IndexError> {
        if !(1..=MAX_DIMENSION).contains(&dimension) {
            return Err(IndexError::UnsupportedDimension(dimension));
        }
        let shift = (CODE_CHUNK_BYTES / code_stride(dimension)).clamp(64, 1 << 14).ilog2();
        let vector_shift = (VECTOR_CHUNK_BYTES / (vector_stride(dimension) * size_of::<f32>())).min(1 << 14).ilog2();
        let encoder = shared_encoder(dimension);
        Ok(Self {
            dimension,
            metric,
            shift,
            unit: (2.0 * encoder.step().powi(2)) as f32,
            preparer: VectorPreparer { dimension, metric, storage, encoder },
            present: RoaringBitmap::new(),
            codes: Arena::new(code_stride(dimension), shift, budget.clone()),
            signs: (dimension >= SIGNS_FROM)
                .then(|| Arena::new(code_stride(dimension) / CODE_LANES, shift, budget.clone())),
            originals: Originals::new(storage, dimension, vector_shift, budget),
            scale: Arena::new(1, shift, budget.clone()),
            residual: Arena::new(1, shift, budget.clone()),
            norm: Arena::new(1, shift, budget.clone()),
            squared: Arena::new(1, shift, budget.clone()),
        })
    }

    /// What makes vectors ready for this store.
    pub(crate) fn preparer(&self) -> &VectorPreparer {
        &self.preparer
    }

    /// Makes room for a vector, so that [`Self::insert`] cannot fail.
    pub(crate) fn reserve(&mut self, slot: u32) -> Result<(), IndexError> {
        self.codes.reserve(slot)?;
        self.signs.as_mut().map_or(Ok(()), |signs| signs.reserve(slot))?;
        self.originals.reserve(slot)?;
        self.scale.reserve(slot)?;
        self.residual.reserve(slot)?;
        self.norm.reserve(slot)?;
        if self.metric == Metric::L2 { self.squared.reserve(slot) } else { Ok(()) }
    }

    /// Keeps a vector that the store's own preparer has made ready, in a slot for which there is room, instead of one that may be
    /// there.
    pub(crate) fn insert(&mut self, slot: u32, vector: &PreparedVector) {
        self.originals.insert(slot, vector);
        self.codes.row_mut(slot).copy_from_slice(&vector.codes);
        self.keep_signs(slot);
        self.scale.row_mut(slot)[0] = vector.terms.scale;
        self.residual.row_mut(slot)[0] = vector.terms.residual;
        self.norm.row_mut(slot)[0] = vector.terms.norm;
        if self.metric == Metric::L2 {
            self.squared.row_mut(slot)[0] = vector.terms.squared;
        }
        self.present.insert(slot);
    }

    /// Whether a slot has exactly what it would have after the vector was inserted.
    pub(crate) fn is_same(&self, slot: u32, vector: &PreparedVector) -> bool {
        if !self.present.contains(slot) {
            return false;
        }
        let terms = &vector.terms;
        let kept = [self.scale.row(slot)[0], self.residual.row(slot)[0], self.norm.row(slot)[0]];
        let is_squared_same = self.metric != Metric::L2 || self.squared.row(slot)[0] == terms.squared;
        is_squared_same
            && kept == [terms.scale, terms.residual, terms.norm]
            && *self.codes.row(slot) == **vector.codes
            && self.originals.is_same(slot, vector)
    }

    /// Forgets the vector of a slot and overwrites its bytes. Returns whether there was one.
    pub(crate) fn remove(&mut self, slot: u32) -> bool {
        if !self.present.remove(slot) {
            return false;
        }
        self.codes.wipe(slot);
        self.signs.iter_mut().for_each(|signs| signs.wipe(slot));
        self.originals.wipe(slot);
        self.scale.wipe(slot);
        self.residual.wipe(slot);
        self.norm.wipe(slot);
        if self.metric == Metric::L2 {
            self.squared.wipe(slot);
        }
        true
    }

    /// Makes a checked query ready.
    pub(crate) fn query(&self, vector: &[f32]) -> Query {
        Query::new(vector, self.metric, &self.preparer.encoder)
    }

    /// The slots that have a vector.
    pub(crate) fn present(&self) -> &RoaringBitmap {
        &self.present
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> u64 {
        let columns = self.scale.bytes() + self.residual.bytes() + self.norm.bytes() + self.squared.bytes();
        let signs = self.signs.as_ref().map_or(0, Arena::bytes);
        self.codes.bytes() + signs + self.originals.bytes() + columns + self.present.serialized_size() as u64
    }

    /// The nearest vectors among the candidates that the records accept. They are asked at most once of each candidate that
    /// is not certain, in the order of scores, and of no more than it takes to fill the limit.
    pub(crate) fn search(&self, search: &FlatSearch<'_>, records: &mut dyn Records) -> Found {
        let mut candidates = Candidates::new(search.limit, search.certain);
        let compared = match search.mask {
            None => {
                self.scan_all(search.query, &mut candidates);
                self.present.len()
            }
            Some(mask) => {
                self.scan_mask(search.query, mask, &mut candidates);
                mask.intersection_len(&self.present)
            }
        };
        let (hits, rescored) = self.rescore(search, candidates.into_best(), records);
        Found { hits, compared, rescored }
    }

    /// How many rows of a chunk have room in every arena that scans read.
    fn rows_in(&self, chunk: usize) -> usize {
        let columns = [&self.scale, &self.residual, &self.norm].map(|column| column.rows_in(chunk));
        let squared = if self.metric == Metric::L2 { self.squared.rows_in(chunk) } else { usize::MAX };
        columns.into_iter().fold(self.codes.rows_in(chunk), usize::min).min(squared)
    }

    fn scan_all(&self, query: &Query, candidates: &mut Candidates<'_>) {
        let mut scan = Scan::default();
        for chunk in 0..self.codes.chunks() {
            let rows = self.rows_in(chunk);
            for start in (0..rows).step_by(1 << SCAN_SHIFT) {
                let end = rows.min(start + (1 << SCAN_SHIFT));
                let first = ((chunk as u32) << self.shift) + start as u32;
                self.bound_range(query, chunk, start..end, &mut scan);
                for (slot, (upper, lower)) in (first..).zip(scan.upper.iter().zip(&scan.lower)).take(end - start) {
                    candidates.offer(slot, *upper, *lower);
                }
            }
        }
    }

    fn scan_mask(&self, query: &Query, mask: &RoaringBitmap, candidates: &mut Candidates<'_>) {
        let shift = SCAN_SHIFT.min(self.shift);
        let mut scan = Scan::default();
        let mut wanted: Vec<u32> = Vec::with_capacity(1 << shift);
        let mut slots = mask.iter().peekable();
        while let Some(part) = slots.peek().map(|first| first >> shift) {
            let chunk = (part >> (self.shift - shift)) as usize;
            let rows = self.rows_in(chunk);
            wanted.clear();
            while let Some(slot) = slots.next_if(|slot| slot >> shift == part) {
                let row = slot & ((1 << self.shift) - 1);
                if (row as usize) < rows {
                    wanted.push(row);
                }
            }
            let start = ((part << shift) & ((1 << self.shift) - 1)) as usize;
            let range = start..rows.min(start + (1 << shift));
            self.scan_rows(query, chunk, range, &wanted, &mut scan, candidates);
        }
    }

    /// Bounds the wanted rows within a range of a chunk's, by reading all of them in order where many are wanted.
    fn scan_rows(
        &self,
        query: &Query,
        chunk: usize,
        range: Range<usize>,
        wanted: &[u32],
        scan: &mut Scan,
        candidates: &mut Candidates<'_>,
    ) {
        let first = (chunk as u32) << self.shift;
        if wanted.len() * DENSE_SHARE >= range.len() && !wanted.is_empty() {
            let start = range.start;
            self.bound_range(query, chunk, range, scan);
            for row in wanted {
                let position = *row as usize - start;
                candidates.offer(first + row, scan.upper[position], scan.lower[position]);
            }
        } else {
            self.bound_at(query, chunk, wanted, scan);
            for (position, row) in wanted.iter().enumerate() {
                candidates.offer(first + row, scan.upper[position], scan.lower[position]);
            }
        }
    }

    fn bound_range(&self, query: &Query, chunk: usize, range: Range<usize>, scan: &mut Scan) {
        let count = range.len();
        scan.resize(count);
        let codes = &self.codes.chunk(chunk)[range.start * code_stride(self.dimension)..];
        kernels().dot_rows(query.codes(), codes, Rows::First(count), &mut scan.products);
        let squared = self.squared.chunk(chunk);
        let columns = BoundColumns {
            products: &scan.products,
            scale: &self.scale.chunk(chunk)[range.clone()],
            residual: &self.residual.chunk(chunk)[range.clone()],
            norm: &self.norm.chunk(chunk)[range.clone()],
            squared: if squared.is_empty() { squared } else { &squared[range] },
        };
        kernels().bound_rows(&query.bounds, &columns, &mut scan.upper, &mut scan.lower);
    }

    fn bound_at(&self, query: &Query, chunk: usize, wanted: &[u32], scan: &mut Scan) {
        scan.resize(wanted.len());
        kernels().dot_rows(query.codes(), self.codes.chunk(chunk), Rows::At(wanted), &mut scan.products);
        let picked = &mut scan.picked;
        let columns = BoundColumns {
            products: &scan.products,
            scale: pick(self.scale.chunk(chunk), wanted, &mut picked.scale),
            residual: pick(self.residual.chunk(chunk), wanted, &mut picked.residual),
            norm: pick(self.norm.chunk(chunk), wanted, &mut picked.norm),
            squared: pick(self.squared.chunk(chunk), wanted, &mut picked.squared),
        };
        kernels().bound_rows(&query.bounds, &columns, &mut scan.upper, &mut scan.lower);
    }

    /// Scores some slots that have vectors exactly, and takes the best as hits.
    pub(crate) fn score_all(&self, search: &FlatSearch<'_>, slots: &[u32], records: &mut dyn Records) -> Found {
        for slot in slots {
            self.originals.prefetch(*slot);
        }
        let mut room = Room::default();
        let mut scored: Vec<Exact<'_>> = Vec::with_capacity(slots.len());
        for slot in slots {
            if let Some(score) = self.score(search, *slot, &mut room, records) {
                scored.push(Exact { score, id: search.slots.id_of(*slot), slot: *slot });
            }
        }
        scored.sort_unstable_by(|a, b| b.cmp(a));
        scored.truncate(search.limit);
        let hits = scored.into_iter().map(|hit| (hit.slot, hit.score)).collect();
        Found { hits, compared: 0, rescored: slots.len() as u64 }
    }

    #[inline]
    fn score(&self, search: &FlatSearch<'_>, slot: u32, room: &mut Room, records: &mut dyn Records) -> Option<f64> {
        self.originals.score(self.metric, &search.query.vector, slot, room, records)
    }

    /// Scores candidates exactly, best bound first, and takes a hit once no bound is above its score. So hits come out in
    /// their final order, and neither a vector is read nor a record asked for that could not be among them.
    fn rescore(
        &self,
        search: &FlatSearch<'_>,
        mut bounded: BinaryHeap<Bounded>,
        records: &mut dyn Records,
    ) -> (Vec<(u32, f64)>, u64) {
        let mut scored: BinaryHeap<Exact<'_>> = BinaryHeap::new();
        let mut hits = Vec::with_capacity(search.limit.min(bounded.len()));
        let (mut rescored, mut room) = (0, Room::default());
        while hits.len() < search.limit {
            let best = scored.peek().map(|best| best.score);
            if let Some(next) = bounded.peek()
                && best.is_none_or(|score| next.upper >= score)
            {
                let slot = next.slot;
                bounded.pop();
                rescored += 1;
                if let Some(score) = self.score(search, slot, &mut room, records) {
                    scored.push(Exact { score, id: search.slots.id_of(slot), slot });
                }
                continue;
            }
            let Some(best) = scored.pop() else { break };
            if search.certain.is_none_or(|certain| certain.contains(best.slot)) || records.accepts(best.slot) {
                hits.push((best.slot, best.score));
            }
        }
        (hits, rescored)
    }

    /// Takes the signs from a slot's codes.
    fn keep_signs(&mut self, slot: u32) {
        let Some(signs) = &mut self.signs else { return };
        for (signs, codes) in signs.row_mut(slot).iter_mut().zip(self.codes.row(slot).chunks_exact(CODE_LANES)) {
            // Codes are kept plus 128.
            *signs = codes.iter().enumerate().fold(0, |bits, (lane, code)| bits | u64::from(code >> 7) << lane);
        }
    }

    /// The signs of the codes of a slot with a vector, where they are kept.
    #[inline]
    pub(crate) fn signs_of(&self, slot: u32) -> Option<&[u64]> {
        self.signs.as_ref().map(|signs| signs.row(slot))
    }

    /// The codes of a slot with a vector.
    #[inline]
    pub(crate) fn codes_of(&self, slot: u32) -> &[u8] {
        self.codes.row(slot)
    }

    /// The scale of a slot's codes.
    #[inline]
    pub(crate) fn scale_of(&self, slot: u32) -> f32 {
        self.scale.row(slot)[0]
    }

    /// The squared length of a slot's vector, as far as the graph needs it.
    #[inline]
    pub(crate) fn squared_of(&self, slot: u32) -> f32 {
        match self.metric {
            Metric::Cosine => 1.0,
            Metric::Dot => (self.scale_of(slot) * self.norm.row(slot)[0]).powi(2),
            Metric::L2 => self.squared.row(slot)[0] as f32,
        }
    }

    /// The squared distance of two vectors of length 1, by the product of their codes.
    #[inline]
    pub(crate) fn unit_distance(&self, product: f32) -> f32 {
        2.0 - product * self.unit
    }

    /// Values a vector.
    #[cfg(feature = "hnsw-rs")]
    pub(crate) fn dimension(&self) -> usize {
        self.dimension
    }

    pub(crate) fn metric(&self) -> Metric {
        self.metric
    }

    #[cfg(test)]
    pub(crate) fn memory_of(&self, slot: u32) -> (Vec<u8>, Vec<f32>, Vec<f32>) {
        let terms = [self.scale.row(slot)[0], self.residual.row(slot)[0], self.norm.row(slot)[0]];
        (self.codes.row(slot).to_vec(), self.originals.memory_of(slot), terms.to_vec())
    }
}

mod blocks;

/// The encoder of a dimension, of which all partitions share one.
fn shared_encoder(dimension: usize) -> Arc<Encoder> {
    static SHARED: Mutex<BTreeMap<usize, Weak<Encoder>>> = Mutex::new(BTreeMap::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    let known = shared.entry(dimension).or_default();
    known.upgrade().unwrap_or_else(|| {
        let made = Arc::new(Encoder::new(dimension));
        *known = Arc::downgrade(&made);
        made
    })
}

/// The values of some rows of a column; empty where the column is.
fn pick<'a, T: Copy>(column: &[T], wanted: &[u32], into: &'a mut Vec<T>) -> &'a [T] {
    into.clear();
    if !column.is_empty() {
        into.extend(wanted.iter().map(|row| column[*row as usize]));
    }
    into
}

/// Room for the intermediate results of the rows that are scanned together.
#[derive(Default)]
struct Scan {
    products: Vec<i32>,
    upper: Vec<f64>,
    lower: Vec<f64>,
    picked: Picked,
}

#[derive(Default)]
struct Picked {
    scale: Vec<f32>,
    residual: Vec<f32>,
    norm: Vec<f32>,
    squared: Vec<f64>,
}

impl Scan {
    fn resize(&mut self, rows: usize) {
        self.products.resize(rows, 0);
        self.upper.resize(rows, 0.0);
        self.lower.resize(rows, 0.0);
    }
}

/// Those that can still be among the best `limit`.
struct Candidates<'a> {
    limit: usize,
    certain: Option<&'a RoaringBitmap>,
    /// The highest `limit` lowest scores of certain candidates, the lowest of them on top.
    floors: BinaryHeap<Lowest>,
    /// No candidate below this can be among the best.
    threshold: f64,
    kept: Vec<Bounded>,
}

impl<'a> Candidates<'a> {
    fn new(limit: usize, certain: Option<&'a RoaringBitmap>) -> Self {
        Self { limit, certain, floors: BinaryHeap::new(), threshold: f64::NEG_INFINITY, kept: Vec::new() }
    }

    /// Takes a row's bounds; NaN where there is no vector.
    #[inline]
    fn offer(&mut self, slot: u32, upper: f64, lower: f64) {
        if upper >= self.threshold {
            self.keep(slot, upper, lower);
        }
    }

    fn keep(&mut self, slot: u32, upper: f64, lower: f64) {
        self.kept.push(Bounded { upper, slot });
        if lower <= self.threshold || self.certain.is_some_and(|certain| !certain.contains(slot)) {
            return;
        }
        if self.floors.len() == self.limit {
            self.floors.pop();
        }
        self.floors.push(Lowest(lower));
        if self.floors.len() == self.limit {
            self.threshold = self.floors.peek().map_or(self.threshold, |lowest| lowest.0);
        }
    }

    fn into_best(mut self) -> BinaryHeap<Bounded> {
        self.kept.retain(|candidate| candidate.upper >= self.threshold);
        BinaryHeap::from(self.kept)
    }
}

/// A candidate with the highest score that it can have; the highest is on top of a heap.
struct Bounded {
    upper: f64,
    slot: u32,
}

/// A lower bound; the lowest is on top of a heap.
struct Lowest(f64);

/// A candidate with its exact score; the highest, and among equals the first id, is on top of a heap.
pub(crate) struct Exact<'a> {
    pub(crate) score: f64,
    pub(crate) id: &'a MemoryId,
    pub(crate) slot: u32,
}

impl Ord for Bounded {
    fn cmp(&self, other: &Self) -> Ordering {
        self.upper.total_cmp(&other.upper).then(other.slot.cmp(&self.slot))
    }
}

impl Ord for Lowest {
    fn cmp(&self, other: &Self) -> Ordering {
        other.0.total_cmp(&self.0)
    }
}

impl Ord for Exact<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_score = if self.score == other.score { Ordering::Equal } else { self.score.total_cmp(&other.score) };
        by_score.then_with(|| other.id.cmp(self.id)).then(other.slot.cmp(&self.slot))
    }
}

macro_rules! order_by_cmp {
    ($($type:ty),*) => {$(
        impl PartialOrd for $type {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }
        impl PartialEq for $type {
            fn eq(&self, other: &Self) -> bool {
                self.cmp(other).is_eq()
            }
        }
        impl Eq for $type {}
    )*};
}
order_by_cmp!(Bounded, Lowest, Exact<'_>);
