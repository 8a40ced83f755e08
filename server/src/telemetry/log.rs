//! Logs by `tracing`, on standard error. A line may name ids of nodes, indexes, sizes and durations; never content,
//! metadata, vectors, or ids of memories and scopes.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

use crate::config::{LogFormat, LogSection};

/// openraft tells each of its steps at `info`. `openraft=info` in the configuration brings them back.
const QUIETER: &str = "openraft=warn";

/// Sends the process's logs to standard error as `section` says. Once a process.
///
/// # Errors
/// A subscriber is there already.
pub fn start_logging(section: &LogSection) -> Result<(), TryInitError> {
    // A later directive for the same target replaces an earlier one.
    let filter = EnvFilter::try_new(format!("{QUIETER},{}", section.level)).unwrap_or_else(|_| EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    match section.format {
        LogFormat::Text => {
            // The stream's own choice knows NO_COLOR, CLICOLOR and dumb terminals.
            let coloured = anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never;
            let layer =
                tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(coloured).with_target(false);
            registry.with(layer).try_init()
        }
        LogFormat::Json => {
            let layer = tracing_subscriber::fmt::layer()
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false)
                .with_writer(std::io::stderr);
            registry.with(layer).try_init()
        }
    }
}
