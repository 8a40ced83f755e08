//! Where walks begin: a sample of the nodes, with a copy of their codes side by side, so that a walk finds a few that are
//! near at the price of a short scan.

use zeroize::Zeroize;

#[cfg(test)]
use super::Graph;
use crate::rotation::next_random;
use crate::vectors::VectorStore;

/// As many entries as the square root of the number of nodes, within these; more cost more than they save.
const ENTRIES_MIN: usize = 16;
const ENTRIES_MAX: usize = 128;

/// The sampled nodes.
#[derive(Default)]
pub(super) struct Entries {
    slots: Vec<u32>,
    /// The codes of the slots, row by row.
    codes: Vec<u8>,
    random: u64,
}

impl Entries {
    pub(super) fn slots(&self) -> &[u32] {
        &self.slots
    }

    /// The state of the random numbers.
    pub(super) fn random(&self) -> u64 {
        self.random
    }

    /// Entries as they were; each slot once.
    pub(super) fn restored(slots: impl Iterator<Item = u32>, random: u64, store: &VectorStore) -> Self {
        let mut entries = Self { slots: Vec::new(), codes: Vec::new(), random };
        for slot in slots {
            if entries.slots.len() < ENTRIES_MAX && !entries.slots.contains(&slot) {
                entries.slots.push(slot);
                entries.codes.extend_from_slice(store.codes_of(slot));
            }
        }
        entries
    }

    pub(super) fn codes(&self) -> &[u8] {
        &self.codes
    }

    /// How many entries a graph of so many nodes should have.
    fn target(nodes: usize) -> usize {
        nodes.isqrt().clamp(ENTRIES_MIN, ENTRIES_MAX)
    }

    /// Considers a new node, so that in the end every node was taken with the same chance.
    pub(super) fn offer(&mut self, slot: u32, nodes: usize, store: &VectorStore) {
        if self.slots.len() < Self::target(nodes) {
            self.slots.push(slot);
            self.codes.extend_from_slice(store.codes_of(slot));
            return;
        }
        let chosen = next_random(&mut self.random) % nodes.max(1) as u64;
        if (chosen as usize) < self.slots.len() {
            self.replace(chosen as usize, slot, store);
        }
    }

    /// Takes a node out that is about to be removed; another one may take its place.
    pub(super) fn remove(&mut self, slot: u32, instead: Option<u32>, store: &VectorStore) {
        let Some(position) = self.slots.iter().position(|known| *known == slot) else { return };
        match instead.filter(|instead| !self.slots.contains(instead)) {
            Some(instead) => self.replace(position, instead, store),
            None => {
                let stride = store.codes_of(slot).len();
                let last = self.codes.len() - stride;
                self.codes.copy_within(last.., position * stride);
                self.codes[last..].zeroize();
                self.codes.truncate(last);
                self.slots.swap_remove(position);
            }
        }
    }

    fn replace(&mut self, position: usize, slot: u32, store: &VectorStore) {
        let codes = store.codes_of(slot);
        self.slots[position] = slot;
        self.codes[position * codes.len()..][..codes.len()].copy_from_slice(codes);
    }

    pub(super) fn bytes(&self) -> u64 {
        (self.slots.capacity() * 4 + self.codes.capacity()) as u64
    }

    #[cfg(test)]
    pub(super) fn check(&self, graph: &Graph) {
        assert!(self.slots.iter().all(|slot| graph.contains(*slot)));
        assert!(graph.len() == 0 || !self.slots.is_empty());
    }
}

impl Drop for Entries {
    fn drop(&mut self) {
        self.codes.zeroize();
    }
}
