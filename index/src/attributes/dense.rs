//! A passing set of slots, one bit each: cheap to fill in any order.

use roaring::RoaringBitmap;

/// One bit for each slot below a limit.
pub(super) struct DenseBits(Vec<u8>);

impl DenseBits {
    /// An empty set for all slots of `live`.
    pub(super) fn new(live: &RoaringBitmap) -> Self {
        Self(vec![0; live.max().map_or(0, |last| last as usize / 8 + 1)])
    }

    /// Adds a live slot.
    #[inline]
    pub(super) fn insert(&mut self, slot: u32) {
        if let Some(byte) = self.0.get_mut(slot as usize / 8) {
            *byte |= 1 << (slot % 8);
        }
    }

    pub(super) fn into_bitmap(self) -> RoaringBitmap {
        RoaringBitmap::from_lsb0_bytes(0, &self.0)
    }
}
