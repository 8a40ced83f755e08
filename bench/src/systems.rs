//! What is measured.

use cairn_index::{
    IndexKind, MemoryBudget, MemoryKey, Metric, Partition, PartitionOptions, Schema, SearchParams, SearchRequest,
    VectorStorage, instruction_set,
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

/// Cairn's own index, or hnsw_rs in its place.
pub(crate) struct Cairn {
    pub(crate) partition: Partition,
    threads: usize,
}

impl Cairn {
    /// Adds all vectors, one after the other.
    pub(crate) fn build(base: &Table<f32>) -> Result<Self, BenchError> {
        Self::build_on(base, base.rows(), 1)
    }

    /// Adds the first so many vectors, one after the other.
    pub(crate) fn build_some(base: &Table<f32>, count: usize) -> Result<Self, BenchError> {
        Self::build_on(base, count, 1)
    }

    /// Adds the first so many vectors; on several threads, all are linked at the end.
    pub(crate) fn build_on(base: &Table<f32>, count: usize, threads: usize) -> Result<Self, BenchError> {
        Self::build_with(IndexKind::Cairn, base, count, threads, 0)
    }

    /// The same with a graph from so many vectors on; 0: the default.
    pub(crate) fn build_with(
        kind: IndexKind,
        base: &Table<f32>,
        count: usize,
        threads: usize,
        graph_from: u64,
    ) -> Result<Self, BenchError> {
        let mut partition = Partition::new(PartitionOptions {
            dimension: base.columns,
            metric: Metric::Cosine,
            kind,
            storage: VectorStorage::MemoryF32,
            schema: Schema::default(),
            budget: MemoryBudget::unlimited(),
        })?;
        if threads == 1 {
            partition.enable_graph(graph_from);
        }
        for row in 0..count {
            partition.upsert(key(row), row.to_string().as_bytes(), &(), Some(base.row(row)))?;
        }
        partition.enable_graph(graph_from);
        partition.link_all(threads);
        while partition.maintain(1000) > 0 {}
        Ok(Self { partition, threads })
    }
}

/// A key that is as good as random and gives the row back.
pub(crate) fn key(row: usize) -> MemoryKey {
    key_of_turn(row, 0)
}

/// The same for the memory that holds a row's vector after so many turnovers.
pub(crate) fn key_of_turn(row: usize, turn: u32) -> MemoryKey {
    let mut key = [0; 16];
    let mixed = (row as u64 + (u64::from(turn) << 40)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    key[..8].copy_from_slice(&mixed.to_le_bytes());
    key[8..12].copy_from_slice(&(row as u32).to_le_bytes());
    key[12..].copy_from_slice(&turn.to_le_bytes());
    MemoryKey(key)
}

/// The row of a key.
pub(crate) fn row_of(key: MemoryKey) -> u32 {
    u32::from_le_bytes([key.0[8], key.0[9], key.0[10], key.0[11]])
}

impl System for Cairn {
    fn name(&self) -> String {
        let of = if self.partition.options().kind == IndexKind::Cairn { "cairn" } else { "cairn over hnsw_rs" };
        format!("{of} {}", instruction_set().split('-').next().unwrap_or_default())
    }

    fn settings(&self) -> Vec<Setting> {
        [0, 16, 24, 32, 48, 64, 96, 128, 192].map(Setting::Effort).into_iter().chain([Setting::Exact]).collect()
    }

    fn build_threads(&self) -> usize {
        self.threads
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
