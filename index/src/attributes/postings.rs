//! The slots that have one value.

use std::borrow::Cow;

use roaring::RoaringBitmap;

use super::dense::DenseBits;
use super::matches::Slots;

/// Up to this many slots are kept without a bitmap.
const FEW: usize = 3;

/// A set of slots; most values of a field with many values have few.
#[derive(Debug)]
pub(super) enum Postings {
    /// The first `length` of these, in no order.
    Few { length: u8, slots: [u32; FEW] },
    /// More.
    Many(Box<RoaringBitmap>),
}

impl Default for Postings {
    fn default() -> Self {
        Self::Few { length: 0, slots: [0; FEW] }
    }
}

impl Postings {
    /// Adds a slot that is not in the set.
    pub(super) fn insert(&mut self, slot: u32) {
        match self {
            Self::Few { length, slots } if usize::from(*length) < FEW => {
                slots[usize::from(*length)] = slot;
                *length += 1;
            }
            Self::Few { slots, .. } => {
                let mut bitmap: RoaringBitmap = slots.iter().copied().collect();
                bitmap.insert(slot);
                *self = Self::Many(Box::new(bitmap));
            }
            Self::Many(bitmap) => {
                bitmap.insert(slot);
            }
        }
    }

    /// Takes a slot out. Returns whether the set is empty then.
    pub(super) fn remove(&mut self, slot: u32) -> bool {
        match self {
            Self::Few { length, slots } => {
                let used = usize::from(*length);
                if let Some(position) = slots[..used].iter().position(|known| *known == slot) {
                    slots[position] = slots[used - 1];
                    *length -= 1;
                }
                *length == 0
            }
            Self::Many(bitmap) => {
                bitmap.remove(slot);
                bitmap.is_empty()
            }
        }
    }

    pub(super) fn slots(&self) -> Slots<'_> {
        match self {
            Self::Few { length, slots } => Cow::Owned(slots[..usize::from(*length)].iter().copied().collect()),
            Self::Many(bitmap) => Cow::Borrowed(bitmap),
        }
    }

    pub(super) fn add_to(&self, bits: &mut DenseBits) {
        match self {
            Self::Few { length, slots } => slots[..usize::from(*length)].iter().for_each(|slot| bits.insert(*slot)),
            Self::Many(bitmap) => bitmap.iter().for_each(|slot| bits.insert(slot)),
        }
    }
}
