//! The best nodes known to a walk, in order, and which of them have been expanded.

/// A node with its score by codes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Scored {
    pub(crate) score: f32,
    pub(crate) slot: u32,
}

/// Set in a slot that has been expanded. Slots stay below, see [`crate::slots`].
const EXPANDED: u32 = 1 << 31;

/// A node is soon to be expanded if no more than so many others come before it.
const SOON: usize = 3;

/// At most `width` nodes, best first.
#[derive(Debug, Default)]
pub(super) struct Beam {
    width: usize,
    nodes: Vec<Scored>,
    /// All before this one have been expanded.
    next: usize,
}

impl Beam {
    pub(super) fn reset(&mut self, width: usize) {
        self.width = width;
        self.nodes.clear();
        self.nodes.reserve(width + 1);
        self.next = 0;
    }

    /// A node must score above this to be kept.
    #[inline]
    pub(super) fn floor(&self) -> f32 {
        if self.nodes.len() < self.width { f32::NEG_INFINITY } else { self.nodes[self.width - 1].score }
    }

    /// Keeps a node that scores above the floor. Returns whether it is soon to be expanded.
    #[inline]
    pub(super) fn insert(&mut self, node: Scored) -> bool {
        let position = self.nodes.partition_point(|known| known.score >= node.score);
        if self.nodes.len() == self.width {
            self.nodes.pop();
        }
        self.nodes.insert(position, node);
        self.next = self.next.min(position);
        position <= self.next + SOON
    }

    /// The best node that has not been expanded, which now has been.
    #[inline]
    pub(super) fn expand(&mut self) -> Option<u32> {
        while let Some(node) = self.nodes.get_mut(self.next) {
            self.next += 1;
            if node.slot & EXPANDED == 0 {
                let slot = node.slot;
                node.slot |= EXPANDED;
                return Some(slot);
            }
        }
        None
    }

    /// The node that would be expanded next, if it is at hand.
    #[inline]
    pub(super) fn peek(&self) -> Option<u32> {
        let rest = self.nodes.get(self.next..)?;
        rest.iter().map(|node| node.slot).find(|slot| slot & EXPANDED == 0)
    }

    /// All nodes, best first.
    pub(super) fn nodes(&self) -> impl Iterator<Item = Scored> + '_ {
        self.nodes.iter().map(|node| Scored { score: node.score, slot: node.slot & !EXPANDED })
    }
}
