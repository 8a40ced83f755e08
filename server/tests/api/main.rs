//! The public API over real gRPC, on one node in this process: what a client sees of each method, of each limit, and of
//! a node that starts, stops and comes back.

#![allow(missing_docs, reason = "tests")]

mod bad_input;
mod lifecycle;
mod methods;
mod support;
