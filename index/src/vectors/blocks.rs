//! A slot's codes and vector as bytes, and back; see `checkpoint/mod.rs` for the layout.

use super::VectorStore;
use crate::checkpoint::{Input, RestoreError};
use crate::distance::CODE_OFFSET;
use crate::error::IndexError;
use crate::metric::Metric;

impl VectorStore {
    /// Makes room in one piece for the first chunk of so many slots.
    pub(crate) fn reserve_first(&mut self, slots: u32) -> Result<(), IndexError> {
        if slots == 0 { Ok(()) } else { self.reserve(slots.min(1 << self.shift) - 1) }
    }

    /// Adds what a slot holds.
    pub(crate) fn write_slot(&self, slot: u32, into: &mut Vec<u8>) {
        if !self.present.contains(slot) {
            into.push(0);
            return;
        }
        into.push(1);
        into.extend_from_slice(&self.codes.row(slot)[..self.dimension]);
        for column in [&self.scale, &self.residual, &self.norm] {
            into.extend_from_slice(&column.row(slot)[0].to_le_bytes());
        }
        if self.metric == Metric::L2 {
            into.extend_from_slice(&self.squared.row(slot)[0].to_le_bytes());
        }
        self.originals.write_slot(slot, self.dimension, into);
    }

    /// Reads what [`Self::write_slot`] has written, into a slot without a vector.
    pub(crate) fn read_slot(&mut self, slot: u32, input: &mut Input<'_>) -> Result<(), RestoreError> {
        if !input.flag()? {
            return Ok(());
        }
        self.reserve(slot)?;
        let codes = input.take(self.dimension)?;
        if codes.contains(&0) {
            return Err(RestoreError::Damaged("a code is out of range"));
        }
        let row = self.codes.row_mut(slot);
        let (values, rest) = row.split_at_mut(self.dimension);
        values.copy_from_slice(codes);
        rest.fill(CODE_OFFSET as u8);
        self.keep_signs(slot);
        self.scale.row_mut(slot)[0] = input.f32()?;
        self.residual.row_mut(slot)[0] = input.f32()?;
        self.norm.row_mut(slot)[0] = input.f32()?;
        if self.metric == Metric::L2 {
            self.squared.row_mut(slot)[0] = input.f64()?;
        }
        self.originals.read_slot(slot, self.dimension, input)?;
        self.present.insert(slot);
        Ok(())
    }
}
