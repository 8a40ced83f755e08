//! `cairn rm`.

use cairn_client::{Delete, Filter, Scope};
use serde_json::json;

use super::{Context, confirm};
use crate::cli::args::RmArgs;
use crate::cli::exit::{Failure, Result};
use crate::cli::expression::filter_to_text;
use crate::cli::output::{Form, grouped, memories};
use crate::cli::render::scope_to_text;

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
        confirm(&mut context.out, false, &question, "cairn rm ..")?;
    }
    let mut delete = target.delete(context);
    if let Some(id) = args.request_id {
        delete = delete.request_id(id);
    }
    let deleted = delete.await?;
    match context.out.form {
        Form::Json => {
            context.out.json(&json!({"deleted": deleted.count, "position": deleted.position.as_str()}))?;
        }
        Form::Table { .. } => context.out.result(format!("deleted {}\n", memories(deleted.count)))?,
        Form::Lines => context.out.result(format!("{}\n", deleted.count))?,
    }
    Ok(())
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
