//! Memories out of a JSON Lines file, one object a line.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use cairn_client::{BATCH_BYTES_MAX, BATCH_COUNT_MAX, Memory, Scope, encoded_bytes};
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::exit::{Failure, Result};
use crate::cli::json::memory_from_json;

/// Room for names and ids beside the memories of a batch.
const BATCH_BYTES: usize = BATCH_BYTES_MAX - (8 << 10);

/// Memories for one call.
pub(super) struct Batch {
    pub(super) memories: Vec<Memory>,
    pub(super) first_line: u64,
}

/// Reads a JSON Lines file piece by piece, so that its size does not matter.
pub(super) struct MemoryReader {
    name: String,
    /// What a memory does not say, this does.
    scope: Scope,
    lines: Box<dyn BufRead + Send>,
    bytes_total: Option<u64>,
    bytes_read: u64,
    line: u64,
    /// Whether the file itself cannot be read on.
    broken: bool,
    /// Did not fit into the batch before.
    next: Option<(Memory, usize)>,
}

impl MemoryReader {
    pub(super) fn open(path: &Path, scope: Scope) -> Result<Self> {
        let name = path.display().to_string();
        let (lines, bytes_total): (Box<dyn BufRead + Send>, _) = if path.as_os_str() == "-" {
            (Box::new(BufReader::new(std::io::stdin())), None)
        } else {
            let file = File::open(path).map_err(|error| Failure::usage(format!("cannot read {name}: {error}")))?;
            let length = file.metadata().ok().map(|metadata| metadata.len());
            (Box::new(BufReader::new(file)), length)
        };
        Ok(Self { name, scope, lines, bytes_total, bytes_read: 0, line: 0, broken: false, next: None })
    }

    /// Drawn on standard error, and only on a terminal.
    pub(super) fn progress_bar(&self) -> ProgressBar {
        let Some(total) = self.bytes_total else {
            return ProgressBar::new_spinner();
        };
        let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {elapsed} (about {eta} left)");
        ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
    }

    pub(super) fn next_batch(&mut self) -> Result<Option<Batch>> {
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

    /// Bytes of the file so far.
    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// The number of the last line that was read, from 1 on.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// Whether the last failure was not that of a line: there is nothing behind it.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// As it is named in messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn next_memory(&mut self) -> Result<Option<(Memory, usize)>> {
        if let Some(next) = self.next.take() {
            return Ok(Some(next));
        }
        Ok(self.read()?.map(|memory| {
            let size = encoded_bytes(&memory);
            (memory, size)
        }))
    }

    /// The next memory; empty lines are skipped. After a bad line, the next call goes on behind it.
    pub(super) fn read(&mut self) -> Result<Option<Memory>> {
        let mut text = Vec::new();
        loop {
            text.clear();
            let read = self.lines.read_until(b'\n', &mut text).map_err(|error| {
                self.broken = true;
                Failure::usage(format!("cannot read {} behind line {}: {error}", self.name, self.line))
            })?;
            if read == 0 {
                return Ok(None);
            }
            self.bytes_read += read as u64;
            self.line += 1;
            if !text.trim_ascii().is_empty() {
                break;
            }
        }
        let json = serde_json::from_slice(&text).map_err(|error| self.bad_line(&format!("not JSON: {error}")))?;
        let mut memory = memory_from_json(json).map_err(|error| self.bad_line(&error.to_string()))?;
        self.fill_scope(&mut memory);
        Ok(Some(memory))
    }

    /// What the memory does not say, the arguments do.
    fn fill_scope(&self, memory: &mut Memory) {
        let given = self.scope.clone();
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
    use super::*;

    #[test]
    fn a_file_is_cut_into_batches_and_lines_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("m.jsonl");
        let good = "{\"content\": \"x\", \"scope\": {\"user_id\": \"u\"}}\n\n".repeat(1_200);
        std::fs::write(&path, format!("{good}{{\"content\": 3}}\n")).unwrap();
        let mut reader = MemoryReader::open(&path, Scope::new().user("other").agent("a")).unwrap();
        let batch = reader.next_batch().unwrap().unwrap();
        assert_eq!((batch.memories.len(), batch.first_line), (1_000, 1));
        let scope = &batch.memories[0].scope;
        assert_eq!((scope.user_id.as_deref(), scope.agent_id.as_deref()), (Some("u"), Some("a")));
        let failure = reader.next_batch().err().unwrap();
        assert!(failure.report().contains("m.jsonl:2401: content: is not a string"), "{}", failure.report());
    }

    #[test]
    fn what_follows_a_bad_line_can_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("m.jsonl");
        std::fs::write(&path, b"{\"content\": \"a\"}\nnonsense\n{\"content\": \"\xff\"}\n{\"content\": \"b\"}")
            .unwrap();
        let mut reader = MemoryReader::open(&path, Scope::new()).unwrap();
        assert_eq!(reader.read().unwrap().unwrap().content, "a");
        assert!(reader.read().unwrap_err().report().contains("m.jsonl:2: not JSON"));
        assert!(reader.read().unwrap_err().report().contains("m.jsonl:3: "));
        assert_eq!((reader.read().unwrap().unwrap().content.as_str(), reader.line()), ("b", 4));
        assert!(reader.read().unwrap().is_none());
    }
}
