//! The vectors by which candidates are scored exactly: in memory in 32 or 16 bits a value, or left to whoever has the records.

use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use zeroize::Zeroizing;

use crate::arena::Arena;
use crate::budget::MemoryBudget;
use crate::checkpoint::{Input, RestoreError};
use crate::codes::{fill_row, vector_stride};
use crate::distance::prefetch;
use crate::error::IndexError;
use crate::metric::Metric;
use crate::prepared::PreparedVector;

/// Where a partition has the vectors by which candidates are scored exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VectorStorage {
    /// In memory, as they were given: 4 bytes a dimension.
    #[default]
    MemoryF32,
    /// In memory, each value with 11 significant bits: 2 bytes a dimension. Scores are those of the rounded vectors.
    MemoryF16,
    /// Not in memory. Each search asks for those of its candidates, see [`Records::vector`].
    Elsewhere,
}

/// What a search asks of the records that belong to the slots.
pub trait Records {
    /// Whether the memory in a slot matches. Asked only where the filter's own answer is not certain.
    fn accepts(&mut self, slot: u32) -> bool;

    /// Puts a slot's vector, as it was given, at the end of the empty list. Asked only under [`VectorStorage::Elsewhere`]. False
    /// where it cannot be had; then the search goes on without the memory.
    fn vector(&mut self, slot: u32, into: &mut Vec<f32>) -> bool;
}

/// All match, and there are no vectors to be had.
pub(crate) struct NoRecords;

impl Records for NoRecords {
    fn accepts(&mut self, _slot: u32) -> bool {
        true
    }

    fn vector(&mut self, _slot: u32, _into: &mut Vec<f32>) -> bool {
        false
    }
}

/// The vectors, by slot.
pub(crate) enum Originals {
    F32(Arena<f32>),
    F16 {
        /// As bits of 16-bit floats, each the value over the factor.
        values: Arena<u16>,
        factors: Arena<f32>,
    },
    Elsewhere {
        dimension: usize,
    },
}

impl Originals {
    pub(crate) fn new(storage: VectorStorage, dimension: usize, shift: u32, budget: &MemoryBudget) -> Self {
        let stride = vector_stride(dimension);
        match storage {
            VectorStorage::MemoryF32 => Self::F32(Arena::new(stride, shift, budget.clone())),
            VectorStorage::MemoryF16 => Self::F16 {
                values: Arena::new(stride, shift, budget.clone()),
                factors: Arena::new(1, shift, budget.clone()),
            },
            VectorStorage::Elsewhere => Self::Elsewhere { dimension },
        }
    }

    pub(crate) fn reserve(&mut self, slot: u32) -> Result<(), IndexError> {
        match self {
            Self::F32(values) => values.reserve(slot),
            Self::F16 { values, factors } => values.reserve(slot).and_then(|()| factors.reserve(slot)),
            Self::Elsewhere { .. } => Ok(()),
        }
    }

    /// Keeps a vector in a slot for which there is room.
    pub(crate) fn insert(&mut self, slot: u32, vector: &PreparedVector) {
        match self {
            Self::F32(values) => values.row_mut(slot).copy_from_slice(&vector.row),
            Self::F16 { values, factors } => {
                if let Some(halves) = &vector.halves {
                    values.row_mut(slot).copy_from_slice(&halves.bits);
                    factors.row_mut(slot)[0] = halves.factor;
                }
            }
            Self::Elsewhere { .. } => {}
        }
    }

    /// Whether a slot keeps what it would keep of a vector.
    pub(crate) fn is_same(&self, slot: u32, vector: &PreparedVector) -> bool {
        match self {
            Self::F32(values) => *values.row(slot) == **vector.row,
            Self::F16 { values, factors } => {
                let is_half =
                    |halves: &Halves| *values.row(slot) == **halves.bits && factors.row(slot)[0] == halves.factor;
                vector.halves.as_ref().is_some_and(is_half)
            }
            Self::Elsewhere { .. } => true,
        }
    }

    pub(crate) fn wipe(&mut self, slot: u32) {
        match self {
            Self::F32(values) => values.wipe(slot),
            Self::F16 { values, factors } => {
                values.wipe(slot);
                factors.wipe(slot);
            }
            Self::Elsewhere { .. } => {}
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Self::F32(values) => values.bytes(),
            Self::F16 { values, factors } => values.bytes() + factors.bytes(),
            Self::Elsewhere { .. } => 0,
        }
    }

    #[inline]
    pub(crate) fn prefetch(&self, slot: u32) {
        match self {
            Self::F32(values) => prefetch(values.row(slot)),
            Self::F16 { values, .. } => prefetch(values.row(slot)),
            Self::Elsewhere { .. } => {}
        }
    }

    /// The exact score of a slot's vector for a query as [`fill_row`] fills it; `None` where the vector cannot be had.
    pub(crate) fn score(
        &self,
        metric: Metric,
        query: &[f32],
        slot: u32,
        room: &mut Room,
        records: &mut dyn Records,
    ) -> Option<f64> {
        if let Self::F32(values) = self {
            return Some(metric.score(query, values.row(slot)));
        }
        room.row.clear();
        room.row.resize(query.len(), 0.0);
        match self {
            Self::F16 { values, factors } => expand(values.row(slot), factors.row(slot)[0], &mut room.row),
            _ => {
                room.given.clear();
                let Self::Elsewhere { dimension } = self else { return None };
                if !records.vector(slot, &mut room.given) || room.given.len() != *dimension {
                    return None;
                }
                fill_row(&room.given, metric, &mut room.row);
            }
        }
        Some(metric.score(query, &room.row))
    }

    /// Adds the values of a slot's vector to the end, as they are kept.
    pub(crate) fn write_slot(&self, slot: u32, dimension: usize, into: &mut Vec<u8>) {
        match self {
            Self::F32(values) => {
                values.row(slot)[..dimension].iter().for_each(|value| into.extend_from_slice(&value.to_le_bytes()));
            }
            Self::F16 { values, factors } => {
                values.row(slot)[..dimension].iter().for_each(|value| into.extend_from_slice(&value.to_le_bytes()));
                into.extend_from_slice(&factors.row(slot)[0].to_le_bytes());
            }
            Self::Elsewhere { .. } => {}
        }
    }

    /// Reads what [`Self::write_slot`] has written, into a slot for which there is room.
    pub(crate) fn read_slot(&mut self, slot: u32, dimension: usize, input: &mut Input<'_>) -> Result<(), RestoreError> {
        match self {
            Self::F32(values) => {
                let (bytes, _) = input.take(dimension * 4)?.as_chunks();
                let mut is_finite = true;
                for (value, bytes) in values.row_mut(slot).iter_mut().zip(bytes) {
                    *value = f32::from_le_bytes(*bytes);
                    is_finite &= value.is_finite();
                }
                if is_finite { Ok(()) } else { Err(RestoreError::Damaged("a value is not finite")) }
            }
            Self::F16 { values, factors } => {
                let (bytes, _) = input.take(dimension * 2)?.as_chunks();
                for (value, bytes) in values.row_mut(slot).iter_mut().zip(bytes) {
                    *value = u16::from_le_bytes(*bytes);
                }
                factors.row_mut(slot)[0] = input.f32()?;
                Ok(())
            }
            Self::Elsewhere { .. } => Ok(()),
        }
    }

    /// The bytes of a slot's vector.
    #[cfg(test)]
    pub(crate) fn memory_of(&self, slot: u32) -> Vec<f32> {
        match self {
            Self::F32(values) => values.row(slot).to_vec(),
            Self::F16 { values, factors } => {
                let mut row = vec![0.0; values.row(slot).len()];
                expand(values.row(slot), factors.row(slot)[0], &mut row);
                row
            }
            Self::Elsewhere { .. } => Vec::new(),
        }
    }
}

/// Room for vectors that are not in memory as they are scored; overwritten when dropped.
#[derive(Default)]
pub(crate) struct Room {
    row: Vec<f32>,
    given: Vec<f32>,
}

impl Drop for Room {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.row);
        zeroize::Zeroize::zeroize(&mut self.given);
    }
}

/// A row as bits of 16-bit floats, each the value over the factor.
pub(crate) struct Halves {
    bits: Zeroizing<Vec<u16>>,
    factor: f32,
}

impl Halves {
    /// Rounds a row that [`fill_row`] has filled to what 16 bits can stand for.
    pub(crate) fn of(row: &mut [f32], metric: Metric) -> Self {
        let largest = row.iter().fold(f32::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
        // A power of two, so that dividing by it loses nothing.
        let mut factor = f32::from_bits(largest.to_bits() & 0x7f80_0000);
        let bits: Vec<u16> = row.iter().map(|value| f16::from_f32(value / factor).to_bits()).collect();
        if metric == Metric::Cosine {
            // Rounding has changed the length; the factor makes it 1 again.
            let squared: f64 = bits.iter().map(|bits| f64::from(f16::from_bits(*bits)).powi(2)).sum();
            factor = (1.0 / squared.sqrt()) as f32;
        }
        expand(&bits, factor, row);
        Self { bits: Zeroizing::new(bits), factor }
    }
}

fn expand(bits: &[u16], factor: f32, row: &mut [f32]) {
    bits.reinterpret_cast::<f16>().convert_to_f32_slice(row);
    for value in row {
        *value = (*value * factor).clamp(-f32::MAX, f32::MAX);
    }
}
