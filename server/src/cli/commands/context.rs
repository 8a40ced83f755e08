//! `cairn context`.

use cairn_client::Client;
use serde_json::json;

use crate::cli::args::{ClientOptions, ContextCommand};
use crate::cli::contexts::{Contexts, Entry};
use crate::cli::exit::{Exit, Failure, Result};
use crate::cli::output::{Cell, Form, Listing, Output};

pub(super) fn run(options: &ClientOptions, command: ContextCommand, mut out: Output) -> Result<()> {
    let path = Contexts::path()?;
    let mut contexts = Contexts::read(&path)?;
    match command {
        ContextCommand::Ls => list(&contexts, &mut out)?,
        ContextCommand::Add { name, replace } => {
            if contexts.contexts.contains_key(&name) && !replace {
                return Err(Failure::new(Exit::Conflict, format!("there is a context {name} already")).with_hint(
                    format!("put another in its place with `cairn context add {name} --replace --endpoint URL`"),
                ));
            }
            if options.endpoints.is_empty() {
                return Err(Failure::usage("a context needs an address")
                    .with_hint(format!("name it with `cairn context add {name} --endpoint http://HOST:7480`")));
            }
            // As every verb would read them.
            Client::builder().endpoints(&options.endpoints).build()?;
            let entry = Entry { endpoints: options.endpoints.clone(), space: options.space.clone() };
            contexts.contexts.insert(name.clone(), entry);
            // The first one is meant to be used.
            contexts.current.get_or_insert(name);
            contexts.write(&path)?;
            list(&contexts, &mut out)?;
        }
        ContextCommand::Use { name } => {
            contexts.get(&name)?;
            contexts.current = Some(name);
            contexts.write(&path)?;
            list(&contexts, &mut out)?;
        }
        ContextCommand::Rm { name } => {
            contexts.get(&name)?;
            contexts.contexts.remove(&name);
            contexts.current = contexts.current.filter(|current| *current != name);
            contexts.write(&path)?;
            list(&contexts, &mut out)?;
        }
    }
    Ok(out.flush()?)
}

fn list(contexts: &Contexts, out: &mut Output) -> Result<()> {
    let is_current = |name: &String| contexts.current.as_ref() == Some(name);
    if out.form == Form::Json {
        for (name, entry) in &contexts.contexts {
            let document = json!({
                "name": name, "current": is_current(name), "endpoints": entry.endpoints, "space": entry.space,
            });
            out.json(&document)?;
        }
        return Ok(());
    }
    let mut listing = Listing::new(&["NAME", "CURRENT", "ENDPOINTS", "SPACE"]);
    for (name, entry) in &contexts.contexts {
        listing.row(vec![
            Cell::text(name),
            Cell::both(if is_current(name) { "*" } else { "" }, is_current(name).to_string()),
            Cell::text(entry.endpoints.join(",")),
            Cell::text(entry.space.as_deref().unwrap_or_default()),
        ]);
    }
    if listing.is_empty() {
        out.note("no contexts; make one with `cairn context add NAME --endpoint http://HOST:7480`");
    }
    Ok(out.listing(&listing)?)
}
