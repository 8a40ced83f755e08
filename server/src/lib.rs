//! The `cairn` server: what stands between the network and the engine.
//!
//! ```text
//!            7480 gRPC            7481 peers        7482 HTTP
//!               |                     |                 |
//!   service: principal, limits,  <----|---- http: JSON, probes, metrics
//!   deadline, text to vectors         |                 |
//!               |                     |              monitor
//!               +---- cairn_raft::Node (propose, read points, status)
//!                                     |
//!                           cairn_engine::Engine (prepare, apply, reads)
//! ```
//!
//! | file | what is in it |
//! |---|---|
//! | `dev.rs`, `start.rs`, `process.rs` | the verbs that run a node |
//! | `run.rs` | a node from its configuration to its end |
//! | `config/` | the configuration, its sources and its rules |
//! | `service/` | gRPC: the public API |
//! | `http/` | the public API as JSON; probes, metrics |
//! | `monitor.rs`, `vitals.rs` | what probes and metrics know of the node |
//! | `auth.rs` | who calls |
//! | `embed/` | text to vectors |
//! | `error.rs` | every failure as a `google.rpc.Status`: the one place that maps them |
//! | `telemetry/` | logs and metrics |
//! | `cli/` | the verbs of the command line that talk to a server |

mod auth;
pub mod cli;
pub mod config;
mod dev;
pub mod embed;
mod error;
mod http;
mod monitor;
mod process;
mod run;
mod service;
mod start;
mod telemetry;
mod vitals;

pub use dev::{DevArguments, dev};
pub use run::{Addresses, Handle, Listeners, RunError, run, run_on};
pub use start::{StartArguments, start};
pub use telemetry::start_logging;
