//! Measurements as a table for people and as JSON lines for programs.

use std::fs::File;
use std::io::{BufWriter, Write, stdout};
use std::path::Path;

use serde_json::json;

use crate::BenchError;

/// One measured system at one setting.
#[derive(Debug, Clone)]
pub(crate) struct Measurement {
    /// What was measured.
    pub(crate) system: String,
    /// Values a vector.
    pub(crate) dimension: usize,
    /// How many vectors.
    pub(crate) count: usize,
    /// The setting that trades recall for speed.
    pub(crate) setting: String,
    /// The share of the true ten nearest that were found.
    pub(crate) recall_at_10: f64,
    /// Queries a second, one after the other.
    pub(crate) qps_1_thread: f64,
    /// Queries a second on all cores at once.
    pub(crate) qps_all_threads: f64,
    /// Half of all queries took at most so long.
    pub(crate) p50_us: f64,
    /// 99 of 100 queries took at most so long.
    pub(crate) p99_us: f64,
    /// How long it took until all vectors could be found.
    pub(crate) build_seconds: f64,
    /// On how many threads.
    pub(crate) build_threads: usize,
    /// Memory held, by vector.
    pub(crate) bytes_per_vector: f64,
}

/// Where measurements go.
pub(crate) struct Report {
    json: Option<BufWriter<File>>,
}

impl Report {
    /// Prints the table's head; writes JSON lines where a file is named.
    pub(crate) fn new(json: Option<&Path>) -> Result<Self, BenchError> {
        let open = |path: &Path| {
            File::create(path).map_err(|source| BenchError::File { path: path.display().to_string(), source })
        };
        let json = json.map(open).transpose()?.map(BufWriter::new);
        writeln!(
            stdout(),
            "{:<20} {:>5} {:>8} {:<14} {:>7} {:>9} {:>9} {:>8} {:>8} {:>9} {:>9}",
            "system",
            "dim",
            "count",
            "setting",
            "recall",
            "qps x1",
            "qps all",
            "p50 us",
            "p99 us",
            "build s",
            "bytes/vec",
        )?;
        Ok(Self { json })
    }

    /// Prints and writes a measurement.
    pub(crate) fn add(&mut self, measured: &Measurement) -> Result<(), BenchError> {
        writeln!(
            stdout(),
            "{:<20} {:>5} {:>8} {:<14} {:>7.4} {:>9.0} {:>9.0} {:>8.1} {:>8.1} {:>6.2} x{:<1} {:>9.0}",
            measured.system,
            measured.dimension,
            measured.count,
            measured.setting,
            measured.recall_at_10,
            measured.qps_1_thread,
            measured.qps_all_threads,
            measured.p50_us,
            measured.p99_us,
            measured.build_seconds,
            measured.build_threads,
            measured.bytes_per_vector,
        )?;
        if let Some(json) = &mut self.json {
            let line = json!({
                "system": measured.system,
                "dimension": measured.dimension,
                "count": measured.count,
                "setting": measured.setting,
                "recall_at_10": measured.recall_at_10,
                "qps_1_thread": measured.qps_1_thread,
                "qps_all_threads": measured.qps_all_threads,
                "p50_us": measured.p50_us,
                "p99_us": measured.p99_us,
                "build_seconds": measured.build_seconds,
                "build_threads": measured.build_threads,
                "bytes_per_vector": measured.bytes_per_vector,
            });
            writeln!(json, "{line}")?;
            json.flush()?;
        }
        Ok(())
    }
}
