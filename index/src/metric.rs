//! How two vectors are compared.

use crate::distance::kernels;

/// How two vectors are compared. A score is always better when higher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Score: cosine of the angle. Distance: 1 - score.
    Cosine,
    /// Score: inner product. Distance: -score.
    Dot,
    /// Score: -(squared Euclidean distance). Distance: squared Euclidean distance.
    L2,
}

impl Metric {
    /// The exact score of two rows as they are kept: of one length, filled up, and of length 1 under cosine.
    #[inline]
    pub(crate) fn score(self, a: &[f32], b: &[f32]) -> f64 {
        match self {
            Self::Cosine => kernels().dot(a, b).clamp(-1.0, 1.0),
            Self::Dot => kernels().dot(a, b),
            Self::L2 => -kernels().squared_distance(a, b),
        }
    }

    /// The distance that belongs to a score.
    pub fn distance(self, score: f64) -> f64 {
        match self {
            Self::Cosine => 1.0 - score,
            Self::Dot | Self::L2 => 0.0 - score,
        }
    }
}
