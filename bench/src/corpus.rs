//! The vectors that are searched, the queries, and the true neighbours.

use std::path::Path;

use crate::BenchError;
use crate::npy::{Table, read_floats, read_integers};

/// How many neighbours count for recall.
pub(crate) const NEIGHBOURS: usize = 10;

/// Vectors, queries, and for each query the true neighbours, best first.
pub(crate) struct Corpus {
    /// The vectors.
    pub(crate) base: Table<f32>,
    /// The queries.
    pub(crate) queries: Table<f32>,
    /// The rows of the true neighbours of each query.
    pub(crate) truth: Table<i32>,
}

impl Corpus {
    /// Reads `base.f16.npy`, `queries.f16.npy` and `gt100.i32.npy` of a folder, or other queries and truth.
    pub(crate) fn read(folder: &Path, queries: Option<&Path>, truth: Option<&Path>) -> Result<Self, BenchError> {
        let base = read_floats(&folder.join("base.f16.npy"))?;
        let queries = read_floats(queries.unwrap_or(&folder.join("queries.f16.npy")))?;
        let truth = read_integers(truth.unwrap_or(&folder.join("gt100.i32.npy")))?;
        let matching = base.columns == queries.columns && queries.rows() == truth.rows();
        if !matching || truth.columns < NEIGHBOURS {
            let reason = "queries, truth and base do not belong together".to_owned();
            return Err(BenchError::Format { path: folder.display().to_string(), reason });
        }
        Ok(Self { base, queries, truth })
    }

    /// The first vectors only, with the neighbours among them found anew by comparing all in 64 bits.
    pub(crate) fn cut(mut self, count: usize) -> Self {
        if count >= self.base.rows() {
            return self;
        }
        self.base.values.truncate(count * self.base.columns);
        let mut truth = Vec::with_capacity(self.queries.rows() * NEIGHBOURS);
        for query in 0..self.queries.rows() {
            truth.extend(nearest(&self.base, self.queries.row(query)));
        }
        self.truth = Table { columns: NEIGHBOURS, values: truth };
        self
    }

    /// The share of a query's true neighbours among the found rows.
    pub(crate) fn recall(&self, query: usize, found: &[u32]) -> f64 {
        let truth = &self.truth.row(query)[..NEIGHBOURS];
        truth.iter().filter(|row| found.contains(&(**row as u32))).count() as f64 / NEIGHBOURS as f64
    }
}

fn nearest(base: &Table<f32>, query: &[f32]) -> Vec<i32> {
    let product =
        |row: usize| -> f64 { base.row(row).iter().zip(query).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
    let mut scores: Vec<(f64, i32)> = (0..base.rows()).map(|row| (product(row), row as i32)).collect();
    scores.sort_by(|a, b| b.0.total_cmp(&a.0));
    scores.iter().take(NEIGHBOURS).map(|(_, row)| *row).collect()
}
