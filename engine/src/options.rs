//! How an engine is opened.

use std::path::PathBuf;
use std::time::Duration;

use crate::engine::SUPPORTED_CLUSTER_VERSION;
use crate::error::{Error, Result};
use crate::position::GroupId;

const MIB: usize = 1024 * 1024;

/// How much room the store may need for a moment beside its data, in write buffers: a compaction's output before its input is
/// gone. The largest is a file of one level with the ten or so that it overlaps in the next.
pub const COMPACTION_WRITE_BUFFERS: u64 = 12;

/// How an engine is opened. The defaults suit a node with a few GiB of memory.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory of the store; made where it is not there, with parents.
    pub dir: PathBuf,
    /// The group whose state this is.
    pub group: GroupId,
    /// Bytes of the cache for blocks of the store; at least 1 MiB.
    pub block_cache_bytes: usize,
    /// Bytes of one write buffer; 64 KiB to 1 GiB. A full one is written to disk in the background.
    pub write_buffer_bytes: usize,
    /// Write buffers that may exist at once, the active one included; 2 to 16. Beyond that, writes wait.
    pub write_buffers_max: u32,
    /// Values of so many bytes and more lie in files of their own, beside the tables that are merged; 0: the measured default. Tests make
    /// it small.
    pub blobs_from_bytes: u64,
    /// Background threads for writing out buffers and merging files; 1 to 64.
    pub background_threads: u32,
    /// File descriptors that the store may keep open; at least 64.
    pub open_files_max: u32,
    /// Bytes that the index partitions may take together; 0: no limit.
    pub index_bytes_max: u64,
    /// A space with at least so many vectors is searched over a graph, and one with fewer, or `exact`ly, by comparing with all;
    /// 0: the measured default. Tests make it small.
    pub index_graph_from: u64,
    /// The index of a space with at least so many memories is kept in checkpoints; 0: the measured default. Tests make it small.
    pub index_checkpoint_from: u64,
    /// Whether a thread of the engine writes checkpoints of indexes when they are due; else only
    /// [`crate::Engine::checkpoint_indexes`] does.
    pub index_checkpoint_thread: bool,
    /// Bounds that are part of the replicated state.
    pub limits: Limits,
    /// The newest cluster version whose commands are applied: [`SUPPORTED_CLUSTER_VERSION`], unless a test makes this
    /// release pretend to be another one.
    #[doc(hidden)]
    pub supported_cluster_version: u32,
}

/// Bounds that apply decides by. They must be the same on all members of a cluster, since a command has to have the
/// same outcome everywhere; a cluster never changes them by configuration. Tests make them small.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests that are remembered at once; a full table sheds writes.
    pub dedup_rows_max: u64,
    /// How long a caller's request id is remembered.
    pub dedup_age: Duration,
    /// How long a request id that the server made is remembered: it only serves retries inside the cluster.
    pub dedup_age_generated: Duration,
    /// Changes that the feed keeps; older ones are dropped.
    pub feed_changes_max: u64,
    /// Rows that one command of a delete by selection looks at.
    pub delete_scan_rows_max: u64,
    /// Spaces of one tenant.
    pub spaces_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            dedup_rows_max: 16_000_000,
            dedup_age: Duration::from_secs(24 * 3600),
            dedup_age_generated: Duration::from_secs(600),
            feed_changes_max: 500_000,
            delete_scan_rows_max: 10_000,
            spaces_max: 100_000,
        }
    }
}

impl Options {
    /// The defaults, for a directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            group: GroupId(0),
            block_cache_bytes: 256 * MIB,
            write_buffer_bytes: 64 * MIB,
            write_buffers_max: 4,
            blobs_from_bytes: 0,
            background_threads: 2,
            open_files_max: 1024,
            index_bytes_max: 0,
            index_graph_from: 0,
            index_checkpoint_from: 0,
            index_checkpoint_thread: true,
            limits: Limits::default(),
            supported_cluster_version: SUPPORTED_CLUSTER_VERSION,
        }
    }

    /// Whether all values are within their ranges; else says which is not, in one line.
    pub fn validate(&self) -> Result<()> {
        let ranges: [(&str, usize, usize, usize); 5] = [
            ("block_cache_bytes", self.block_cache_bytes, MIB, usize::MAX),
            ("write_buffer_bytes", self.write_buffer_bytes, 64 * 1024, 1024 * MIB),
            ("write_buffers_max", self.write_buffers_max as usize, 2, 16),
            ("background_threads", self.background_threads as usize, 1, 64),
            ("open_files_max", self.open_files_max as usize, 64, i32::MAX as usize),
        ];
        for (name, value, min, max) in ranges {
            if value < min || value > max {
                return Err(Error::refused(format!("engine option {name} is {value}; it must be {min} to {max}")));
            }
        }
        if self.dir.as_os_str().is_empty() {
            return Err(Error::refused("engine option dir is empty"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_bad_values_are_named() {
        let options = Options::new("data");
        assert!(options.validate().is_ok());
        let bad = Options { write_buffers_max: 1, ..options };
        let error = bad.validate().unwrap_err().to_string();
        assert_eq!(error, "engine option write_buffers_max is 1; it must be 2 to 16");
    }
}
