//! Removing a node: the rows that name it take one of its neighbours instead, and its children get another parent.

use super::walk::signed;
use super::{Graph, IS_ROOT, NO_NODE};
use crate::vectors::VectorStore;

impl Graph {
    /// Removes a slot's node, while its vector is still there. Without one, does nothing.
    pub(crate) fn unlink(&mut self, store: &VectorStore, slot: u32) {
        if !self.contains(slot) {
            return;
        }
        let neighbours: Vec<u32> = self.neighbours(slot).iter().copied().filter(|next| self.contains(*next)).collect();
        let children: Vec<u32> = self.children(slot).collect();
        let parent = self.parents[slot as usize];
        let namers = self.namers(slot, parent, &neighbours);
        self.entries.remove(slot, neighbours.first().copied(), store);
        self.set_node(slot, NO_NODE);
        self.rows.wipe(slot);
        for namer in namers {
            self.replace_edge(store, namer, slot, &neighbours);
        }
        self.give_parents(store, parent, &children);
    }

    /// The nodes near a node whose rows name it. Others may too; walks step around what they name.
    fn namers(&self, slot: u32, parent: u32, neighbours: &[u32]) -> Vec<u32> {
        let second = neighbours.iter().flat_map(|next| self.neighbours(*next));
        let mut near: Vec<u32> = neighbours.iter().chain(second).copied().filter(|near| self.contains(*near)).collect();
        if parent != IS_ROOT {
            near.push(parent);
        }
        near.sort_unstable();
        near.dedup();
        near.retain(|near| *near != slot && self.neighbours(*near).contains(&slot));
        near
    }

    /// Puts the nearest of some nodes, which the row does not name, in the place of one that is gone.
    fn replace_edge(&mut self, store: &VectorStore, from: u32, gone: u32, instead: &[u32]) {
        let mut row: Vec<u32> = self.neighbours(from).iter().copied().filter(|slot| *slot != gone).collect();
        let new: Vec<u32> = instead.iter().copied().filter(|slot| *slot != from && !row.contains(slot)).collect();
        let mut codes = std::mem::take(&mut self.scratch.codes);
        signed(store.codes_of(from), &mut codes);
        if let Some(nearest) = self.candidates(store, from, &codes, &new).first() {
            row.push(nearest.slot);
        }
        self.scratch.codes = codes;
        self.set_neighbours(from, &row);
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
