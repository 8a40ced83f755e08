//! The client verbs of the `cairn` binary: `add search get ls rm count space status inspect`.
//!
//! They use the public API only, through `cairn-client`. Results go to standard output, everything else to standard
//! error. On a terminal results are tables, elsewhere tab-separated lines without a header; `-o json` prints one JSON
//! document a line. Exit codes are listed in [`exit`].
//!
//! `main.rs` embeds this module like so:
//!
//! ```ignore
//! #[derive(clap::Parser)]
//! struct Arguments {
//!     #[command(flatten)]
//!     client: cairn_server::cli::ClientOptions,
//!     #[command(subcommand)]
//!     command: Command,
//! }
//!
//! #[derive(clap::Subcommand)]
//! enum Command {
//!     Dev(DevArguments),
//!     Start(StartArguments),
//!     #[command(flatten)]
//!     Client(cairn_server::cli::Command),
//! }
//! // ... Command::Client(command) => cairn_server::cli::run(&arguments.client, command)
//! ```

mod args;

mod input;
mod json;

use std::process::ExitCode;

pub use args::{ClientOptions, Command};

/// Runs a client verb to its end, on a runtime of its own, and returns the exit code of the process.
///
/// Must not be called from within an async runtime.
pub fn run(options: &ClientOptions, command: Command) -> ExitCode {
    let _ = (options, command);
    ExitCode::FAILURE
}
