//! Nodes as bytes, and back; see `checkpoint/mod.rs` for the layout.
//!
//! What comes back may be of different moments: nodes whose vector is gone are treated as removed ones, and what then has no
//! parent any more gets another one. A graph that was not changed while it was captured comes back as it was.

use roaring::RoaringBitmap;

use super::entries::Entries;
use super::{DEGREE_MAX, Graph, IS_ROOT, NO_NODE};
use crate::budget::MemoryBudget;
use crate::checkpoint::{GRAPH_SHIFT, Input, RestoreError, Stamps, put_u32};
use crate::slots::push_tight;
use crate::vectors::VectorStore;

/// Adds a slot without a node.
pub(crate) fn write_no_node(into: &mut Vec<u8>) {
    put_u32(into, NO_NODE);
    into.push(0);
}

impl Graph {
    /// Adds a slot's parent and neighbours. A node that is gone still has neighbours.
    pub(crate) fn write_slot(&self, slot: u32, into: &mut Vec<u8>) {
        let Some(parent) = self.parents.get(slot as usize).filter(|_| self.rows.has_room(slot)) else {
            write_no_node(into);
            return;
        };
        put_u32(into, *parent);
        let neighbours = self.neighbours(slot);
        into.push(neighbours.len() as u8);
        neighbours.iter().for_each(|next| put_u32(into, *next));
    }

    /// The state of the random numbers, and the slots of the entries.
    pub(crate) fn entries(&self) -> (u64, &[u32]) {
        (self.entries.random(), self.entries.slots())
    }
}

/// A graph on its way from bytes.
pub(crate) struct RestoredGraph {
    graph: Graph,
}

impl RestoredGraph {
    pub(crate) fn new(budget: &MemoryBudget) -> Self {
        Self { graph: Graph::new(budget, 0) }
    }

    /// Reads what [`Graph::write_slot`] has written. It may speak of slots that came only after the capture began.
    pub(crate) fn read_slot(&mut self, slot: u32, input: &mut Input<'_>) -> Result<(), RestoreError> {
        let (parent, count) = (input.u32()?, usize::from(input.u8()?));
        if count > DEGREE_MAX {
            return Err(RestoreError::Damaged("a node of the graph"));
        }
        push_tight(&mut self.graph.parents, parent);
        if parent == NO_NODE && count == 0 {
            return Ok(());
        }
        self.graph.reserve(slot)?;
        let mut row = [0; DEGREE_MAX];
        for next in &mut row[..count] {
            *next = input.u32()?;
            if *next == slot {
                return Err(RestoreError::Damaged("an edge of the graph"));
            }
        }
        self.graph.set_neighbours(slot, &row[..count]);
        Ok(())
    }

    /// Brings everything into line with the vectors that there are.
    pub(crate) fn finish(mut self, store: &VectorStore, entries: &[u32], random: u64) -> Graph {
        let graph = &mut self.graph;
        // From here on, what is changed is no longer what was captured.
        graph.stamps = Stamps::behind(0, GRAPH_SHIFT);
        graph.take_nodes(store);
        graph.drop_dead_edges();
        graph.adopt_orphans(store);
        let mut kept: Vec<u32> = entries.iter().copied().filter(|slot| graph.contains(*slot)).collect();
        if kept.is_empty() {
            kept.extend(graph.root);
        }
        graph.entries = Entries::restored(kept.into_iter(), random, store);
        self.graph
    }
}

impl Graph {
    /// Makes nodes of the slots that have a parent and a vector; what else has a row is gone.
    fn take_nodes(&mut self, store: &VectorStore) {
        self.nodes = vec![0; self.parents.len().div_ceil(64)];
        let (mut gone, slots) = (RoaringBitmap::new(), self.parents.len() as u32);
        for slot in 0..slots {
            let parent = &mut self.parents[slot as usize];
            if *parent != NO_NODE && store.present().contains(slot) {
                if *parent == IS_ROOT {
                    // Of two roots, which different moments may show, the later one in order will be adopted.
                    if self.root.is_some() {
                        *parent = slot;
                        self.stamps.mark(slot);
                    }
                    self.root = self.root.or(Some(slot));
                }
                if *parent >= slots && *parent != IS_ROOT {
                    *parent = slot;
                    self.stamps.mark(slot);
                }
                self.nodes[slot as usize / 64] |= 1 << (slot % 64);
                self.count += 1;
                continue;
            }
            if std::mem::replace(parent, NO_NODE) != NO_NODE {
                self.stamps.mark(slot);
            }
            if self.rows.has_room(slot) && self.rows.row(slot)[0] > 0 {
                gone.insert(slot);
            }
        }
        self.gone = gone;
    }

    /// Leaves in all rows only what has a node or is gone.
    fn drop_dead_edges(&mut self) {
        for slot in 0..self.parents.len() as u32 {
            if !self.holds(slot) {
                continue;
            }
            let is_dead = |next: &u32| !self.holds(*next);
            if self.neighbours(slot).iter().any(is_dead) {
                let kept: Vec<u32> = self.neighbours(slot).iter().copied().filter(|next| !is_dead(next)).collect();
                self.set_neighbours(slot, &kept);
            }
        }
    }

    /// Gives every node that does not hang below the root another parent.
    fn adopt_orphans(&mut self, store: &VectorStore) {
        if self.count == 0 {
            return;
        }
        let nodes =
            |graph: &Self| (0..graph.parents.len() as u32).filter(|slot| graph.contains(*slot)).collect::<Vec<_>>();
        if self.root.is_none()
            && let Some(first) = nodes(self).first()
        {
            self.set_node(*first, IS_ROOT);
        }
        let Some(root) = self.root else { return };
        let mut below = vec![false; self.parents.len()];
        self.mark_below(root, &mut below);
        let mut orphans = nodes(self);
        // Those first that hang below no other orphan, then whatever hangs in a ring.
        for only_tops in [true, false] {
            orphans.retain(|slot| !below[*slot as usize]);
            for orphan in &orphans {
                let parent = self.parents[*orphan as usize];
                let hangs = self.contains(parent) && self.neighbours(parent).contains(orphan);
                if below[*orphan as usize] || (only_tops && hangs) {
                    continue;
                }
                let near =
                    self.neighbours(*orphan).iter().copied().find(|next| below.get(*next as usize) == Some(&true));
                let Some(adopter) = self.room_below(near.unwrap_or(root)) else { continue };
                self.set_node(*orphan, adopter);
                self.add_edge(store, adopter, *orphan);
                self.mark_below(*orphan, &mut below);
            }
        }
    }

    fn mark_below(&self, node: u32, below: &mut [bool]) {
        let mut open = vec![node];
        while let Some(node) = open.pop() {
            if !std::mem::replace(&mut below[node as usize], true) {
                open.extend(self.children(node));
            }
        }
    }
}
