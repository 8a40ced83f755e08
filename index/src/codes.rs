//! Vectors as 8-bit codes, and how far a score computed from codes can be from the true one.
//!
//! A vector x becomes whole numbers c in -127..=127 and a scale s, the largest |x_i| / 127, so that x = s c + r with a small
//! residual r. For a query q = t d + e in the same form, the true product is
//!
//! ```text
//!   q·x = (t d)·(s c)  +  e·(s c)  +  q·r
//!   |q·x - t s (d·c)|  <=  |e| s |c| + |q| |r|            (Cauchy-Schwarz)
//! ```
//!
//! d·c is an integer that the kernels find exactly. |r| and |c| are kept for each vector, rounded up. So every vector has a
//! highest and a lowest possible score, and a search may leave out, without looking, each vector whose highest is below
//! the k-th best lowest. The weights below also take in the rounding of the 64-bit sums, which is below 1e-12 of |q| |x|.

use crate::distance::{BoundQuery, CODE_LANES, CODE_OFFSET, CodeQuery, VECTOR_LANES};
use crate::metric::Metric;

/// The largest code.
const CODE_MAX: f64 = 127.0;
/// Covers the rounding of 64-bit sums over up to 4096 values, with a margin.
const ROUNDING: f64 = 1e-11;
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

/// Writes the codes of a vector, each plus 128. Values beyond the vector's end are coded as 0.
pub(crate) fn encode(vector: &[f32], codes: &mut [u8]) -> Terms {
    let largest = vector.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    let scale = (f64::from(largest) / CODE_MAX) as f32;
    let inverse = if scale > 0.0 { 1.0 / f64::from(scale) } else { 0.0 };
    codes.fill(CODE_OFFSET as u8);
    let (mut left_out, mut squared, mut code_square) = (0.0f64, 0.0f64, 0i64);
    for (value, byte) in vector.iter().zip(codes.iter_mut()) {
        let value = f64::from(*value);
        let steps = (value * inverse).clamp(-CODE_MAX, CODE_MAX);
        let code = (steps + 0.5f64.copysign(steps)) as i32;
        let code = code.clamp(-CODE_OFFSET + 1, CODE_OFFSET - 1);
        *byte = (code + CODE_OFFSET) as u8;
        let residual = value - f64::from(scale) * f64::from(code);
        left_out += residual * residual;
        squared += value * value;
        code_square += i64::from(code * code);
    }
    Terms { scale, residual: round_up(left_out.sqrt()), norm: round_up((code_square as f64).sqrt()), squared }
}

/// A 32-bit number above this one.
fn round_up(value: f64) -> f32 {
    ((value * (1.0 + 1e-6)) as f32).next_up()
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
    pub(crate) fn new(vector: &[f32], metric: Metric) -> Self {
        let mut row = vec![0.0; vector_stride(vector.len())];
        fill_row(vector, metric, &mut row);
        let mut bytes = vec![0u8; code_stride(vector.len())];
        let terms = encode(&row, &mut bytes);
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
        let query = Query::new(query, metric);
        let mut row = vec![0.0; query.vector.len()];
        fill_row(other, metric, &mut row);
        let mut codes = vec![0u8; code_stride(other.len())];
        let terms = encode(&row, &mut codes);
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
    fn codes_are_never_minus_128_and_zeros_are_zero() {
        let mut codes = [0u8; 64];
        let terms = encode(&[f32::MAX, -f32::MAX, 1.0], &mut codes);
        assert_eq!(codes[..4], [255, 1, 128, 128]);
        assert!(terms.residual.is_finite() && terms.norm.is_finite());
        let terms = encode(&[0.0; 64], &mut codes);
        assert_eq!(codes, [128; 64]);
        assert!(terms.scale == 0.0 && terms.residual > 0.0);
    }
}
