//! What the node tells its operator: logs, metrics.
//!
//! | file | what is in it |
//! |---|---|
//! | `log.rs` | the subscriber behind `tracing` |
//! | `definitions.rs` | every metric: name, kind, unit, labels, meaning |
//! | `metrics.rs` | the registry of one node, and its two renderings |

pub(crate) mod definitions;
mod log;
mod metrics;

pub use log::start_logging;
pub(crate) use metrics::{Metrics, Operation};
