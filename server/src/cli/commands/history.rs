//! `cairn history`.

use cairn_client::Revision;
use futures::TryStreamExt;

use super::Context;
use crate::cli::args::HistoryArgs;
use crate::cli::exit::Result;
use crate::cli::output::{Form, grouped};
use crate::cli::revisions::{revision_listing, revision_to_json};

/// The largest page that the server sends.
const PAGE_SIZE_MAX: u64 = 1_000;

pub(super) async fn run(context: &mut Context, args: HistoryArgs) -> Result<()> {
    let limit = if args.all { u64::MAX } else { args.limit };
    // One more tells whether there are more.
    let size = limit.saturating_add(1).min(PAGE_SIZE_MAX);
    let history = context.space.history(&args.id).page_size(size as u32);
    let mut revisions = history.consistency(&args.freshness.to_consistency()).stream();
    let mut found: Vec<Revision> = Vec::new();
    let mut more = false;
    while let Some(revision) = revisions.try_next().await? {
        if found.len() as u64 == limit {
            more = true;
            break;
        }
        found.push(revision);
    }
    match context.out.form {
        Form::Json => {
            for revision in &found {
                context.out.json(&revision_to_json(revision))?;
            }
        }
        _ => context.out.listing(&revision_listing(&found))?,
    }
    if more {
        let shown = grouped(limit);
        context.out.note(format!("note: there are more than these {shown}; see all with --all, or more with -n"));
    }
    Ok(())
}
