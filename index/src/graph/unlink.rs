//! Removing a node: at once it is no longer found and its children get another parent; the rows that name it are mended later,
//! by a sweep over all rows.
//!
//! ```text
//!   node ──unlink──▶ gone: stepped over on the way to its neighbours ──sweep over all rows──▶ slot free, no row names it
//! ```
//!
//! So a removal is short however many rows name the node, and still each of them is mended. One sweep serves all that were
//! gone when it began.

use roaring::RoaringBitmap;

use super::pick::{Candidate, candidates};
use super::walk::signed;
use super::{DEGREE_MAX, Graph, IS_ROOT, NO_NODE};
use crate::vectors::VectorStore;

/// A sweep is worth it when so many nodes are gone,
const GONE_MIN: u64 = 64;
/// and one in so many slots.
const GONE_SHARE: u64 = 256;
/// A row that lost neighbours is filled up with the nearest candidates to this many, whatever their direction.
const MENDED_DEGREE_MIN: usize = 16;

/// A sweep that is under way.
pub(super) struct Sweep {
    /// One bit for each slot that was gone when the sweep began.
    gone: Vec<u64>,
    /// The first row that has not been looked at.
    next: u32,
    /// All rows there were.
    end: u32,
}

impl Sweep {
    #[inline]
    fn is_gone(&self, slot: u32) -> bool {
        self.gone.get(slot as usize / 64).is_some_and(|word| word >> (slot % 64) & 1 == 1)
    }
}

impl Graph {
    /// Removes a slot's node. Without one, does nothing. The slot must not be used again before a sweep has released it.
    pub(crate) fn unlink(&mut self, store: &VectorStore, slot: u32) {
        if !self.contains(slot) {
            return;
        }
        let children: Vec<u32> = self.children(slot).collect();
        let parent = self.parents[slot as usize];
        let instead = self.neighbours(slot).iter().copied().find(|next| self.contains(*next));
        self.entries.remove(slot, instead, store);
        self.set_node(slot, NO_NODE);
        self.gone.insert(slot);
        self.give_parents(store, parent, &children);
    }

    /// Whether rows may still name a slot, so that it must not be used for another vector.
    pub(crate) fn holds(&self, slot: u32) -> bool {
        self.contains(slot) || self.gone.contains(slot)
    }

    /// How many nodes are gone of which rows may still speak.
    pub(crate) fn gone(&self) -> &RoaringBitmap {
        &self.gone
    }

    /// Whether enough nodes are gone for a sweep, or one is under way.
    pub(crate) fn is_sweep_due(&self) -> bool {
        self.sweep.is_some() || self.gone.len() >= GONE_MIN.max(self.parents.len() as u64 / GONE_SHARE)
    }

    /// How many rows are left to look at, if a sweep is due.
    pub(crate) fn rows_to_sweep(&self) -> u64 {
        match &self.sweep {
            Some(sweep) => u64::from(sweep.end - sweep.next).max(1),
            None if self.is_sweep_due() => self.parents.len() as u64,
            None => 0,
        }
    }

    /// Looks at so many rows for nodes that are gone, and mends them; begins a sweep if none is under way. At the end of the
    /// sweep returns the slots that no row names any more.
    pub(crate) fn sweep(&mut self, store: &VectorStore, rows: usize) -> Option<RoaringBitmap> {
        let mut sweep = self.sweep.take().unwrap_or_else(|| {
            let mut gone = vec![0; self.parents.len().div_ceil(64)];
            for slot in &self.gone {
                gone[slot as usize / 64] |= 1 << (slot % 64);
            }
            Sweep { gone, next: 0, end: self.parents.len() as u32 }
        });
        let until = sweep.end.min(sweep.next.saturating_add(rows as u32));
        for slot in sweep.next..until {
            let is_node = self.contains(slot);
            // What is gone since then still leads on, so its row must not name what is gone for good.
            let is_kept = is_node || (!sweep.is_gone(slot) && self.rows.has_room(slot));
            if is_kept && self.neighbours(slot).iter().any(|next| sweep.is_gone(*next)) {
                self.mend(store, slot, is_node, &sweep);
            }
        }
        sweep.next = until;
        if until < sweep.end {
            self.sweep = Some(sweep);
            return None;
        }
        let released: RoaringBitmap = self.gone.iter().filter(|slot| sweep.is_gone(*slot)).collect();
        for slot in &released {
            self.stamps.mark(slot);
            self.rows.wipe(slot);
        }
        self.gone -= &released;
        Some(released)
    }

    /// Takes nodes that are gone out of a row; a node's row gets the best of their neighbours instead.
    fn mend(&mut self, store: &VectorStore, slot: u32, is_node: bool, sweep: &Sweep) {
        let (lost, kept): (Vec<u32>, Vec<u32>) = self.neighbours(slot).iter().partition(|next| sweep.is_gone(**next));
        if !is_node {
            self.set_neighbours(slot, &kept);
            return;
        }
        let mut new: Vec<u32> = lost.iter().flat_map(|gone| self.neighbours(*gone)).copied().collect();
        new.sort_unstable();
        new.dedup();
        new.retain(|next| *next != slot && self.contains(*next) && !kept.contains(next));
        let mut scratch = std::mem::take(&mut self.scratch);
        signed(store.codes_of(slot), &mut scratch.codes);
        let candidates = candidates(store, slot, &scratch.codes, new.iter().copied());
        let room = (kept.len() + lost.len()).min(DEGREE_MAX);
        let mut row = kept;
        self.extend(store, &mut row, &candidates, room, &mut scratch.codes);
        self.scratch = scratch;
        for Candidate { slot: next, .. } in &candidates {
            if row.len() >= MENDED_DEGREE_MIN.min(room) {
                break;
            }
            if !row.contains(next) {
                row.push(*next);
            }
        }
        self.set_neighbours(slot, &row);
    }

    /// Gives the children of a node that is gone another parent: its own, or one below that; the root's first child becomes
    /// the root.
    fn give_parents(&mut self, store: &VectorStore, parent: u32, children: &[u32]) {
        let mut orphans = children.iter().copied();
        let mut parent = parent;
        if parent == IS_ROOT {
            self.root = None;
            let Some(heir) = orphans.next() else { return };
            self.set_node(heir, IS_ROOT);
            parent = heir;
        }
        for orphan in orphans {
            // Nothing below the orphan hangs below the parent any more, so that no ring can close.
            let Some(adopter) = self.room_below(parent) else { continue };
            self.set_node(orphan, adopter);
            self.add_edge(store, adopter, orphan);
        }
    }
}
