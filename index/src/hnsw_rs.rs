//! Candidates from the crate hnsw_rs, for comparison. It can neither remove a vector nor say whether a search can reach it; here is
//! what makes up for that. See docs/decisions/0027.
//!
//! ```text
//!   waiting ──insert──▶ inserted, still searched flat ──audit: can be reached──▶ found by walks ──removed──▶ gone
//!      ▲                                                                                                      │
//!      └──────────────────── all, when one in five is gone: the index is made anew ◀──────────────────────────┘
//! ```
//!
//! - Vectors that were removed stay in it and are left out of its answers by a filter, as is what a search's mask does not have.
//! - It forgets edges, some of them the last that led to a vector. So an audit follows its edges from time to time. What cannot be
//!   reached is searched flat like what waits. And what does not lead back is known as a trap: a walk that ends in one is not believed.
//! - It compares vectors as their 8-bit codes stand for, in the metric's own terms only where one of the two is a query; scores are
//!   made exact afterwards, as for Cairn's own graph.
//!
//! Invariants: `found` and `gone` are parts of `inserted`, and have nothing in common; a slot is inserted at most once.

use std::cell::Cell;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anndists::dist::distances::Distance;
use hnsw_rs::hnsw::{Hnsw, PointId};
use roaring::RoaringBitmap;

use crate::budget::{MemoryBudget, Reservation};
use crate::candidates::Candidates;
use crate::codes::vector_stride;
use crate::distance::{CODE_OFFSET, kernels};
use crate::error::IndexError;
use crate::graph::{Graph, Plan, Scratch};
use crate::metric::Metric;
use crate::near::{Near, Walked};
use crate::vectors::{FlatSearch, VectorStore};

/// Edges of a point in the upper layers; twice as many in the lowest.
const DEGREE: usize = 16;
const LAYERS_MAX: usize = 16;
/// How many points the search for a new one's neighbours keeps.
const LINK_WIDTH: usize = 200;
/// It is made anew when one in so many is gone.
const GONE_SHARE: u64 = 5;
/// An audit is due when one in so many was inserted since the last one,
const AUDIT_SHARE: u64 = 32;
/// or any, where there are so few that it takes less time than an insertion.
const AUDITED_AT_ONCE: u64 = 2_000;
/// What a point takes beside its values: lists of edges, each an allocation of its own.
const POINT_BYTES: u64 = 2_400;
/// Larger ones are freed on a thread of their own, since that takes long.
const FREED_HERE: u64 = 10_000;

thread_local! {
    /// How many vectors were compared on this thread.
    static COMPARED: Cell<u64> = const { Cell::new(0) };
}

/// How rows are compared: values, filled up with zeros, then 1 for a query and 0 for a point.
struct Measure {
    metric: Metric,
    stride: usize,
}

impl Distance<f32> for Measure {
    fn eval(&self, one: &[f32], other: &[f32]) -> f32 {
        COMPARED.set(COMPARED.get() + 1);
        let (a, b) = (&one[..self.stride], &other[..self.stride]);
        if self.metric == Metric::L2 || one[self.stride] == other[self.stride] {
            return (kernels().squared_distance(a, b).sqrt() as f32).min(f32::MAX);
        }
        descending(kernels().dot(a, b))
    }
}

/// What [`descending`] tells apart ends here: beyond it the bits no longer stand for a number.
const TOLD_APART_MAX: f32 = f32::MAX / 4.0;

/// A distance, which must not be negative, in the reverse order of scores.
fn descending(score: f64) -> f32 {
    // The bits of floats are in their order, once those of negative ones are turned over. One bit is given up for the sign.
    let bits = (score as f32 + 0.0).clamp(-TOLD_APART_MAX, TOLD_APART_MAX).to_bits();
    let ascending = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    f32::from_bits(!ascending >> 1)
}

/// An index of hnsw_rs.
pub(crate) struct HnswRs {
    index: Option<Hnsw<'static, f32, Measure>>,
    stride: usize,
    metric: Metric,
    /// What was given to the index; also while it is only read.
    inserted: Mutex<Inserted>,
    found: RoaringBitmap,
    gone: RoaringBitmap,
    /// From here no edge leads back to where walks begin.
    traps: RoaringBitmap,
    /// How many had been inserted at the last audit.
    audited: u64,
}

struct Inserted {
    slots: RoaringBitmap,
    audit: Option<Audit>,
    reservation: Reservation,
    budget: MemoryBudget,
}

/// What an audit found.
struct Audit {
    /// How many had been inserted.
    of: u64,
    reached: RoaringBitmap,
    leading_back: RoaringBitmap,
}

impl HnswRs {
    pub(crate) fn new(store: &VectorStore, budget: &MemoryBudget) -> Self {
        let (stride, metric) = (vector_stride(store.dimension()), store.metric());
        let expected = store.present().len() as usize;
        let index = Hnsw::new(DEGREE, expected, LAYERS_MAX, LINK_WIDTH, Measure { metric, stride });
        let (slots, reservation) = (RoaringBitmap::new(), budget.empty());
        let inserted = Inserted { slots, audit: None, reservation, budget: budget.clone() };
        Self {
            index: Some(index),
            stride,
            metric,
            inserted: Mutex::new(inserted),
            found: RoaringBitmap::new(),
            gone: RoaringBitmap::new(),
            traps: RoaringBitmap::new(),
            audited: 0,
        }
    }

    fn inserted(&self) -> MutexGuard<'_, Inserted> {
        self.inserted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn row(&self, codes: impl Iterator<Item = i32>, scale: f32, is_query: bool) -> Vec<f32> {
        let mut row: Vec<f32> = Vec::with_capacity(self.stride + 1);
        row.extend(codes.take(self.stride).map(|code| (code as f32 * scale).clamp(-f32::MAX, f32::MAX)));
        row.resize(self.stride, 0.0);
        row.push(f32::from(u8::from(is_query)));
        row
    }

    /// Gives a vector to the index, unless it has it. Returns whether it has it now.
    fn insert(&self, store: &VectorStore, slot: u32) -> bool {
        let Some(index) = &self.index else { return false };
        let mut inserted = self.inserted();
        if inserted.slots.contains(slot) {
            return true;
        }
        let bytes = self.stride as u64 * 4 + POINT_BYTES;
        if inserted.budget.check(bytes).is_err() {
            return false;
        }
        let codes = store.codes_of(slot).iter().map(|code| i32::from(*code) - CODE_OFFSET);
        // One after the other, so that the same history gives the same index.
        index.insert_slice((&self.row(codes, store.scale_of(slot), false), slot as usize));
        inserted.slots.insert(slot);
        let held = inserted.reservation.bytes();
        inserted.reservation.settle(held + bytes);
        true
    }

    fn is_audit_due(&self, inserted: u64) -> bool {
        let new = inserted - self.audited;
        new > 0 && (inserted <= AUDITED_AT_ONCE || new * AUDIT_SHARE >= inserted)
    }

    /// Follows all edges of the lowest layer, forwards and backwards, from where walks begin. A walk may also begin at another
    /// point of an upper layer; if that one leads back, everything that is reached here is reached from there too.
    fn audit(&self, inserted: &RoaringBitmap) -> Audit {
        let slots = inserted.max().map_or(0, |last| last as usize + 1);
        let (mut onward, mut back) = (vec![Vec::new(); slots], vec![Vec::new(); slots]);
        let mut entry: Option<(PointId, usize)> = None;
        // Its iterator cannot be asked while there is nothing.
        for index in self.index.iter().filter(|_| slots > 0) {
            for point in index.get_point_indexation() {
                let (slot, place) = (point.get_origin_id(), point.get_point_id());
                // Walks begin at the first point of the highest layer.
                if entry.as_ref().is_none_or(|(known, _)| place.0 > known.0) {
                    entry = Some((place, slot));
                }
                let layers = point.get_neighborhood_id();
                for next in layers.first().into_iter().flatten() {
                    onward[slot].push(next.get_origin_id() as u32);
                    back[next.get_origin_id()].push(slot as u32);
                }
            }
        }
        let entry = entry.map(|(_, slot)| slot as u32);
        Audit { of: inserted.len(), reached: reach(&onward, entry), leading_back: reach(&back, entry) }
    }
}

/// All that can be reached from a slot over these edges.
fn reach(edges: &[Vec<u32>], from: Option<u32>) -> RoaringBitmap {
    let mut seen = vec![false; edges.len()];
    let mut open: Vec<u32> = from.into_iter().collect();
    while let Some(slot) = open.pop() {
        if !std::mem::replace(&mut seen[slot as usize], true) {
            open.extend(edges[slot as usize].iter().filter(|next| !seen[**next as usize]));
        }
    }
    (0..edges.len() as u32).filter(|slot| seen[*slot as usize]).collect()
}

impl Candidates for HnswRs {
    fn as_graph(&self) -> Option<&Graph> {
        None
    }

    fn len(&self) -> usize {
        self.found.len() as usize
    }

    fn holds(&self, slot: u32) -> bool {
        self.inserted().slots.contains(slot)
    }

    fn gone(&self) -> &RoaringBitmap {
        &self.gone
    }

    fn is_worn(&self) -> bool {
        self.gone.len() * GONE_SHARE > self.inserted().slots.len()
    }

    fn next_to_link(&self, waiting: &RoaringBitmap, count: usize) -> Vec<u32> {
        let inserted = self.inserted();
        waiting.iter().filter(|slot| !inserted.slots.contains(*slot)).take(count).collect()
    }

    fn left_to_link(&self, waiting: &RoaringBitmap) -> u64 {
        waiting.len() - waiting.intersection_len(&self.inserted().slots)
    }

    fn reserve(&mut self, _slot: u32) -> Result<(), IndexError> {
        self.inserted().budget.check(self.stride as u64 * 4 + POINT_BYTES)
    }

    fn plan(&self, store: &VectorStore, slot: u32, _mates: &[u32], _scratch: &mut Scratch) -> Option<Plan> {
        self.insert(store, slot).then(|| Plan::without_neighbours(slot, store.codes_of(slot)))
    }

    fn is_planned_in_parallel(&self) -> bool {
        false
    }

    fn planned(&self) {
        let mut inserted = self.inserted();
        if self.is_audit_due(inserted.slots.len()) {
            inserted.audit = Some(self.audit(&inserted.slots));
        }
    }

    fn join(&mut self, _store: &VectorStore, _plan: &Plan) -> bool {
        false
    }

    fn link(&mut self, store: &VectorStore, slot: u32) -> bool {
        self.insert(store, slot);
        false
    }

    fn linked(&mut self, waiting: &mut RoaringBitmap, is_last: bool) {
        let (audit, slots) = {
            let mut inserted = self.inserted();
            let count = inserted.slots.len();
            let audit = inserted.audit.take().filter(|audit| audit.of == count);
            let is_due = self.is_audit_due(count) || (is_last && count > self.audited);
            let audit = audit.or_else(|| is_due.then(|| self.audit(&inserted.slots)));
            (audit, inserted.slots.clone())
        };
        let Some(audit) = audit else { return };
        let live = &slots - &self.gone;
        self.traps = &slots - audit.leading_back;
        self.found = audit.reached & &live;
        *waiting -= &self.found;
        *waiting |= live - &self.found;
        self.audited = audit.of;
    }

    fn unlink(&mut self, _store: &VectorStore, slot: u32) {
        if self.inserted().slots.contains(slot) {
            self.found.remove(slot);
            self.gone.insert(slot);
        }
    }

    fn is_masked(&self) -> bool {
        true
    }

    fn walk(
        &self,
        _store: &VectorStore,
        search: &FlatSearch<'_>,
        width: usize,
        _scratch: &mut Scratch,
    ) -> Option<Walked> {
        let codes = search.query.codes().codes.iter().map(|code| i32::from(*code));
        let scale = if self.metric == Metric::L2 { search.query.scale() } else { 1.0 };
        let query = self.row(codes, scale, true);
        let is_wanted = |slot: &usize| {
            let slot = *slot as u32;
            self.found.contains(slot) && search.mask.is_none_or(|mask| mask.contains(slot))
        };
        let is_all = search.mask.is_none() && self.found.len() == self.inserted().slots.len();
        let before = COMPARED.get();
        let filter: Option<&dyn hnsw_rs::filter::FilterT> = if is_all { None } else { Some(&is_wanted) };
        let near = self.index.as_ref()?.search_filter(&query, width, width, filter);
        // In the order of codes, and for the rest taken as equal: all are scored exactly, and no wider walk is asked for.
        let near = near.iter().map(|near| Near { slot: near.get_origin_id() as u32, score: 0.0, doubt: 0.0 });
        // Another thread may just be inserting.
        let near: Vec<Near> = near.filter(|near| self.found.contains(near.slot)).collect();
        let is_trapped = near.iter().all(|near| self.traps.contains(near.slot));
        let is_starved = search.mask.is_none() && near.len() < width.min(self.len());
        (!is_trapped && !is_starved).then(|| Walked { near, compared: COMPARED.get() - before })
    }

    fn unreachable(&self) -> usize {
        let inserted = self.inserted();
        let reached = self.audit(&inserted.slots).reached;
        (&self.found - reached).len() as usize
    }

    fn bytes(&self) -> u64 {
        let inserted = self.inserted();
        inserted.reservation.bytes() + inserted.slots.serialized_size() as u64 * 2
    }
}

impl Drop for HnswRs {
    fn drop(&mut self) {
        let Some(index) = self.index.take() else { return };
        if self.inserted().slots.len() > FREED_HERE {
            // If there is no thread to be had, the index is dropped with the closure.
            let _ = std::thread::Builder::new().spawn(move || drop(index));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::*;

    proptest! {
        #[test]
        fn distances_are_in_the_reverse_order_of_scores(one in any::<f32>(), other in any::<f32>()) {
            let clamped = |score: f32| if score.is_nan() { 0.0 } else { score.clamp(-TOLD_APART_MAX, TOLD_APART_MAX) };
            let (one, other) = (clamped(one), clamped(other));
            let (near, far) = if one >= other { (one, other) } else { (other, one) };
            let (near, far) = (descending(f64::from(near)), descending(f64::from(far)));
            prop_assert_eq!((near <= far, near >= 0.0, far.is_finite()), (true, true, true));
        }
    }

    #[test]
    fn far_vectors_are_told_apart() {
        let measure = Measure { metric: Metric::L2, stride: 64 };
        let row = |value: f32, is_query: f32| [vec![value; 64], vec![is_query]].concat();
        let distances = [0.0, 1.0, 1e18, 2e18].map(|value| measure.eval(&row(1.0, 1.0), &row(value, 0.0)));
        assert_eq!((distances[1], distances[1] < distances[0]), (0.0, true));
        assert!(distances[1..].is_sorted_by(|near, far| near < far), "{distances:?}");
    }

    #[test]
    fn edges_are_followed_as_far_as_they_lead() {
        let edges = vec![vec![1], vec![0, 2], vec![], vec![0]];
        assert_eq!(reach(&edges, Some(0)), RoaringBitmap::from([0, 1, 2]));
        assert_eq!(reach(&edges, Some(3)).len(), 4);
        assert_eq!(reach(&[], None).len(), 0);
    }
}
