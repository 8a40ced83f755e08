//! What a node needs to know before it starts.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cairn_engine::Options;
use cairn_engine::keyring::RootKey;

use crate::clock::{Clock, SystemClock};
use crate::wal::{self, WalOptions};

/// One line of the fixed list of peers that a cluster is first made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The node's id: positive, never used for another node.
    pub id: u64,
    /// Where peers reach it: `host:port`.
    pub peer_address: String,
    /// Where clients reach it: `host:port`.
    pub client_address: String,
}

/// How to start a [`crate::Node`].
pub struct NodeConfig {
    /// This node's id; one of `peers`.
    pub node_id: u64,
    /// All members that the cluster is first made from, this node included. One peer: a cluster of one.
    /// Later starts take the members from the log; an address given here still overrides the one in the log.
    pub peers: Vec<Peer>,
    /// Whether the node joins a cluster that is there already: it never makes one, `peers` names itself and members to ask,
    /// and it waits until it has been added.
    pub join: bool,
    /// The node's data directory; made if it does not exist.
    pub data_dir: PathBuf,
    /// The root key that all nodes share.
    pub root_key: RootKey,
    /// Where this node listens for its peers: bound by the caller, so that tests can use free ports.
    pub listener: TcpListener,
    /// The engine's options; `dir` is set by the node.
    pub engine: Options,
    /// Intervals and deadlines.
    pub timing: Timing,
    /// Bounds on memory and log.
    pub limits: Limits,
}

/// What a node works on; [`Environment::default`] is the real world, tests bring their own.
#[derive(Clone)]
pub struct Environment {
    /// Where it takes the time from.
    pub clock: Arc<dyn Clock>,
    /// Where its log lies, and what happens when the log cannot go on.
    pub log: wal::Environment,
    /// How many bytes are free on the disk of a directory.
    pub bytes_free: fn(&Path) -> u64,
}

impl Default for Environment {
    fn default() -> Self {
        Self { clock: Arc::new(SystemClock), log: wal::Environment::default(), bytes_free: crate::files::bytes_free }
    }
}

/// Intervals and deadlines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// How often a leader says that it leads.
    pub heartbeat: Duration,
    /// The least time without a leader after which a follower campaigns.
    pub election_min: Duration,
    /// The most time without a leader after which a follower campaigns; also the leader's lease.
    pub election_max: Duration,
    /// How long to wait for a connection to a peer.
    pub connect_timeout: Duration,
    /// The deadline of a peer call that has no caller with a deadline of its own.
    pub peer_timeout: Duration,
    /// The deadline for one attempt to send a snapshot, its installation included.
    pub snapshot_timeout: Duration,
    /// How long the proposer waits between two attempts while there is no leader.
    pub retry_interval: Duration,
    /// How long a change of members waits to hear of the nodes that it needs, before it is refused for want of them.
    pub hearing_patience: Duration,
    /// How far ahead of the steady clock the wall clock may run before the leader refuses to stamp.
    pub clock_jump_max: Duration,
    /// A snapshot is taken at the latest after this time, if anything has been written.
    pub snapshot_interval: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(150),
            election_min: Duration::from_millis(600),
            election_max: Duration::from_millis(900),
            connect_timeout: Duration::from_secs(2),
            peer_timeout: Duration::from_secs(5),
            snapshot_timeout: Duration::from_secs(15 * 60),
            retry_interval: Duration::from_millis(50),
            hearing_patience: Duration::from_secs(5),
            clock_jump_max: Duration::from_secs(5 * 60),
            snapshot_interval: Duration::from_secs(10 * 60),
        }
    }
}

/// Bounds on memory and log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Proposals that a node takes on at once; more are refused with `Overloaded`.
    pub proposals_in_flight_max: usize,
    /// Bytes of commands that a node takes on at once; more are refused with `Overloaded`.
    pub proposal_bytes_in_flight_max: usize,
    /// Bytes of entries that a follower holds before its log has them; the leader's stream waits beyond that.
    pub append_bytes_waiting_max: usize,
    /// Entries that are applied in one batch.
    pub apply_entries_max: usize,
    /// Bytes of commands that are applied in one batch, unless a single one is larger.
    pub apply_bytes_max: usize,
    /// A snapshot is taken once this many bytes of commands have been applied since the last one.
    pub snapshot_bytes: u64,
    /// Bytes of one piece of a snapshot on the wire.
    pub snapshot_chunk_bytes: usize,
    /// Bytes of a snapshot that are sent to one peer in a second, at most.
    pub snapshot_bytes_per_second: u64,
    /// Bytes that are kept free on the disk for what must go on when it fills up: votes, changes of members, deletes. Below
    /// that, writes that make the state grow are refused; see [`crate::Node::admit_growth`].
    pub disk_reserved_bytes: u64,
    /// Segments, queue and cache of the write-ahead log.
    pub log: WalOptions,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            proposals_in_flight_max: 4096,
            proposal_bytes_in_flight_max: 128 << 20,
            append_bytes_waiting_max: 32 << 20,
            apply_entries_max: 512,
            apply_bytes_max: 8 << 20,
            snapshot_bytes: 256 << 20,
            snapshot_chunk_bytes: 1 << 20,
            snapshot_bytes_per_second: 128 << 20,
            disk_reserved_bytes: 1 << 30,
            log: WalOptions::default(),
        }
    }
}
