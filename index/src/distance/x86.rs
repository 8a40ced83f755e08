//! AVX2 and AVX-512 for 64-bit x86.

use std::arch::x86_64::*;

use super::{
    BoundColumns, BoundQuery, CODE_LANES, CODE_OFFSET, CodeQuery, EachRow, Kernels, Rows, SignRows, VECTOR_LANES,
    scalar,
};

static AVX512: Kernels = Kernels {
    name: "avx512-vnni",
    // SAFETY: this table is only handed out after the processor was found to have these instructions; so are those below.
    dot_rows: |query, block, rows, out| unsafe { dot_rows_avx512(query, block, rows, out) },
    // SAFETY: as above.
    dot_each: |query, rows, out| unsafe { dot_each_avx512(query, rows, out) },
    // SAFETY: as above.
    dot_signs: |query, rows, out| unsafe { dot_signs_avx512(query, rows, out) },
    // SAFETY: as above.
    dot: |a, b| unsafe { dot_avx512(a, b) },
    // SAFETY: as above.
    squared_distance: |a, b| unsafe { squared_distance_avx512(a, b) },
    // SAFETY: as above.
    bound_rows: |query, columns, upper, lower| unsafe { bound_rows_avx512(query, columns, upper, lower) },
};

static AVX2: Kernels = Kernels {
    name: "avx2",
    // SAFETY: as above.
    dot_rows: |query, block, rows, out| unsafe { dot_rows_avx2(query, block, rows, out) },
    // SAFETY: as above.
    dot_each: |query, rows, out| unsafe { dot_each_avx2(query, rows, out) },
    // SAFETY: as above.
    dot_signs: |query, rows, out| unsafe { dot_signs_avx2(query, rows, out) },
    // SAFETY: as above.
    dot: |a, b| unsafe { dot_avx2(a, b) },
    // SAFETY: as above.
    squared_distance: |a, b| unsafe { squared_distance_avx2(a, b) },
    // SAFETY: as above.
    bound_rows: |query, columns, upper, lower| unsafe { bound_rows_avx2(query, columns, upper, lower) },
};

/// The tables that this processor can run, the fastest first.
pub(super) fn available() -> Vec<&'static Kernels> {
    let mut found = Vec::new();
    let has_avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let has_avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vnni");
    if has_avx512 && has_avx2 {
        found.push(&AVX512);
    }
    if has_avx2 {
        found.push(&AVX2);
    }
    found
}

/// How many rows are compared at once, so that their loads overlap and their sums are folded together.
const TOGETHER: usize = 4;

/// Splits rows into groups of four, and repeats the last row to fill the last group.
#[inline(always)]
fn for_each_group(
    out: &mut [i32],
    row: impl Fn(usize) -> *const u8,
    mut group: impl FnMut([*const u8; TOGETHER]) -> [i32; TOGETHER],
) {
    let last = out.len().saturating_sub(1);
    for (number, out) in out.chunks_mut(TOGETHER).enumerate() {
        let start = number * TOGETHER;
        let products = group(std::array::from_fn(|offset| row((start + offset).min(last))));
        out.copy_from_slice(&products[..out.len()]);
    }
}

/// The start of the row in a position. The caller has checked that the block holds all rows.
#[inline(always)]
fn row_start(block: &[u8], stride: usize, rows: Rows<'_>, position: usize) -> *const u8 {
    let row = match rows {
        Rows::First(_) => position,
        Rows::At(rows) => rows[position] as usize,
    };
    block[row * stride..].as_ptr()
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx2")]
fn dot_rows_avx512(query: CodeQuery<'_>, block: &[u8], rows: Rows<'_>, out: &mut [i32]) {
    let stride = query.codes.len();
    // SAFETY: `Kernels::dot_rows` has checked that each row lies within the block.
    for_each_group(out, |at| row_start(block, stride, rows, at), |group| unsafe { dot_four_avx512(query, group) });
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx2")]
fn dot_each_avx512(query: CodeQuery<'_>, rows: EachRow<'_>, out: &mut [i32]) {
    // SAFETY: `Kernels::dot_each` has checked that each row is as long as the query.
    for_each_group(out, |at| rows[at].as_ptr(), |group| unsafe { dot_four_avx512(query, group) });
}

/// # Safety
///
/// Each row must have as many bytes as the query has codes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx2")]
unsafe fn dot_four_avx512(query: CodeQuery<'_>, rows: [*const u8; TOGETHER]) -> [i32; TOGETHER] {
    let shift = CODE_OFFSET * query.sum;
    let mut sums = [_mm512_setzero_si512(); TOGETHER];
    for start in (0..query.codes.len()).step_by(CODE_LANES) {
        // SAFETY: `start + 64` is at most the query's length, and so the row's.
        unsafe {
            let query = _mm512_loadu_si512(query.codes.as_ptr().add(start).cast());
            for (sum, row) in sums.iter_mut().zip(rows) {
                *sum = _mm512_dpbusd_epi32(*sum, _mm512_loadu_si512(row.add(start).cast()), query);
            }
        }
    }
    let halves = sums.map(|sum| _mm256_add_epi32(_mm512_castsi512_si256(sum), _mm512_extracti64x4_epi64::<1>(sum)));
    fold(halves).map(|sum| sum - shift)
}

#[target_feature(enable = "avx2")]
fn dot_rows_avx2(query: CodeQuery<'_>, block: &[u8], rows: Rows<'_>, out: &mut [i32]) {
    let stride = query.codes.len();
    // SAFETY: `Kernels::dot_rows` has checked that each row lies within the block.
    for_each_group(out, |at| row_start(block, stride, rows, at), |group| unsafe { dot_four_avx2(query, group) });
}

#[target_feature(enable = "avx2")]
fn dot_each_avx2(query: CodeQuery<'_>, rows: EachRow<'_>, out: &mut [i32]) {
    // SAFETY: `Kernels::dot_each` has checked that each row is as long as the query.
    for_each_group(out, |at| rows[at].as_ptr(), |group| unsafe { dot_four_avx2(query, group) });
}

/// # Safety
///
/// Each row must have as many bytes as the query has codes.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn dot_four_avx2(query: CodeQuery<'_>, rows: [*const u8; TOGETHER]) -> [i32; TOGETHER] {
    let shift = CODE_OFFSET * query.sum;
    let mut sums = [_mm256_setzero_si256(); TOGETHER];
    for start in (0..query.codes.len()).step_by(16) {
        // SAFETY: `start + 16` is at most the query's length, and so the row's.
        unsafe {
            let query = _mm256_cvtepi8_epi16(_mm_loadu_si128(query.codes.as_ptr().add(start).cast()));
            for (sum, row) in sums.iter_mut().zip(rows) {
                let codes = _mm256_cvtepu8_epi16(_mm_loadu_si128(row.add(start).cast()));
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(query, codes));
            }
        }
    }
    fold(sums).map(|sum| sum - shift)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx2")]
fn dot_signs_avx512(query: CodeQuery<'_>, rows: SignRows<'_>, out: &mut [i32]) {
    let (ones, last) = (_mm512_set1_epi8(1), rows.len().saturating_sub(1));
    for (number, out) in out.chunks_mut(TOGETHER).enumerate() {
        let group: [&[u64]; TOGETHER] = std::array::from_fn(|offset| rows[(number * TOGETHER + offset).min(last)]);
        let mut sums = [_mm512_setzero_si512(); TOGETHER];
        for (line, codes) in query.codes.chunks_exact(CODE_LANES).enumerate() {
            // SAFETY: the line has 64 codes.
            let codes = unsafe { _mm512_loadu_si512(codes.as_ptr().cast()) };
            for (sum, row) in sums.iter_mut().zip(group) {
                *sum = _mm512_dpbusd_epi32(*sum, ones, _mm512_maskz_mov_epi8(row[line], codes));
            }
        }
        let halves = sums.map(|sum| _mm256_add_epi32(_mm512_castsi512_si256(sum), _mm512_extracti64x4_epi64::<1>(sum)));
        let products = fold(halves).map(|sum| 2 * sum - query.sum);
        out.copy_from_slice(&products[..out.len()]);
    }
}

#[target_feature(enable = "avx2")]
fn dot_signs_avx2(query: CodeQuery<'_>, rows: SignRows<'_>, out: &mut [i32]) {
    const HALF: usize = CODE_LANES / 2;
    // Each byte of the 32 bits goes to eight lanes, each of which then looks at one bit.
    let spread = _mm256_setr_epi64x(0, 0x0101_0101_0101_0101, 0x0202_0202_0202_0202, 0x0303_0303_0303_0303);
    let bits = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
    let (ones, pairs) = (_mm256_set1_epi8(1), _mm256_set1_epi16(1));
    for (row, out) in rows.iter().zip(out) {
        let mut sum = _mm256_setzero_si256();
        for (number, codes) in query.codes.chunks_exact(HALF).enumerate() {
            // SAFETY: the half line has 32 codes.
            let codes = unsafe { _mm256_loadu_si256(codes.as_ptr().cast()) };
            let signs = (row[number / 2] >> (number % 2 * HALF)) as u32 as i32;
            let lanes = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(signs), spread), bits);
            let kept = _mm256_and_si256(codes, _mm256_cmpeq_epi8(lanes, bits));
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(ones, kept), pairs));
        }
        let none = _mm256_setzero_si256();
        *out = 2 * fold([sum, none, none, none])[0] - query.sum;
    }
}

/// The sums of the eight lanes of each of four registers.
#[inline]
#[target_feature(enable = "avx2")]
fn fold(sums: [__m256i; TOGETHER]) -> [i32; TOGETHER] {
    let pairs = _mm256_hadd_epi32(_mm256_hadd_epi32(sums[0], sums[1]), _mm256_hadd_epi32(sums[2], sums[3]));
    let total = _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256::<1>(pairs));
    let mut out = [0; TOGETHER];
    // SAFETY: `out` has 16 bytes.
    unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), total) };
    out
}

#[target_feature(enable = "avx512f,avx2")]
fn dot_avx512(a: &[f32], b: &[f32]) -> f64 {
    let (mut low, mut high) = (_mm512_setzero_pd(), _mm512_setzero_pd());
    for start in (0..a.len()).step_by(VECTOR_LANES) {
        let (a_low, a_high) = widen_avx512(a, start);
        let (b_low, b_high) = widen_avx512(b, start);
        low = _mm512_fmadd_pd(a_low, b_low, low);
        high = _mm512_fmadd_pd(a_high, b_high, high);
    }
    fold_avx512(low, high)
}

#[target_feature(enable = "avx512f,avx2")]
fn squared_distance_avx512(a: &[f32], b: &[f32]) -> f64 {
    let (mut low, mut high) = (_mm512_setzero_pd(), _mm512_setzero_pd());
    for start in (0..a.len()).step_by(VECTOR_LANES) {
        let (a_low, a_high) = widen_avx512(a, start);
        let (b_low, b_high) = widen_avx512(b, start);
        let (d_low, d_high) = (_mm512_sub_pd(a_low, b_low), _mm512_sub_pd(a_high, b_high));
        low = _mm512_add_pd(low, _mm512_mul_pd(d_low, d_low));
        high = _mm512_add_pd(high, _mm512_mul_pd(d_high, d_high));
    }
    fold_avx512(low, high)
}

/// Sixteen values from `start` in 64 bits.
#[inline]
#[target_feature(enable = "avx512f,avx2")]
fn widen_avx512(values: &[f32], start: usize) -> (__m512d, __m512d) {
    let values = &values[start..start + VECTOR_LANES];
    // SAFETY: sixteen values lie in the slice.
    let (low, high) = unsafe { (_mm256_loadu_ps(values.as_ptr()), _mm256_loadu_ps(values.as_ptr().add(8))) };
    (_mm512_cvtps_pd(low), _mm512_cvtps_pd(high))
}

#[inline]
#[target_feature(enable = "avx512f,avx2")]
fn fold_avx512(low: __m512d, high: __m512d) -> f64 {
    let eight = _mm512_add_pd(low, high);
    fold_avx2(_mm256_add_pd(_mm512_castpd512_pd256(eight), _mm512_extractf64x4_pd::<1>(eight)))
}

#[inline]
#[target_feature(enable = "avx2")]
fn fold_avx2(four: __m256d) -> f64 {
    let two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd::<1>(four));
    _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)))
}

#[target_feature(enable = "avx2,fma")]
fn dot_avx2(a: &[f32], b: &[f32]) -> f64 {
    let mut lanes = [_mm256_setzero_pd(); 4];
    for start in (0..a.len()).step_by(VECTOR_LANES) {
        for (quarter, lanes) in lanes.iter_mut().enumerate() {
            let (a, b) = (widen_avx2(a, start + quarter * 4), widen_avx2(b, start + quarter * 4));
            *lanes = _mm256_fmadd_pd(a, b, *lanes);
        }
    }
    fold_quarters(lanes)
}

#[target_feature(enable = "avx2")]
fn squared_distance_avx2(a: &[f32], b: &[f32]) -> f64 {
    let mut lanes = [_mm256_setzero_pd(); 4];
    for start in (0..a.len()).step_by(VECTOR_LANES) {
        for (quarter, lanes) in lanes.iter_mut().enumerate() {
            let (a, b) = (widen_avx2(a, start + quarter * 4), widen_avx2(b, start + quarter * 4));
            let difference = _mm256_sub_pd(a, b);
            *lanes = _mm256_add_pd(*lanes, _mm256_mul_pd(difference, difference));
        }
    }
    fold_quarters(lanes)
}

/// Four values from `start` in 64 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn widen_avx2(values: &[f32], start: usize) -> __m256d {
    let values = &values[start..start + 4];
    // SAFETY: four values lie in the slice.
    _mm256_cvtps_pd(unsafe { _mm_loadu_ps(values.as_ptr()) })
}

#[inline]
#[target_feature(enable = "avx2")]
fn fold_quarters(lanes: [__m256d; 4]) -> f64 {
    let (low, high) = (_mm256_add_pd(lanes[0], lanes[2]), _mm256_add_pd(lanes[1], lanes[3]));
    fold_avx2(_mm256_add_pd(low, high))
}

#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx2")]
fn bound_rows_avx512(query: &BoundQuery, columns: &BoundColumns<'_>, upper: &mut [f64], lower: &mut [f64]) {
    scalar::bound_rows(query, columns, upper, lower);
}

#[target_feature(enable = "avx2")]
fn bound_rows_avx2(query: &BoundQuery, columns: &BoundColumns<'_>, upper: &mut [f64], lower: &mut [f64]) {
    scalar::bound_rows(query, columns, upper, lower);
}
