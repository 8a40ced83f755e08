//! The inner loops: products of codes, and exact products and distances of vectors.
//!
//! One table of functions for each instruction set, chosen once at run time, so that a build runs everywhere. Every table
//! gives the very same results:
//!
//! - products of codes are integers;
//! - exact ones sum in 64 bits over 16 lanes in one fixed order (lane i takes the values at i modulo 16; then lanes are
//!   added pairwise at distance 8, 4, 2, 1). A product of two 32-bit floats is exact in 64 bits, so fused and separate
//!   multiply-add agree; squares of differences are not, so they are never fused.
//!
//! | file | needs |
//! |---|---|
//! | `scalar.rs` | nothing; the definition of the results |
//! | `x86.rs` | AVX2 with FMA, or AVX-512 with BW and VNNI |
//! | `neon.rs` | any 64-bit ARM |

#![expect(unsafe_code, reason = "calls into functions compiled for instruction sets found at run time")]

#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::sync::OnceLock;

/// Codes and vectors come in rows of a multiple of this many bytes or 4-byte values, filled up with zeros.
pub(crate) const CODE_LANES: usize = 64;
/// See [`CODE_LANES`].
pub(crate) const VECTOR_LANES: usize = 16;
/// What is added to a signed code to store it as a byte.
pub(crate) const CODE_OFFSET: i32 = 128;

/// A query in codes: values of -127..=127, as many as a row has bytes, and their sum.
#[derive(Clone, Copy)]
pub(crate) struct CodeQuery<'a> {
    pub(crate) codes: &'a [i8],
    pub(crate) sum: i32,
}

/// A range of rows to compare a query with.
#[derive(Clone, Copy)]
pub(crate) enum Rows<'a> {
    /// The first so many.
    First(usize),
    /// These, by number.
    At(&'a [u32]),
}

/// Rows in several blocks.
pub(crate) type EachRow<'a> = &'a [&'a [u8]];

/// Signs of rows in several blocks, 64 in each number.
pub(crate) type SignRows<'a> = &'a [&'a [u64]];

/// Reads rows of codes: `out[i]` becomes the product of the query with the i-th row, whose bytes are codes plus 128.
type DotRows = fn(query: CodeQuery<'_>, block: &[u8], rows: Rows<'_>, out: &mut [i32]);
/// The same for rows that lie anywhere.
type DotEach = fn(query: CodeQuery<'_>, rows: EachRow<'_>, out: &mut [i32]);
/// The same for rows of which only the signs are known, a bit for each code: the query's codes where it is set less those where it is not.
type DotSigns = fn(query: CodeQuery<'_>, rows: SignRows<'_>, out: &mut [i32]);
type Exact = fn(&[f32], &[f32]) -> f64;
type BoundRows = fn(&BoundQuery, &BoundColumns<'_>, upper: &mut [f64], lower: &mut [f64]);

/// One instruction set's functions.
pub(crate) struct Kernels {
    /// The instruction set.
    pub(crate) name: &'static str,
    dot_rows: DotRows,
    dot_each: DotEach,
    dot_signs: DotSigns,
    dot: Exact,
    squared_distance: Exact,
    bound_rows: BoundRows,
}

/// What a query contributes to the bounds of a score; see `codes.rs`, which proves them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BoundQuery {
    /// The value of one step of the query's codes.
    pub(crate) scale: f64,
    /// The weight of a row's `residual` in the error.
    pub(crate) residual_weight: f64,
    /// The weight of a row's `scale * norm` in the error.
    pub(crate) norm_weight: f64,
    /// What the product is multiplied with.
    pub(crate) factor: f64,
    /// What is added to every score.
    pub(crate) constant: f64,
    /// What is added to every error.
    pub(crate) slack: f64,
    /// The weight of a row's squared length in the error.
    pub(crate) squared_weight: f64,
}

/// What rows contribute to the bounds, one value a row.
#[derive(Clone, Copy)]
pub(crate) struct BoundColumns<'a> {
    pub(crate) products: &'a [i32],
    pub(crate) scale: &'a [f32],
    /// 0 exactly where there is no vector.
    pub(crate) residual: &'a [f32],
    pub(crate) norm: &'a [f32],
    /// Subtracted from the score; empty unless the metric is L2.
    pub(crate) squared: &'a [f64],
}

impl Kernels {
    /// The products of a query with rows of codes. `block` holds rows of `query.codes.len()` bytes, each a code plus 128.
    pub(crate) fn dot_rows(&self, query: CodeQuery<'_>, block: &[u8], rows: Rows<'_>, out: &mut [i32]) {
        let stride = query.codes.len();
        assert!(stride > 0 && stride.is_multiple_of(CODE_LANES), "rows are filled up");
        let available = block.len() / stride;
        match rows {
            Rows::First(count) => assert!(count <= available && count == out.len(), "rows are within the block"),
            Rows::At(rows) => assert!(
                rows.len() == out.len() && rows.iter().all(|row| (*row as usize) < available),
                "rows are within the block"
            ),
        }
        (self.dot_rows)(query, block, rows, out);
    }

    /// The products of a query with rows of codes that lie anywhere, each of `query.codes.len()` bytes.
    #[inline]
    pub(crate) fn dot_each(&self, query: CodeQuery<'_>, rows: EachRow<'_>, out: &mut [i32]) {
        let stride = query.codes.len();
        assert!(stride.is_multiple_of(CODE_LANES) && rows.len() == out.len(), "rows are filled up");
        assert!(rows.iter().all(|row| row.len() == stride), "rows are as long as the query");
        (self.dot_each)(query, rows, out);
    }

    /// The sums of the query's codes, each with the sign that a row has in its place.
    #[inline]
    pub(crate) fn dot_signs(&self, query: CodeQuery<'_>, rows: SignRows<'_>, out: &mut [i32]) {
        let stride = query.codes.len();
        assert!(stride.is_multiple_of(CODE_LANES) && rows.len() == out.len(), "rows are filled up");
        assert!(rows.iter().all(|row| row.len() * CODE_LANES == stride), "rows are as long as the query");
        (self.dot_signs)(query, rows, out);
    }

    /// The inner product, in 64 bits. Both sides have the same length, a multiple of [`VECTOR_LANES`].
    pub(crate) fn dot(&self, a: &[f32], b: &[f32]) -> f64 {
        assert!(a.len() == b.len() && a.len().is_multiple_of(VECTOR_LANES), "vectors are filled up");
        (self.dot)(a, b)
    }

    /// The squared Euclidean distance, in 64 bits. Lengths as in [`Self::dot`].
    pub(crate) fn squared_distance(&self, a: &[f32], b: &[f32]) -> f64 {
        assert!(a.len() == b.len() && a.len().is_multiple_of(VECTOR_LANES), "vectors are filled up");
        (self.squared_distance)(a, b)
    }

    /// The highest and lowest score that each row can have; NaN where a row holds no vector.
    pub(crate) fn bound_rows(
        &self,
        query: &BoundQuery,
        columns: &BoundColumns<'_>,
        upper: &mut [f64],
        lower: &mut [f64],
    ) {
        (self.bound_rows)(query, columns, upper, lower);
    }
}

/// Asks the processor to fetch memory that is read soon, into the second cache: a walk asks for more lines at once than the first has buffers
/// for (docs/decisions/0016).
#[inline(always)]
pub(crate) fn prefetch<T>(values: &[T]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        let lines = size_of_val(values).div_ceil(64);
        let start = values.as_ptr().cast::<i8>();
        for line in 0..lines {
            // SAFETY: a prefetch reads nothing and cannot fault; the address lies within the slice.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(start.add(line * 64)) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}

/// The fastest functions that this processor has.
pub(crate) fn kernels() -> &'static Kernels {
    #[cfg(test)]
    if let Some(kernels) = tests::chosen() {
        return kernels;
    }
    static CHOSEN: OnceLock<&'static Kernels> = OnceLock::new();
    CHOSEN.get_or_init(|| available()[0])
}

/// All functions that this processor has, the fastest first and the scalar ones last.
fn available() -> Vec<&'static Kernels> {
    let mut found: Vec<&'static Kernels> = Vec::new();
    #[cfg(target_arch = "x86_64")]
    found.extend(x86::available());
    #[cfg(target_arch = "aarch64")]
    found.push(&neon::NEON);
    found.push(&scalar::SCALAR);
    found
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::with_each_kernels;
