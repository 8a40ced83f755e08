//! `cairn namespaces`.

use cairn_client::Namespace;
use futures::TryStreamExt;

use super::Context;
use crate::cli::args::NamespacesArgs;
use crate::cli::exit::Result;
use crate::cli::output::{Form, grouped};
use crate::cli::render::{namespace_listing, namespace_to_json};

/// The largest page that the server sends.
const PAGE_SIZE_MAX: u64 = 1_000;

pub(super) async fn run(context: &mut Context, args: NamespacesArgs) -> Result<()> {
    let limit = if args.all { u64::MAX } else { args.limit };
    // One more tells whether there are more.
    let size = limit.saturating_add(1).min(PAGE_SIZE_MAX);
    let mut read = context.space.namespaces().page_size(size as u32);
    if let Some(path) = &args.below {
        read = read.below(path);
    }
    let mut namespaces = read.consistency(&args.freshness.to_consistency()).stream();
    let mut found: Vec<Namespace> = Vec::new();
    let mut more = false;
    while let Some(namespace) = namespaces.try_next().await? {
        if found.len() as u64 == limit {
            more = true;
            break;
        }
        found.push(namespace);
    }
    match context.out.form {
        Form::Json => {
            for namespace in &found {
                context.out.json(&namespace_to_json(namespace))?;
            }
        }
        _ => context.out.listing(&namespace_listing(&found))?,
    }
    if found.is_empty() && limit > 0 {
        context.out.note("no namespaces; `cairn add TEXT --namespace team/x` puts a memory into one");
    } else if more {
        let shown = grouped(limit);
        context.out.note(format!("note: there are more than these {shown}; see all with --all, or more with -n"));
    }
    Ok(())
}
