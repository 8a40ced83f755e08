//! Checkpoints: a partition as bytes in chunks, and back. Pure; files and sealing are the engine's.
//!
//! ```text
//!   partition ──head──▶ bytes                                        ┐
//!             ──blocks of some slots, each under a short lock──▶ chunks ├──▶ Restore ──finish──▶ partition
//!   memories written since the capture began (the caller's feed) ────┘
//! ```
//!
//! A capture may take long while the partition is written to: each block shows its slots as they are at that moment. What makes a
//! whole of that: a memory that was not written since the capture began has one slot, key, row and vector in all of it. Slots of
//! all others are emptied by [`Restore`], which is told their keys, and the caller adds those memories anew. The graph's
//! rows are brought into line: nodes whose memory is gone are stepped over like removed ones, and nodes that lost their parent get
//! another one. Without a write since, the restored partition is the captured one, edge by edge.
//!
//! Chunks cover ranges of slots, one kind each, and have a stamp that changes whenever something in them changes: a chunk with the
//! stamp that it was written with need not be written again. All numbers are little-endian.
//!
//! Head:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | format of head and chunks: 1 |
//! | 1 | 1 | metric: 1 cosine, 2 inner product, 3 Euclidean |
//! | 2 | 1 | vectors for exact scores: 1 in 32 bits, 2 in 16 bits, 3 none |
//! | 3 | 1 | format of the codes: 1; another rotation or step would be another one |
//! | 4 | 4 | dimension |
//! | 8 | 4 | slots ever used |
//! | 12 | 1 | whether there is a graph: 0 or 1 |
//! | 13 | 8 | state of the graph's random numbers; 0 without one |
//! | 21 | 4 + 4 e | number of entries to the graph, and their slots |
//! | | 4 | number of indexed metadata fields, and for each: |
//! | | 1 + 4 + n | type (1 keyword, 2 integer, 3 float, 4 bool, 5 datetime), length of the path, path |
//!
//! A chunk is a sequence of blocks, in the order of their slots:
//!
//! | bytes | field |
//! |---|---|
//! | 4 | first slot of the block |
//! | 4 | slots in the block |
//! | | for each slot, by the kind of the chunk: |
//!
//! | kind | for each slot |
//! |---|---|
//! | 1 memories | 0: free; or 1, key (16), length of the id (4), id, length of the indexed values (4), values as in `attributes/row.rs` |
//! | 2 vectors | 0: none; or 1, codes (a byte a dimension, each plus 128), scale, residual, norm (f32 each), squared length (f64, only Euclidean), then the vector: f32 a dimension; or 16-bit floats and their factor (f32); or nothing |
//! | 3 graph | parent (4; 2^32 - 1: no node, 2^32 - 2: the root), number of neighbours (1), their slots (4 each) |
//!
//! | file | holds |
//! |---|---|
//! | `bytes.rs` | reading and writing of numbers |
//! | `capture.rs` | a partition to bytes |
//! | `restore.rs` | bytes to a partition |
//! | `stamps.rs` | what has changed since when |

mod bytes;
mod capture;
mod restore;
mod stamps;

pub(crate) use bytes::{Input, put_u32};
pub use capture::{Capture, ChunkState};
pub(crate) use capture::{GRAPH_SHIFT, MEMORIES_SHIFT, vectors_shift};
pub use restore::{Restore, RestoreGraph, RestoreMemories, RestoreVectors};
pub(crate) use stamps::{ChangeStamps, Stamps};

use crate::error::IndexError;

/// The format of heads and chunks that this release writes, and the only one that it reads.
pub const CHECKPOINT_FORMAT: u8 = 1;

/// What a chunk holds of its slots. The numbers are never used for anything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ChunkKind {
    /// Keys, ids and indexed values.
    Memories = 1,
    /// Codes and vectors.
    Vectors = 2,
    /// Nodes of the graph.
    Graph = 3,
}

impl ChunkKind {
    /// The kind of a number; `None`: this release knows none.
    pub fn of(number: u8) -> Option<Self> {
        [Self::Memories, Self::Vectors, Self::Graph].into_iter().find(|kind| *kind as u8 == number)
    }
}

/// Which chunk: the `number`-th range of slots, for one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkId {
    /// What it holds.
    pub kind: ChunkKind,
    /// Which range.
    pub number: u32,
}

/// Why bytes cannot become a partition. Making it from the records always helps, unless memory is short.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// The bytes are not what [`Capture`] made.
    #[error("the checkpoint is damaged: {0}")]
    Damaged(&'static str),
    /// Another release made them.
    #[error("the checkpoint has format {found}, this release reads {CHECKPOINT_FORMAT}")]
    UnknownFormat {
        /// The format that was found.
        found: u8,
    },
    /// They are of a partition of another dimension, metric, storage or schema.
    #[error("the checkpoint is of an index with another {0}")]
    OfAnother(&'static str),
    /// There is too little memory.
    #[error(transparent)]
    Index(#[from] IndexError),
}
