//! `cairn start`: a node as its configuration says.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::config::Config;
use crate::process::{EXIT_FAILED, EXIT_USAGE, block_on, exit_code, refuse, say, serve};
use crate::run::Listeners;
use crate::telemetry::start_logging;

/// Arguments of `cairn start`.
#[derive(Debug, Args)]
pub struct StartArguments {
    /// The configuration, as YAML; deploy/cairn.reference.yaml describes every key.
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,

    /// Sets a key over the file and the environment, such as `node.id=2`; can be given again.
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,

    /// Checks the configuration and ends.
    #[arg(long)]
    check: bool,
}

/// Runs a node until it is told to stop.
#[must_use]
pub fn start(arguments: &StartArguments) -> ExitCode {
    let config = match Config::load(Some(&arguments.config), std::env::vars(), &arguments.set) {
        Ok(config) => config,
        Err(error) => return refuse(&error.to_string(), EXIT_USAGE),
    };
    if arguments.check {
        say(&format!("{}: ok", arguments.config.display()));
        return ExitCode::SUCCESS;
    }
    if let Err(error) = start_logging(&config.log) {
        return refuse(&format!("cannot log: {error}"), EXIT_FAILED);
    }
    let listeners = match Listeners::bind(&config) {
        Ok(listeners) => listeners,
        Err(error) => return refuse(&error.to_string(), exit_code(&error)),
    };
    if config.security.allow_unauthenticated_remote {
        tracing::warn!("there is no authentication: whoever reaches the ports reads and writes everything");
    }
    block_on(serve(config, listeners, async |handle| Ok(handle)))
}
