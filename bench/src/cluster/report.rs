//! Measurements of clusters as a table and as JSON lines.

use std::fs::File;
use std::io::{BufWriter, Write, stdout};
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::load::Measured;
use super::usage::Usage;
use crate::BenchError;

/// What the logs of Cairn's nodes have done, all together.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LogCounters {
    pub(super) entries: f64,
    pub(super) syncs: f64,
}

impl LogCounters {
    pub(super) fn since(self, before: &Self) -> Self {
        Self { entries: self.entries - before.entries, syncs: self.syncs - before.syncs }
    }
}

/// One measurement.
pub(super) struct Row {
    pub(super) system: &'static str,
    pub(super) nodes: u64,
    pub(super) workload: String,
    pub(super) clients: usize,
    pub(super) measured: Measured,
    /// Bytes that clients handed over and that were acknowledged.
    pub(super) accepted_bytes: u64,
    /// How long after the last acknowledgement the index had everything.
    pub(super) linked_after: Option<Duration>,
    pub(super) log: Option<LogCounters>,
    pub(super) usage: Usage,
    /// The share of the calls that are searches.
    pub(super) search_share: f64,
    /// The share of the true neighbours that searches found.
    pub(super) recall: Option<f64>,
}

impl Row {
    /// A row of adds without an index.
    pub(super) fn new(system: &'static str, nodes: u64, workload: &str, clients: usize, measured: Measured) -> Self {
        Self {
            system,
            nodes,
            workload: workload.to_owned(),
            clients,
            measured,
            accepted_bytes: 0,
            linked_after: None,
            log: None,
            usage: Usage::default(),
            search_share: 0.0,
            recall: None,
        }
    }

    /// Bytes that a node has written for each byte that was accepted.
    fn amplification(&self) -> Option<f64> {
        let written = self.usage.written_bytes as f64 / self.nodes as f64;
        (self.accepted_bytes > 0).then(|| written / self.accepted_bytes as f64)
    }
}

/// Where measurements go.
pub(super) struct Report {
    json: Option<BufWriter<File>>,
}

impl Report {
    pub(super) fn new(json: Option<&Path>) -> Result<Self, BenchError> {
        let json = json.map(File::create).transpose()?.map(BufWriter::new);
        writeln!(
            stdout(),
            "{:<8} {:>5} {:<18} {:>7} {:>9} {:>9} {:>9} {:>8} {:>8} {:>8} {:>7} {:>6} {:>7} {:>6} {:>6}",
            "system",
            "nodes",
            "workload",
            "clients",
            "acked/s",
            "linked/s",
            "search/s",
            "p50 ms",
            "p99 ms",
            "p99.9 ms",
            "entr/fs",
            "w.amp",
            "cpu ms",
            "recall",
            "failed"
        )?;
        Ok(Self { json })
    }

    pub(super) fn row(&mut self, row: &Row) -> Result<(), BenchError> {
        let measured = &row.measured;
        let done = measured.done as f64;
        let adds = measured.per_second() * (1.0 - row.search_share);
        let searches = (row.search_share > 0.0).then(|| measured.per_second() * row.search_share);
        let linked = row.linked_after.map(|behind| done / (measured.took + behind).as_secs_f64());
        let entries_per_fsync = row.log.map(|log| log.entries / log.syncs.max(1.0));
        let amplification = row.amplification();
        let cpu_ms = row.usage.cpu.as_secs_f64() * 1e3 / done.max(1.0);
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| measured.percentile_ms(share));
        let text = |value: Option<f64>, digits: usize| value.map_or("-".into(), |value| format!("{value:.digits$}"));
        writeln!(
            stdout(),
            "{:<8} {:>5} {:<18} {:>7} {:>9} {:>9} {:>9} {:>8.2} {:>8.2} {:>8.2} {:>7} {:>6} {:>7.3} {:>6} {:>6}",
            row.system,
            row.nodes,
            row.workload,
            row.clients,
            text((adds > 0.0).then_some(adds), 0),
            text(linked, 0),
            text(searches, 0),
            p50,
            p99,
            p999,
            text(entries_per_fsync, 1),
            text(amplification, 2),
            cpu_ms,
            text(row.recall, 4),
            measured.failed
        )?;
        let line = json!({
            "system": row.system,
            "nodes": row.nodes,
            "clients": row.clients,
            "workload": row.workload,
            "indexed": row.linked_after.is_some(),
            "acknowledged_per_second": adds,
            "linked_per_second": linked,
            "searches_per_second": searches,
            "p50_ms": p50,
            "p99_ms": p99,
            "p999_ms": p999,
            "entries_per_fsync": entries_per_fsync,
            "write_amplification": amplification,
            "cpu_ms_per_operation": cpu_ms,
            "recall_at_10": row.recall,
            "operations": measured.done,
            "failed": measured.failed,
        });
        if let Some(json) = &mut self.json {
            writeln!(json, "{line}")?;
            json.flush()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amplification_is_counted_for_each_node() {
        let mut row = Row::new("cairn", 3, "add", 1, Measured::default());
        assert_eq!(row.amplification(), None);
        row.accepted_bytes = 100;
        row.usage.written_bytes = 900;
        assert_eq!(row.amplification(), Some(3.0));
    }
}
