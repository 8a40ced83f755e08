//! What can go wrong with the log, and what the caller is to do about it.

use std::io;
use std::path::{Path, PathBuf};

use cairn_engine::crypto::CryptoError;

/// An error of the write-ahead log. Its message does not repeat its source's.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// The operating system refused an operation. Fatal while the log runs; at start the message says what to mend.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was attempted, as a verb: "write", "sync".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Bytes that had been synced are damaged or gone. The node must not start with this log: what it acknowledged may
    /// be missing.
    #[error(
        "the write-ahead log is damaged in {} at byte {offset}: {reason}; it had been written safely, so acknowledged \
         entries may be lost: put the file back, or replace this node by a new one",
        path.display()
    )]
    Corruption {
        /// The damaged file, or the directory where one is missing.
        path: PathBuf,
        /// The offset of the first damaged frame in the file, in bytes.
        offset: u64,
        /// What is wrong there.
        reason: &'static str,
    },
    /// There is no log in the directory, and it had been made. Nothing was created.
    #[error("the write-ahead log in {} is missing, and it had been made", path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// A segment was written by a newer version of the program.
    #[error("{} has log format {version}, this program knows {known}: start a newer version", path.display())]
    NewerFormat {
        /// The segment.
        path: PathBuf,
        /// The version in the file.
        version: u8,
        /// The newest version that this program reads.
        known: u8,
    },
    /// A segment belongs to another node or group.
    #[error("{} belongs to node {node_id}, group {group}: this is not its data directory", path.display())]
    Foreign {
        /// The segment.
        path: PathBuf,
        /// The node that wrote it.
        node_id: u64,
        /// The group that it belongs to.
        group: u32,
    },
    /// A segment's data key cannot be wrapped or unwrapped.
    #[error("cannot use the data key of {}", path.display())]
    Key {
        /// The segment.
        path: PathBuf,
        /// The keyring's error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A frame cannot be sealed. Fatal.
    #[error("cannot seal a frame of {}", path.display())]
    Seal {
        /// The segment.
        path: PathBuf,
        /// The cause.
        #[source]
        source: CryptoError,
    },
    /// An append would leave a hole in the log or overwrite an entry. The caller's mistake; nothing was queued.
    #[error("entry {got} does not follow the log, whose next entry is {expected}")]
    OutOfOrder {
        /// The index that would have been right.
        expected: u64,
        /// The index of the entry that was offered.
        got: u64,
    },
    /// An entry is larger than the log takes. Nothing was queued.
    #[error("an entry of {bytes} bytes is larger than the limit of {limit}")]
    EntryTooLarge {
        /// The size of the entry.
        bytes: usize,
        /// [`super::WalOptions::entry_bytes_max`].
        limit: usize,
    },
    /// An option is out of its range.
    #[error("write-ahead log option {name}: {reason}")]
    Option {
        /// The field of [`super::WalOptions`].
        name: &'static str,
        /// What it must be.
        reason: &'static str,
    },
    /// The log was closed, or has failed and takes no more. Whatever was not acknowledged may or may not be on disk.
    #[error("the write-ahead log is stopped")]
    Stopped,
}

impl WalError {
    /// A closure for `map_err` that names the operation and its file.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// The message and those of all its causes, for a log line.
    pub(super) fn with_causes(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    }

    /// Whether the disk (or a quota) is full: waiting may help, and nothing is lost by it.
    pub fn is_no_space(&self) -> bool {
        match self {
            Self::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            _ => false,
        }
    }

    /// Whether a file or directory is not there.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

impl From<WalError> for io::Error {
    fn from(error: WalError) -> Self {
        let kind = match &error {
            WalError::Io { source, .. } => source.kind(),
            WalError::Corruption { .. } | WalError::NewerFormat { .. } | WalError::Foreign { .. } => {
                io::ErrorKind::InvalidData
            }
            WalError::Missing { .. } => io::ErrorKind::NotFound,
            WalError::OutOfOrder { .. } | WalError::EntryTooLarge { .. } | WalError::Option { .. } => {
                io::ErrorKind::InvalidInput
            }
            WalError::Key { .. } | WalError::Seal { .. } => io::ErrorKind::PermissionDenied,
            WalError::Stopped => io::ErrorKind::BrokenPipe,
        };
        Self::new(kind, error)
    }
}
