//! cairn-raft: replication. A write-ahead log, openraft's adapters, the peer network, snapshot transfer and membership
//! around `cairn_engine::Engine`.
//!
//! | module | what it does |
//! |---|---|
//! | [`types`] | openraft's type configuration and its protobuf forms |

pub mod types;
