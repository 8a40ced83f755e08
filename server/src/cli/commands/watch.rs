//! `cairn watch`.

use std::time::Duration;

use cairn_client::WatchEvent;
use futures::TryStreamExt;

use super::Context;
use crate::cli::args::WatchArgs;
use crate::cli::exit::{Failure, Result};
use crate::cli::output::Form;
use crate::cli::render::{change_line, change_to_json};

/// How long to look for a node after one was lost: a restart and an election take less.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn run(context: &mut Context, args: WatchArgs) -> Result<()> {
    if args.include_memory && context.out.form != Form::Json {
        return Err(Failure::usage("--include-memory prints JSON only").with_hint("add -o json"));
    }
    let mut watch = context.space.watch().scope(args.scope.to_scope()).include_memory(args.include_memory);
    if let Some(position) = args.after {
        watch = watch.after(position);
    }
    let mut events = watch.patience(PATIENCE).stream();
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut position = None;
    while left > 0 {
        let event = match events.try_next().await {
            Ok(Some(event)) => event,
            Ok(None) => break,
            Err(error) => return Err(ended(error, position.as_deref())),
        };
        position = Some(event.position().to_string());
        if let WatchEvent::Change(change) = event {
            match context.out.form {
                Form::Json => context.out.json(&change_to_json(&change))?,
                form => context.out.result(change_line(&change, form))?,
            }
            // Whoever reads a pipe wants each change when it happens.
            context.out.flush()?;
            left -= 1;
        }
    }
    Ok(())
}

/// Says where to go on.
fn ended(error: cairn_client::Error, position: Option<&str>) -> Failure {
    let may_go_on = error.is_retryable();
    let failure = Failure::from(error);
    match position {
        Some(position) if may_go_on => failure.with_hint(format!("go on with `cairn watch --after {position}`")),
        _ => failure,
    }
}
