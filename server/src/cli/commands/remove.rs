//! `cairn rm`.

use std::time::Duration;

use cairn_client::{Delete, Error, ErrorKind, Filter, Scope};
use serde_json::json;

use super::{Context, confirm};
use crate::cli::args::{ClientOptions, RmArgs};
use crate::cli::exit::{Failure, Result};
use crate::cli::expression::filter_to_text;
use crate::cli::next::NextCommand;
use crate::cli::output::{Form, grouped, memories};
use crate::cli::render::scope_to_text;

/// What a delete gets that was too short of time.
const LONGER: Duration = Duration::from_secs(60);

/// What is to be deleted.
enum Target {
    Ids(Vec<String>),
    Matching(Scope, Option<Filter>),
    Everything,
}

pub(super) async fn run(context: &mut Context, args: RmArgs) -> Result<()> {
    let target = target_of(&args)?;
    if !args.yes {
        let question = question(context, &target).await?;
        confirm(&mut context.out, &question, again(&context.options, &args))?;
    }
    // Told where the time is over: only under the same id a repetition returns the whole total.
    let request_id = args.request_id.clone().unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
    let deleted = target.delete(context).request_id(&request_id).await;
    let deleted = deleted.map_err(|error| ended(error, &context.options, &args, &request_id))?;
    match context.out.form {
        Form::Json => {
            context.out.json(&json!({"deleted": deleted.count, "position": deleted.position.as_str()}))?;
        }
        Form::Table { .. } => context.out.result(format!("deleted {}\n", memories(deleted.count)))?,
        Form::Lines => context.out.result(format!("{}\n", deleted.count))?,
    }
    Ok(())
}

/// The same command.
fn again(options: &ClientOptions, args: &RmArgs) -> NextCommand {
    let again = NextCommand::new("rm", options).scope(&args.select.scope);
    let again = again.option("--filter", args.select.filter.as_deref()).flag("--all", args.all);
    let again = again.option("--request-id", args.request_id.as_deref());
    args.ids.iter().fold(again, NextCommand::word)
}

/// Says how to learn the total of a delete that may have happened, or go on.
fn ended(error: Error, options: &ClientOptions, args: &RmArgs, request_id: &str) -> Failure {
    let is_open = matches!(error.kind(), ErrorKind::DeadlineExceeded | ErrorKind::Unavailable);
    // Nobody is there: that is the first thing to put right.
    let is_open = is_open && !error.is_transport();
    let failure = Failure::from(error);
    if !is_open {
        return failure;
    }
    let args = RmArgs { request_id: Some(request_id.to_owned()), ..args.clone() };
    let longer = ClientOptions { timeout: options.timeout.max(LONGER), ..options.clone() };
    let again = again(&longer, &args).flag("--yes", true);
    failure.with_hint(format!("go on, and see the total, with `{again}`"))
}

fn target_of(args: &RmArgs) -> Result<Target> {
    if args.all {
        return Ok(Target::Everything);
    }
    if !args.ids.is_empty() {
        return Ok(Target::Ids(args.ids.clone()));
    }
    let (scope, filter) = (args.select.scope.to_scope(), args.select.to_filter()?);
    if scope.is_empty() && filter.is_none() {
        return Err(Failure::usage("nothing to delete: give ids, a scope such as --user, --where, or --all")
            .with_hint("cairn rm --user ada --where 'kind = \"episode\"'"));
    }
    Ok(Target::Matching(scope, filter))
}

/// Says what would go, and how much of it.
async fn question(context: &Context, target: &Target) -> Result<String> {
    let space = context.space.name();
    let (count, (whose, which)) = match target {
        Target::Ids(ids) => return Ok(format!("Delete {} by id from space {space}?", grouped(ids.len() as u64))),
        Target::Everything => (context.space.count().await?.count, Default::default()),
        Target::Matching(scope, filter) => {
            let mut count = context.space.count().scope(scope.clone());
            if let Some(filter) = filter {
                count = count.filter(filter.clone());
            }
            (count.await?.count, describe(scope, filter.as_ref()))
        }
    };
    Ok(format!("Delete {}{whose} from space {space}{which}?", memories(count)))
}

/// The selection in words, as it was understood: whose memories, and which of them.
fn describe(scope: &Scope, filter: Option<&Filter>) -> (String, String) {
    let whose = if scope.is_empty() { String::new() } else { format!(" of {}", scope_to_text(scope)) };
    let which = filter.map(|filter| format!(" where {}", filter_to_text(filter))).unwrap_or_default();
    (whose, which)
}

impl Target {
    fn delete(self, context: &Context) -> Delete {
        match self {
            Self::Ids(ids) => context.space.delete(ids),
            Self::Matching(scope, filter) => context.space.delete_matching(scope, filter),
            Self::Everything => context.space.delete_everything(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::tests::parsed;

    #[test]
    fn a_delete_is_repeated_as_it_was() {
        let list = ["--space", "notes", "--user", "ada", "--where", "kind = \"episode\""];
        let (options, args) = parsed::<RmArgs>(&list);
        assert_eq!(
            again(&options, &args).flag("--yes", true).to_string(),
            "cairn rm --space notes --user ada --filter 'kind = \"episode\"' --yes"
        );
        let (options, args) = parsed::<RmArgs>(&["a", "b c", "--request-id", "r1"]);
        assert_eq!(again(&options, &args).to_string(), "cairn rm a 'b c' --request-id r1");
    }
}
