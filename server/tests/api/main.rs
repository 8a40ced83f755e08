//! The public API over real gRPC, on one node in this process: what a client sees of each method, of each limit, and of
//! a node that starts, stops and comes back.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests; the helpers are not `#[test]` functions"
)]

mod bad_input;
mod cluster;
mod embedders;
mod import;
mod json;
mod lifecycle;
mod members;
mod methods;
mod resources;
mod spaces;
mod support;
mod updates;
mod watch;
