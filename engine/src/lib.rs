//! A complete single-node memory database: encrypted RocksDB beside an in-memory index. Synchronous; no Raft, no network,
//! no clock of its own.
//!
//! ```text
//!  WriteRequest ──prepare──▶ Command ──(the log of whoever embeds)──▶ ApplyEntry ──apply──▶ Outcome ──respond──▶ WriteResponse
//!                  limits,    sealed                                                 │
//!                  ids                                                               ▼
//!  read request ─────────────────────────────reads───────────────────────▶ store (RocksDB) + partitions (index)
//! ```
//!
//! [`Engine::apply`] is the only place where a command becomes state: a function of the commands and the logical state,
//! with no clock and no randomness, so that replicas that apply the same log are equal, which [`AppliedState::digest`]
//! shows.

mod api;
mod apply;
mod content;
pub mod crypto;
mod engine;
mod error;
mod feed_heads;
mod filters;
mod inspect;
pub mod keyring;
mod known_spaces;
mod notation;
mod options;
mod partitions;
mod position;
mod reads;
mod requests;
mod spaces;
mod store;
mod time;

pub use api::{
    AppliedState, ApplyEntry, Checkpoint, Embedded, EmbeddedBy, EntryBody, KnownSpace, Principal, ReadPoint,
    WriteRequest, WriteResponse,
};
pub use engine::{EMBEDDER_CHANGED, Engine, SUPPORTED_CLUSTER_VERSION};
pub use error::{Error, ErrorKind, Result, Violation};
pub use inspect::{RowText, RowsReport, StoreReport, inspect, inspect_rows};
pub use options::{COMPACTION_WRITE_BUFFERS, Limits, Options};
pub use partitions::IndexCounts;
pub use position::{GroupId, LogId, Position};
pub use reads::{FeedCursor, FeedPage};
