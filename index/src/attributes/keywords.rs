//! The index of a field of strings: each string in order, with the slots that have it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use roaring::RoaringBitmap;
use zeroize::Zeroize;

use super::dense::DenseBits;
use super::matches::Slots;
use super::postings::Postings;
use crate::filter::is_within;
use crate::slots::push_tight;

/// What a string costs beside its bytes: two counters, its place in the order and its postings.
const TEXT_BYTES: u64 = 96;

/// Strings by slot and slots by string. Each string has a number, which is used again once no slot has the string.
#[derive(Default)]
pub(super) struct Keywords {
    numbers: BTreeMap<Arc<str>, u32>,
    texts: Vec<Text>,
    free: Vec<u32>,
    /// The number of each slot's first string plus 1; 0: none.
    first: Vec<u32>,
    /// The numbers of the other strings of slots with several.
    more: BTreeMap<u32, Box<[u32]>>,
    text_bytes: u64,
}

#[derive(Default)]
struct Text {
    text: Option<Arc<str>>,
    postings: Postings,
}

impl Keywords {
    /// Gives a slot without strings these ones, each once.
    pub(super) fn insert<'a>(&mut self, slot: u32, mut texts: impl Iterator<Item = &'a str>) {
        let Some(first) = texts.next() else { return };
        let number = self.add(slot, first);
        while self.first.len() <= slot as usize {
            push_tight(&mut self.first, 0);
        }
        self.first[slot as usize] = number + 1;
        let more: Box<[u32]> = texts.map(|text| self.add(slot, text)).collect();
        if !more.is_empty() {
            self.more.insert(slot, more);
        }
    }

    fn add(&mut self, slot: u32, text: &str) -> u32 {
        let number = match self.numbers.get(text) {
            Some(number) => *number,
            None => self.add_text(text),
        };
        self.texts[number as usize].postings.insert(slot);
        number
    }

    fn add_text(&mut self, text: &str) -> u32 {
        let shared: Arc<str> = text.into();
        let entry = Text { text: Some(Arc::clone(&shared)), postings: Postings::default() };
        let number = match self.free.pop() {
            Some(number) => {
                self.texts[number as usize] = entry;
                number
            }
            None => {
                push_tight(&mut self.texts, entry);
                self.texts.len() as u32 - 1
            }
        };
        self.text_bytes += text.len() as u64 + TEXT_BYTES;
        self.numbers.insert(shared, number);
        number
    }

    /// Takes a slot's strings away, and overwrites those that no other slot has.
    pub(super) fn remove(&mut self, slot: u32) {
        let Some(first) = self.first.get_mut(slot as usize) else { return };
        let Some(number) = std::mem::take(first).checked_sub(1) else { return };
        self.subtract(slot, number);
        for number in self.more.remove(&slot).unwrap_or_default() {
            self.subtract(slot, number);
        }
    }

    fn subtract(&mut self, slot: u32, number: u32) {
        let entry = &mut self.texts[number as usize];
        if !entry.postings.remove(slot) {
            return;
        }
        let Some(mut text) = std::mem::take(entry).text else { return };
        self.numbers.remove(&text);
        self.text_bytes -= text.len() as u64 + TEXT_BYTES;
        if let Some(text) = Arc::get_mut(&mut text) {
            text.zeroize();
        }
        self.free.push(number);
    }

    /// The strings of a slot, in ascending order.
    pub(super) fn of(&self, slot: u32) -> impl Iterator<Item = &str> {
        let first = self.first.get(slot as usize).and_then(|number| number.checked_sub(1));
        let more = self.more.get(&slot).map_or(&[][..], |more| more);
        let numbers = first.into_iter().chain(more.iter().copied());
        numbers.filter_map(|number| self.texts.get(number as usize)?.text.as_deref())
    }

    pub(super) fn equal(&self, text: &str) -> Slots<'_> {
        let number = self.numbers.get(text);
        number.map(|number| self.texts[*number as usize].postings.slots()).unwrap_or_default()
    }

    /// Slots with any string in a range that is open on one side.
    pub(super) fn range(&self, range: (Bound<&str>, Bound<&str>), live: &RoaringBitmap) -> RoaringBitmap {
        self.union(live, self.numbers.range::<str, _>(range).map(|(_, number)| *number))
    }

    pub(super) fn with_prefix(&self, prefix: &str, live: &RoaringBitmap) -> RoaringBitmap {
        let from_prefix = self.numbers.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        let with_prefix = from_prefix.take_while(|(text, _)| text.starts_with(prefix));
        self.union(live, with_prefix.map(|(_, number)| *number))
    }

    pub(super) fn containing(&self, part: &str, live: &RoaringBitmap) -> RoaringBitmap {
        let containing = self.numbers.iter().filter(|(text, _)| text.contains(part));
        self.union(live, containing.map(|(_, number)| *number))
    }

    pub(super) fn within(&self, root: &str, live: &RoaringBitmap) -> RoaringBitmap {
        let from_root = self.numbers.range::<str, _>((Bound::Included(root), Bound::Unbounded));
        let near = from_root.take_while(|(text, _)| text.starts_with(root));
        self.union(live, near.filter(|(text, _)| is_within(text, root)).map(|(_, number)| *number))
    }

    pub(super) fn any(&self, live: &RoaringBitmap) -> RoaringBitmap {
        let mut bits = DenseBits::new(live);
        for (slot, number) in (0..).zip(&self.first) {
            if *number != 0 {
                bits.insert(slot);
            }
        }
        bits.into_bitmap()
    }

    fn union(&self, live: &RoaringBitmap, numbers: impl Iterator<Item = u32>) -> RoaringBitmap {
        let mut bits = DenseBits::new(live);
        for number in numbers {
            self.texts[number as usize].postings.add_to(&mut bits);
        }
        bits.into_bitmap()
    }

    /// Bytes held, estimated.
    pub(super) fn bytes(&self) -> u64 {
        let more: u64 = self.more.len() as u64 * 64;
        self.text_bytes + self.first.len() as u64 * 7 + more
    }
}

impl Drop for Keywords {
    fn drop(&mut self) {
        self.numbers.clear();
        for entry in &mut self.texts {
            if let Some(text) = entry.text.as_mut().and_then(Arc::get_mut) {
                text.zeroize();
            }
        }
    }
}
