//! The memory-resident index of a Cairn space: vectors and attributes, found by nearness and by filter.
//!
//! Pure memory: no I/O, no async, no knowledge of the wire format, and no clock but for how long [`SearchLock`] tries. A
//! [`Partition`] holds one space's memories under one embedding.
//!
//! ```text
//!   engine ──upsert/remove──▶ Partition ──▶ slots       memory key and id of each slot, slot reuse
//!          ──matches────────▶           ──▶ attributes  bitmaps and sorted columns per field
//!          ──search─────────▶           ──▶ vectors     int8 codes and exact f32, searched flat or over a graph
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `partition.rs` | the whole of one space and embedding; the only type that the engine changes |
//! | `filter/` | the filter tree, its plain definition on one document, and the checks of a filter before use |
//! | `schema.rs` | which fields are indexed, and as what |
//! | `attributes/` | the indexed values, and which memories match a filter |
//! | `tiers.rs` | when a partition's vectors are searched flat, and when over a graph |
//! | `vectors.rs` | vectors by slot, and the flat search |
//! | `prepared.rs` | vectors made ready before a partition is changed |
//! | `originals.rs` | the vectors by which candidates are scored exactly |
//! | `near.rs` | what of a walk is scored exactly, and whether codes tell enough |
//! | `candidates.rs` | what finds candidates in a large partition: |
//! | `graph/` | Cairn's own graph, |
//! | `hnsw_rs.rs` | or hnsw_rs, in the feature `hnsw-rs` |
//! | `codes.rs` | 8-bit codes, and the proof of how far their scores can be off |
//! | `rotation.rs` | the rotation that makes one step size fit all vectors |
//! | `distance/` | the inner loops for each instruction set |
//! | `metric.rs` | cosine, inner product, Euclidean distance |
//! | `checkpoint/` | a partition as bytes in chunks, and back |
//! | `parts.rs` | a batch in parts |
//! | `search_lock.rs` | a lock that lets searches go on while a writer waits for a planner |
//! | `slots.rs` | which memory is in which slot, and the ids that break ties |
//! | `arena.rs`, `budget.rs` | aligned memory that is overwritten when freed; limits on memory |
//!
//! Invariants: one writer at a time (`&mut self`), any number of readers (`&self`). Everything is deterministic: the same
//! calls in the same order give the same slots, hits and scores on every processor. A removed memory's bytes are
//! overwritten at once (not so the codes that hnsw_rs has of them); only numbers and slots of its attributes may stay behind in memory that a growing list gave back.

mod arena;
mod attributes;
mod budget;
mod candidates;
pub mod checkpoint;
mod codes;
mod distance;
mod error;
pub mod filter;
mod graph;
#[cfg(feature = "hnsw-rs")]
mod hnsw_rs;
mod metric;
mod near;
mod originals;
mod partition;
mod parts;
mod prepared;
mod rotation;
mod schema;
mod search_lock;
mod slots;
mod tiers;
mod vectors;

/// The instruction set that this processor's inner loops use, such as `avx512-vnni` or `scalar`.
pub fn instruction_set() -> &'static str {
    distance::kernels().name
}

pub use attributes::Matches;
pub use budget::MemoryBudget;
pub use candidates::IndexKind;
pub use error::IndexError;
pub use filter::{Condition, Field, FieldSource, Filter, FilterError, Scalar, ScalarRef, Test};
pub use metric::Metric;
pub use originals::{Records, VectorStorage};
pub use partition::{Hit, LinkPlans, Partition, PartitionOptions, SearchOutput, SearchParams, SearchRequest, Strategy};
pub use parts::in_parts;
pub use prepared::{PreparedVector, VectorPreparer};
pub use schema::{FieldType, MAX_FIELDS, Schema, SchemaError};
pub use search_lock::{Change, SearchLock, Turn};
pub use slots::MemoryKey;
