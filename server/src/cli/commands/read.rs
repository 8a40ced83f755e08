//! `cairn get`, `cairn ls` and `cairn count`.

use cairn_client::{List, Order};
use futures::TryStreamExt;
use serde_json::json;

use super::{Context, check_include_vectors};
use crate::cli::args::{CountArgs, GetArgs, LsArgs, SortOrder};
use crate::cli::exit::{Exit, Failure, Result};
use crate::cli::json::memory_to_json;
use crate::cli::next::NextCommand;
use crate::cli::output::{Form, grouped};
use crate::cli::render::{memory_details, memory_listing};

/// The largest page that the server sends.
const PAGE_SIZE_MAX: u64 = 1_000;

pub(super) async fn get(context: &mut Context, args: GetArgs) -> Result<()> {
    let form = context.out.form;
    check_include_vectors(args.include_vectors, form)?;
    let read = context.space.get(args.ids).include_vectors(args.include_vectors);
    let found = read.consistency(&args.freshness.to_consistency()).await?;
    match form {
        Form::Table { .. } => {
            let texts: Vec<String> = found.memories.iter().map(|memory| memory_details(memory, form)).collect();
            context.out.result(texts.join("\n"))?;
        }
        Form::Lines => context.out.listing(&memory_listing(&found.memories))?,
        Form::Json => {
            for memory in &found.memories {
                context.out.json(&memory_to_json(memory))?;
            }
        }
    }
    if found.missing_ids.is_empty() {
        return Ok(());
    }
    context.out.flush()?;
    let missing = found.missing_ids.join(", ");
    let list = NextCommand::new("ls", &context.options);
    Err(Failure::new(Exit::NotFound, format!("not in space {}: {missing}", context.space.name()))
        .with_hint(format!("list what is there with `{list}`, or look into another space with --space")))
}

pub(super) async fn list(context: &mut Context, args: LsArgs) -> Result<()> {
    check_include_vectors(args.include_vectors, context.out.form)?;
    let limit = if args.all { u64::MAX } else { args.limit };
    let mut list = context.space.list().scope(args.select.scope.to_scope()).order(match args.order {
        SortOrder::Newest => Order::CreatedDescending,
        SortOrder::Oldest => Order::Created,
        SortOrder::LastUpdated => Order::UpdatedDescending,
        SortOrder::FirstUpdated => Order::Updated,
    });
    if let Some(filter) = args.select.to_filter()? {
        list = list.filter(filter);
    }
    list = list.include_vectors(args.include_vectors).consistency(&args.freshness.to_consistency());
    print_up_to(context, list, limit).await
}

/// Prints pages as they come; a table waits for all of them, since its columns depend on every row.
async fn print_up_to(context: &mut Context, list: List, limit: u64) -> Result<()> {
    let mut for_table = Vec::new();
    let mut printed = 0;
    let mut more = false;
    let mut pages = list.page_size(limit.clamp(1, PAGE_SIZE_MAX) as u32).pages();
    while printed < limit {
        let Some(page) = pages.try_next().await? else { break };
        let wanted = usize::try_from(limit - printed).unwrap_or(usize::MAX);
        more = page.next_page_token.is_some() || page.memories.len() > wanted;
        let memories: Vec<_> = page.memories.into_iter().take(wanted).collect();
        printed += memories.len() as u64;
        match context.out.form {
            Form::Table { .. } => for_table.extend(memories),
            Form::Lines => context.out.listing(&memory_listing(&memories))?,
            Form::Json => {
                for memory in &memories {
                    context.out.json(&memory_to_json(memory))?;
                }
            }
        }
    }
    if !for_table.is_empty() {
        context.out.listing(&memory_listing(&for_table))?;
    }
    if printed == 0 && limit > 0 {
        context.out.note("no memories");
    } else if more {
        context
            .out
            .note(format!("note: there are more than these {}; see all with --all, or more with -n", grouped(printed)));
    }
    Ok(())
}

pub(super) async fn count(context: &mut Context, args: CountArgs) -> Result<()> {
    let mut count = context.space.count().scope(args.select.scope.to_scope());
    if let Some(filter) = args.select.to_filter()? {
        count = count.filter(filter);
    }
    let counted = count.consistency(&args.freshness.to_consistency()).await?;
    match context.out.form {
        Form::Json => {
            context.out.json(&json!({"count": counted.count, "position": counted.position.as_str()}))?;
        }
        Form::Table { .. } => context.out.result(format!("{}\n", grouped(counted.count)))?,
        Form::Lines => context.out.result(format!("{}\n", counted.count))?,
    }
    Ok(())
}
