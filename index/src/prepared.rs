//! Vectors made ready for a partition: checked, brought to length 1 where the metric asks for it, and coded. That is most of the
//! work of adding one, and needs no partition, so that it can be done before one is locked.

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::codes::{Encoder, Terms, code_stride, fill_row, vector_stride};
use crate::error::IndexError;
use crate::metric::Metric;
use crate::originals::{Halves, VectorStorage};

/// Makes vectors ready for the partitions of one dimension, metric and storage. A clone is cheap.
#[derive(Debug, Clone)]
pub struct VectorPreparer {
    pub(crate) dimension: usize,
    pub(crate) metric: Metric,
    pub(crate) storage: VectorStorage,
    pub(crate) encoder: Arc<Encoder>,
}

/// A vector that is ready to be added by [`crate::Partition::upsert_prepared`]. Overwritten when dropped.
pub struct PreparedVector {
    dimension: usize,
    metric: Metric,
    storage: VectorStorage,
    /// As kept in 32 bits; the values that 16 bits stand for where those are kept.
    pub(crate) row: Zeroizing<Vec<f32>>,
    pub(crate) halves: Option<Halves>,
    pub(crate) codes: Zeroizing<Vec<u8>>,
    pub(crate) terms: Terms,
}

impl VectorPreparer {
    /// Makes a vector ready. Fails where [`crate::Partition::check_vector`] would.
    pub fn prepare(&self, vector: &[f32]) -> Result<PreparedVector, IndexError> {
        self.check(vector)?;
        let mut row = Zeroizing::new(vec![0.0; vector_stride(self.dimension)]);
        fill_row(vector, self.metric, &mut row);
        let halves = (self.storage == VectorStorage::MemoryF16).then(|| Halves::of(&mut row, self.metric));
        let mut codes = Zeroizing::new(vec![0; code_stride(self.dimension)]);
        let terms = self.encoder.encode(&row, &mut codes);
        let Self { dimension, metric, storage, .. } = *self;
        Ok(PreparedVector { dimension, metric, storage, row, halves, codes, terms })
    }

    pub(crate) fn check(&self, vector: &[f32]) -> Result<(), IndexError> {
        if vector.len() != self.dimension {
            return Err(IndexError::WrongDimension { expected: self.dimension, found: vector.len() });
        }
        if let Some(position) = vector.iter().position(|value| !value.is_finite()) {
            return Err(IndexError::NotFinite { position });
        }
        if self.metric == Metric::Cosine && vector.iter().all(|value| *value == 0.0) {
            return Err(IndexError::ZeroVector);
        }
        Ok(())
    }

    /// Whether a vector was made ready by this preparer or one like it.
    pub(crate) fn has_made(&self, vector: &PreparedVector) -> bool {
        (self.dimension, self.metric, self.storage) == (vector.dimension, vector.metric, vector.storage)
    }
}
