//! Adding a node: its neighbours are picked among the nearest nodes, then each of them takes the node into its own row. The first, longer
//! part only reads; it also picks anew what is to stay in rows that are full, and the second part only checks that nothing has
//! changed since.

use zeroize::Zeroize;

use super::pick::{Candidate, candidates, fill, is_occluded, nearest, pick};
use super::walk::{Scratch, Target, signed};
use super::{DEGREE_MAX, Graph, IS_ROOT};
use crate::vectors::VectorStore;

/// How many nodes the walk for a new node keeps at least where signs rule out most of what it meets.
const LINK_WIDTH_BY_SIGNS: usize = 144;
/// How many neighbours a new node gets at least, where all candidates lie in few directions.
const LINK_DEGREE_MIN: usize = 12;
/// A node that has so many children gets no more if another one can have them.
const CHILDREN_MAX: usize = FEW.full / 2;

/// How many neighbours nodes have.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Degrees {
    /// How many nodes the walk for a new node keeps.
    link_width: usize,
    /// What a new node picks among them.
    picked: usize,
    /// At so many, a row is full.
    full: usize,
    /// What is left in a row that was full.
    pruned: usize,
}

/// As long as nodes are not many.
const FEW: Degrees = Degrees { link_width: 96, picked: 24, full: 39, pruned: 30 };
/// Measured: docs/decisions/0016.
const LARGE: Degrees = Degrees { link_width: 128, picked: 32, full: DEGREE_MAX, pruned: 38 };

/// The neighbours that a new node gets, found while the graph was only read.
pub(crate) struct Plan {
    pub(crate) slot: u32,
    /// The codes that the plan was made for.
    codes: Vec<u8>,
    picked: Vec<u32>,
    pub(super) full: Vec<FullRow>,
}

/// A full row as it was when a node was to be taken into it, and what is to become of it.
pub(super) struct FullRow {
    from: u32,
    degrees: Degrees,
    row: Vec<u32>,
    /// One bit for each place of the row: whether a child of the row's node is there.
    children: u64,
    /// Whether the new node was to be a child too.
    is_parent: bool,
    picked: Vec<u32>,
}

impl Plan {
    /// For what finds neighbours itself.
    #[cfg(feature = "hnsw-rs")]
    pub(crate) fn without_neighbours(slot: u32, codes: &[u8]) -> Self {
        Self { slot, codes: codes.to_vec(), picked: Vec::new(), full: Vec::new() }
    }

    /// Whether the slot still holds the vector that the plan was made for.
    pub(crate) fn is_for(&self, codes: &[u8]) -> bool {
        self.codes == codes
    }
}

impl Drop for Plan {
    fn drop(&mut self) {
        self.codes.zeroize();
    }
}

impl Graph {
    fn degrees(&self) -> Degrees {
        if self.count <= self.many { FEW } else { LARGE }
    }

    /// How many nodes the walk for a new node keeps.
    fn link_width(&self, store: &VectorStore, slot: u32) -> usize {
        let width = self.degrees().link_width;
        if store.signs_of(slot).is_some() { width.max(LINK_WIDTH_BY_SIGNS) } else { width }
    }

    /// Adds a node for a slot that has a vector, whose rows no node names, and for which there is room.
    pub(crate) fn link(&mut self, store: &VectorStore, slot: u32) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let plan = self.plan(store, slot, &[], &mut scratch);
        self.scratch = scratch;
        self.join(store, &plan);
    }

    /// Finds the neighbours for a slot that has a vector. `mates`: slots that are to be joined before it, which no walk finds yet.
    pub(crate) fn plan(&self, store: &VectorStore, slot: u32, mates: &[u32], scratch: &mut Scratch) -> Plan {
        let own = store.codes_of(slot);
        let mut codes = std::mem::take(&mut scratch.codes);
        signed(own, &mut codes);
        let target = Target::of_node(slot, &codes, store);
        let width = self.link_width(store, slot);
        self.walk(store, &target, width, scratch);
        let candidates = nearest(store, slot, &codes, mates, width, scratch);
        scratch.codes = codes;
        let mut picked = pick(store, slot, &candidates, self.degrees().picked, |_| false, scratch);
        fill(&mut picked, &candidates, LINK_DEGREE_MIN);
        let linked: Vec<u32> = picked.iter().copied().filter(|next| self.contains(*next)).collect();
        let full = self.full_rows(store, slot, &linked, scratch);
        Plan { slot, codes: own.to_vec(), picked, full }
    }

    /// What is to become of the full rows that a new node will be taken into.
    fn full_rows(&self, store: &VectorStore, slot: u32, picked: &[u32], scratch: &mut Scratch) -> Vec<FullRow> {
        let degrees = self.degrees();
        let parent = self.parent_near(picked);
        let other = Some(parent).filter(|parent| *parent != IS_ROOT && !picked.contains(parent));
        let mut full = Vec::new();
        for from in picked.iter().copied().chain(other) {
            let row = self.neighbours(from);
            let is_parent = from == parent;
            if row.len() >= degrees.full && row.iter().all(|next| *next != slot && self.contains(*next)) {
                let picked = self.pruned(store, from, row, slot, is_parent, scratch);
                let children = self.children_in(from, row);
                full.push(FullRow { from, degrees, row: row.to_vec(), children, is_parent, picked });
            }
        }
        full
    }

    /// What is left of a full row with another node in it.
    fn pruned(
        &self,
        store: &VectorStore,
        from: u32,
        row: &[u32],
        new: u32,
        is_parent: bool,
        scratch: &mut Scratch,
    ) -> Vec<u32> {
        let slots = row.iter().copied().chain([new]);
        signed(store.codes_of(from), &mut scratch.codes);
        let candidates = candidates(store, from, &scratch.codes, slots);
        let is_child = |slot: u32| if slot == new { is_parent } else { self.is_child(slot, from) };
        pick(store, from, &candidates, self.degrees().pruned, is_child, scratch)
    }

    /// One bit for each place of a row: whether a child of its node is there.
    fn children_in(&self, from: u32, row: &[u32]) -> u64 {
        row.iter().enumerate().fold(0, |bits, (place, slot)| bits | u64::from(self.is_child(*slot, from)) << place)
    }

    /// What a plan says of a full row, if it is still as it was then.
    fn planned_row<'p>(&self, full: &'p [FullRow], from: u32, to: u32) -> Option<&'p [u32]> {
        let known = full.iter().find(|known| known.from == from)?;
        let is_same = self.degrees() == known.degrees
            && self.neighbours(from) == known.row
            && known.is_parent == self.is_child(to, from)
            && known.row.iter().all(|next| self.contains(*next))
            && self.children_in(from, &known.row) == known.children;
        is_same.then_some(&known.picked)
    }

    /// Adds a node as planned, with those of its neighbours that are still there; the rest as for [`Self::link`].
    pub(crate) fn join(&mut self, store: &VectorStore, plan: &Plan) {
        let slot = plan.slot;
        let picked: Vec<u32> = plan.picked.iter().copied().filter(|next| self.contains(*next)).collect();
        if picked.is_empty() && self.root.is_some() {
            // All of them are gone, or there were none yet.
            self.link(store, slot);
            return;
        }
        self.set_neighbours(slot, &picked);
        let parent = self.parent_near(&picked);
        self.set_node(slot, parent);
        let other = Some(parent).filter(|parent| *parent != IS_ROOT && !picked.contains(parent));
        for from in picked.iter().copied().chain(other) {
            match self.planned_row(&plan.full, from, slot) {
                Some(row) => self.set_neighbours(from, row),
                None => self.add_edge(store, from, slot),
            }
        }
        self.entries.offer(slot, self.count, store);
    }

    /// Adds candidates to a row that lie in other directions than what is in it, up to so many.
    pub(super) fn extend(
        &self,
        store: &VectorStore,
        row: &mut Vec<u32>,
        candidates: &[Candidate],
        limit: usize,
        codes: &mut Vec<i8>,
    ) {
        for candidate in candidates {
            if row.len() >= limit {
                break;
            }
            if !is_occluded(store, candidate, row, codes) {
                row.push(candidate.slot);
            }
        }
    }

    /// A node that can be the parent of a new one: the first of these that has room for children, or one below them.
    fn parent_near(&self, picked: &[u32]) -> u32 {
        let with_room = picked.iter().find(|node| self.children(**node).count() < CHILDREN_MAX);
        with_room.copied().or_else(|| self.room_below(*picked.first()?)).or(self.root).unwrap_or(IS_ROOT)
    }

    /// The nearest node below this one, or itself, that has room for another child.
    pub(super) fn room_below(&self, node: u32) -> Option<u32> {
        let mut level = vec![node];
        while !level.is_empty() {
            if let Some(found) = level.iter().find(|node| self.children(**node).count() < CHILDREN_MAX) {
                return Some(*found);
            }
            level = level.iter().flat_map(|node| self.children(*node)).collect();
        }
        None
    }

    pub(super) fn children(&self, node: u32) -> impl Iterator<Item = u32> + '_ {
        self.neighbours(node).iter().copied().filter(move |child| self.is_child(*child, node))
    }

    /// Takes a node into the row of another. A full row is picked anew; a child is always kept.
    pub(super) fn add_edge(&mut self, store: &VectorStore, from: u32, to: u32) {
        let neighbours = self.neighbours(from);
        if neighbours.contains(&to) {
            return;
        }
        let full = self.degrees().full;
        if neighbours.len() < full {
            self.stamps.mark(from);
            let row = self.rows.row_mut(from);
            row[0] += 1;
            let count = row[0] as usize;
            row[count] = to;
            return;
        }
        let mut slots: Vec<u32> = neighbours.iter().copied().filter(|slot| self.contains(*slot)).collect();
        slots.push(to);
        if slots.len() <= full {
            self.set_neighbours(from, &slots);
            return;
        }
        slots.pop();
        let mut scratch = std::mem::take(&mut self.scratch);
        let picked = self.pruned(store, from, &slots, to, self.is_child(to, from), &mut scratch);
        self.scratch = scratch;
        self.set_neighbours(from, &picked);
    }
}
