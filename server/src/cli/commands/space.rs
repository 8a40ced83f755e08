//! `cairn space create`, `get`, `ls`, `update`, `alias` and `rm`.

use cairn_client::{Error, ErrorKind, FieldType, Metric, NewSpace, UpdateSpace, proto};
use futures::TryStreamExt;
use serde_json::json;

use super::{Context, confirm};
use crate::cli::args::{ClientOptions, MetricName, SpaceAliasArgs, SpaceCommand, SpaceCreateArgs, SpaceUpdateArgs};
use crate::cli::exit::{Failure, Result};
use crate::cli::next::NextCommand;
use crate::cli::output::{Form, memories};
use crate::cli::render::{
    alias_to_json, alias_to_text, space_details, space_info_to_json, space_listing, space_to_json,
};

pub(super) async fn run(context: &mut Context, command: SpaceCommand) -> Result<()> {
    match command {
        SpaceCommand::Create(args) => create(context, args).await,
        SpaceCommand::Get { name } => get(context, &name).await,
        SpaceCommand::Ls => list(context).await,
        SpaceCommand::Update(args) => update(context, *args).await,
        SpaceCommand::Alias(args) => alias(context, args).await,
        SpaceCommand::Rm { name, yes } => remove(context, &name, yes).await,
    }
}

async fn create(context: &mut Context, args: SpaceCreateArgs) -> Result<()> {
    let created = context.client.create_space(space_of(args)?).await?;
    match context.out.form {
        Form::Json => {
            let mut json = space_to_json(&created.space);
            json["position"] = json!(created.position.as_str());
            context.out.json(&json)?;
        }
        Form::Table { .. } => context.out.result(format!("created space {}\n", created.space.name))?,
        Form::Lines => context.out.result(format!("{}\n", created.space.name))?,
    }
    Ok(())
}

fn space_of(args: SpaceCreateArgs) -> Result<NewSpace> {
    let metric = match args.metric {
        MetricName::Cosine => Metric::Cosine,
        MetricName::Dot => Metric::Dot,
        MetricName::L2 => Metric::L2,
    };
    let embedder = if args.embedder == "none" { String::new() } else { args.embedder };
    let mut space = NewSpace::new(args.name, args.dimension)
        .metric(metric)
        .embedder(embedder)
        .model(args.model)
        .dedup_by_content(args.dedup)
        .history_depth(args.history);
    if let Some(ttl) = args.default_ttl {
        space = space.default_ttl(ttl);
    }
    for field in &args.fields {
        let (path, kind) = field_of(field)?;
        space = space.field(path, kind);
    }
    Ok(space)
}

fn field_of(text: &str) -> Result<(&str, FieldType)> {
    let bad = |why: String| Failure::usage(why).with_hint("write a field as PATH:TYPE, such as --field topic:keyword");
    let (path, kind) = text.rsplit_once(':').ok_or_else(|| bad(format!("--field {text}: no type")))?;
    let kind = match kind {
        "keyword" => FieldType::Keyword,
        "integer" => FieldType::Integer,
        "float" => FieldType::Float,
        "bool" => FieldType::Bool,
        "datetime" => FieldType::Datetime,
        _ => return Err(bad(format!("--field {text}: {kind} is none of keyword, integer, float, bool, datetime"))),
    };
    // Filters name the field with its prefix; indexes do without.
    Ok((path.strip_prefix("metadata.").unwrap_or(path), kind))
}

async fn get(context: &mut Context, name: &str) -> Result<()> {
    let info = context.client.space(name).info().await?;
    match context.out.form {
        Form::Json => context.out.json(&space_info_to_json(&info))?,
        form => context.out.result(space_details(&info, form))?,
    }
    Ok(())
}

async fn list(context: &mut Context) -> Result<()> {
    let spaces: Vec<_> = context.client.spaces().page_size(1_000).stream().try_collect().await?;
    if context.out.form != Form::Json {
        let listing = space_listing(&spaces);
        context.out.listing(&listing)?;
        if listing.is_empty() {
            context.out.note("no spaces; make one with `cairn space create NAME`");
        }
        return Ok(());
    }
    for space in &spaces {
        context.out.json(&space_to_json(space))?;
    }
    Ok(())
}

async fn update(context: &mut Context, args: SpaceUpdateArgs) -> Result<()> {
    let update = context.client.update_space(&args.name);
    let needs_space = !args.add_fields.is_empty() || !args.remove_fields.is_empty();
    let update = if needs_space || args.embedder.is_some() || args.model.is_some() {
        let space = context.client.space(&args.name).info().await?.space;
        // What is set depends on what was read, so it must still be that.
        change_of(update, &args, &space)?.expected_version(args.if_version.unwrap_or(space.version))
    } else {
        let update = settings_of(update, &args).ok_or_else(|| {
            Failure::usage("nothing to change").with_hint("cairn space update NAME --add-field topic:keyword")
        })?;
        update.expected_version(args.if_version.unwrap_or(0))
    };
    let updated = update.await.map_err(|error| not_updated(error, &context.options, &args))?;
    match context.out.form {
        Form::Json => {
            let mut json = space_to_json(&updated.space);
            json["position"] = json!(updated.position.as_str());
            context.out.json(&json)?;
        }
        Form::Table { .. } => {
            context.out.result(format!("space {} has version {}\n", updated.space.name, updated.space.version))?;
            if !args.add_fields.is_empty() {
                context
                    .out
                    .note(format!("indexes are built in the background; see `cairn space get {}`", updated.space.name));
            }
        }
        Form::Lines => context.out.result(format!("{}\n", updated.space.version))?,
    }
    Ok(())
}

/// Says what to do about another version.
fn not_updated(error: Error, options: &ClientOptions, args: &SpaceUpdateArgs) -> Failure {
    let is_conflict = error.kind() == ErrorKind::Conflict;
    let failure = Failure::from(error);
    match (is_conflict, args.if_version) {
        (false, _) => failure,
        (true, None) => failure.with_hint("somebody else has changed the space meanwhile: run the command again"),
        (true, Some(_)) => {
            let look = NextCommand::new("space get", options).word(&args.name);
            failure.with_hint(format!("see its version with `{look}`, and name that one with --if-version"))
        }
    }
}

/// All changes, those of single fields and embeddings included.
fn change_of(update: UpdateSpace, args: &SpaceUpdateArgs, space: &proto::Space) -> Result<UpdateSpace> {
    let mut update = settings_of(update.clone(), args).unwrap_or(update);
    if !args.add_fields.is_empty() || !args.remove_fields.is_empty() {
        update = update.fields(fields_after(args, space)?);
    }
    let embedding = space.embeddings.first().map(|embedding| embedding.name.as_str()).unwrap_or_default();
    if let Some(embedder) = &args.embedder {
        update = update.embedder(embedding, if embedder == "none" { "" } else { embedder });
    }
    if let Some(model) = &args.model {
        update = update.model(embedding, model);
    }
    Ok(update)
}

/// The settings that are given; none where none is.
fn settings_of(mut update: UpdateSpace, args: &SpaceUpdateArgs) -> Option<UpdateSpace> {
    let given = args.default_ttl.is_some() || args.dedup.is_some() || args.history.is_some();
    if let Some(ttl) = args.default_ttl {
        update = update.default_ttl(ttl.0);
    }
    if let Some(dedup) = args.dedup {
        update = update.dedup_by_content(dedup);
    }
    if let Some(depth) = args.history {
        update = update.history_depth(depth);
    }
    given.then_some(update)
}

/// The indexed fields with those that are added and without those that are removed.
fn fields_after(args: &SpaceUpdateArgs, space: &proto::Space) -> Result<Vec<(String, FieldType)>> {
    let mut fields: Vec<_> = space.fields.iter().map(|field| (field.path.clone(), field.r#type())).collect();
    for path in &args.remove_fields {
        let path = path.strip_prefix("metadata.").unwrap_or(path);
        let before = fields.len();
        fields.retain(|(known, _)| known != path);
        if fields.len() == before {
            return Err(Failure::usage(format!("--remove-field {path}: is not an indexed field of {}", space.name)));
        }
    }
    for field in &args.add_fields {
        let (path, kind) = field_of(field)?;
        if fields.iter().any(|(known, _)| known == path) {
            return Err(Failure::usage(format!("--add-field {path}: is an indexed field of {} already", space.name))
                .with_hint("to change its type, remove it in the same command"));
        }
        fields.push((path.to_owned(), kind));
    }
    Ok(fields)
}

async fn alias(context: &mut Context, args: SpaceAliasArgs) -> Result<()> {
    let set = match &args.space {
        Some(space) => context.client.set_alias(&args.alias, space).await?,
        None => context.client.remove_alias(&args.alias).await?,
    };
    match context.out.form {
        Form::Json => context.out.json(&alias_to_json(&args.alias, args.space.as_deref(), &set))?,
        form => context.out.result(alias_to_text(&args.alias, args.space.as_deref(), &set, form))?,
    }
    Ok(())
}

async fn remove(context: &mut Context, name: &str, yes: bool) -> Result<()> {
    if !yes {
        let info = context.client.space(name).info().await?;
        let question = format!("Delete space {name} with {}?", memories(info.statistics.memories));
        confirm(&mut context.out, &question, NextCommand::new("space rm", &context.options).word(name))?;
    }
    let deleted = context.client.delete_space(name).await?;
    match context.out.form {
        Form::Json => {
            context.out.json(&json!({"deleted": deleted.count, "position": deleted.position.as_str()}))?;
        }
        Form::Table { .. } => {
            context.out.result(format!("deleted space {name} with {}\n", memories(deleted.count)))?;
        }
        Form::Lines => context.out.result(format!("{}\n", deleted.count))?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_have_a_path_and_a_type() {
        assert_eq!(field_of("topic:keyword").unwrap(), ("topic", FieldType::Keyword));
        assert_eq!(field_of("metadata.a.b:datetime").unwrap(), ("a.b", FieldType::Datetime));
        assert!(field_of("topic").unwrap_err().report().contains("no type"));
        assert!(field_of("topic:text").unwrap_err().report().contains("none of keyword"));
    }
}
