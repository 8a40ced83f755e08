//! `cairn export`: memories as JSON Lines, in the form that `cairn import` takes back.
//!
//! Memories come in the order of their creation, page by page. What was written before the export began and is not
//! changed during it is in the file exactly once. What is changed during it may be there as it was before or after; what is
//! written during it may be missing. The position that is told at the end says from where a watch sees all of that. A file
//! that is made is there as a whole or not at all.

use std::fs::Permissions;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use cairn_client::{Filter, Order};
use futures::TryStreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use tempfile::{Builder, NamedTempFile};

use super::Context;
use crate::cli::args::ExportArgs;
use crate::cli::exit::{Exit, Failure, Result};
use crate::cli::json::memory_to_json;
use crate::cli::next::NextCommand;
use crate::cli::output::memories;
use crate::process::Signals;

/// The largest page that the server sends.
const PAGE_SIZE: u32 = 1_000;

pub(super) async fn run(context: &mut Context, args: ExportArgs) -> Result<()> {
    let filter = args.select.to_filter()?;
    let Some(path) = args.file.as_deref().filter(|path| *path != Path::new("-")) else {
        return write_all(context, &args, filter, None).await;
    };
    let mut signals = Signals::new().map_err(|error| Failure::cannot_start(&error))?;
    let file = Target::create(path)?;
    tokio::select! {
        done = write_all(context, &args, filter, Some(file)) => done,
        // The unfinished file goes with the export.
        () = signals.next() => Err(Failure::new(Exit::Interrupted, "interrupted; nothing was kept of the file")),
    }
}

async fn write_all(
    context: &mut Context,
    args: &ExportArgs,
    filter: Option<Filter>,
    mut file: Option<Target>,
) -> Result<()> {
    let scope = args.select.scope.to_scope();
    let mut list = context.space.list().scope(scope.clone()).order(Order::Created).page_size(PAGE_SIZE);
    let mut count = context.space.count().scope(scope);
    if let Some(filter) = filter {
        list = list.filter(filter.clone());
        count = count.filter(filter);
    }
    let progress = progress_bar(count.await?.count);
    let mut pages = list.include_vectors(!args.no_vectors).pages();
    let (mut written, mut position) = (0, None);
    while let Some(page) = pages.try_next().await.inspect_err(|_| progress.abandon())? {
        position.get_or_insert(page.position);
        for memory in &page.memories {
            let json = memory_to_json(memory);
            match &mut file {
                Some(file) => file.line(&json)?,
                None => context.out.json(&json)?,
            }
        }
        written += page.memories.len() as u64;
        progress.set_position(written);
    }
    progress.finish_and_clear();
    if let Some(file) = file {
        file.finish()?;
    }
    context.out.flush()?;
    let position = position.map(|position| position.to_string());
    let later = NextCommand::new("watch", &context.options).scope(&args.select.scope);
    let later = later.option("--after", position.as_deref());
    context.out.note(format!("{}; later changes: {later}", memories(written)));
    Ok(())
}

/// Drawn on standard error, and only on a terminal.
fn progress_bar(total: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {elapsed} (about {eta} left)");
    ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// A new file, which is there as a whole or not at all.
struct Target {
    path: PathBuf,
    lines: BufWriter<NamedTempFile>,
}

impl Target {
    /// Begins a file beside the one that it becomes at the end.
    fn create(path: &Path) -> Result<Self> {
        // Found out before anything is read; at the end it is made sure of.
        if path.symlink_metadata().is_ok() {
            return Err(Self::taken(path));
        }
        let directory = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let prefix = format!(".{name}.");
        // What others may do with it is up to the umask, as with any file.
        let permissions = Permissions::from_mode(0o666);
        let file = Builder::new().prefix(&prefix).suffix(".partial").permissions(permissions).tempfile_in(directory);
        let file = file.map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::PermissionDenied => {
                Failure::usage(cannot_write(path, &error)).with_hint("name a file in a directory that you can write to")
            }
            _ => Self::broken(path, &error),
        })?;
        Ok(Self { path: path.to_path_buf(), lines: BufWriter::new(file) })
    }

    fn line(&mut self, json: &serde_json::Value) -> Result<()> {
        writeln!(self.lines, "{json}").map_err(|error| Self::broken(&self.path, &error))
    }

    fn finish(self) -> Result<()> {
        let Self { path, lines } = self;
        let broken = |error: &io::Error| Self::broken(&path, error);
        let file = lines.into_inner().map_err(|error| broken(error.error()))?;
        file.as_file().sync_all().map_err(|error| broken(&error))?;
        match file.persist_noclobber(&path) {
            Ok(_) => Ok(()),
            Err(error) if error.error.kind() == ErrorKind::AlreadyExists => Err(Self::taken(&path)),
            Err(error) => Err(broken(&error.error)),
        }
    }

    /// What was exported before is not overwritten by accident.
    fn taken(path: &Path) -> Failure {
        Failure::usage(format!("{} is there already, and is not overwritten", path.display()))
            .with_hint("choose another name, or remove the file first")
    }

    fn broken(path: &Path, error: &io::Error) -> Failure {
        Failure::new(Exit::Other, cannot_write(path, error))
            .with_hint("nothing was kept of it: make room, or choose a file on another disk, and export again")
    }
}

fn cannot_write(path: &Path, error: &io::Error) -> String {
    format!("cannot write {}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        directory.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_is_there_as_a_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("m.jsonl");
        let mut broken = Target::create(&path).unwrap();
        broken.line(&json!({"id": "a"})).unwrap();
        assert!(!path.exists());
        drop(broken);
        assert_eq!(names(directory.path()), [""; 0], "nothing is left of it");

        let mut whole = Target::create(&path).unwrap();
        let mut late = Target::create(&path).unwrap();
        whole.line(&json!({"id": "a"})).unwrap();
        late.line(&json!({"id": "b"})).unwrap();
        whole.finish().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"id\":\"a\"}\n");
        for taken in [late.finish().unwrap_err(), Target::create(&path).err().unwrap()] {
            assert_eq!(taken.exit, Exit::Usage);
            assert!(taken.report().contains("is there already") && taken.report().contains("hint: "), "{taken:?}");
        }
        assert_eq!(names(directory.path()), ["m.jsonl"]);
        let nowhere = Target::create(&directory.path().join("nowhere/m.jsonl")).err().unwrap();
        assert!(nowhere.exit == Exit::Usage && nowhere.report().contains("hint: "), "{nowhere:?}");
    }
}
