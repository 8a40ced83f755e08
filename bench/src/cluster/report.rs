//! Measurements of clusters as a table and as JSON lines.

use std::fs::File;
use std::io::{BufWriter, Write, stdout};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

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
    /// Whether the calls were to what has an index of vectors.
    pub(super) indexed: bool,
    /// Bytes that clients handed over and that were acknowledged.
    pub(super) accepted_bytes: u64,
    /// How long after the last acknowledgement the index had everything.
    pub(super) linked_after: Option<Duration>,
    pub(super) log: Option<LogCounters>,
    pub(super) usage: Usage,
    /// How many of the calls that went well were searches.
    pub(super) searches: u64,
    /// Whether all that the calls cause was written before the bytes were counted: checkpoints and compaction too.
    pub(super) is_at_rest: bool,
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
            indexed: false,
            accepted_bytes: 0,
            linked_after: None,
            log: None,
            usage: Usage::default(),
            searches: 0,
            is_at_rest: false,
            recall: None,
        }
    }

    fn acknowledged_per_second(&self) -> f64 {
        self.measured.rate_of(self.measured.done - self.searches)
    }

    fn searches_per_second(&self) -> Option<f64> {
        (self.searches > 0).then(|| self.measured.rate_of(self.searches))
    }

    /// The clock stops when nothing waits for the index any more.
    fn linked_per_second(&self) -> Option<f64> {
        let linked = |behind| self.measured.done as f64 / (self.measured.took + behind).as_secs_f64();
        self.linked_after.map(linked)
    }

    fn entries_per_fsync(&self) -> Option<f64> {
        self.log.map(|log| log.entries / log.syncs.max(1.0))
    }

    fn cpu_ms(&self) -> f64 {
        self.usage.cpu.as_secs_f64() * 1e3 / (self.measured.done as f64).max(1.0)
    }

    fn json(&self) -> Value {
        json!({
            "system": self.system,
            "nodes": self.nodes,
            "clients": self.clients,
            "workload": self.workload,
            "indexed": self.indexed,
            "acknowledged_per_second": self.acknowledged_per_second(),
            "linked_per_second": self.linked_per_second(),
            "searches_per_second": self.searches_per_second(),
            "p50_ms": self.measured.percentile_ms(0.5),
            "p99_ms": self.measured.percentile_ms(0.99),
            "p999_ms": self.measured.percentile_ms(0.999),
            "entries_per_fsync": self.entries_per_fsync(),
            "write_amplification": self.amplification(),
            "bytes_written_per_byte_accepted": self.written_per_byte(),
            "cpu_ms_per_operation": self.cpu_ms(),
            "recall_at_10": self.recall,
            "operations": self.measured.done,
            "failed": self.measured.failed,
        })
    }

    /// Bytes that a node writes in the end for each byte that was accepted.
    fn amplification(&self) -> Option<f64> {
        self.written_per_byte().filter(|_| self.is_at_rest)
    }

    /// Bytes that a node had written for each byte that was accepted when the calls ended; what it has put off is not in it.
    fn written_per_byte(&self) -> Option<f64> {
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
            "{:<8} {:>5} {:<18} {:>7} {:>9} {:>9} {:>9} {:>8} {:>8} {:>8} {:>7} {:>7} {:>7} {:>6} {:>6}",
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
            "wr/byte",
            "cpu ms",
            "recall",
            "failed"
        )?;
        Ok(Self { json })
    }

    pub(super) fn row(&mut self, row: &Row) -> Result<(), BenchError> {
        let acknowledged = row.acknowledged_per_second();
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| row.measured.percentile_ms(share));
        let text = |value: Option<f64>, digits: usize| value.map_or("-".into(), |value| format!("{value:.digits$}"));
        writeln!(
            stdout(),
            "{:<8} {:>5} {:<18} {:>7} {:>9} {:>9} {:>9} {:>8.2} {:>8.2} {:>8.2} {:>7} {:>7} {:>7.3} {:>6} {:>6}",
            row.system,
            row.nodes,
            row.workload,
            row.clients,
            text((acknowledged > 0.0).then_some(acknowledged), 0),
            text(row.linked_per_second(), 0),
            text(row.searches_per_second(), 0),
            p50,
            p99,
            p999,
            text(row.entries_per_fsync(), 1),
            text(row.written_per_byte(), 2),
            row.cpu_ms(),
            text(row.recall, 4),
            row.measured.failed
        )?;
        if let Some(json) = &mut self.json {
            writeln!(json, "{}", row.json())?;
            json.flush()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured() -> Measured {
        let mut measured = Measured::default();
        for millis in 1..=1000 {
            measured.add(Duration::from_millis(millis));
        }
        measured.took = Duration::from_secs(2);
        measured.sort();
        measured
    }

    #[test]
    fn bytes_are_counted_for_each_node_and_amplification_only_at_rest() {
        let mut row = Row::new("cairn", 3, "add", 1, Measured::default());
        assert_eq!(row.written_per_byte(), None);
        row.accepted_bytes = 100;
        row.usage.written_bytes = 900;
        assert_eq!((row.written_per_byte(), row.amplification()), (Some(3.0), None));
        row.is_at_rest = true;
        assert_eq!(row.amplification(), Some(3.0));
    }

    #[test]
    fn a_line_has_what_was_measured_under_its_name() {
        let row = Row::new("cairn", 3, "90 % search", 8, measured());
        let row = Row {
            indexed: true,
            searches: 900,
            linked_after: Some(Duration::from_secs(2)),
            log: Some(LogCounters { entries: 300.0, syncs: 20.0 }),
            accepted_bytes: 100,
            usage: Usage { cpu: Duration::from_secs(4), written_bytes: 900 },
            is_at_rest: true,
            recall: Some(0.98),
            ..row
        };
        let expected = json!({
            "system": "cairn",
            "nodes": 3,
            "clients": 8,
            "workload": "90 % search",
            "indexed": true,
            "acknowledged_per_second": 50.0,
            "linked_per_second": 250.0,
            "searches_per_second": 450.0,
            "p50_ms": 501.0,
            "p99_ms": 990.0,
            "p999_ms": 999.0,
            "entries_per_fsync": 15.0,
            "write_amplification": 3.0,
            "bytes_written_per_byte_accepted": 3.0,
            "cpu_ms_per_operation": 4.0,
            "recall_at_10": 0.98,
            "operations": 1000,
            "failed": 0,
        });
        assert_eq!(row.json(), expected);
    }

    #[test]
    fn what_was_not_measured_is_null() {
        let line = Row::new("etcd", 3, "put", 8, measured()).json();
        assert_eq!(line["indexed"], false);
        for name in ["linked_per_second", "searches_per_second", "entries_per_fsync", "write_amplification"] {
            assert_eq!(line[name], Value::Null, "{name}");
        }
    }
}
