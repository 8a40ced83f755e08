//! What is measured.

use cairn_index::{
    MemoryBudget, MemoryKey, Metric, Partition, PartitionOptions, Schema, SearchParams, SearchRequest, instruction_set,
};

use crate::BenchError;
use crate::npy::Table;

/// Something that finds nearest vectors. Timed from the caller's query to rows with scores.
pub(crate) trait System: Sync {
    /// Its name and version or variant.
    fn name(&self) -> String;
    /// The settings to measure, from fast to thorough.
    fn settings(&self) -> Vec<Setting>;
    /// On how many threads it was built.
    fn build_threads(&self) -> usize;
    /// Bytes of memory held.
    fn bytes(&self) -> u64;
    /// The rows of the nearest vectors, best first, with their scores.
    fn search(&self, query: &[f32], limit: usize, setting: Setting) -> Result<Vec<(u32, f64)>, BenchError>;
}

/// How hard to look.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Setting {
    /// Compare with all.
    Exact,
    /// So many candidates, where there is a graph.
    Effort(u32),
}

impl Setting {
    /// The setting's name in reports.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Exact => "exact".into(),
            Self::Effort(0) => "default".into(),
            Self::Effort(effort) => format!("effort={effort}"),
        }
    }
}

/// Cairn's own index.
pub(crate) struct Cairn {
    partition: Partition,
}

impl Cairn {
    /// Adds all vectors, one after the other.
    pub(crate) fn build(base: &Table<f32>) -> Result<Self, BenchError> {
        let mut partition = Partition::new(PartitionOptions {
            dimension: base.columns,
            metric: Metric::Cosine,
            schema: Schema::default(),
            budget: MemoryBudget::unlimited(),
        })?;
        partition.enable_graph();
        for row in 0..base.rows() {
            partition.upsert(key(row), row.to_string().as_bytes(), &(), Some(base.row(row)))?;
        }
        while partition.maintain(1000) > 0 {}
        Ok(Self { partition })
    }
}

/// A key that is as good as random and gives the row back.
pub(crate) fn key(row: usize) -> MemoryKey {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&(row as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    key[8..].copy_from_slice(&(row as u64).to_le_bytes());
    MemoryKey(key)
}

fn row_of(key: MemoryKey) -> u32 {
    let [.., a, b, c, d, _, _, _, _] = key.0;
    u32::from_le_bytes([a, b, c, d])
}

impl System for Cairn {
    fn name(&self) -> String {
        format!("cairn {}", instruction_set().split('-').next().unwrap_or_default())
    }

    fn settings(&self) -> Vec<Setting> {
        [0, 16, 24, 32, 48, 64, 96, 128, 192].map(Setting::Effort).into_iter().chain([Setting::Exact]).collect()
    }

    fn build_threads(&self) -> usize {
        1
    }

    fn bytes(&self) -> u64 {
        self.partition.bytes()
    }

    fn search(&self, query: &[f32], limit: usize, setting: Setting) -> Result<Vec<(u32, f64)>, BenchError> {
        let params = match setting {
            Setting::Exact => SearchParams { exact: true, effort: 0 },
            Setting::Effort(effort) => SearchParams { exact: false, effort },
        };
        let found = self.partition.search(&SearchRequest { query, limit, matches: None, params })?;
        Ok(found.hits.iter().map(|hit| (row_of(hit.key), hit.score)).collect())
    }
}
