//! What can go wrong, said so that the caller knows what to do.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Why a node does not start. Every message is one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration contradicts itself.
    #[error("{0}")]
    Config(String),
    /// Another process lives in the data directory.
    #[error("{path} is in use by another process: stop it, or give this node a data directory of its own")]
    Locked {
        /// The data directory.
        path: PathBuf,
    },
    /// The data directory is not this node's.
    #[error("{path} {reason}")]
    ForeignDirectory {
        /// The data directory.
        path: PathBuf,
        /// What it is instead, and what to do.
        reason: String,
    },
    /// The data directory was written by a newer version.
    #[error(
        "{path} was written by a newer version of Cairn (format {found}, this one reads up to {supported}): start that version"
    )]
    NewerDirectory {
        /// The file that says so.
        path: PathBuf,
        /// Its format.
        found: u8,
        /// The newest format that this version reads.
        supported: u8,
    },
    /// A file that must be whole is not.
    #[error("{path} is damaged ({reason}): replace this node by one with a new id, or restore the file from a backup")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The root key does not open the keyring, or cannot be used.
    #[error("{0}")]
    Key(String),
    /// The id has been used with another disk.
    #[error(
        "node id {node_id} is known to peer {peer_id} with another data directory: start it with that directory, \
         or add a node under an id that was never used"
    )]
    IdInUse {
        /// The id.
        node_id: u64,
        /// Who knows it.
        peer_id: u64,
    },
    /// The node was removed from its cluster.
    #[error(
        "node {node_id} was removed from its cluster, as peer {peer_id} says: add a node under an id that was never used"
    )]
    Removed {
        /// The node.
        node_id: u64,
        /// Who says so.
        peer_id: u64,
    },
    /// Peers belong to different clusters.
    #[error("{0}")]
    ForeignCluster(String),
    /// The log cannot be opened.
    #[error("the log cannot be opened: {0}")]
    Log(String),
    /// The engine cannot be opened.
    #[error("the store cannot be opened: {0}")]
    Engine(String),
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The replication core did not start.
    #[error("replication did not start: {0}")]
    Raft(String),
    /// The caller gave up before the cluster was formed.
    #[error("stopped before the cluster was formed")]
    Stopped,
}

impl StartError {
    /// An I/O error at `path`.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

/// Why a command was not applied, as far as the caller can know.
#[derive(Debug, thiserror::Error)]
pub enum ProposeError {
    /// Too much is under way; nothing was done.
    #[error("too many writes are under way: try again in {} ms", retry_after.as_millis())]
    Overloaded {
        /// When to try again.
        retry_after: Duration,
    },
    /// The disks of too many nodes are nearly full; nothing was done. Deletes are still taken.
    #[error(
        "less than {reserved_bytes} bytes are free on the disks of nodes {nodes:?}: delete something, or give them more space"
    )]
    DiskLow {
        /// The nodes.
        nodes: Vec<u64>,
        /// What must be free.
        reserved_bytes: u64,
        /// When to try again.
        retry_after: Duration,
    },
    /// No leader could be reached before the deadline, or it lost its majority. The command may still be applied:
    /// retry it under the same request id.
    #[error("{reason}: retry with the same request id")]
    Unavailable {
        /// What was missing.
        reason: String,
    },
    /// The command is of a newer release than a member of the cluster; nothing was done.
    #[error(
        "this needs cluster version {needed}, and the cluster is at {current}: start the newer release on every node"
    )]
    VersionTooNew {
        /// The version that the command needs.
        needed: u32,
        /// The version of the cluster.
        current: u32,
    },
    /// The command is larger than the log takes; nothing was done.
    #[error("a write of {bytes} bytes is larger than the limit of {limit}: split it")]
    TooLarge {
        /// The size of the command.
        bytes: usize,
        /// The largest command.
        limit: usize,
    },
    /// The leader's clock cannot be trusted, so it stamps no command.
    #[error("{reason}")]
    ClockRefused {
        /// Why, for the operator.
        reason: String,
    },
    /// The node stops, or has stopped itself.
    #[error("the node has stopped: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
}

/// Why a read point could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No leader confirmed the point before the deadline, or this node did not catch up with it.
    #[error("{reason}")]
    Unavailable {
        /// What was missing.
        reason: String,
    },
    /// Too many readers wait.
    #[error("too many reads are waiting: try again in {} ms", retry_after.as_millis())]
    Overloaded {
        /// When to try again.
        retry_after: Duration,
    },
    /// The position names a group that this cluster does not have.
    #[error("the position names group {group}, which does not exist")]
    UnknownGroup {
        /// The group.
        group: u32,
    },
    /// The node stops, or has stopped itself.
    #[error("the node has stopped: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
}

/// Why a change of the members did not happen.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// This node does not lead; ask the leader.
    #[error("node {leader_id:?} leads, this one does not")]
    NotLeader {
        /// Who leads, where known.
        leader_id: Option<u64>,
    },
    /// There is no such member.
    #[error("node {node_id} is no member")]
    NotFound {
        /// The node.
        node_id: u64,
    },
    /// There is such a member, and it is another one.
    #[error("{0}")]
    AlreadyExists(String),
    /// The node was removed, and its id is never used again.
    #[error("node {node_id} was removed from the cluster: use an id that was never used")]
    Retired {
        /// The node.
        node_id: u64,
    },
    /// The node has not caught up with the log.
    #[error("{0}")]
    NotCaughtUp(String),
    /// The change cannot be made now, or at all.
    #[error("{0}")]
    Refused(String),
    /// No majority answered in time; the change may still be made, and may be asked for again.
    #[error("{0}")]
    Unavailable(String),
}

/// Why this node did not see a command through.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// Another node leads; nothing was done.
    NotLeader { leader_id: Option<u64> },
    /// Too much is under way; nothing was done.
    Overloaded { retry_after: Duration },
    /// The log does not take a command of this size; nothing was done.
    TooLarge { bytes: usize, limit: usize },
    /// The clock cannot be trusted; nothing was done.
    Clock(String),
    /// It is not known whether the command will be applied.
    Unknown(String),
    /// The node has stopped.
    Stopped(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeader { .. } => write!(f, "another node leads"),
            Self::Overloaded { .. } => write!(f, "too many writes are under way"),
            Self::TooLarge { bytes, limit } => {
                write!(f, "a write of {bytes} bytes is larger than the limit of {limit}")
            }
            Self::Clock(reason) | Self::Unknown(reason) | Self::Stopped(reason) => write!(f, "{reason}"),
        }
    }
}

impl Refusal {
    /// The same once more, for the others of a batch.
    pub(crate) fn repeat(&self) -> Self {
        match self {
            Self::NotLeader { leader_id } => Self::NotLeader { leader_id: *leader_id },
            Self::Overloaded { retry_after } => Self::Overloaded { retry_after: *retry_after },
            Self::TooLarge { bytes, limit } => Self::TooLarge { bytes: *bytes, limit: *limit },
            Self::Clock(reason) => Self::Clock(reason.clone()),
            Self::Unknown(reason) => Self::Unknown(reason.clone()),
            Self::Stopped(reason) => Self::Stopped(reason.clone()),
        }
    }
}
