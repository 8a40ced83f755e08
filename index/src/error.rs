//! What can go wrong when an index is changed or searched.

/// An error of the index. Nothing has been changed when one is returned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// A vector has another number of values than the partition's dimension. The caller's mistake.
    #[error("the vector has {found} values, but the embedding's dimension is {expected}")]
    WrongDimension {
        /// The partition's dimension.
        expected: usize,
        /// The number of values given.
        found: usize,
    },
    /// A value of a vector is NaN or infinite. The caller's mistake.
    #[error("value {position} of the vector is not finite")]
    NotFinite {
        /// Which value, counted from 0.
        position: usize,
    },
    /// All values are zero, which has no direction. Only under [`crate::Metric::Cosine`]. The caller's mistake.
    #[error("a zero vector has no cosine")]
    ZeroVector,
    /// A vector was made ready for a partition of another dimension, metric or storage.
    #[error("the vector was made ready for another partition")]
    PreparedForAnother,
    /// A dimension outside of 1..=4096.
    #[error("dimension {0} is not within 1 to 4096")]
    UnsupportedDimension(usize),
    /// The memory budget does not allow the change. Differs between nodes: check [`crate::MemoryBudget::available`] before
    /// a change is proposed.
    #[error("the index needs {needed} more bytes of memory, and {available} of its limit of {limit} are left")]
    MemoryLimit {
        /// Bytes that the change needs.
        needed: u64,
        /// Bytes that are left of the limit.
        available: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The allocator refused. Differs between nodes.
    #[error("the system has no {0} bytes of memory for the index")]
    OutOfMemory(u64),
    /// A partition is full: slots are 32-bit numbers.
    #[error("the partition holds as many memories as slots can name")]
    Full,
}

impl IndexError {
    /// Whether every node that makes the same calls gets this error too. Where not, the state of the nodes would part.
    pub fn is_deterministic(&self) -> bool {
        !matches!(self, Self::MemoryLimit { .. } | Self::OutOfMemory(_))
    }
}
