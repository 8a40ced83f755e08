//! A real corpus with real queries and their exact answers, for tests that want more than samples.
//!
//! `CAIRN_CORPUS` names its folder; without it, such tests say that they skipped.
//!
//! | file | holds |
//! |---|---|
//! | `base.f16.npy` | one vector a row, float16 |
//! | `queries.f16.npy` | one query a row, float16 |
//! | `gt100.i32.npy` | for each query the 100 rows of `base` with the greatest inner product |
//! | `texts.jsonl.gz` | one JSON string a line: the text of each row of `base` |

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use half::f16;

/// A corpus in memory.
#[derive(Debug)]
pub struct Corpus {
    /// Values of a vector.
    pub dimension: usize,
    /// The texts.
    pub texts: Vec<String>,
    /// The vector of each text.
    pub base: Vec<Vec<f32>>,
    /// The queries.
    pub queries: Vec<Vec<f32>>,
    /// For each query, rows of `base`, nearest first.
    pub nearest: Vec<Vec<usize>>,
}

impl Corpus {
    /// The corpus that `CAIRN_CORPUS` names, or nothing, with a word that `test` is skipped.
    ///
    /// # Panics
    /// Where the variable names a folder that does not hold a corpus.
    #[must_use]
    #[expect(clippy::print_stderr, reason = "a test that skips says so")]
    #[expect(clippy::panic, reason = "a test that is given a broken corpus has failed")]
    pub fn for_test(test: &str) -> Option<Self> {
        let Some(folder) = std::env::var_os("CAIRN_CORPUS").map(PathBuf::from) else {
            eprintln!("{test}: skipped; CAIRN_CORPUS=FOLDER runs it");
            return None;
        };
        Some(Self::load(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())))
    }

    /// Reads a corpus.
    ///
    /// # Errors
    /// A file that is missing or not what it should be.
    pub fn load(folder: &Path) -> io::Result<Self> {
        let base = floats(&Array::read(&folder.join("base.f16.npy"))?);
        let queries = floats(&Array::read(&folder.join("queries.f16.npy"))?);
        let nearest = Array::read(&folder.join("gt100.i32.npy"))?;
        let nearest = nearest
            .rows(4)
            .map(|row| row.as_chunks().0.iter().map(|bytes| i32::from_le_bytes(*bytes) as usize).collect());
        let texts = Command::new("gzip").arg("-dc").arg(folder.join("texts.jsonl.gz")).output()?;
        let texts =
            texts.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(serde_json::from_slice);
        let texts: Vec<String> = texts.collect::<Result<_, _>>()?;
        let dimension = base.first().map_or(0, Vec::len);
        if texts.len() != base.len() {
            return Err(broken(format!("{} texts and {} vectors", texts.len(), base.len())));
        }
        Ok(Self { dimension, texts, nearest: nearest.collect(), base, queries })
    }
}

fn broken(problem: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem.into())
}

/// A two-dimensional array as numpy writes it.
struct Array {
    columns: usize,
    data: Vec<u8>,
}

impl Array {
    /// `\x93NUMPY`, version 1.0, the length of the header in two bytes, a header such as `{... 'shape': (2000, 384), }`, the values.
    fn read(path: &Path) -> io::Result<Self> {
        const START: usize = 10;
        let mut data = fs::read(path)?;
        let length = data.get(8..START).map(|bytes| usize::from(u16::from_le_bytes([bytes[0], bytes[1]])));
        let end = START + length.ok_or_else(|| broken("too short"))?;
        let header = data.get(START..end).map(String::from_utf8_lossy).ok_or_else(|| broken("too short"))?;
        let shape = header.split_once("'shape': (").and_then(|(_, rest)| rest.split_once(')')).map(|(shape, _)| shape);
        let columns = shape.and_then(|shape| shape.split(',').nth(1)?.trim().parse().ok());
        let columns = columns.ok_or_else(|| broken(format!("no shape of two dimensions in {header}")))?;
        data.drain(..end);
        Ok(Self { columns, data })
    }

    fn rows(&self, bytes_per_value: usize) -> impl Iterator<Item = &[u8]> {
        self.data.chunks_exact(self.columns * bytes_per_value)
    }
}

fn floats(array: &Array) -> Vec<Vec<f32>> {
    let rows = array.rows(2);
    rows.map(|row| row.as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_rows_are_those_with_the_greatest_inner_product() {
        let Some(corpus) = Corpus::for_test("the_nearest_rows_are_those_with_the_greatest_inner_product") else {
            return;
        };
        let query = &corpus.queries[0];
        let product = |row: &Vec<f32>| row.iter().zip(query).map(|(a, b)| a * b).sum::<f32>();
        let mut scored: Vec<_> = corpus.base.iter().map(product).enumerate().collect();
        scored.sort_by(|a, b| b.1.total_cmp(&a.1));
        let best: Vec<_> = scored[..3].iter().map(|(row, _)| *row).collect();
        assert_eq!(best, corpus.nearest[0][..3]);
    }
}
