//! The definition of every result, in plain Rust.

use super::{
    BoundColumns, BoundQuery, CODE_LANES, CODE_OFFSET, CodeQuery, EachRow, Kernels, Rows, SignRows, VECTOR_LANES,
};

pub(super) static SCALAR: Kernels =
    Kernels { name: "scalar", dot_rows, dot_each, dot_signs, dot, squared_distance, bound_rows };

fn dot_rows(query: CodeQuery<'_>, block: &[u8], rows: Rows<'_>, out: &mut [i32]) {
    let stride = query.codes.len();
    for (position, out) in out.iter_mut().enumerate() {
        let row = match rows {
            Rows::First(_) => position,
            Rows::At(rows) => rows[position] as usize,
        };
        *out = dot_codes(query, &block[row * stride..][..stride]);
    }
}

fn dot_each(query: CodeQuery<'_>, rows: EachRow<'_>, out: &mut [i32]) {
    for (row, out) in rows.iter().zip(out) {
        *out = dot_codes(query, row);
    }
}

pub(super) fn dot_signs(query: CodeQuery<'_>, rows: SignRows<'_>, out: &mut [i32]) {
    for (row, out) in rows.iter().zip(out) {
        let mut sum = 0;
        for (codes, signs) in query.codes.chunks_exact(CODE_LANES).zip(*row) {
            sum += (0..CODE_LANES).map(|lane| i32::from(codes[lane]) * (signs >> lane & 1) as i32).sum::<i32>();
        }
        *out = 2 * sum - query.sum;
    }
}

fn dot_codes(query: CodeQuery<'_>, codes: &[u8]) -> i32 {
    let sum: i32 = query.codes.iter().zip(codes).map(|(query, code)| i32::from(*query) * i32::from(*code)).sum();
    sum - CODE_OFFSET * query.sum
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    sum_lanes(a, b, |a, b| a * b)
}

fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    sum_lanes(a, b, |a, b| (a - b) * (a - b))
}

#[inline(always)]
fn sum_lanes(a: &[f32], b: &[f32], term: impl Fn(f64, f64) -> f64) -> f64 {
    let mut lanes = [0.0f64; VECTOR_LANES];
    for (a, b) in a.chunks_exact(VECTOR_LANES).zip(b.chunks_exact(VECTOR_LANES)) {
        for lane in 0..VECTOR_LANES {
            lanes[lane] += term(f64::from(a[lane]), f64::from(b[lane]));
        }
    }
    for width in [8, 4, 2, 1] {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
    }
    lanes[0]
}

/// Also compiled for the other instruction sets, where it becomes vector code.
#[inline(always)]
pub(super) fn bound_rows(query: &BoundQuery, columns: &BoundColumns<'_>, upper: &mut [f64], lower: &mut [f64]) {
    let count = columns.products.len();
    let (scale, residual) = (&columns.scale[..count], &columns.residual[..count]);
    let (norm, upper, lower) = (&columns.norm[..count], &mut upper[..count], &mut lower[..count]);
    let products = columns.products;
    let with_length = !columns.squared.is_empty();
    let squared = if with_length { &columns.squared[..count] } else { &[] };
    for row in 0..count {
        let scale = f64::from(scale[row]);
        let product = query.scale * scale * f64::from(products[row]);
        let error = query.residual_weight * f64::from(residual[row]) + query.norm_weight * scale * f64::from(norm[row]);
        let squared = if with_length { squared[row] } else { 0.0 };
        let score = query.factor * product + query.constant - squared;
        let error = query.factor * error + query.slack + query.squared_weight * squared;
        let is_present = residual[row] > 0.0;
        upper[row] = if is_present { score + error } else { f64::NAN };
        lower[row] = score - error;
    }
}
