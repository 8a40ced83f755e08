//! Replication: a write-ahead log, openraft's adapters, the peer network, snapshots by files and membership around
//! [`cairn_engine::Engine`].
//!
//! ```text
//!   server --propose, read_point--> node --> openraft --> log store --> WAL
//!                                     |          |'-----> state machine --> engine
//!                                     '--------->network<--> peers
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | [`node`] | [`Node`]: start, propose, read points, status, stop |
//! | [`log_store`] | openraft's log storage over the write-ahead log |
//! | [`wal`] | the encrypted, segmented write-ahead log |
//! | [`types`] | openraft's type configuration and its protobuf forms |
//! | `state_machine` | committed entries to the engine, on a thread of its own; generations |
//! | `snapshot` | snapshots as files: taking, sending, receiving; when to purge the log |
//! | `network` | the peers' calls, one connection per sort of traffic |
//! | `identity` | whose data directory this is |
//! | [`inspect`] | what a data directory holds, without starting a node |
//! | `clock` | the leader's stamps |
//!
//! openraft's types stay inside this crate.

mod blocking;
mod clock;
mod config;
mod error;
mod files;
mod identity;
pub mod inspect;
pub mod log_store;
mod network;
pub mod node;
#[cfg(test)]
mod sim;
mod snapshot;
mod state_machine;
pub mod types;
pub mod wal;

pub use clock::{Clock, SystemClock};
pub use config::{Environment, Limits, NodeConfig, Peer, Timing};
pub use error::{MembershipError, ProposeError, ReadError, StartError};
pub use node::{Applied, Node, NodeStats, NodeStatus, ReadLevel};
pub use state_machine::Generation;
