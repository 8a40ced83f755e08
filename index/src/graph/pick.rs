//! Picking a row: of the nearest nodes those that lie in different directions, such that none is nearer to another one picked than to the
//! row's node.

use std::cmp::Ordering;

use super::walk::{Scratch, signed, sum};
use super::{DEGREE_MAX, distance};
use crate::distance::{CodeQuery, kernels, prefetch};
use crate::metric::Metric;
use crate::vectors::VectorStore;

/// A candidate is left out if one that was picked is nearer to it than this part of its own squared distance.
/// Measured: docs/decisions/0016.
const OCCLUSION: f32 = 1.0 / 1.04;

/// A candidate for a row, with its squared distance from the row's node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub(super) distance: f32,
    pub(super) slot: u32,
}

impl Candidate {
    /// Nearest first; of equally near ones, that of the lower slot.
    fn compare(&self, other: &Self) -> Ordering {
        self.distance.total_cmp(&other.distance).then(self.slot.cmp(&other.slot))
    }
}

/// The nearest of what the last walk has kept and of the mates, nearest first.
pub(super) fn nearest(
    store: &VectorStore,
    of: u32,
    codes: &[i8],
    mates: &[u32],
    width: usize,
    scratch: &Scratch,
) -> Vec<Candidate> {
    let mut nearest: Vec<Candidate> = if store.metric() == Metric::Cosine {
        // The score is the product, which says the distance.
        scratch.found().map(|node| Candidate { distance: store.unit_distance(node.score), slot: node.slot }).collect()
    } else {
        measure(store, of, codes, scratch.found().map(|node| node.slot))
    };
    let farthest = nearest.iter().map(|candidate| candidate.distance).max_by(f32::total_cmp);
    let farthest = farthest.filter(|_| nearest.len() == width).unwrap_or(f32::INFINITY);
    let mates = measure(store, of, codes, mates.iter().copied());
    nearest.extend(mates.iter().filter(|mate| mate.distance <= farthest));
    nearest.sort_unstable_by(Candidate::compare);
    nearest.truncate(width);
    nearest
}

/// These nodes as candidates for a node's row, nearest first.
pub(super) fn candidates(
    store: &VectorStore,
    of: u32,
    codes: &[i8],
    slots: impl Iterator<Item = u32>,
) -> Vec<Candidate> {
    let mut candidates = measure(store, of, codes, slots);
    candidates.sort_unstable_by(Candidate::compare);
    candidates
}

/// These nodes with their distances from a node.
fn measure(store: &VectorStore, of: u32, codes: &[i8], slots: impl Iterator<Item = u32>) -> Vec<Candidate> {
    const TOGETHER: usize = 16;
    let mut candidates: Vec<Candidate> = slots.map(|slot| Candidate { distance: 0.0, slot }).collect();
    candidates.iter().take(DEGREE_MAX).for_each(|candidate| prefetch(store.codes_of(candidate.slot)));
    let query = CodeQuery { codes, sum: sum(codes) };
    for part in candidates.chunks_mut(TOGETHER) {
        let mut rows: [&[u8]; TOGETHER] = [&[]; TOGETHER];
        for (row, candidate) in rows.iter_mut().zip(part.iter()) {
            *row = store.codes_of(candidate.slot);
        }
        let mut products = [0; TOGETHER];
        kernels().dot_each(query, &rows[..part.len()], &mut products[..part.len()]);
        for (candidate, product) in part.iter_mut().zip(products) {
            candidate.distance = distance(store, of, candidate.slot, product);
        }
    }
    candidates
}

/// Picks at most `limit` neighbours in different directions; the node's children are always among them.
pub(super) fn pick(
    store: &VectorStore,
    of: u32,
    candidates: &[Candidate],
    limit: usize,
    is_child: impl Fn(u32) -> bool,
    scratch: &mut Scratch,
) -> Vec<u32> {
    let children = candidates.iter().filter(|candidate| is_child(candidate.slot)).count();
    let mut open = limit.saturating_sub(children);
    let mut picked: Vec<u32> = Vec::with_capacity(limit.max(children));
    for candidate in candidates {
        if is_child(candidate.slot) {
            picked.push(candidate.slot);
        } else if open > 0 && candidate.slot != of && !is_occluded(store, candidate, &picked, &mut scratch.codes) {
            picked.push(candidate.slot);
            open -= 1;
        }
    }
    picked
}

/// Adds the nearest candidates that were not picked, so that a node in the midst of a crowd of near-equal ones is named by
/// more of them than one.
pub(super) fn fill(picked: &mut Vec<u32>, candidates: &[Candidate], least: usize) {
    for candidate in candidates {
        if picked.len() >= least {
            break;
        }
        if !picked.contains(&candidate.slot) {
            picked.push(candidate.slot);
        }
    }
}

/// Whether one of the picked nodes is nearer to the candidate than the row's node is, by that factor: see [`OCCLUSION`].
pub(super) fn is_occluded(store: &VectorStore, candidate: &Candidate, picked: &[u32], codes: &mut Vec<i8>) -> bool {
    const TOGETHER: usize = 8;
    if picked.is_empty() {
        return false;
    }
    signed(store.codes_of(candidate.slot), codes);
    let query = CodeQuery { codes, sum: sum(codes) };
    let limit = candidate.distance * OCCLUSION;
    picked.chunks(TOGETHER).any(|part| {
        let mut rows: [&[u8]; TOGETHER] = [&[]; TOGETHER];
        for (row, slot) in rows.iter_mut().zip(part) {
            *row = store.codes_of(*slot);
        }
        let mut products = [0; TOGETHER];
        kernels().dot_each(query, &rows[..part.len()], &mut products[..part.len()]);
        part.iter().zip(products).any(|(slot, product)| distance(store, candidate.slot, *slot, product) <= limit)
    })
}
