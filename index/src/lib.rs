//! The memory-resident index of a Cairn space: vectors and attributes, found by nearness and by filter.
//!
//! Pure memory: no I/O, no async, no clock, no knowledge of the wire format. A [`Partition`] holds one space's memories under one embedding.
//!
//! ```text
//!   engine ──upsert/remove──▶ Partition ──▶ slots       memory key and id of each slot, slot reuse
//!          ──matches────────▶           ──▶ attributes  bitmaps and sorted columns per field
//!          ──search─────────▶           ──▶ vectors     int8 codes and exact f32, searched flat
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `filter/` | the filter tree, its plain definition on one document, and the checks of a filter before use |
//! | `schema.rs` | which fields are indexed, and as what |
//! | `partition.rs` | the whole of one space and embedding; the only type that the engine mutates |
//!
//! Invariants: one writer at a time (`&mut self`), any number of readers (`&self`). Everything is deterministic: the same
//! calls in the same order give the same slots, hits and scores on every processor.

mod error;
pub mod filter;
mod partition;
mod schema;

pub use error::IndexError;
pub use filter::{Condition, Field, FieldSource, Filter, FilterError, Scalar, ScalarRef, Test};
pub use partition::{
    Hit, Matches, MemoryBudget, MemoryKey, Metric, Partition, PartitionOptions, SearchOutput, SearchParams,
    SearchRequest, Strategy,
};
pub use schema::{FieldType, MAX_FIELDS, Schema, SchemaError};
