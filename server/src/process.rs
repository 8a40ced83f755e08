//! What `cairn start` and `cairn dev` share: the runtime, signals, and the node's life between them.

use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::Config;
use crate::run::{Handle, Listeners, RunError, run_on};

/// The exit code of a node that refused to start, or stopped itself.
pub(crate) const EXIT_FAILED: u8 = 1;

/// The exit code of arguments or a configuration that cannot be used; clap's own.
pub(crate) const EXIT_USAGE: u8 = 2;

/// The exit code of what a signal has broken off: 128 and SIGINT's number, as shells have it.
pub(crate) const EXIT_INTERRUPTED: u8 = 130;

/// SIGTERM and SIGINT.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes over both signals from here on.
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Runs `work` on a runtime of its own.
pub(crate) fn block_on<F: Future<Output = ExitCode>>(work: F) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("cairn").build();
    match runtime {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => refuse(&format!("cannot start a runtime: {error}"), EXIT_FAILED),
    }
}

/// `$XDG_CONFIG_HOME/cairn`, or the same below `~/.config`: where the user's own files are.
///
/// # Errors
/// What to set.
pub(crate) fn user_directory() -> Result<PathBuf, String> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let configuration = set("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
    let directory = configuration.or_else(|| Some(set("HOME")?.join(".config")));
    directory.map(|directory| directory.join("cairn")).ok_or_else(|| {
        "set HOME or XDG_CONFIG_HOME: the root key of `cairn dev` and the contexts are kept there".to_owned()
    })
}

/// Says why nothing is started.
pub(crate) fn refuse(reason: &str, code: u8) -> ExitCode {
    say(&format!("error: {reason}"));
    ExitCode::from(code)
}

/// Writes a line to standard error; a closed one is no reason to stop.
pub(crate) fn say(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Starts a node, lets `announce` speak once it has come up, and serves until a signal or until the node stops itself.
/// A signal during the start ends it.
pub(crate) async fn serve<A, F>(config: Config, listeners: Listeners, announce: A) -> ExitCode
where
    A: FnOnce(Handle) -> F,
    F: Future<Output = Result<Handle, (Handle, String)>>,
{
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => return refuse(&format!("cannot handle signals: {error}"), EXIT_FAILED),
    };
    let started = tokio::select! {
        started = run_on(config, listeners) => started,
        () = signals.next() => return ExitCode::SUCCESS,
    };
    let handle = match started {
        Ok(handle) => handle,
        Err(error) => return refuse(&error.to_string(), exit_code(&error)),
    };
    let (handle, mut code) = match announce(handle).await {
        Ok(handle) => (handle, ExitCode::SUCCESS),
        Err((handle, reason)) => {
            handle.stop().await;
            return refuse(&reason, EXIT_FAILED);
        }
    };
    tokio::select! {
        () = signals.next() => tracing::info!("stopping; a second signal stops at once"),
        reason = handle.failed() => code = refuse(&format!("the node stopped itself: {reason}"), EXIT_FAILED),
    }
    tokio::spawn(async move {
        signals.next().await;
        // Everything acknowledged is in the log, so that leaving now loses nothing.
        std::process::exit(EXIT_INTERRUPTED.into());
    });
    handle.stop().await;
    code
}

/// A configuration is the caller's to fix; all else is the node's state.
pub(crate) fn exit_code(error: &RunError) -> u8 {
    if matches!(error, RunError::Config(_)) { EXIT_USAGE } else { EXIT_FAILED }
}
