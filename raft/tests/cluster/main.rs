//! Clusters of one and three nodes, in this process, over loopback.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "the helpers of tests are tests")]

mod backpressure;
mod bootstrap;
mod disks;
mod environment;
mod expiry;
mod failed_sync;
mod faults;
mod installs;
mod links;
mod members;
mod peers;
mod reads;
mod replication;
mod scripted;
mod snapshots;
mod support;
mod transfers;
mod versions;
