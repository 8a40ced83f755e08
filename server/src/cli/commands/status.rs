//! `cairn status`, once or over and over.

use std::time::Duration;

use super::Context;
use crate::cli::args::StatusArgs;
use crate::cli::cluster::{before_frame, digest_warning, status_to_json, status_to_text};
use crate::cli::exit::Result;
use crate::cli::output::Form;

pub(super) async fn run(context: &mut Context, args: StatusArgs) -> Result<()> {
    let Some(interval) = args.watch else { return once(context).await };
    watch(context, interval, args.limit).await
}

async fn watch(context: &mut Context, interval: Duration, limit: Option<u64>) -> Result<()> {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for number in 0..limit.unwrap_or(u64::MAX) {
        ticks.tick().await;
        let before = before_frame(context.out.form, context.out.on_terminal, number);
        context.out.result(before)?;
        // A cluster that does not answer now is what one watches for.
        if let Err(failure) = once(context).await {
            if failure.is_closed_pipe() {
                return Err(failure);
            }
            context.out.note(failure.report().trim_end());
        }
        context.out.flush()?;
    }
    Ok(())
}

async fn once(context: &mut Context) -> Result<()> {
    let status = context.client.status().await?;
    match context.out.form {
        Form::Json => context.out.json(&status_to_json(&status))?,
        form => context.out.result(status_to_text(&status, form))?,
    }
    if let Some(warning) = digest_warning(&status) {
        context.out.note(warning);
    }
    Ok(())
}
