//! The client verbs of the `cairn` binary: `add search get ls update history rm count namespaces import export watch space
//! status node doctor context inspect`.
//!
//! They use the public API only, through `cairn-client`. Results go to standard output, everything else to standard
//! error. On a terminal results are tables, elsewhere tab-separated lines without a header; `-o json` prints one JSON
//! document a line. Exit codes are listed in `exit.rs`.
//!
//! | file | what |
//! |---|---|
//! | `args` | the arguments, for clap |
//! | `input`, `json`, `expression` | what people and files say: durations, vectors, memories, filters |
//! | `commands` | the verbs |
//! | `contexts` | named clusters, and which one a verb talks to |
//! | `render`, `revisions`, `cluster` | answers to text, pure, held by `snapshots/` |
//! | `output` | tables, lines, JSON; the terminal |
//! | `exit`, `hints` | exit codes, error messages; what to do next |
//! | `next` | commands to go on with, as a shell takes them |
//!
//! `main.rs` embeds the verbs like so, and hides the client options where they mean nothing:
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
mod cluster;
mod commands;
mod contexts;
mod exit;
mod expression;
mod hints;
mod input;
mod json;
mod next;
mod output;
mod render;
mod revisions;
#[cfg(test)]
mod snapshot;

use std::io::Write;
use std::process::ExitCode;

pub use args::{ClientOptions, Command};

/// Runs a client verb to its end, on a runtime of its own, and returns the exit code of the process.
///
/// Must not be called from within an async runtime.
pub fn run(options: &ClientOptions, command: Command) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(&exit::Failure::cannot_start(&error)),
    };
    match runtime.block_on(commands::run(options, command)) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough.
        Err(failure) if failure.is_closed_pipe() => ExitCode::SUCCESS,
        Err(failure) => report(&failure),
    }
}

fn report(failure: &exit::Failure) -> ExitCode {
    let text = failure.report();
    let rest = text.strip_prefix("error:").unwrap_or(&text);
    // The stream drops the colour where it is not wanted. Nobody can be told where it is closed.
    let _ = write!(anstream::stderr(), "\u{1b}[1;31merror:\u{1b}[0m{rest}");
    ExitCode::from(failure.exit as u8)
}

/// Adds the exit codes to the help, and hides the client options in that of subcommands that are not client verbs.
#[must_use]
pub fn finish_help(command: clap::Command, subcommands: &[&str]) -> clap::Command {
    let mut command = command.after_long_help(exit::EXIT_CODES);
    // Global arguments reach the subcommands when the command is built.
    command.build();
    for name in subcommands {
        command = command.mut_subcommand(*name, |subcommand| {
            subcommand.mut_args(|argument| {
                let ours =
                    matches!(argument.get_id().as_str(), "endpoints" | "context" | "output" | "space" | "timeout");
                argument.hide(ours)
            })
        });
    }
    command
}
