//! What is written and asked for: the same in every system.

use std::path::Path;
use std::sync::Arc;

use crate::BenchError;
use crate::corpus::Corpus;

/// Bytes of a value, in every system.
pub(super) const VALUE_BYTES: usize = 2 << 10;
pub(super) const DIMENSION: usize = 384;
/// Hits of a search.
pub(super) const HITS: usize = crate::corpus::NEIGHBOURS;

/// The corpus that searches go over, where one is given.
pub(super) fn corpus(folder: Option<&Path>) -> Result<Option<Arc<Corpus>>, BenchError> {
    let Some(folder) = folder else { return Ok(None) };
    let corpus = Corpus::read(folder, None, None)?;
    if corpus.base.columns != DIMENSION {
        let reason = format!("its vectors have {} dimensions, not {DIMENSION}", corpus.base.columns);
        return Err(BenchError::Format { path: folder.display().to_string(), reason });
    }
    Ok(Some(Arc::new(corpus)))
}

/// The id of a row of the corpus.
pub(super) fn row_id(row: usize) -> String {
    format!("b{row}")
}

/// The rows of the corpus among what a search found.
pub(super) fn found_rows<'i>(ids: impl Iterator<Item = &'i str>) -> Vec<u32> {
    ids.filter_map(|id| id.strip_prefix('b')?.parse().ok()).collect()
}

fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

/// Text that hardly compresses, so that no system has an advantage by it.
pub(super) fn content(worker: usize, number: u64) -> String {
    const LETTERS: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .";
    let mut next = random(worker as u64 * 7_919 + number);
    (0..VALUE_BYTES).map(|_| char::from(LETTERS[(next() >> 40) as usize % LETTERS.len()])).collect()
}

/// A vector like no other.
pub(super) fn vector(seed: u64) -> Vec<f32> {
    let mut next = random(seed + 17);
    (0..DIMENSION).map(|_| (next() >> 40) as f32 / (1_u64 << 24) as f32 - 0.5).collect()
}

/// The vector that is added with the memory of the same numbers.
pub(super) fn vector_of(worker: usize, number: u64) -> Vec<f32> {
    vector(worker as u64 * 1_000_003 + number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_as_long_as_they_should_be_and_differ() {
        assert_eq!(content(1, 2).len(), VALUE_BYTES);
        assert_ne!(content(1, 2), content(2, 1));
        assert_eq!(vector_of(1, 2).len(), DIMENSION);
        assert_ne!(vector_of(1, 2), vector_of(1, 3));
        assert_eq!(found_rows(["b7", "m1-2", &row_id(12)].into_iter()), [7, 12]);
    }
}
