//! `cairn update`.

use std::path::Path;

use cairn_client::ErrorKind;

use super::{Context, read_text};
use crate::cli::args::{UpdateArgs, set_author};
use crate::cli::exit::{Failure, Result};
use crate::cli::next::NextCommand;
use crate::cli::output::Form;
use crate::cli::revisions::{updated_listing, updated_to_json};

pub(super) async fn run(context: &mut Context, args: UpdateArgs) -> Result<()> {
    if !says_something(&args) {
        return Err(Failure::usage("nothing to change: give a new text or an option that names a field")
            .with_hint(format!("cairn update {} \"Ada takes soy milk\" --reason 'she said so'", args.id)));
    }
    let look = NextCommand::new("get", &context.options).word(&args.id);
    let updated = changes(context, args)?.await.map_err(|error| match error.kind() {
        ErrorKind::Conflict => {
            Failure::from(error).with_hint(format!("see its version with `{look}`, and name that one with --expect"))
        }
        _ => error.into(),
    })?;
    match context.out.form {
        Form::Json => context.out.json(&updated_to_json(&updated))?,
        _ => context.out.listing(&updated_listing(&updated))?,
    }
    Ok(())
}

fn says_something(args: &UpdateArgs) -> bool {
    let scope = [&args.scope.agent, &args.scope.user, &args.scope.session, &args.scope.namespace];
    let times = args.fields.ttl.is_some() || args.fields.expires_at.is_some() || args.fields.created_at.is_some();
    let vector = args.vector.vector.is_some() || args.vector.vector_file.is_some();
    let texts = args.text.is_some() || args.fields.kind.is_some() || args.fields.importance.is_some();
    texts
        || times
        || vector
        || !args.fields.meta.is_empty()
        || !args.clear.is_empty()
        || scope.iter().any(|id| id.is_some())
}

fn changes(context: &Context, args: UpdateArgs) -> Result<cairn_client::Update> {
    let vector = args.vector.read()?;
    let mut update = context.space.update(&args.id);
    for field in &args.clear {
        update = update.clear(field);
    }
    match args.text.as_deref() {
        // The line end that `echo` adds is not part of the memory.
        Some("-") => update = update.content(read_text(Path::new("-"))?.trim_end_matches(['\n', '\r'])),
        Some(text) => update = update.content(text),
        None => {}
    }
    for (path, value) in args.fields.meta {
        update = update.metadata(path, value);
    }
    macro_rules! set {
        ($($value:expr => $method:ident),+ $(,)?) => {
            $(if let Some(value) = $value {
                update = update.$method(value);
            })+
        };
    }
    set! {
        args.fields.kind => kind,
        args.fields.importance => importance,
        args.fields.ttl => ttl,
        args.fields.expires_at => expires_at,
        args.fields.created_at => created_at,
        args.scope.agent => agent,
        args.scope.user => user,
        args.scope.session => session,
        args.scope.namespace => namespace,
        vector => vector,
        args.expected_version => expected_version,
        args.request_id => request_id,
    }
    set_author!(update, args.author);
    Ok(update)
}
