//! The messages and services of Cairn, generated from the `.proto` files beside this crate.
//!
//! | module | package | who speaks it |
//! |---|---|---|
//! | [`v1`] | `cairn.v1` | clients: the public API, kept compatible |
//! | [`storage`] | `cairn.storage.v1` | the disk: log entries, records, keyring |
//! | [`peer`] | `cairn.peer.v1` | nodes among themselves |

pub use generated::{peer::v1 as peer, storage::v1 as storage, v1};

/// The modules nest like the packages, since generated code names its neighbours by relative paths.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::needless_pass_by_value)]
mod generated {
    pub mod v1 {
        tonic::include_proto!("cairn.v1");
    }

    pub mod storage {
        pub mod v1 {
            tonic::include_proto!("cairn.storage.v1");
        }
    }

    pub mod peer {
        pub mod v1 {
            tonic::include_proto!("cairn.peer.v1");
        }
    }
}

/// All packages as an encoded `google.protobuf.FileDescriptorSet`, for reflection and JSON.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/cairn.binpb"));
