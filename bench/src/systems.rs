//! What is measured.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;

use cairn_index::{
    IndexKind, MemoryBudget, MemoryKey, Metric, Partition, PartitionOptions, Records, Schema, SearchParams,
    SearchRequest, VectorStorage, instruction_set,
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

/// The efforts that are measured.
pub(crate) const EFFORTS: [u32; 13] = [16, 24, 32, 40, 48, 64, 80, 96, 128, 192, 256, 384, 512];

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

/// Where the vectors are by which candidates are scored exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Storage {
    /// In memory, in 32 bits a value.
    #[default]
    F32,
    /// In memory, in 16 bits a value.
    F16,
    /// In a file, in 32 bits a value, from which each candidate's is read.
    Records,
}

/// How an index is built.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Build {
    pub(crate) kind: IndexKind,
    pub(crate) storage: Storage,
    /// Threads that link.
    pub(crate) threads: usize,
    /// Whether all vectors are added before the first is linked, as they are where an index is made from records. With several
    /// threads they always are.
    pub(crate) is_batch: bool,
    /// From so many vectors on there is a graph; 0: the default.
    pub(crate) graph_from: u64,
}

/// Cairn's own index, or hnsw_rs in its place.
pub(crate) struct Cairn {
    pub(crate) partition: Partition,
    build: Build,
    records: Option<VectorFile>,
}

impl Cairn {
    /// Adds the first so many vectors, one after the other.
    pub(crate) fn build(base: &Table<f32>, count: usize) -> Result<Self, BenchError> {
        Self::build_as(Build { threads: 1, ..Build::default() }, base, count)
    }

    /// Adds the first so many vectors.
    pub(crate) fn build_as(build: Build, base: &Table<f32>, count: usize) -> Result<Self, BenchError> {
        let storage = match build.storage {
            Storage::F32 => VectorStorage::MemoryF32,
            Storage::F16 => VectorStorage::MemoryF16,
            Storage::Records => VectorStorage::Elsewhere,
        };
        let mut partition = Partition::new(PartitionOptions {
            dimension: base.columns,
            metric: Metric::Cosine,
            kind: build.kind,
            storage,
            schema: Schema::default(),
            budget: MemoryBudget::unlimited(),
        })?;
        if build.threads == 1 && !build.is_batch {
            partition.enable_graph(build.graph_from);
        }
        for row in 0..count {
            partition.upsert(key(row), row.to_string().as_bytes(), &(), Some(base.row(row)))?;
        }
        partition.enable_graph(build.graph_from);
        partition.link_all(build.threads);
        while partition.maintain(1000) > 0 {}
        let records = (build.storage == Storage::Records).then(|| VectorFile::write(base)).transpose()?;
        Ok(Self { partition, build, records })
    }
}

/// Vectors in a file, row by row.
struct VectorFile {
    file: File,
    dimension: usize,
}

impl VectorFile {
    fn write(base: &Table<f32>) -> Result<Self, BenchError> {
        let file = tempfile::tempfile()?;
        let mut writer = BufWriter::new(&file);
        for value in &base.values {
            writer.write_all(&value.to_le_bytes())?;
        }
        writer.flush()?;
        drop(writer);
        Ok(Self { file, dimension: base.columns })
    }
}

/// What one search asks of the records.
struct Candidates<'a> {
    vectors: &'a VectorFile,
    partition: &'a Partition,
    bytes: Vec<u8>,
}

impl Records for Candidates<'_> {
    fn accepts(&mut self, _slot: u32) -> bool {
        true
    }

    fn vector(&mut self, slot: u32, into: &mut Vec<f32>) -> bool {
        let Some(key) = self.partition.key_of(slot) else { return false };
        self.bytes.resize(self.vectors.dimension * size_of::<f32>(), 0);
        let from = u64::from(row_of(key)) * self.bytes.len() as u64;
        let is_read = self.vectors.file.read_exact_at(&mut self.bytes, from).is_ok();
        let values = self.bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        into.extend(values);
        is_read
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
        let with = match self.build.storage {
            Storage::F32 => "",
            Storage::F16 => " f16",
            Storage::Records => " records",
        };
        format!("{of} {}{with}", instruction_set().split('-').next().unwrap_or_default())
    }

    fn settings(&self) -> Vec<Setting> {
        let efforts = EFFORTS.map(Setting::Effort);
        [Setting::Effort(0)].into_iter().chain(efforts).chain([Setting::Exact]).collect()
    }

    fn build_threads(&self) -> usize {
        self.build.threads
    }

    fn bytes(&self) -> u64 {
        self.partition.bytes()
    }

    fn search(&self, query: &[f32], limit: usize, setting: Setting) -> Result<Vec<(u32, f64)>, BenchError> {
        let params = match setting {
            Setting::Exact => SearchParams { exact: true, effort: 0 },
            Setting::Effort(effort) => SearchParams { exact: false, effort },
        };
        let request = SearchRequest { query, limit, matches: None, params };
        let found = match &self.records {
            Some(vectors) => {
                let mut records = Candidates { vectors, partition: &self.partition, bytes: Vec::new() };
                self.partition.search_checked(&request, &mut records)?
            }
            None => self.partition.search(&request)?,
        };
        Ok(found.hits.iter().map(|hit| (row_of(hit.key), hit.score)).collect())
    }
}
