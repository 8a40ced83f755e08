//! The `cairn` binary: the server and its command line.

use std::io::Write as _;
use std::process::ExitCode;

use cairn_server::cli::{self, ClientOptions};
use cairn_server::{DevArguments, StartArguments, dev, start};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::{Shell, generate};

/// Cairn: the memory database for AI agents.
#[derive(Debug, Parser)]
#[command(name = "cairn", version, long_version = cairn_server::embed::VERSION, propagate_version = true, max_term_width = 110)]
struct Arguments {
    #[command(flatten)]
    client: ClientOptions,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one node for development: on this machine only, no configuration, no tokens.
    Dev(DevArguments),
    /// Run a node as its configuration says.
    Start(StartArguments),
    #[command(flatten)]
    Client(cli::Command),
    /// Print a script that completes commands in a shell: `source <(cairn completion bash)`.
    Completion {
        /// The shell.
        shell: Shell,
    },
}

fn main() -> ExitCode {
    let command = cli::finish_help(Arguments::command(), &["dev", "start", "completion"]);
    let arguments = match Arguments::from_arg_matches(&command.get_matches()) {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    match arguments.command {
        Command::Dev(options) => dev(&options),
        Command::Start(options) => start(&options),
        Command::Client(command) => cli::run(&arguments.client, command),
        Command::Completion { shell } => {
            // Written as a whole: a shell that reads half of it has ended anyway.
            let mut script = Vec::new();
            generate(shell, &mut Arguments::command(), "cairn", &mut script);
            let _ = std::io::stdout().write_all(&script);
            ExitCode::SUCCESS
        }
    }
}
