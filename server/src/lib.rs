//! cairn-server
pub mod cli;
