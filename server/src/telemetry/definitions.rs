//! Every metric of a node. Nothing is counted that is not listed here; the table in `docs/operations.md` repeats it.
//!
//! Names follow Prometheus: base units, `_total` on counters, the unit at the end. Labels are few and closed, so that
//! no caller can make series: never a tenant, space, scope or id.

/// How a metric behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts of values in buckets.
    Histogram,
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Definition {
    /// Its name.
    pub(crate) name: &'static str,
    /// How it behaves.
    pub(crate) kind: Kind,
    /// The names of its labels.
    pub(crate) labels: &'static [&'static str],
    /// What it says.
    pub(crate) help: &'static str,
}

macro_rules! definitions {
    ($($constant:ident = $name:literal $kind:ident [$($label:literal),*] $help:literal;)*) => {
        $(#[doc = $help] pub(crate) const $constant: Definition =
            Definition { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };)*
        /// All of them, in the order of the documentation.
        pub(crate) const ALL: &[Definition] = &[$($constant),*];
    };
}

definitions! {
    OPERATIONS = "memory_operations_total" Counter ["operation", "outcome"]
        "Calls by operation and outcome: ok, or the gRPC code in lower case.";
    OPERATION_DURATION = "memory_operation_duration_seconds" Histogram ["operation"]
        "Time from the arrival of a call to its reply, in seconds.";
    SHED = "cairn_requests_shed_total" Counter ["pool"]
        "Calls refused because too many were under way: pool is write, read, stream (watches) or import.";
    IN_FLIGHT = "cairn_requests_in_flight" Gauge ["pool"]
        "Calls under way: pool is write, read, stream (watches) or import.";
    EMBEDDED_TEXTS = "cairn_embedded_texts_total" Counter ["embedder"]
        "Texts turned into vectors by the server.";
    EMBED_REQUESTS = "cairn_embed_requests_total" Counter ["embedder", "outcome"]
        "Requests to servers that make vectors: ok, timeout, unreachable, overloaded, failed, refused, malformed, dimension or circuit_open.";
    EMBED_DURATION = "cairn_embed_duration_seconds" Histogram ["embedder"]
        "Time from such a request to its answer or failure, in seconds.";
    EMBED_CIRCUIT_OPEN = "cairn_embed_circuit_open" Gauge ["embedder"]
        "1 while such a server is left alone because it failed repeatedly.";
    BUILD_INFO = "cairn_build_info" Gauge ["version"]
        "Always 1; the label tells the version.";
    UPTIME = "cairn_uptime_seconds" Gauge []
        "Time since the start, in seconds.";
    READY = "cairn_ready" Gauge []
        "1 while the node is ready.";
    DRAINING = "cairn_draining" Gauge []
        "1 while the node is stopping.";
    RAFT_TERM = "cairn_raft_term" Gauge []
        "The term.";
    RAFT_LEADER = "cairn_raft_leader" Gauge []
        "1 while this node leads.";
    RAFT_LEADER_KNOWN = "cairn_raft_leader_known" Gauge []
        "1 while this node knows a leader.";
    RAFT_MEMBERS = "cairn_raft_members" Gauge []
        "Members of the cluster.";
    RAFT_MEMBERS_REACHABLE = "cairn_raft_members_reachable" Gauge []
        "Members that this node, or the leader, has heard from.";
    RAFT_COMMITTED_INDEX = "cairn_raft_committed_index" Gauge []
        "The last committed log index that the node knows.";
    RAFT_APPLIED_INDEX = "cairn_raft_applied_index" Gauge []
        "The last log index that the node has applied.";
    RAFT_DURABLE_APPLIED_INDEX = "cairn_raft_durable_applied_index" Gauge []
        "The last applied log index that survives a crash without the log.";
    WAL_FIRST_INDEX = "cairn_wal_first_index" Gauge []
        "The first index in the log.";
    WAL_LAST_INDEX = "cairn_wal_last_index" Gauge []
        "The last index in the log.";
    WAL_ENTRIES = "cairn_wal_entries_total" Counter []
        "Entries written to the log.";
    WAL_BYTES = "cairn_wal_written_bytes_total" Counter []
        "Bytes written to the log, frames of all kinds.";
    WAL_SYNCS = "cairn_wal_syncs_total" Counter []
        "Calls of fdatasync; entries by syncs is how well writers share them.";
    WAL_ENTRIES_PER_SYNC = "cairn_wal_entries_per_sync" Gauge []
        "Entries by syncs since the start.";
    WAL_SEGMENTS_REMOVED = "cairn_wal_segments_removed_total" Counter []
        "Segments removed because all of their entries were purged.";
    WAL_STALLED = "cairn_wal_stalled" Gauge []
        "1 while the log waits for space on its disk.";
    APPEND_WAITING = "cairn_raft_append_waiting_bytes" Gauge []
        "Bytes of entries that came from the leader and are not in the log yet.";
    DISK_LOW = "cairn_disk_low" Gauge []
        "1 while writes that make the state grow are refused for want of space.";
    READ_ROUNDS = "cairn_read_rounds_total" Counter []
        "Rounds in which this node asked the leader, or as the leader a majority, up to where readers must see; many readers share one.";
    SNAPSHOT_SENT = "cairn_snapshot_sent_bytes_total" Counter []
        "Bytes of snapshots sent to other members.";
    SNAPSHOT_RECEIVED = "cairn_snapshot_received_bytes_total" Counter []
        "Bytes of snapshots received from other members.";
    DISK_USED = "cairn_disk_used_bytes" Gauge []
        "Bytes in the data directory.";
    DISK_FREE = "cairn_disk_free_bytes" Gauge []
        "Bytes free on the data directory's file system.";
    MEMORIES = "cairn_memories" Gauge []
        "Memories on this node, over all spaces.";
    INDEXES = "cairn_indexes" Gauge []
        "Indexes of spaces in memory.";
    INDEX_MEMORY = "cairn_index_memory_bytes" Gauge []
        "Bytes that the indexes in memory take.";
    INDEX_WAITING = "cairn_index_waiting_vectors" Gauge []
        "Vectors that wait to be linked into a graph; searches compare them one by one.";
    INDEX_UNREACHABLE = "cairn_index_unreachable_vectors" Gauge []
        "Vectors that searches over a graph may not reach, looked for four times within storage.index_idle; anything but 0 is a fault.";
    INDEX_MADE = "cairn_index_builds_total" Counter []
        "Indexes that were made from the records.";
    INDEX_MADE_MEMORIES = "cairn_index_build_memories_total" Counter []
        "Memories that were added to an index from the records, as it goes on.";
    CHECKPOINTS_SAVED = "cairn_index_checkpoints_saved_total" Counter []
        "Checkpoints of indexes that were written.";
    CHECKPOINT_BYTES = "cairn_index_checkpoint_written_bytes_total" Counter []
        "Bytes that were written for checkpoints of indexes.";
    CHECKPOINT_FAILURES = "cairn_index_checkpoint_failures_total" Counter []
        "Checkpoints of indexes that could not be written.";
    CHECKPOINTS_LOADED = "cairn_index_checkpoints_loaded_total" Counter []
        "Indexes that were loaded from their checkpoint.";
    CHECKPOINTS_UNUSABLE = "cairn_index_checkpoints_unusable_total" Counter []
        "Checkpoints of indexes that were there and could not be used; the index was made from the records.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules() {
        for definition in ALL {
            let name = definition.name;
            assert!(name.starts_with("cairn_") || name.starts_with("memory_"), "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert_eq!(definition.kind == Kind::Counter, name.ends_with("_total"), "{name}");
            assert!(definition.help.ends_with('.'), "{name}");
            assert_eq!(ALL.iter().filter(|other| other.name == name).count(), 1, "{name} is defined once");
        }
    }

    #[test]
    fn the_operations_page_lists_each_metric() {
        let page = include_str!("../../../docs/operations.md");
        for definition in ALL {
            assert!(page.contains(&format!("`{}`", definition.name)), "docs/operations.md lacks {}", definition.name);
        }
    }
}
