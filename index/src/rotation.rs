//! A fixed random rotation of vectors, which spreads their length evenly over all dimensions.
//!
//! Embeddings often have a few dimensions that are far larger than the others. After a random rotation each dimension of
//! a vector of length 1 is near to normally distributed with deviation 1/sqrt(d), whatever the vector was, so that one
//! step size for codes fits all vectors.
//!
//! The rotation is four rounds of: flip signs, then a Walsh-Hadamard transform of the first, in the next round of the last,
//! p dimensions, where p is the largest power of two within the dimension, then a turn of both halves against each other
//! (as in the library of RaBitQ, where the step is named after Kac). Each step keeps lengths and angles. The signs come
//! from a fixed seed; all partitions of one dimension rotate alike.

use std::f32::consts::FRAC_1_SQRT_2;

const ROUNDS: usize = 4;
/// The seed of the signs. Codes that were kept would have to be made anew if it changed.
const SEED: u64 = 0x0043_6169_726e_0001;

/// The rotation of one dimension.
#[derive(Debug)]
pub(crate) struct Rotation {
    dimension: usize,
    /// 1 or -1 over the square root of p, by round and dimension of its window.
    signs: Box<[f32]>,
}

impl Rotation {
    pub(crate) fn new(dimension: usize) -> Self {
        let window = window(dimension);
        let length = 1.0 / (window as f32).sqrt();
        let mut state = SEED;
        let signs = (0..ROUNDS * window).map(|_| if next_random(&mut state) >> 63 == 0 { length } else { -length });
        Self { dimension, signs: signs.collect() }
    }

    /// Rotates a vector of the dimension in place.
    pub(crate) fn apply(&self, vector: &mut [f32]) {
        let window = window(self.dimension);
        for (round, signs) in self.signs.chunks_exact(window).enumerate() {
            let start = if round % 2 == 0 { 0 } else { self.dimension - window };
            let values = &mut vector[start..start + window];
            for (value, sign) in values.iter_mut().zip(signs) {
                *value *= sign;
            }
            transform(values);
            mix_halves(vector);
        }
    }
}

fn window(dimension: usize) -> usize {
    1 << dimension.ilog2()
}

/// The Walsh-Hadamard transform without its factor. The length is a power of two.
fn transform(values: &mut [f32]) {
    let (eights, rest) = values.as_chunks_mut();
    let mut half = if rest.is_empty() { 8 } else { 1 };
    eights.iter_mut().for_each(transform_eight);
    while half < values.len() {
        for pair in values.chunks_exact_mut(half * 2) {
            let (low, high) = pair.split_at_mut(half);
            for (low, high) in low.iter_mut().zip(high) {
                (*low, *high) = (*low + *high, *low - *high);
            }
        }
        half *= 2;
    }
}

/// The first three steps of the transform, on eight values in registers.
#[inline]
fn transform_eight(values: &mut [f32; 8]) {
    let [a, b, c, d, e, f, g, h] = *values;
    let (a, b, c, d) = (a + b, a - b, c + d, c - d);
    let (e, f, g, h) = (e + f, e - f, g + h, g - h);
    let (a, b, c, d) = (a + c, b + d, a - c, b - d);
    let (e, f, g, h) = (e + g, f + h, e - g, f - h);
    *values = [a + e, b + f, c + g, d + h, a - e, b - f, c - g, d - h];
}

/// Turns each value of the first half against its counterpart of the second by an eighth of a circle.
fn mix_halves(vector: &mut [f32]) {
    let (low, high) = vector.split_at_mut(vector.len() / 2);
    for (low, high) in low.iter_mut().zip(high) {
        let (sum, difference) = (*low + *high, *low - *high);
        (*low, *high) = (sum * FRAC_1_SQRT_2, difference * FRAC_1_SQRT_2);
    }
}

/// The next number of the generator splitmix64.
pub(crate) fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn squared(vector: &[f32]) -> f64 {
        vector.iter().map(|value| f64::from(*value).powi(2)).sum()
    }

    /// Codes that were kept rely on it.
    #[test]
    fn the_transform_is_that_of_its_definition_to_the_bit() {
        for length in [1_usize, 2, 4, 8, 64, 256] {
            let mut state = 7;
            let values: Vec<f32> = (0..length).map(|_| (next_random(&mut state) >> 40) as f32 - 8e6).collect();
            let (mut transformed, mut expected) = (values.clone(), values);
            transform(&mut transformed);
            for step in 0..length.ilog2() {
                let half = 1 << step;
                for low in (0..length).filter(|at| at & half == 0) {
                    let (a, b) = (expected[low], expected[low + half]);
                    (expected[low], expected[low + half]) = (a + b, a - b);
                }
            }
            assert_eq!(transformed, expected);
        }
    }

    #[test]
    fn lengths_are_kept_and_lone_values_are_spread() {
        for dimension in [1, 2, 3, 7, 64, 100, 384, 1536, 4095, 4096] {
            let rotation = Rotation::new(dimension);
            for place in [0, dimension / 2, dimension - 1] {
                let mut vector = vec![0.0; dimension];
                vector[place] = 1.0;
                rotation.apply(&mut vector);
                assert!((squared(&vector) - 1.0).abs() < 1e-5, "{dimension}");
                let largest = vector.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
                assert!(dimension < 64 || largest < 6.0 / (dimension as f32).sqrt(), "{dimension}: {largest}");
            }
        }
    }
}
