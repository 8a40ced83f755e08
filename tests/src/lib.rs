//! What the suites over several crates share.
//!
//! | file | what is in it |
//! |---|---|
//! | `cluster.rs` | clusters of real processes that end with the test |
//! | `corpus.rs` | a real corpus with exact answers, where `CAIRN_CORPUS` names its folder |
//! | `sample.rs` | what a node takes of the machine |
//! | `files.rs` | walks over everything that a node has written |

mod cluster;
pub mod corpus;
pub mod files;
mod sample;

pub use cairn_demo::cluster::{Cluster, ClusterError, Node, cairn_binary};
pub use cluster::TestCluster;
pub use sample::Sample;
