//! The walk: from the best entries towards a target, always expanding the best node that is known. Where the store keeps signs, most
//! neighbours are ruled out by those, and only the codes of the others are read.

use super::beam::{Beam, Scored};
use super::{DEGREE_MAX, Graph};
use crate::codes::Query;
use crate::distance::{CODE_OFFSET, CodeQuery, Rows, kernels, prefetch};
use crate::metric::Metric;
use crate::vectors::VectorStore;

/// A node is left out by its signs if its score would have to be off by more than so many deviations. Measured: docs/decisions/0028.
const MARGIN: f32 = 1.0;
/// A walk begins at this many of the entries.
const STARTS: usize = 4;

/// How many deviations a score by codes may be off. The difference of two is off by the square root of two of these.
const DOUBT: f32 = 5.0;

/// What a walk goes towards.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    codes: CodeQuery<'a>,
    measure: Measure,
}

/// How a product of codes becomes a score; all are higher for what is nearer.
#[derive(Clone, Copy)]
enum Measure {
    /// As it is: all nodes have one scale.
    Product,
    /// Times the node's scale.
    Scaled,
    /// Times the node's scale and this, less the node's squared length.
    Distance(f32),
}

impl<'a> Target<'a> {
    /// A query's.
    pub(crate) fn of_query(query: &'a Query, metric: Metric) -> Self {
        let measure = match metric {
            Metric::Cosine => Measure::Product,
            Metric::Dot => Measure::Scaled,
            Metric::L2 => Measure::Distance(2.0 * query.scale()),
        };
        Self { codes: query.codes(), measure }
    }

    /// A node's, given its codes in signed form: towards the nodes at the least distance.
    pub(super) fn of_node(slot: u32, codes: &'a [i8], store: &VectorStore) -> Self {
        let measure = match store.metric() {
            Metric::Cosine => Measure::Product,
            Metric::Dot | Metric::L2 => Measure::Distance(2.0 * store.scale_of(slot)),
        };
        Self { codes: CodeQuery { codes, sum: sum(codes) }, measure }
    }

    /// How far the score of a node is likely to be off at most, by the rounding of both sides' codes: each code is off by up to a half, evenly,
    /// and rotated vectors are equally long in codes.
    pub(crate) fn doubts<'s>(&self, store: &'s VectorStore) -> impl Fn(u32) -> f32 + 's {
        let squared: f32 = self.codes.codes.iter().map(|code| f32::from(*code).powi(2)).sum();
        let product = DOUBT * (2.0 * squared / 12.0).sqrt();
        let measure = self.measure;
        move |slot| match measure {
            Measure::Product => product,
            // Of a vector that is too short or too long for codes, nothing is known.
            Measure::Scaled | Measure::Distance(_) if store.scale_of(slot) == 0.0 => f32::INFINITY,
            Measure::Scaled => product * store.scale_of(slot),
            Measure::Distance(factor) => product * factor * store.scale_of(slot),
        }
    }

    #[inline]
    fn score(&self, store: &VectorStore, slot: u32, product: i32) -> f32 {
        match self.measure {
            Measure::Product => product as f32,
            Measure::Scaled => product as f32 * store.scale_of(slot),
            Measure::Distance(factor) => factor * (product as f32 * store.scale_of(slot)) - store.squared_of(slot),
        }
    }
}

/// A node's codes in signed form, as a query has them.
pub(super) fn signed(codes: &[u8], into: &mut Vec<i8>) {
    into.clear();
    into.extend(codes.iter().map(|code| (code ^ CODE_OFFSET as u8) as i8));
}

pub(super) fn sum(codes: &[i8]) -> i32 {
    codes.iter().map(|code| i32::from(*code)).sum()
}

/// What a walk needs beside the graph; kept between walks.
#[derive(Default)]
pub(crate) struct Scratch {
    visited: Visited,
    beam: Beam,
    fresh: Vec<u32>,
    products: Vec<i32>,
    /// Those of the fresh nodes that their signs do not rule out.
    likely: Vec<u32>,
    compared: u64,
    pub(super) codes: Vec<i8>,
}

impl Scratch {
    /// How many codes the last walk compared.
    pub(crate) fn compared(&self) -> u64 {
        self.compared
    }

    /// The nodes that the last walk kept, best first.
    pub(crate) fn found(&self) -> impl Iterator<Item = Scored> + '_ {
        self.beam.nodes()
    }
}

/// Which slots a walk has seen: those stamped with its number.
#[derive(Default)]
struct Visited {
    stamps: Vec<u8>,
    walk: u8,
}

impl Visited {
    fn begin(&mut self, slots: usize) {
        self.walk = self.walk.wrapping_add(1);
        if self.walk == 0 {
            self.stamps.fill(0);
            self.walk = 1;
        }
        if self.stamps.len() < slots {
            self.stamps.resize(slots, 0);
        }
    }

    /// Whether the slot is seen for the first time. Does not branch on it, since no processor guesses it.
    #[inline]
    fn insert(&mut self, slot: u32) -> bool {
        let Some(stamp) = self.stamps.get_mut(slot as usize) else { return false };
        std::mem::replace(stamp, self.walk) != self.walk
    }
}

/// Asks for what is looked at first of a node's codes.
#[inline]
fn prefetch_first(store: &VectorStore, slot: u32) {
    match store.signs_of(slot) {
        Some(signs) => prefetch(signs),
        None => prefetch(store.codes_of(slot)),
    }
}

/// Lists the nodes that may score above the floor by the signs of their codes, and asks for the codes of those. False where there
/// are no signs, or no floor yet.
#[inline]
fn leave_out(
    store: &VectorStore,
    target: &Target<'_>,
    floor: f32,
    fresh: &[u32],
    likely: &mut Vec<u32>,
    products: &mut Vec<i32>,
) -> bool {
    let Some(first) = fresh.first() else { return false };
    if store.signs_of(*first).is_none() {
        return false;
    }
    likely.clear();
    let highest = Highest::new(target.codes.codes.len());
    for part in fresh.chunks(DEGREE_MAX) {
        if floor == f32::NEG_INFINITY {
            part.iter().for_each(|slot| prefetch(store.codes_of(*slot)));
            likely.extend_from_slice(part);
            continue;
        }
        let mut rows: [&[u64]; DEGREE_MAX] = [&[]; DEGREE_MAX];
        for (row, slot) in rows.iter_mut().zip(part) {
            *row = store.signs_of(*slot).unwrap_or(&[]);
        }
        products.resize(part.len(), 0);
        kernels().dot_signs(target.codes, &rows[..part.len()], products);
        for (slot, product) in part.iter().zip(products.iter()) {
            if target.score(store, *slot, highest.product(*product)) > floor {
                prefetch(store.codes_of(*slot));
                likely.push(*slot);
            }
        }
    }
    true
}

/// What a product of codes is likely to be at most, given the product with signs only.
///
/// A rotated vector's codes are near to normally distributed, so that a product with them is in the mean the product with their signs
/// times a factor, and off by some share of both lengths (the estimate of RaBitQ, arXiv 2405.12497). A share of the nearest is
/// ruled out wrongly, which a wider walk makes good; results do not depend on the processor, since the products are whole numbers.
struct Highest {
    factor: f32,
    slack: f32,
}

impl Highest {
    fn new(dimension: usize) -> Self {
        // The deviation of codes: those of 4 deviations are 127.
        let deviation = 127.0 / 4.0;
        // The mean of a normal deviate's absolute value.
        let mean = (2.0 / std::f32::consts::PI).sqrt();
        let lengths = deviation * deviation * dimension as f32;
        let error = ((1.0 - mean * mean) / (mean * mean) / dimension as f32).sqrt();
        Self { factor: deviation / mean, slack: MARGIN * error * lengths }
    }

    #[inline]
    fn product(&self, signs: i32) -> i32 {
        (signs as f32 * self.factor + self.slack) as i32
    }
}

impl Graph {
    /// Walks towards a target and keeps the best `width` nodes in the scratch, until none of them is left to expand.
    pub(crate) fn walk(&self, store: &VectorStore, target: &Target<'_>, width: usize, scratch: &mut Scratch) {
        scratch.beam.reset(width);
        scratch.visited.begin(self.parents.len());
        scratch.compared = 0;
        self.start(store, target, scratch);
        while let Some(node) = scratch.beam.expand() {
            self.gather(store, node, scratch);
            if let Some(next) = scratch.beam.peek() {
                prefetch(self.rows.row(next));
            }
            self.score_fresh(store, target, scratch);
        }
    }

    /// Puts the best entries into the beam.
    fn start(&self, store: &VectorStore, target: &Target<'_>, scratch: &mut Scratch) {
        let slots = self.entries.slots();
        scratch.products.resize(slots.len(), 0);
        kernels().dot_rows(target.codes, self.entries.codes(), Rows::First(slots.len()), &mut scratch.products);
        let mut best = [Scored { score: f32::NEG_INFINITY, slot: 0 }; STARTS];
        for (slot, product) in slots.iter().zip(&scratch.products) {
            let score = target.score(store, *slot, *product);
            if score > best[STARTS - 1].score {
                let position = best.partition_point(|known| known.score >= score);
                best[position..].rotate_right(1);
                best[position] = Scored { score, slot: *slot };
            }
        }
        for node in best {
            if node.score <= scratch.beam.floor() {
                break;
            }
            scratch.visited.insert(node.slot);
            scratch.beam.insert(node);
        }
        if let Some(root) = self.root
            && scratch.visited.insert(root)
        {
            scratch.fresh.clear();
            scratch.fresh.push(root);
            self.score_fresh(store, target, scratch);
        }
        scratch.compared += slots.len() as u64;
    }

    /// Collects the unseen neighbours of a node, and fetches their codes. Nodes that are gone are stepped over to theirs.
    #[inline]
    fn gather(&self, store: &VectorStore, node: u32, scratch: &mut Scratch) {
        let Scratch { visited, fresh, .. } = scratch;
        let row = self.neighbours(node);
        // Written whether it is fresh or not, so that nothing branches on it.
        fresh.resize(row.len(), 0);
        let mut count = 0;
        for slot in row {
            fresh[count] = *slot;
            count += usize::from(visited.insert(*slot));
        }
        fresh.truncate(count);
        if !self.gone.is_empty() {
            self.step_over_gone(scratch);
        }
        scratch.fresh.iter().for_each(|slot| prefetch_first(store, *slot));
    }

    /// Puts unseen neighbours of those that are gone in their place.
    #[cold]
    fn step_over_gone(&self, scratch: &mut Scratch) {
        let Scratch { visited, fresh, .. } = scratch;
        let is_gone = |slot: &mut u32| !self.contains(*slot);
        let gone: Vec<u32> = fresh.extract_if(.., is_gone).collect();
        for slot in gone.iter().flat_map(|gone| self.neighbours(*gone)) {
            if fresh.len() < DEGREE_MAX && self.contains(*slot) && visited.insert(*slot) {
                fresh.push(*slot);
            }
        }
    }

    /// Scores the collected nodes and keeps those that are good enough.
    #[inline]
    fn score_fresh(&self, store: &VectorStore, target: &Target<'_>, scratch: &mut Scratch) {
        let Scratch { fresh, likely, products, beam, compared, .. } = scratch;
        *compared += fresh.len() as u64;
        let fresh = if leave_out(store, target, beam.floor(), fresh, likely, products) { likely } else { fresh };
        for part in fresh.chunks(DEGREE_MAX) {
            let mut rows: [&[u8]; DEGREE_MAX] = [&[]; DEGREE_MAX];
            for (row, slot) in rows.iter_mut().zip(part) {
                *row = store.codes_of(*slot);
            }
            products.resize(part.len(), 0);
            kernels().dot_each(target.codes, &rows[..part.len()], products);
            for (slot, product) in part.iter().zip(products.iter()) {
                let score = target.score(store, *slot, *product);
                if score > beam.floor() && beam.insert(Scored { score, slot: *slot }) {
                    prefetch(self.rows.row(*slot));
                }
            }
        }
    }
}
