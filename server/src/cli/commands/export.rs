//! `cairn export`: memories as JSON Lines, in the form that `cairn import` takes back.
//!
//! Memories come in the order of their creation, page by page. What was written before the export began and is not
//! changed during it is in the file exactly once. What is changed during it may be there as it was before or after; what is
//! written during it may be missing. The position that is told at the end says from where a watch sees all of that.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use cairn_client::Order;
use futures::TryStreamExt;
use indicatif::{ProgressBar, ProgressStyle};

use super::Context;
use crate::cli::args::ExportArgs;
use crate::cli::exit::{Failure, Result};
use crate::cli::json::memory_to_json;
use crate::cli::output::memories;

/// The largest page that the server sends.
const PAGE_SIZE: u32 = 1_000;

pub(super) async fn run(context: &mut Context, args: ExportArgs) -> Result<()> {
    let (scope, filter) = (args.select.scope.to_scope(), args.select.to_filter()?);
    let mut list = context.space.list().scope(scope.clone()).order(Order::Created).page_size(PAGE_SIZE);
    let mut count = context.space.count().scope(scope);
    if let Some(filter) = filter {
        list = list.filter(filter.clone());
        count = count.filter(filter);
    }
    let progress = progress_bar(count.await?.count);
    let mut pages = list.include_vectors(!args.no_vectors).pages();
    let mut file = args.file.as_deref().filter(|path| *path != Path::new("-")).map(Target::create).transpose()?;
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
    let position = position.map(|position| position.to_string()).unwrap_or_default();
    context.out.note(format!("{}; later changes: cairn watch --after {position}", memories(written)));
    Ok(())
}

/// Drawn on standard error, and only on a terminal.
fn progress_bar(total: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {elapsed} (about {eta} left)");
    ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// A new file.
struct Target {
    name: String,
    lines: BufWriter<File>,
}

impl Target {
    fn create(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        // What was exported before is not overwritten by accident.
        let file = File::create_new(path).map_err(|error| Self::failed(&name, &error))?;
        Ok(Self { name, lines: BufWriter::new(file) })
    }

    fn line(&mut self, json: &serde_json::Value) -> Result<()> {
        writeln!(self.lines, "{json}").map_err(|error| Self::failed(&self.name, &error))
    }

    fn finish(mut self) -> Result<()> {
        let synced = self.lines.flush().and_then(|()| self.lines.get_ref().sync_all());
        synced.map_err(|error| Self::failed(&self.name, &error))
    }

    fn failed(name: &str, error: &io::Error) -> Failure {
        Failure::usage(format!("cannot write {name}: {error}"))
    }
}
