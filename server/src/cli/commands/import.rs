//! `cairn import`: a JSON Lines file of any size, over whatever breaks on the way.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use cairn_client::Memory;
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Context;
use super::lines::MemoryReader;
use crate::cli::args::{ClientOptions, ImportArgs, set_author};
use crate::cli::exit::{Exit, Failure, Result};
use crate::cli::next::NextCommand;
use crate::cli::output::{Form, grouped, memories};
use crate::cli::render::ImportSummary;

/// Memories that are read ahead.
const READ_AHEAD: usize = 2_048;
/// How long to look for a node after one was lost.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a memory stands in the file.
#[derive(Clone, Copy)]
struct Place {
    line: u64,
    bytes_read: u64,
}

/// What reader and sender share.
#[derive(Default)]
struct Shared {
    /// Of the memories that are not acknowledged, in order.
    places: Mutex<VecDeque<Place>>,
    /// What ended the reading before the end of the file.
    failure: Mutex<Option<Failure>>,
    /// What is wrong with the lines that were skipped.
    skipped: Mutex<Vec<String>>,
}

pub(super) async fn run(context: &mut Context, args: ImportArgs) -> Result<()> {
    let import_id = args.import_id.clone().unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
    let again = again(&context.options, &args, &import_id);
    let reader = MemoryReader::open(&args.file, args.scope.to_scope())?;
    let (name, progress) = (reader.name().to_owned(), reader.progress_bar());
    let shared = Arc::new(Shared::default());
    let mut import = context.space.import(&import_id).patience(PATIENCE);
    if args.insert {
        import = import.insert_only();
    }
    set_author!(import, args.author);
    let mut acknowledged = import.stream(read_ahead(reader, Arc::clone(&shared), args.skip_bad_lines)?);
    let mut summary = ImportSummary::default();
    while let Some(batch) = acknowledged.next().await {
        let batch = match batch {
            Ok(batch) => batch,
            Err(error) => {
                progress.abandon();
                return Err(explain(error, &shared, &summary, &name, again.as_ref()));
            }
        };
        summary.add_results(&batch.results, &batch.position);
        let mut places = shared.places.lock();
        let done = batch.results.len().min(places.len());
        let last = places.drain(..done).next_back();
        progress.set_position(last.map_or(0, |place| place.bytes_read));
    }
    progress.finish_and_clear();
    finish(context, &shared, &summary)
}

/// Reads on a thread of its own, since standard input may keep its reader waiting.
fn read_ahead(
    mut reader: MemoryReader,
    shared: Arc<Shared>,
    skip_bad_lines: bool,
) -> Result<impl futures::Stream<Item = Memory> + Send + 'static> {
    let (send, receive) = mpsc::channel::<(Place, Memory)>(READ_AHEAD);
    let of_reader = Arc::clone(&shared);
    let thread = std::thread::Builder::new().name("cairn-import".to_owned()).spawn(move || {
        loop {
            match reader.read() {
                Ok(Some(memory)) => {
                    let place = Place { line: reader.line(), bytes_read: reader.bytes_read() };
                    if send.blocking_send((place, memory)).is_err() {
                        return;
                    }
                }
                Ok(None) => return,
                Err(failure) if reader.is_broken() => {
                    *of_reader.failure.lock() = Some(failure);
                    return;
                }
                Err(failure) if skip_bad_lines => of_reader.skipped.lock().push(failure.message().to_owned()),
                Err(failure) => {
                    let hint = "correct the line, or leave out what is wrong with --skip-bad-lines";
                    *of_reader.failure.lock() = Some(failure.with_hint(hint));
                    return;
                }
            }
        }
    });
    thread.map_err(|error| Failure::new(Exit::Other, format!("cannot start a thread: {error}")))?;
    Ok(ReceiverStream::new(receive).map(move |(place, memory)| {
        shared.places.lock().push_back(place);
        memory
    }))
}

/// The command that goes on with an import; for standard input there is none.
fn again(options: &ClientOptions, args: &ImportArgs, import_id: &str) -> Option<NextCommand> {
    let file = args.file.to_str().filter(|file| *file != "-")?;
    let again = NextCommand::new("import", options).word(file).scope(&args.scope).author(&args.author);
    let again = again.flag("--insert", args.insert).flag("--skip-bad-lines", args.skip_bad_lines);
    Some(again.option("--import-id", Some(import_id)))
}

/// Says which line a failure is about, what was written, and how to go on.
fn explain(
    error: cairn_client::Error,
    shared: &Shared,
    summary: &ImportSummary,
    name: &str,
    again: Option<&NextCommand>,
) -> Failure {
    let may_go_on = error.is_retryable();
    let places = shared.places.lock();
    let lines: Vec<String> = error
        .violations()
        .iter()
        .filter_map(|violation| {
            let line = places.get(position_in_batch(&violation.field)?)?.line;
            Some(format!("{name}:{line}: {}: {}", violation.field, violation.description))
        })
        .collect();
    let mut failure = Failure::from(error);
    for line in lines {
        failure = failure.with_detail(line);
    }
    if let (true, Some(place)) = (summary.total() > 0, places.front()) {
        let done = memories(summary.total());
        failure = failure.with_detail(format!("written up to the one before {name}:{}: {done}", place.line));
    }
    match again {
        Some(again) if may_go_on => failure.with_hint(format!("go on with `{again}`")),
        _ => failure,
    }
}

/// The number in `batch.memories[17].id`.
fn position_in_batch(field: &str) -> Option<usize> {
    field.strip_prefix("batch.memories[")?.split_once(']')?.0.parse().ok()
}

fn finish(context: &mut Context, shared: &Shared, summary: &ImportSummary) -> Result<()> {
    if let Some(failure) = shared.failure.lock().take() {
        return Err(failure.with_detail(format!("written before it: {}", memories(summary.total()))));
    }
    match context.out.form {
        Form::Json => context.out.json(&summary.to_json())?,
        _ => context.out.result(summary.to_text())?,
    }
    let skipped = shared.skipped.lock();
    if skipped.is_empty() {
        return Ok(());
    }
    context.out.flush()?;
    let lines = if skipped.len() == 1 {
        "1 line was".to_owned()
    } else {
        format!("{} lines were", grouped(skipped.len() as u64))
    };
    let failure = Failure::usage(format!("{lines} left out"));
    Err(skipped.iter().take(20).fold(failure, |failure, line| failure.with_detail(line)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::tests::parsed;

    #[test]
    fn an_import_is_gone_on_with_as_it_was_begun() {
        let list =
            ["m.jsonl", "--space", "notes", "--insert", "--skip-bad-lines", "--user", "ada", "--reason", "a move"];
        let (options, args) = parsed::<ImportArgs>(&list);
        assert_eq!(
            again(&options, &args, "i1").unwrap().to_string(),
            "cairn import m.jsonl --space notes --user ada --reason 'a move' --insert --skip-bad-lines --import-id i1"
        );
        let (options, args) = parsed::<ImportArgs>(&["-"]);
        assert_eq!(again(&options, &args, "i1"), None, "what was read from standard input is gone");
    }

    #[test]
    fn violations_point_at_their_memory() {
        assert_eq!(position_in_batch("batch.memories[17].vectors[0]"), Some(17));
        assert_eq!(position_in_batch("header.actor"), None);
        assert_eq!(position_in_batch("batch.memories"), None);
    }
}
