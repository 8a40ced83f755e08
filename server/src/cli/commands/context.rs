//! `cairn context`.

use cairn_client::Client;
use serde_json::{Value as Json, json};

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
    if out.form == Form::Json {
        for document in documents(contexts) {
            out.json(&document)?;
        }
        return Ok(());
    }
    let listing = listing(contexts);
    if listing.is_empty() {
        out.note("no contexts; make one with `cairn context add NAME --endpoint http://HOST:7480`");
    }
    Ok(out.listing(&listing)?)
}

fn documents(contexts: &Contexts) -> impl Iterator<Item = Json> {
    contexts.contexts.iter().map(|(name, entry)| {
        let is_current = contexts.current.as_ref() == Some(name);
        json!({"name": name, "current": is_current, "endpoints": entry.endpoints, "space": entry.space})
    })
}

fn listing(contexts: &Contexts) -> Listing {
    let is_current = |name: &String| contexts.current.as_ref() == Some(name);
    let mut listing = Listing::new(&["NAME", "CURRENT", "ENDPOINTS", "SPACE"]);
    for (name, entry) in &contexts.contexts {
        listing.row(vec![
            Cell::text(name),
            Cell::both(if is_current(name) { "*" } else { "" }, is_current(name).to_string()),
            Cell::text(entry.endpoints.join(",")),
            Cell::text(entry.space.as_deref().unwrap_or_default()),
        ]);
    }
    listing
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::snapshot;

    #[test]
    fn contexts_in_each_form() {
        let mut contexts = Contexts { current: Some("work".to_owned()), ..Contexts::default() };
        let endpoints = |list: &[&str]| list.iter().map(|endpoint| (*endpoint).to_owned()).collect();
        let work = endpoints(&["http://n1:7480", "http://n2:7480"]);
        contexts.contexts.insert("work".to_owned(), Entry { endpoints: work, space: Some("notes".to_owned()) });
        let home = endpoints(&["http://127.0.0.1:7480"]);
        contexts.contexts.insert("home".to_owned(), Entry { endpoints: home, space: None });
        let listing = listing(&contexts);
        let json: String = documents(&contexts).map(|document| format!("{document}\n")).collect();
        snapshot::check("contexts", &[listing.to_table(100, false), listing.to_lines(), json].join("\n"));
    }
}
