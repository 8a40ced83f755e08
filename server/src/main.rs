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

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::path::Path;

    use super::*;

    /// The help of a command and of all that are below it.
    fn write_help(command: &mut clap::Command, path: &str, text: &mut String) {
        let path = format!("{path}{}", command.get_name());
        // What the environment of this test sets is no part of it.
        let mut shown =
            command.clone().term_width(100).bin_name(&path).mut_args(|argument| argument.hide_env_values(true));
        writeln!(text, "$ {path} --help\n{}", shown.render_long_help()).unwrap();
        for below in command.get_subcommands_mut().filter(|below| below.get_name() != "help") {
            write_help(below, &format!("{path} "), text);
        }
    }

    /// `UPDATE_SNAPSHOTS=1` writes the file anew.
    #[test]
    fn the_help_of_every_command_is_what_was_reviewed() {
        let mut command = cli::finish_help(Arguments::command(), &["dev", "start", "completion"]);
        command.build();
        let mut text = String::new();
        write_help(&mut command, "", &mut text);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/snapshots/help.txt");
        if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(text, expected, "UPDATE_SNAPSHOTS=1 writes {} anew", path.display());
    }
}
