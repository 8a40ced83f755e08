//! Every instruction set gives what the scalar functions give, bit for bit.

use std::cell::Cell;

use proptest::prelude::*;

use super::*;

thread_local! {
    static CHOSEN: Cell<Option<&'static Kernels>> = const { Cell::new(None) };
}

/// What this thread uses in place of the fastest functions, where a test has chosen some.
pub(super) fn chosen() -> Option<&'static Kernels> {
    CHOSEN.get()
}

/// What comes of a computation on this thread with the functions of each instruction set that the processor has, by its name.
pub(crate) fn with_each_kernels<T>(compute: impl Fn() -> T) -> Vec<(&'static str, T)> {
    let compute_with = |kernels: &'static Kernels| {
        CHOSEN.set(Some(kernels));
        let computed = compute();
        CHOSEN.set(None);
        (kernels.name, computed)
    };
    available().into_iter().map(compute_with).collect()
}

fn scalar() -> &'static Kernels {
    &scalar::SCALAR
}

fn sum(codes: &[i8]) -> i32 {
    codes.iter().map(|code| i32::from(*code)).sum()
}

fn random_bytes(length: usize, mut state: u64) -> Vec<u8> {
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn the_scalar_functions_are_last_and_the_choice_is_first() {
    let all = available();
    assert_eq!(all.last().unwrap().name, "scalar");
    assert_eq!(kernels().name, all[0].name);
    let used = with_each_kernels(|| super::kernels().name);
    assert!(used.len() == all.len() && used.iter().all(|(name, used)| name == used), "{used:?}");
}

#[test]
fn extreme_signs_do_not_overflow() {
    for lines in [1, 64] {
        let codes = vec![-127i8; lines * CODE_LANES];
        let (all, none) = (vec![u64::MAX; lines], vec![0; lines]);
        for kernels in available() {
            let mut out = [0; 2];
            kernels.dot_signs(CodeQuery { codes: &codes, sum: sum(&codes) }, &[&all, &none], &mut out);
            let total = 127 * codes.len() as i32;
            assert_eq!(out, [-total, total], "{}", kernels.name);
        }
    }
}

#[test]
fn extreme_codes_do_not_overflow() {
    for length in [64, 4096] {
        let codes = vec![-127i8; length];
        let block: Vec<u8> = [1u8, 255, 0].iter().flat_map(|code| vec![*code; length]).collect();
        for kernels in available() {
            let mut out = [0; 3];
            kernels.dot_rows(CodeQuery { codes: &codes, sum: sum(&codes) }, &block, Rows::First(3), &mut out);
            let length = length as i32;
            assert_eq!(out[..2], [127 * 127 * length, -127 * 127 * length], "{}", kernels.name);
        }
    }
}

proptest! {
    #[test]
    fn sums_by_signs_are_equal(lines in 1usize..7, rows in 0usize..11, seed: u64) {
        let codes: Vec<i8> =
            random_bytes(lines * CODE_LANES, seed).into_iter().map(|byte| (byte as i8).max(-127)).collect();
        let query = CodeQuery { codes: &codes, sum: sum(&codes) };
        let bytes = random_bytes(lines * 8 * rows, seed ^ 1);
        let signs: Vec<u64> = bytes.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
        let each: Vec<&[u64]> = signs.chunks_exact(lines).collect();
        let sign = |row: &[u64], at: usize| if row[at / 64] >> (at % 64) & 1 == 1 { 1 } else { -1 };
        let plain = |row: &&[u64]| (0..codes.len()).map(|at| i32::from(codes[at]) * sign(row, at)).sum::<i32>();
        let expected: Vec<i32> = each.iter().map(plain).collect();
        for kernels in available() {
            let mut found = vec![0; rows];
            kernels.dot_signs(query, &each, &mut found);
            prop_assert_eq!(&found, &expected, "{}", kernels.name);
        }
    }

    #[test]
    fn products_of_codes_are_equal(lines in 1usize..7, rows in 0usize..19, seed: u64) {
        let stride = lines * CODE_LANES;
        let codes: Vec<i8> = random_bytes(stride, seed).into_iter().map(|byte| (byte as i8).max(-127)).collect();
        // 0 would stand for -128, which is no code.
        let block: Vec<u8> = random_bytes(stride * rows, seed ^ 1).into_iter().map(|byte| byte.max(1)).collect();
        let query = CodeQuery { codes: &codes, sum: sum(&codes) };
        let picked: Vec<u32> = (0..rows as u32).rev().step_by(2).collect();
        let mut expected = vec![0; rows];
        scalar().dot_rows(query, &block, Rows::First(rows), &mut expected);
        for kernels in available() {
            let mut found = vec![0; rows];
            kernels.dot_rows(query, &block, Rows::First(rows), &mut found);
            prop_assert_eq!(&found, &expected, "{}", kernels.name);
            let each: Vec<&[u8]> = block.chunks_exact(stride).collect();
            let mut found = vec![0; rows];
            kernels.dot_each(query, &each, &mut found);
            prop_assert_eq!(&found, &expected, "{}", kernels.name);
            let mut found = vec![0; picked.len()];
            kernels.dot_rows(query, &block, Rows::At(&picked), &mut found);
            let expected: Vec<i32> = picked.iter().map(|row| expected[*row as usize]).collect();
            prop_assert_eq!(&found, &expected, "{}", kernels.name);
        }
    }

    #[test]
    fn exact_results_are_equal_to_the_bit(
        pairs in proptest::collection::vec((-1e30f32..1e30, any::<f32>().prop_filter("finite", |x| x.is_finite())), 0..80),
    ) {
        let length = pairs.len().next_multiple_of(VECTOR_LANES);
        let mut a: Vec<f32> = pairs.iter().map(|pair| pair.0).collect();
        let mut b: Vec<f32> = pairs.iter().map(|pair| pair.1).collect();
        a.resize(length, 0.0);
        b.resize(length, 0.0);
        for kernels in available() {
            prop_assert_eq!(kernels.dot(&a, &b).to_bits(), scalar().dot(&a, &b).to_bits(), "{}", kernels.name);
            let (found, expected) = (kernels.squared_distance(&a, &b), scalar().squared_distance(&a, &b));
            prop_assert_eq!(found.to_bits(), expected.to_bits(), "{}", kernels.name);
        }
    }

    #[test]
    fn bounds_are_equal(rows in proptest::collection::vec((any::<i32>(), 0f32..1.0, 0f32..1.0, 0f32..99.0, 0f64..9.0), 0..40)) {
        let query = BoundQuery {
            scale: 0.1, residual_weight: 2.0, norm_weight: 0.3, factor: 2.0, constant: -1.0, slack: 1e-9, squared_weight: 1e-11,
        };
        let products: Vec<i32> = rows.iter().map(|row| row.0).collect();
        let scale: Vec<f32> = rows.iter().map(|row| row.1).collect();
        let residual: Vec<f32> = rows.iter().map(|row| if row.2 < 0.2 { 0.0 } else { row.2 }).collect();
        let norm: Vec<f32> = rows.iter().map(|row| row.3).collect();
        let all: Vec<f64> = rows.iter().map(|row| row.4).collect();
        for squared in [&all[..], &[]] {
            let columns = BoundColumns { products: &products, scale: &scale, residual: &residual, norm: &norm, squared };
            let run = |kernels: &Kernels| {
                let (mut upper, mut lower) = (vec![0.0; rows.len()], vec![0.0; rows.len()]);
                kernels.bound_rows(&query, &columns, &mut upper, &mut lower);
                upper.iter().chain(&lower).map(|value| value.to_bits()).collect::<Vec<_>>()
            };
            for kernels in available() {
                prop_assert_eq!(run(kernels), run(scalar()), "{}", kernels.name);
            }
        }
    }
}
