//! The index of a field of numbers or times: each number in order with its slot, in blocks of a few hundred.

use std::collections::BTreeMap;
use std::ops::Bound;

use roaring::RoaringBitmap;

use super::dense::DenseBits;
use crate::filter::Number;
use crate::slots::push_tight;

/// A block of more entries is split.
const BLOCK_MAX: usize = 512;

/// Numbers by slot, and pairs of number and slot in order.
#[derive(Default)]
pub(super) struct Numbers {
    /// Neither empty nor longer than [`BLOCK_MAX`]; in order within and among each other.
    blocks: Vec<Vec<Entry>>,
    /// Each slot's first number.
    first: Vec<Option<Number>>,
    /// The other numbers of slots with several.
    more: BTreeMap<u32, Box<[Number]>>,
    entries: usize,
}

type Entry = (Number, u32);

/// What entries are overwritten with when they are removed.
const WIPED: Number = Number::Integer(0);

impl Numbers {
    /// Gives a slot without numbers these ones, each once.
    pub(super) fn insert(&mut self, slot: u32, mut numbers: impl Iterator<Item = Number>) {
        let Some(first) = numbers.next() else { return };
        self.add((first, slot));
        while self.first.len() <= slot as usize {
            push_tight(&mut self.first, None);
        }
        self.first[slot as usize] = Some(first);
        let more: Box<[Number]> = numbers.inspect(|number| self.add((*number, slot))).collect();
        if !more.is_empty() {
            self.more.insert(slot, more);
        }
    }

    /// Takes a slot's numbers away and overwrites them.
    pub(super) fn remove(&mut self, slot: u32) {
        let Some(cell) = self.first.get_mut(slot as usize) else { return };
        let Some(first) = cell.replace(WIPED) else {
            *cell = None;
            return;
        };
        *cell = None;
        self.subtract((first, slot));
        let mut more = self.more.remove(&slot).unwrap_or_default();
        for number in &mut more {
            self.subtract((*number, slot));
            *number = WIPED;
        }
    }

    fn add(&mut self, entry: Entry) {
        self.entries += 1;
        let position = self.block_for(&entry);
        let Some(block) = self.blocks.get_mut(position) else {
            self.blocks.push(vec![entry]);
            return;
        };
        let within = block.partition_point(|known| *known < entry);
        if block.len() == block.capacity() {
            block.reserve_exact(block.len() / 4 + 1);
        }
        block.insert(within, entry);
        if block.len() > BLOCK_MAX {
            let upper = block.split_off(BLOCK_MAX / 2);
            self.blocks.insert(position + 1, upper);
        }
    }

    fn subtract(&mut self, entry: Entry) {
        let position = self.block_for(&entry);
        let Some(block) = self.blocks.get_mut(position) else { return };
        let Ok(within) = block.binary_search(&entry) else { return };
        // The last entry is overwritten in place, since what lies beyond the end of a list is not.
        block[within..].rotate_left(1);
        if let Some(last) = block.last_mut() {
            *last = (WIPED, 0);
        }
        block.pop();
        self.entries -= 1;
        if block.is_empty() {
            self.blocks.remove(position);
        }
    }

    /// The block that an entry is or would be in; the number of blocks only where there is none.
    fn block_for(&self, entry: &Entry) -> usize {
        self.blocks.partition_point(|block| block.first().is_some_and(|first| first <= entry)).saturating_sub(1)
    }

    /// The numbers of a slot, in ascending order.
    pub(super) fn of(&self, slot: u32) -> impl Iterator<Item = Number> {
        let first = self.first.get(slot as usize).copied().flatten();
        let more = self.more.get(&slot).map_or(&[][..], |more| more);
        first.into_iter().chain(more.iter().copied())
    }

    /// Slots with any number in a range.
    pub(super) fn range(&self, range: (Bound<Number>, Bound<Number>), live: &RoaringBitmap) -> RoaringBitmap {
        let (start, end) = (self.start_of(range.0), self.end_of(range.1));
        if start >= end {
            return RoaringBitmap::new();
        }
        let mut bits = DenseBits::new(live);
        for position in start.0..=end.0 {
            let Some(block) = self.blocks.get(position) else { break };
            let low = if position == start.0 { start.1 } else { 0 };
            let high = if position == end.0 { end.1 } else { block.len() };
            for (_, slot) in block.get(low..high).unwrap_or_default() {
                bits.insert(*slot);
            }
        }
        bits.into_bitmap()
    }

    /// The place (block, entry) of the first entry within a lower bound.
    fn start_of(&self, bound: Bound<Number>) -> (usize, usize) {
        match bound {
            Bound::Unbounded => (0, 0),
            Bound::Included(number) => self.place(|known| known < number),
            Bound::Excluded(number) => self.place(|known| known <= number),
        }
    }

    /// The place behind the last entry within an upper bound.
    fn end_of(&self, bound: Bound<Number>) -> (usize, usize) {
        match bound {
            Bound::Unbounded => (self.blocks.len(), 0),
            Bound::Included(number) => self.place(|known| known <= number),
            Bound::Excluded(number) => self.place(|known| known < number),
        }
    }

    /// The place of the first entry that is not before.
    fn place(&self, before: impl Fn(Number) -> bool) -> (usize, usize) {
        let starts_before = |block: &Vec<Entry>| block.first().is_some_and(|first| before(first.0));
        let block = self.blocks.partition_point(starts_before).saturating_sub(1);
        let within = self.blocks.get(block).map_or(0, |block| block.partition_point(|entry| before(entry.0)));
        (block, within)
    }

    pub(super) fn any(&self, live: &RoaringBitmap) -> RoaringBitmap {
        let mut bits = DenseBits::new(live);
        for (slot, number) in (0..).zip(&self.first) {
            if number.is_some() {
                bits.insert(slot);
            }
        }
        bits.into_bitmap()
    }

    /// Bytes held, estimated.
    pub(super) fn bytes(&self) -> u64 {
        let cells = self.first.capacity() * size_of::<Option<Number>>();
        // Blocks are between half and entirely full.
        let entries = self.entries * size_of::<Entry>() * 4 / 3;
        (cells + entries + self.more.len() * 80) as u64
    }
}
