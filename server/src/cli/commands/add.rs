//! `cairn add`: one memory from text, or many from a JSON Lines file.

use std::io::IsTerminal;
use std::path::Path;

use cairn_client::Memory;

use super::Context;
use super::lines::MemoryReader;
use crate::cli::args::{AddArgs, set_author};
use crate::cli::exit::{Failure, Result};
use crate::cli::input::insert_at;
use crate::cli::output::Form;
use crate::cli::render::{ImportSummary, added_listing, added_to_json};

pub(super) async fn run(context: &mut Context, args: AddArgs) -> Result<()> {
    match &args.file {
        Some(path) => import(context, path, &args).await,
        None => add_one(context, args).await,
    }
}

async fn add_one(context: &mut Context, args: AddArgs) -> Result<()> {
    let memory = memory_of(&args)?;
    let mut write = writing(context, vec![memory], &args);
    if let Some(id) = args.request_id {
        write = write.request_id(id);
    }
    let added = write.await?;
    match context.out.form {
        Form::Json => context.out.json(&added_to_json(&added))?,
        _ => context.out.listing(&added_listing(&added))?,
    }
    Ok(())
}

fn writing(context: &Context, memories: Vec<Memory>, args: &AddArgs) -> cairn_client::Add {
    let mut write = context.space.add_all(memories);
    if args.insert {
        write = write.insert_only();
    }
    set_author!(write, args.author);
    write
}

fn memory_of(args: &AddArgs) -> Result<Memory> {
    let mut memory = Memory::new(text_of(args)?).scope(args.scope.to_scope());
    for (path, value) in &args.fields.meta {
        insert_at(&mut memory.metadata, path, value.clone()).map_err(Failure::usage)?;
    }
    if let Some(id) = &args.id {
        memory = memory.id(id);
    }
    if let Some(kind) = &args.fields.kind {
        memory = memory.kind(kind);
    }
    if let Some(importance) = args.fields.importance {
        memory = memory.importance(importance);
    }
    if let Some(ttl) = args.fields.ttl {
        memory = memory.ttl(ttl);
    }
    if let Some(time) = args.fields.expires_at {
        memory = memory.expires_at(time);
    }
    if let Some(time) = args.fields.created_at {
        memory = memory.created_at(time);
    }
    if let Some(values) = args.vector.read()? {
        memory = memory.vector(values);
    }
    Ok(memory)
}

fn text_of(args: &AddArgs) -> Result<String> {
    let from_stdin = match args.text.as_deref() {
        Some("-") => true,
        Some(text) => return something(text, "the text is empty", args),
        None => false,
    };
    if !from_stdin && std::io::stdin().is_terminal() {
        return Err(Failure::usage("nothing to remember: no text, no --file, and standard input is a terminal")
            .with_hint("cairn add \"Ada takes oat milk in her coffee\" --user ada"));
    }
    if args.vector.vector_file.as_deref() == Some(Path::new("-")) {
        return Err(Failure::usage("standard input can be the text or the vector, not both"));
    }
    let text = super::read_text(Path::new("-"))?;
    // The line end that `echo` adds is not part of the memory.
    something(text.trim_end_matches(['\n', '\r']), "standard input is empty", args)
}

/// The text, unless it is empty and there is nothing else to remember: then a variable was not set, or a command printed nothing.
fn something(text: &str, otherwise: &str, args: &AddArgs) -> Result<String> {
    let vector = args.vector.vector.is_some() || args.vector.vector_file.is_some();
    if text.trim().is_empty() && !vector && args.fields.meta.is_empty() {
        return Err(Failure::usage(format!("nothing to remember: {otherwise}"))
            .with_hint("cairn add \"Ada takes oat milk in her coffee\" --user ada"));
    }
    Ok(text.to_owned())
}

/// Writes every memory of a file, in batches; each batch is atomic, the file is not.
async fn import(context: &mut Context, path: &Path, args: &AddArgs) -> Result<()> {
    let mut reader = MemoryReader::open(path, args.scope.to_scope())?;
    let progress = reader.progress_bar();
    let mut summary = ImportSummary::default();
    while let Some(batch) = reader.next_batch()? {
        let first_line = batch.first_line;
        let added = writing(context, batch.memories, args).await.map_err(|error| {
            progress.abandon();
            let done = summary.total();
            Failure::from(error).with_detail(format!(
                "in the batch that begins at {}:{first_line}; {done} memories before it were written",
                path.display()
            ))
        })?;
        summary.add(&added);
        progress.set_position(reader.bytes_read());
    }
    progress.finish_and_clear();
    match context.out.form {
        Form::Json => context.out.json(&summary.to_json())?,
        _ => context.out.result(summary.to_text())?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::AddArgs;

    #[derive(Parser)]
    struct Wrapper {
        #[command(flatten)]
        add: AddArgs,
    }

    fn args(list: &[&str]) -> AddArgs {
        Wrapper::parse_from([&["add"], list].concat()).add
    }

    #[test]
    fn arguments_make_a_memory() {
        let list = [
            "Ada takes oat milk",
            "--kind",
            "fact",
            "--user",
            "ada",
            "--meta",
            "topic=coffee",
            "--meta",
            "a.b=3",
            "--vector",
            "-0.5,1",
            "--ttl",
            "12h",
            "--importance",
            "0.5",
        ];
        let memory = memory_of(&args(&list)).unwrap();
        let expected = Memory::new("Ada takes oat milk")
            .kind("fact")
            .user("ada")
            .metadata("topic", "coffee")
            .metadata("a", std::collections::BTreeMap::from([("b", 3)]))
            .vector([-0.5, 1.0])
            .ttl(std::time::Duration::from_secs(43_200))
            .importance(0.5);
        assert_eq!(memory, expected);
    }
}
