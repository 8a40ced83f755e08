//! The Rust SDK of Cairn, the memory database for AI agents.
//!
//! ```no_run
//! use cairn_client::{Client, Memory, field};
//!
//! # async fn example() -> cairn_client::Result<()> {
//! let client = Client::builder().endpoints(["http://127.0.0.1:7480"]).build()?;
//! let space = client.space("default");
//!
//! space.add(Memory::new("Ada prefers oat milk").kind("preference").user("ada").metadata("topic", "coffee")).await?;
//!
//! let found = space.search("what milk does she take?").filter(field("metadata.topic").eq("coffee")).limit(3).await?;
//! for hit in found.hits {
//!     println!("{:.3} {}", hit.score, hit.memory.content);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! What the SDK does for its caller:
//!
//! | | |
//! |---|---|
//! | deadline | Every call ends by its deadline (10 s by default), retries and waits included; the server is told. |
//! | retries | Calls that could not be answered, or came in times of overload, are tried again with exponential backoff and full jitter, at least as late as the server asks. All other errors are returned at once. |
//! | exactly once | Every try of a write carries the same request id, so that it is applied once, whatever broke. |
//! | failover | With several endpoints a call moves on when a node fails; a node that hangs gets half of the time that is left. |
//! | leader hint | Writes go to the leader itself where it is among the endpoints; any other node would forward them. |
//! | imports | A stream of batches is sent again from the last acknowledgement on, at another node where needed; each batch is applied once. |
//! | watches | A stream of changes goes on at another node behind the last event, without a gap and without repetitions. |
//! | errors | [`Error`] holds a coarse [`ErrorKind`], the server's stable reason, and the fields that are wrong. |
//!
//! Files: `client` (builder, spaces, cluster), `space` (memories of one space), `update`, `history`, `namespaces`, `import` (many memories), `watch` (their
//! changes), `call` (the retry loop), `retry` and
//! `endpoints` (its decisions), `error`, and the data types `memory`, `value`, `timestamp`, `filter`, `query`,
//! `new_space`, `update_space`, `results`, `batch`.

mod batch;
mod call;
mod client;
mod cluster;
mod endpoints;
mod error;
mod filter;
mod history;
mod import;
mod memory;
mod namespaces;
mod new_space;
mod query;
mod results;
mod retry;
mod space;
mod timestamp;
mod update;
mod update_space;
mod value;
mod watch;

#[cfg(test)]
mod mock;
#[cfg(test)]
mod tests;

/// The messages of the public API, for what the SDK passes through as it is.
pub use cairn_proto::v1 as proto;
pub use cairn_proto::v1::{FieldType, Metric};

pub use batch::{BATCH_BYTES_MAX, BATCH_COUNT_MAX, batches, encoded_bytes};
pub use client::{Client, ClientBuilder, ClusterStatus, CreateSpace, DeleteSpace, ListSpaces, SetAlias};
pub use cluster::{AddMember, DrainNode, PromoteMember, RemoveMember, TransferLeadership};
pub use error::{Error, ErrorKind, Result, Violation};
pub use filter::{Condition, Field, Filter, Test, field};
pub use history::{History, HistoryPage, Revision};
pub use import::{Import, ImportProgress};
pub use memory::{Expiry, Memory, Scope, Vector};
pub use namespaces::{Namespace, NamespacePage, Namespaces};
pub use new_space::NewSpace;
pub use query::Query;
pub use results::{
    Added, AliasSet, Consistency, Counted, Deleted, Found, Hit, Outcome, Page, Position, SearchResult, SpaceCreated,
    SpaceInfo, SpacePage, SpaceUpdated, WriteResult,
};
pub use retry::RetryPolicy;
pub use space::{Add, Count, Delete, Get, Info, List, Order, Search, Space};
pub use timestamp::{ParseTimestampError, Timestamp};
pub use update::{Update, Updated};
pub use update_space::UpdateSpace;
pub use value::Value;
pub use watch::{Change, ChangeKind, Watch, WatchEvent};
