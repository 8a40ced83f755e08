//! When something changed last, by range of slots: numbers that only grow, so that equal ones mean that nothing did.

/// The stamps of ranges of 2^shift slots.
#[derive(Debug)]
pub(crate) struct Stamps {
    shift: u32,
    last: u64,
    ranges: Vec<u64>,
}

impl Stamps {
    /// Nothing has changed yet; stamps will be above `last`.
    pub(crate) fn behind(last: u64, shift: u32) -> Self {
        Self { shift, last, ranges: Vec::new() }
    }

    /// Notes a change of a slot.
    #[inline]
    pub(crate) fn mark(&mut self, slot: u32) {
        let range = (slot >> self.shift) as usize;
        if self.ranges.len() <= range {
            self.ranges.resize(range + 1, 0);
        }
        self.last += 1;
        self.ranges[range] = self.last;
    }

    /// Notes a change of all slots so far.
    pub(crate) fn mark_all(&mut self) {
        self.last += 1;
        self.ranges.fill(self.last);
    }

    /// The stamp of a range; 0: never changed.
    pub(crate) fn of(&self, range: u32) -> u64 {
        self.ranges.get(range as usize).copied().unwrap_or(0)
    }

    /// The highest stamp so far.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.ranges.capacity() as u64 * 8
    }
}

/// A partition's: a memory's fields change more often than its vector.
#[derive(Debug)]
pub(crate) struct ChangeStamps {
    pub(crate) memories: Stamps,
    pub(crate) vectors: Stamps,
}

impl ChangeStamps {
    pub(crate) fn new(memories_shift: u32, vectors_shift: u32) -> Self {
        Self { memories: Stamps::behind(0, memories_shift), vectors: Stamps::behind(0, vectors_shift) }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.memories.bytes() + self.vectors.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_stamps_mean_no_change() {
        let mut stamps = Stamps::behind(7, 2);
        assert_eq!((stamps.of(0), stamps.of(9)), (0, 0));
        stamps.mark(3);
        stamps.mark(9);
        assert_eq!((stamps.of(0), stamps.of(1), stamps.of(2)), (8, 0, 9));
        stamps.mark(0);
        assert_eq!((stamps.of(0), stamps.of(2), stamps.last()), (10, 9, 10));
        stamps.mark_all();
        assert_eq!((stamps.of(0), stamps.of(2)), (11, 11));
    }
}
