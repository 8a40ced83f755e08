//! A graph over the vectors of a large partition, in one layer, walked from sampled entries.
//!
//! ```text
//!   entries (a sample, their codes side by side) ──best few──▶ walk: expand the best known node, score its unseen neighbours by
//!   codes, keep the best `width` ──▶ exact scores of the best of these
//! ```
//!
//! Every node has a row of up to [`DEGREE_MAX`] out-neighbours, picked so that they lie in different directions
//! (`pick.rs`). A removed node is stepped over until a sweep has taken it out of all rows that name it (`unlink.rs`).
//!
//! Invariants, tested after random histories:
//! - Every node but the root has a parent whose row names it, and following parents leads to the root. So every node can be
//!   reached from the root, which is always an entry.
//! - A row that names its own children never gives them up, unless they have been given another parent.
//! - Every slot that a row names has a node or is `gone`; a slot that is gone is given to no other vector before a sweep over all
//!   rows has released it. So no row ever names another vector than the one it was made for.
//!
//! | file | holds |
//! |---|---|
//! | `walk.rs` | the walk and what it needs for one search |
//! | `beam.rs` | the best nodes known to a walk |
//! | `link.rs` | adding a node |
//! | `pick.rs` | picking which neighbours a node has |
//! | `unlink.rs` | removing a node |
//! | `entries.rs` | where walks begin |
//! | `blocks.rs` | nodes as bytes, for checkpoints |

mod beam;
mod blocks;
mod entries;
mod link;
mod pick;
mod unlink;
mod walk;

use roaring::RoaringBitmap;

use crate::arena::Arena;
use crate::budget::MemoryBudget;
use crate::checkpoint::{GRAPH_SHIFT, Stamps};
use crate::error::IndexError;
use crate::metric::Metric;
use crate::slots::push_tight;
use crate::vectors::VectorStore;

pub(crate) use blocks::{RestoredGraph, write_no_node};
use entries::Entries;
pub(crate) use link::Plan;
use unlink::Sweep;
pub(crate) use walk::{Scratch, Target};

/// A row: how many neighbours, then so many slots.
const ROW: usize = 48;
/// The most neighbours of a node.
pub(crate) const DEGREE_MAX: usize = ROW - 1;
/// A chunk of rows has 2^14.
const ROW_SHIFT: u32 = 14;

/// Walks among more nodes than this miss more at the same width, so that rows are longer there.
const MANY: usize = 250_000;

/// In place of a parent: the slot has no node.
const NO_NODE: u32 = u32::MAX;
/// In place of a parent: the node is the root.
const IS_ROOT: u32 = u32::MAX - 1;

/// The graph. Knows slots; the vectors are in the [`VectorStore`] that each call is given, always the same.
pub(crate) struct Graph {
    rows: Arena<u32>,
    /// By slot.
    parents: Vec<u32>,
    /// One bit for each slot: whether it has a node.
    nodes: Vec<u64>,
    count: usize,
    /// With more nodes than this, rows are longer.
    many: usize,
    root: Option<u32>,
    entries: Entries,
    /// Slots of removed nodes that rows may still name. Their own rows still say where they led.
    gone: RoaringBitmap,
    sweep: Option<Sweep>,
    stamps: Stamps,
    scratch: Scratch,
}

impl Graph {
    /// A graph without nodes. Its stamps will be above `last_stamp`.
    pub(crate) fn new(budget: &MemoryBudget, last_stamp: u64) -> Self {
        Self {
            rows: Arena::new(ROW, ROW_SHIFT, budget.clone()),
            parents: Vec::new(),
            nodes: Vec::new(),
            count: 0,
            many: MANY,
            root: None,
            entries: Entries::default(),
            gone: RoaringBitmap::new(),
            sweep: None,
            stamps: Stamps::behind(last_stamp, GRAPH_SHIFT),
            scratch: Scratch::default(),
        }
    }

    /// How many nodes there are.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Whether a slot has a node.
    #[inline]
    pub(crate) fn contains(&self, slot: u32) -> bool {
        self.nodes.get(slot as usize / 64).is_some_and(|word| word >> (slot % 64) & 1 == 1)
    }

    /// The neighbours that a node's row names.
    #[inline]
    pub(crate) fn neighbours(&self, slot: u32) -> &[u32] {
        let row = self.rows.row(slot);
        &row[1..=(row[0] as usize).min(DEGREE_MAX)]
    }

    /// Makes room for a node, so that linking it cannot fail.
    pub(crate) fn reserve(&mut self, slot: u32) -> Result<(), IndexError> {
        self.rows.reserve(slot)
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> u64 {
        let nodes = self.nodes.capacity() * 8 + self.parents.capacity() * 4;
        self.rows.bytes()
            + nodes as u64
            + self.entries.bytes()
            + self.gone.serialized_size() as u64
            + self.stamps.bytes()
    }

    /// When nodes changed last.
    pub(crate) fn stamps(&self) -> &Stamps {
        &self.stamps
    }

    fn set_node(&mut self, slot: u32, parent: u32) {
        let position = slot as usize;
        while self.parents.len() <= position {
            push_tight(&mut self.parents, NO_NODE);
        }
        while self.nodes.len() <= position / 64 {
            push_tight(&mut self.nodes, 0);
        }
        self.stamps.mark(slot);
        let was_node = self.contains(slot);
        self.parents[position] = parent;
        let bit = 1u64 << (slot % 64);
        if parent == NO_NODE {
            self.nodes[position / 64] &= !bit;
        } else {
            self.nodes[position / 64] |= bit;
        }
        match (was_node, parent != NO_NODE) {
            (false, true) => self.count += 1,
            (true, false) => self.count -= 1,
            _ => {}
        }
        if parent == IS_ROOT {
            self.root = Some(slot);
        }
    }

    fn set_neighbours(&mut self, slot: u32, neighbours: &[u32]) {
        self.stamps.mark(slot);
        let row = self.rows.row_mut(slot);
        row[0] = neighbours.len() as u32;
        row[1..=neighbours.len()].copy_from_slice(neighbours);
        row[neighbours.len() + 1..].fill(0);
    }

    #[inline]
    fn is_child(&self, child: u32, of: u32) -> bool {
        self.parents.get(child as usize) == Some(&of)
    }

    /// How many nodes cannot be reached from the root: always 0. Looks at every edge.
    pub(crate) fn unreachable(&self) -> usize {
        let Some(root) = self.root else { return self.count };
        let mut seen = vec![false; self.parents.len()];
        seen[root as usize] = true;
        let mut open = vec![root];
        let mut reached = 0;
        while let Some(node) = open.pop() {
            reached += 1;
            for next in self.neighbours(node) {
                if self.contains(*next) && !std::mem::replace(&mut seen[*next as usize], true) {
                    open.push(*next);
                }
            }
        }
        self.count - reached
    }

    /// How many of these nodes do not hang below the root, so that it is not sure that they can be reached: always 0.
    pub(crate) fn astray(&self, slots: std::ops::Range<u32>) -> u64 {
        let end = slots.end.min(self.parents.len() as u32);
        let mut below: std::collections::HashSet<u32> = self.root.into_iter().collect();
        let mut path = Vec::new();
        let mut count = 0;
        for slot in slots.start..end {
            path.clear();
            let mut at = slot;
            while self.contains(at) && !below.contains(&at) && path.len() <= self.count {
                path.push(at);
                let parent = self.parents[at as usize];
                let is_named = self.contains(parent) && self.neighbours(parent).contains(&at);
                at = if is_named { parent } else { NO_NODE };
            }
            if below.contains(&at) {
                below.extend(&path);
            } else {
                count += u64::from(self.contains(slot));
            }
        }
        count
    }

    #[cfg(test)]
    pub(crate) fn check(&self) {
        assert_eq!((self.unreachable(), self.astray(0..u32::MAX)), (0, 0));
        let nodes: Vec<u32> = (0..self.parents.len() as u32).filter(|slot| self.contains(*slot)).collect();
        assert_eq!(nodes.len(), self.count);
        assert_eq!(self.root.is_some(), self.count > 0);
        for node in nodes {
            let neighbours = self.neighbours(node);
            assert!(!neighbours.contains(&node));
            let distinct: std::collections::BTreeSet<_> = neighbours.iter().collect();
            assert_eq!(distinct.len(), neighbours.len());
            assert!(neighbours.iter().all(|next| self.holds(*next)), "rows name no slot that was released");
            let (mut at, mut steps) = (node, 0);
            while self.root != Some(at) {
                let parent = self.parents[at as usize];
                assert!(self.contains(parent) && self.neighbours(parent).contains(&at));
                at = parent;
                steps += 1;
                assert!(steps <= self.count, "parents form no ring");
            }
        }
        self.entries.check(self);
    }
}

/// The distance of two nodes by their codes, squared.
#[inline]
fn distance(store: &VectorStore, from: u32, to: u32, product: i32) -> f32 {
    if store.metric() == Metric::Cosine {
        return store.unit_distance(product as f32);
    }
    let product = product as f32 * (store.scale_of(from) * store.scale_of(to));
    (store.squared_of(from) + store.squared_of(to)) - (product + product)
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::cases;
