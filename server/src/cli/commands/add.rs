//! `cairn add`: one memory from text, or many from a JSON Lines file.

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal};
use std::path::Path;

use cairn_client::{BATCH_BYTES_MAX, BATCH_COUNT_MAX, Memory, encoded_bytes};
use indicatif::{ProgressBar, ProgressStyle};

use super::Context;
use crate::cli::args::AddArgs;
use crate::cli::exit::{Failure, Result};
use crate::cli::input::insert_at;
use crate::cli::json::memory_from_json;
use crate::cli::output::Form;
use crate::cli::render::{ImportSummary, added_listing, added_to_json};

/// Room for names and ids beside the memories of a batch.
const BATCH_BYTES: usize = BATCH_BYTES_MAX - (8 << 10);

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
    if let Some(actor) = &args.actor {
        write = write.actor(actor);
    }
    if let Some(reason) = &args.reason {
        write = write.reason(reason);
    }
    write
}

fn memory_of(args: &AddArgs) -> Result<Memory> {
    let mut memory = Memory::new(text_of(args)?).scope(args.scope.to_scope());
    for (path, value) in &args.meta {
        insert_at(&mut memory.metadata, path, value.clone()).map_err(Failure::usage)?;
    }
    if let Some(id) = &args.id {
        memory = memory.id(id);
    }
    if let Some(kind) = &args.kind {
        memory = memory.kind(kind);
    }
    if let Some(importance) = args.importance {
        memory = memory.importance(importance);
    }
    if let Some(ttl) = args.ttl {
        memory = memory.ttl(ttl);
    }
    if let Some(time) = args.expires_at {
        memory = memory.expires_at(time);
    }
    if let Some(time) = args.created_at {
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
        Some(text) => return Ok(text.to_owned()),
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
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

/// Writes every memory of a file, in batches; each batch is atomic, the file is not.
async fn import(context: &mut Context, path: &Path, args: &AddArgs) -> Result<()> {
    let mut reader = MemoryReader::open(path, args)?;
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
        progress.set_position(reader.bytes_read);
    }
    progress.finish_and_clear();
    match context.out.form {
        Form::Json => context.out.json(&summary.to_json())?,
        _ => context.out.result(summary.to_text())?,
    }
    Ok(())
}

struct Batch {
    memories: Vec<Memory>,
    first_line: u64,
}

/// Reads a JSON Lines file piece by piece, so that its size does not matter.
struct MemoryReader<'a> {
    name: String,
    args: &'a AddArgs,
    lines: Box<dyn BufRead>,
    bytes_total: Option<u64>,
    bytes_read: u64,
    line: u64,
    /// Did not fit into the batch before.
    next: Option<(Memory, usize)>,
}

impl<'a> MemoryReader<'a> {
    fn open(path: &Path, args: &'a AddArgs) -> Result<Self> {
        let name = path.display().to_string();
        let (lines, bytes_total): (Box<dyn BufRead>, _) = if path.as_os_str() == "-" {
            (Box::new(BufReader::new(std::io::stdin())), None)
        } else {
            let file = File::open(path).map_err(|error| Failure::usage(format!("cannot read {name}: {error}")))?;
            let length = file.metadata().ok().map(|metadata| metadata.len());
            (Box::new(BufReader::new(file)), length)
        };
        Ok(Self { name, args, lines, bytes_total, bytes_read: 0, line: 0, next: None })
    }

    /// Drawn on standard error, and only on a terminal.
    fn progress_bar(&self) -> ProgressBar {
        let Some(total) = self.bytes_total else {
            return ProgressBar::new_spinner();
        };
        let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {elapsed} (about {eta} left)");
        ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
    }

    fn next_batch(&mut self) -> Result<Option<Batch>> {
        let mut memories = Vec::new();
        let mut bytes = 0;
        let mut first_line = self.line;
        while memories.len() < BATCH_COUNT_MAX {
            let Some((memory, size)) = self.next_memory()? else { break };
            if memories.is_empty() {
                first_line = self.line;
            } else if bytes + size > BATCH_BYTES {
                self.next = Some((memory, size));
                break;
            }
            bytes += size;
            memories.push(memory);
        }
        Ok((!memories.is_empty()).then_some(Batch { memories, first_line }))
    }

    fn next_memory(&mut self) -> Result<Option<(Memory, usize)>> {
        if let Some(next) = self.next.take() {
            return Ok(Some(next));
        }
        let mut text = String::new();
        loop {
            text.clear();
            let read = self.lines.read_line(&mut text).map_err(|error| self.bad_line(&error.to_string()))?;
            if read == 0 {
                return Ok(None);
            }
            self.bytes_read += read as u64;
            self.line += 1;
            if !text.trim().is_empty() {
                break;
            }
        }
        let json = serde_json::from_str(&text).map_err(|error| self.bad_line(&format!("not JSON: {error}")))?;
        let mut memory = memory_from_json(json).map_err(|error| self.bad_line(&error.to_string()))?;
        self.fill_scope(&mut memory);
        let size = encoded_bytes(&memory);
        Ok(Some((memory, size)))
    }

    /// What the memory does not say, the arguments do.
    fn fill_scope(&self, memory: &mut Memory) {
        let given = self.args.scope.to_scope();
        let scope = &mut memory.scope;
        scope.agent_id = scope.agent_id.take().or(given.agent_id);
        scope.user_id = scope.user_id.take().or(given.user_id);
        scope.session_id = scope.session_id.take().or(given.session_id);
        scope.namespace = scope.namespace.take().or(given.namespace);
    }

    fn bad_line(&self, problem: &str) -> Failure {
        Failure::usage(format!("{}:{}: {problem}", self.name, self.line))
    }
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

    #[test]
    fn a_file_is_cut_into_batches_and_lines_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("m.jsonl");
        let good = "{\"content\": \"x\", \"scope\": {\"user_id\": \"u\"}}\n\n".repeat(1_200);
        std::fs::write(&path, format!("{good}{{\"content\": 3}}\n")).unwrap();
        let args = args(&["--file", "unused", "--user", "other", "--agent", "a"]);
        let mut reader = MemoryReader::open(&path, &args).unwrap();
        let batch = reader.next_batch().unwrap().unwrap();
        assert_eq!((batch.memories.len(), batch.first_line), (1_000, 1));
        let scope = &batch.memories[0].scope;
        assert_eq!((scope.user_id.as_deref(), scope.agent_id.as_deref()), (Some("u"), Some("a")));
        let failure = reader.next_batch().err().unwrap();
        assert!(failure.report().contains("m.jsonl:2401: content: is not a string"), "{}", failure.report());
    }
}
