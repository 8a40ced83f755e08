//! `cairn watch`.

use std::time::Duration;

use cairn_client::WatchEvent;
use futures::TryStreamExt;

use super::Context;
use crate::cli::args::{ClientOptions, WatchArgs};
use crate::cli::exit::{Failure, Result};
use crate::cli::next::NextCommand;
use crate::cli::output::Form;
use crate::cli::render::{change_line, change_to_json};

/// How long to look for a node after one was lost: a restart and an election take less.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn run(context: &mut Context, args: WatchArgs) -> Result<()> {
    if args.include_memory && context.out.form != Form::Json {
        return Err(Failure::usage("--include-memory prints JSON only").with_hint("add -o json"));
    }
    let mut watch = context.space.watch().scope(args.scope.to_scope()).include_memory(args.include_memory);
    if let Some(position) = &args.after {
        watch = watch.after(position.as_str());
    }
    let mut events = watch.patience(PATIENCE).stream();
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut position = args.after.clone();
    while left > 0 {
        let event = match events.try_next().await {
            Ok(Some(event)) => event,
            Ok(None) => break,
            Err(error) => {
                let again = position.map(|position| again(&context.options, &args, &position, left));
                return Err(ended(error, again.as_ref()));
            }
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

/// Says how to go on, where that may help.
fn ended(error: cairn_client::Error, again: Option<&NextCommand>) -> Failure {
    let may_go_on = error.is_retryable();
    let failure = Failure::from(error);
    match again {
        Some(again) if may_go_on => failure.with_hint(format!("go on with `{again}`")),
        _ => failure,
    }
}

/// The command that goes on with a watch behind what it has shown.
fn again(options: &ClientOptions, args: &WatchArgs, position: &str, left: u64) -> NextCommand {
    let limit = args.limit.map(|_| left.to_string());
    NextCommand::new("watch", options)
        .scope(&args.scope)
        .flag("--include-memory", args.include_memory)
        .option("--limit", limit.as_deref())
        .option("--after", Some(position))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::tests::parsed;

    #[test]
    fn a_watch_is_gone_on_with_as_it_was_begun() {
        let list = ["--space", "news", "--namespace", "team/x", "-n", "5", "-o", "json", "--include-memory"];
        let (options, args) = parsed::<WatchArgs>(&list);
        assert_eq!(
            again(&options, &args, "AZk", 2).to_string(),
            "cairn watch --output json --space news --namespace team/x --include-memory --limit 2 --after AZk"
        );
    }
}
