//! Vectors as 8-bit codes, and how far a score computed from codes can be from the true one.
//!
//! A vector x is brought to length 1, rotated (`rotation.rs`) and divided into steps of one size for all vectors; so it
//! becomes whole numbers c in -127..=127 and a scale s, with R x = s c + r for a small residual r. For a query
//! R q = t d + e in the same form, the true product is
//!
//! ```text
//!   q·x = (t d)·(s c)  +  e·(s c)  +  (R q)·r
//!   |q·x - t s (d·c)|  <=  |e| s |c| + |q| |r|            (Cauchy-Schwarz)
//! ```
//!
//! d·c is an integer that the kernels find exactly. |r| and |c| are kept for each vector, rounded up. So every vector has a
//! highest and a lowest possible score, and a search may leave out, without looking, each vector whose highest is below
//! the k-th best lowest. The weights below also take in the rounding of the 64-bit sums, which is below 1e-12 of |q| |x|;
//! the residual takes in the rounding of the rotation in 32 bits, which is below 1e-5 of |x|.

use crate::distance::{BoundQuery, CODE_LANES, CODE_OFFSET, CodeQuery, VECTOR_LANES};
use crate::metric::Metric;
use crate::rotation::Rotation;

/// The largest code.
const CODE_MAX: f64 = 127.0;
/// Codes reach this many deviations of a dimension of a rotated vector; the few values beyond are cut off.
const REACH: f64 = 4.0;
/// Covers the rounding of 64-bit sums over up to 4096 values, with a margin.
const ROUNDING: f64 = 1e-11;
/// Covers the rounding of the rotation in 32 bits, with a margin.
const ROTATION_ROUNDING: f64 = 1e-5;
/// How far the score of two vectors that were brought to length 1 in 32 bits may lie beyond 1, with a margin.
const UNIT_ROUNDING: f64 = 1e-6;

/// What is kept of a vector beside its codes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Terms {
    /// The value of one step of the codes.
    pub(crate) scale: f32,
    /// At least the length of what the codes leave out, and above 0.
    pub(crate) residual: f32,
    /// At least the length of the codes.
    pub(crate) norm: f32,
    /// The squared length of the vector.
    pub(crate) squared: f64,
}

/// The length of a row of codes in bytes.
pub(crate) fn code_stride(dimension: usize) -> usize {
    dimension.next_multiple_of(CODE_LANES)
}

/// The length of a row of 32-bit floats.
pub(crate) fn vector_stride(dimension: usize) -> usize {
    dimension.next_multiple_of(VECTOR_LANES)
}

/// Makes codes of vectors of one dimension.
#[derive(Debug)]
pub(crate) struct Encoder {
    dimension: usize,
    rotation: Rotation,
    /// The size of a step for vectors of length 1.
    step: f64,
}

impl Encoder {
    pub(crate) fn new(dimension: usize) -> Self {
        let reach = (REACH / (dimension as f64).sqrt()).min(1.0);
        Self { dimension, rotation: Rotation::new(dimension), step: reach / CODE_MAX }
    }

    /// How far apart two codes are that follow each other, for vectors of length 1.
    pub(crate) fn step(&self) -> f64 {
        self.step
    }

    /// Writes the codes of a vector, each plus 128. Values beyond the dimension are coded as 0.
    pub(crate) fn encode(&self, vector: &[f32], codes: &mut [u8]) -> Terms {
        let vector = &vector[..self.dimension];
        let squared: f64 = vector.iter().map(|value| f64::from(*value) * f64::from(*value)).sum();
        let length = squared.sqrt();
        codes.fill(CODE_OFFSET as u8);
        let scale = (length * self.step) as f32;
        if scale == 0.0 || scale.is_infinite() {
            // Too short or too long for 32 bits: nothing is coded, all is residual.
            return Terms { scale: 0.0, residual: round_up(length), norm: round_up(0.0), squared };
        }
        let mut rotated: Vec<f32> = vector.iter().map(|value| (f64::from(*value) / length) as f32).collect();
        self.rotation.apply(&mut rotated);
        // The scale as it was rounded, so that the residual is that of the codes as they will be read.
        let step = f64::from(scale) / length;
        let (mut left_out, mut code_square) = (0.0f64, 0i64);
        for (value, byte) in rotated.iter().zip(codes.iter_mut()) {
            let value = f64::from(*value);
            let steps = (value / step).clamp(-CODE_MAX, CODE_MAX);
            let code = (steps + 0.5f64.copysign(steps)) as i32;
            let code = code.clamp(-CODE_OFFSET + 1, CODE_OFFSET - 1);
            *byte = (code + CODE_OFFSET) as u8;
            let residual = value - step * f64::from(code);
            left_out += residual * residual;
            code_square += i64::from(code * code);
        }
        let residual = length * (left_out.sqrt() + ROTATION_ROUNDING);
        Terms { scale, residual: round_up(residual), norm: round_up((code_square as f64).sqrt()), squared }
    }
}

/// A 32-bit number above this one.
fn round_up(value: f64) -> f32 {
    ((value * (1.0 + 1e-6)).min(f64::from(f32::MAX)) as f32).next_up()
}

/// A vector made ready to be searched for.
pub(crate) struct Query {
    /// As given, or brought to length 1 under cosine; filled up with zeros.
    pub(crate) vector: Vec<f32>,
    codes: Vec<i8>,
    sum: i32,
    /// For the bounds of scores.
    pub(crate) bounds: BoundQuery,
}

impl Query {
    /// Codes a checked vector.
    pub(crate) fn new(vector: &[f32], metric: Metric, encoder: &Encoder) -> Self {
        let mut row = vec![0.0; vector_stride(vector.len())];
        fill_row(vector, metric, &mut row);
        let mut bytes = vec![0u8; code_stride(vector.len())];
        let terms = encoder.encode(&row, &mut bytes);
        let codes: Vec<i8> = bytes.iter().map(|byte| (i32::from(*byte) - CODE_OFFSET) as i8).collect();
        let sum = codes.iter().map(|code| i32::from(*code)).sum();
        let length = terms.squared.sqrt() * (1.0 + ROUNDING);
        let is_l2 = metric == Metric::L2;
        let bounds = BoundQuery {
            scale: f64::from(terms.scale),
            residual_weight: length,
            norm_weight: f64::from(terms.residual) + ROUNDING * length,
            factor: if is_l2 { 2.0 } else { 1.0 },
            constant: if is_l2 { -terms.squared } else { 0.0 },
            slack: match metric {
                Metric::Cosine => UNIT_ROUNDING,
                Metric::Dot => 0.0,
                Metric::L2 => ROUNDING * terms.squared,
            },
            squared_weight: if is_l2 { ROUNDING } else { 0.0 },
        };
        Self { vector: row, codes, sum, bounds }
    }

    /// The value of one step of the codes.
    pub(crate) fn scale(&self) -> f32 {
        self.bounds.scale as f32
    }

    /// The query's codes, for the kernels.
    pub(crate) fn codes(&self) -> CodeQuery<'_> {
        CodeQuery { codes: &self.codes, sum: self.sum }
    }
}

/// Writes a checked vector as it is kept: as given, or brought to length 1 under cosine. The rest of the row is left.
pub(crate) fn fill_row(vector: &[f32], metric: Metric, row: &mut [f32]) {
    let row = &mut row[..vector.len()];
    row.copy_from_slice(vector);
    if metric == Metric::Cosine {
        let squared: f64 = vector.iter().map(|value| f64::from(*value) * f64::from(*value)).sum();
        let inverse = 1.0 / squared.sqrt();
        for value in row {
            *value = (f64::from(*value) * inverse) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::distance::{BoundColumns, Rows, kernels};

    fn vector(dimension: usize) -> impl Strategy<Value = Vec<f32>> {
        let value = prop_oneof![
            8 => -1.0f32..1.0,
            1 => any::<f32>().prop_filter("finite", |value| value.is_finite()),
            1 => Just(0.0f32),
        ];
        proptest::collection::vec(value, dimension)
    }

    /// The true score in 64 bits, and the bounds from codes.
    fn bounds(query: &[f32], other: &[f32], metric: Metric) -> (f64, f64, f64) {
        let encoder = Encoder::new(query.len());
        let query = Query::new(query, metric, &encoder);
        let mut row = vec![0.0; query.vector.len()];
        fill_row(other, metric, &mut row);
        let mut codes = vec![0u8; code_stride(other.len())];
        let terms = encoder.encode(&row, &mut codes);
        let mut product = [0];
        kernels().dot_rows(query.codes(), &codes, Rows::First(1), &mut product);
        let columns = BoundColumns {
            products: &product,
            scale: &[terms.scale],
            residual: &[terms.residual],
            norm: &[terms.norm],
            squared: if metric == Metric::L2 { &[terms.squared] } else { &[] },
        };
        let (mut upper, mut lower) = ([0.0], [0.0]);
        kernels().bound_rows(&query.bounds, &columns, &mut upper, &mut lower);
        (metric.score(&query.vector, &row), upper[0], lower[0])
    }

    proptest! {
        #[test]
        fn the_true_score_lies_within_the_bounds((query, other) in (1usize..70).prop_flat_map(|d| (vector(d), vector(d)))) {
            for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
                let is_zero = |vector: &[f32]| vector.iter().all(|value| *value == 0.0);
                if metric == Metric::Cosine && (is_zero(&query) || is_zero(&other)) {
                    continue;
                }
                for other in [&other, &query] {
                    let (score, upper, lower) = bounds(&query, other, metric);
                    prop_assert!(lower <= score && score <= upper, "{metric:?} {lower} {score} {upper}");
                }
            }
        }
    }

    #[test]
    fn the_bounds_of_common_vectors_are_narrow() {
        let vector: Vec<f32> = (0..384).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
        let (score, upper, lower) = bounds(&vector, &vector, Metric::Cosine);
        assert!((score - 1.0).abs() < 1e-6);
        assert!(upper - lower < 0.04, "{}", upper - lower);
    }

    #[test]
    fn extremes_are_coded() {
        let mut codes = [0u8; 64];
        let encoder = Encoder::new(3);
        for vector in [[f32::MAX, -f32::MAX, 1.0], [0.0; 3], [1e-45, 0.0, 0.0]] {
            let terms = encoder.encode(&vector, &mut codes);
            assert!(codes[..3].iter().all(|code| *code > 0) && codes[3..].iter().all(|code| *code == 128));
            assert!(terms.residual > 0.0 && terms.norm.is_finite() && terms.scale.is_finite());
        }
    }
}
