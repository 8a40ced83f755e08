//! NEON, which every 64-bit ARM processor has.

use std::arch::aarch64::*;

use super::{CodeQuery, EachRow, Kernels, Rows, VECTOR_LANES, scalar};

pub(super) static NEON: Kernels = Kernels {
    name: "neon",
    // SAFETY: NEON is part of the base of 64-bit ARM; so below.
    dot_rows: |query, block, rows, out| unsafe { dot_rows(query, block, rows, out) },
    // SAFETY: as above.
    dot_each: |query, rows, out| unsafe { dot_each(query, rows, out) },
    // SAFETY: as above.
    dot: |a, b| unsafe { dot(a, b) },
    // SAFETY: as above.
    squared_distance: |a, b| unsafe { squared_distance(a, b) },
    dot_signs: scalar::dot_signs,
    bound_rows: scalar::bound_rows,
};

#[target_feature(enable = "neon")]
fn dot_rows(query: CodeQuery<'_>, block: &[u8], rows: Rows<'_>, out: &mut [i32]) {
    let stride = query.codes.len();
    for (position, out) in out.iter_mut().enumerate() {
        let row = match rows {
            Rows::First(_) => position,
            Rows::At(rows) => rows[position] as usize,
        };
        *out = dot_codes(query.codes, &block[row * stride..][..stride]);
    }
}

#[target_feature(enable = "neon")]
fn dot_each(query: CodeQuery<'_>, rows: EachRow<'_>, out: &mut [i32]) {
    for (row, out) in rows.iter().zip(out) {
        *out = dot_codes(query.codes, row);
    }
}

/// Codes are taken back to their signed form, whose products of at most 127 * 127 fit in 16 bits two by two.
#[inline]
#[target_feature(enable = "neon")]
fn dot_codes(query: &[i8], codes: &[u8]) -> i32 {
    let offset = vdupq_n_u8(128);
    let (mut first, mut second) = (vdupq_n_s32(0), vdupq_n_s32(0));
    for (query, codes) in query.chunks_exact(16).zip(codes.chunks_exact(16)) {
        // SAFETY: both chunks have 16 bytes.
        let (query, codes) = unsafe { (vld1q_s8(query.as_ptr()), vld1q_u8(codes.as_ptr())) };
        let codes = vreinterpretq_s8_u8(veorq_u8(codes, offset));
        first = vpadalq_s16(first, vmull_s8(vget_low_s8(query), vget_low_s8(codes)));
        second = vpadalq_s16(second, vmull_high_s8(query, codes));
    }
    vaddvq_s32(vaddq_s32(first, second))
}

#[target_feature(enable = "neon")]
fn dot(a: &[f32], b: &[f32]) -> f64 {
    let mut lanes = [vdupq_n_f64(0.0); 8];
    for start in (0..a.len()).step_by(VECTOR_LANES) {
        for (pair, lanes) in lanes.iter_mut().enumerate() {
            *lanes = vfmaq_f64(*lanes, widen(a, start + pair * 2), widen(b, start + pair * 2));
        }
    }
    fold(lanes)
}

#[target_feature(enable = "neon")]
fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    let mut lanes = [vdupq_n_f64(0.0); 8];
    for start in (0..a.len()).step_by(VECTOR_LANES) {
        for (pair, lanes) in lanes.iter_mut().enumerate() {
            let difference = vsubq_f64(widen(a, start + pair * 2), widen(b, start + pair * 2));
            *lanes = vaddq_f64(*lanes, vmulq_f64(difference, difference));
        }
    }
    fold(lanes)
}

/// Two values from `start` in 64 bits.
#[inline]
#[target_feature(enable = "neon")]
fn widen(values: &[f32], start: usize) -> float64x2_t {
    let values = &values[start..start + 2];
    // SAFETY: two values lie in the slice.
    vcvt_f64_f32(unsafe { vld1_f32(values.as_ptr()) })
}

/// Adds lanes pairwise at distance 8, 4, 2 and 1, as the scalar functions do.
#[inline]
#[target_feature(enable = "neon")]
fn fold(lanes: [float64x2_t; 8]) -> f64 {
    let four: [float64x2_t; 4] = std::array::from_fn(|pair| vaddq_f64(lanes[pair], lanes[pair + 4]));
    let two = [vaddq_f64(four[0], four[2]), vaddq_f64(four[1], four[3])];
    vaddvq_f64(vaddq_f64(two[0], two[1]))
}
