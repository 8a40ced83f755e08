//! `cairn search`.

use cairn_client::Query;
use serde_json::json;

use super::{Context, check_include_vectors};
use crate::cli::args::SearchArgs;
use crate::cli::exit::{Failure, Result};
use crate::cli::output::Form;
use crate::cli::render::{hit_listing, hit_to_json, plan_to_json, plan_to_text};

/// The server's built-in embedder; see the note below.
const LEXICAL_EMBEDDER: &str = "hash";

pub(super) async fn run(context: &mut Context, args: SearchArgs) -> Result<()> {
    check_include_vectors(args.include_vectors, context.out.form)?;
    let query = query_of(&args)?;
    let by_text = matches!(query, Query::Text(_));
    let mut search = context.space.search(query).limit(args.limit).scope(args.select.scope.to_scope());
    if let Some(filter) = args.select.to_filter()? {
        search = search.filter(filter);
    }
    if let Some(score) = args.min_score {
        search = search.min_score(score);
    }
    if args.exact {
        search = search.exact(true);
    }
    if let Some(effort) = args.effort {
        search = search.effort(effort);
    }
    search = search.explain(args.explain).include_vectors(args.include_vectors);
    let result = search.consistency(&args.freshness.to_consistency()).await?;
    if by_text && embeds_lexically(context).await {
        context.out.note(
            "note: this space turns text into vectors by the built-in `hash` embedder: it finds shared words, not meaning",
        );
    }
    if context.out.form == Form::Json {
        let hits: serde_json::Value = result.hits.iter().map(hit_to_json).collect();
        let plan = result.plan.as_ref().map(plan_to_json);
        context.out.json(&json!({"hits": hits, "position": result.position.as_str(), "plan": plan}))?;
        return Ok(());
    }
    context.out.listing(&hit_listing(&result.hits))?;
    if result.hits.is_empty() {
        context.out.note("no hits");
    }
    if let Some(plan) = &result.plan {
        // Beside the hits it would not be a hit.
        context.out.note(plan_to_text(plan).trim_end());
    }
    Ok(())
}

fn query_of(args: &SearchArgs) -> Result<Query> {
    if let Some(values) = args.vector.read()? {
        return Ok(Query::vector(values));
    }
    match args.text.as_deref() {
        Some("-") => Ok(Query::text(super::read_text(std::path::Path::new("-"))?.trim())),
        Some(text) => Ok(Query::text(text)),
        None => Err(Failure::usage("nothing to search for: give a text, --vector or --vector-file")
            .with_hint("cairn search \"what does Ada drink?\"")),
    }
}

/// Whether text is compared by its words only. Where that cannot be learnt the search itself will say what is wrong.
async fn embeds_lexically(context: &Context) -> bool {
    match context.space.info().await {
        Ok(info) => info.space.embeddings.iter().any(|embedding| embedding.embedder == LEXICAL_EMBEDDER),
        Err(_) => false,
    }
}
