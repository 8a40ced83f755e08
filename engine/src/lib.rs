//! cairn-engine

pub mod crypto;
pub mod keyring;

mod error;
mod options;
mod position;

pub use error::{Error, ErrorKind, Result, Violation};
pub use options::{Limits, Options};
pub use position::{GroupId, LogId, Position};
