//! What the engine's tests share: an engine in a directory of its own, fed with commands in order.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_engine::crypto::{ClusterId, TenantId};
use cairn_engine::keyring::{Keyring, RootKey};
use cairn_engine::{
    ApplyEntry, Engine, EntryBody, Error, Limits, LogId, Options, Position, Principal, ReadPoint, WriteRequest,
    WriteResponse,
};
use cairn_proto::storage::{Command, Outcome};
use cairn_proto::v1;
use cairn_proto::v1::vector::Data;
use tempfile::TempDir;

/// 2026-01-01T00:00:00Z, when all tests begin.
pub const START_MICROS: i64 = 1_767_225_600_000_000;
pub const SECOND: i64 = 1_000_000;

/// An engine, its log, and its clock.
pub struct Bed {
    pub dir: TempDir,
    pub keyring: Arc<Keyring>,
    pub engine: Engine,
    pub options: Options,
    pub log: Vec<ApplyEntry>,
    pub now: i64,
}

/// The caller of most tests.
pub fn me() -> Principal {
    Principal::new(TenantId::DEFAULT, "tester")
}

/// Small buffers, so that tests are quick and flushes happen.
pub fn options(dir: &Path) -> Options {
    Options { block_cache_bytes: 4 << 20, write_buffer_bytes: 1 << 20, blobs_from_bytes: 64, ..Options::new(dir) }
}

pub fn new_keyring(dir: &Path) -> Arc<Keyring> {
    let root = RootKey::from_bytes(&[7; 32]);
    Arc::new(Keyring::create(&dir.join("keyring"), &root, ClusterId([9; 16])).unwrap())
}

impl Bed {
    pub fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    pub fn with_limits(limits: Limits) -> Self {
        let dir = TempDir::new().unwrap();
        let keyring = new_keyring(dir.path());
        let options = Options { limits, ..options(&dir.path().join("store")) };
        let engine = Engine::open(&options, Arc::clone(&keyring)).unwrap();
        let mut bed = Self { dir, keyring, engine, options, log: Vec::new(), now: START_MICROS };
        let create = bed.engine.prepare_create_tenant(TenantId::DEFAULT, "default").unwrap();
        bed.apply(create);
        bed
    }

    /// Puts a command at the end of the log and applies it.
    pub fn apply(&mut self, command: Command) -> Outcome {
        let entry = self.log(command);
        self.engine.apply(&[entry]).unwrap().remove(0)
    }

    /// Puts commands at the end of the log and applies them, in one batch or one after the other.
    pub fn apply_all(&mut self, commands: Vec<Command>, together: bool) -> Vec<Outcome> {
        if !together {
            return commands.into_iter().map(|command| self.apply(command)).collect();
        }
        let entries: Vec<ApplyEntry> = commands.into_iter().map(|command| self.log(command)).collect();
        self.engine.apply(&entries).unwrap()
    }

    fn log(&mut self, mut command: Command) -> ApplyEntry {
        command.stamp_micros = self.now;
        let log_id = LogId { term: 1, node_id: 1, index: self.log.len() as u64 + 1 };
        let entry = ApplyEntry { log_id, body: EntryBody::Command(command) };
        self.log.push(entry.clone());
        entry
    }

    /// Carries out a write as a server would, going on while it is unfinished.
    pub fn write_as(&mut self, principal: &Principal, request: WriteRequest) -> Result<WriteResponse, Error> {
        let command = self.engine.prepare(principal, request)?;
        loop {
            let outcome = self.apply(command.clone());
            match self.engine.respond(&outcome, Position::at(self.log.len() as u64))? {
                WriteResponse::Unfinished => {}
                response => return Ok(response),
            }
        }
    }

    pub fn write(&mut self, request: WriteRequest) -> Result<WriteResponse, Error> {
        self.write_as(&me(), request)
    }

    pub fn create_space(&mut self, space: v1::Space) -> Result<v1::Space, Error> {
        let request = v1::CreateSpaceRequest { space: Some(space), request_id: String::new() };
        match self.write(WriteRequest::CreateSpace(request))? {
            WriteResponse::CreateSpace(response) => Ok(response.space.unwrap()),
            other => panic!("{other:?}"),
        }
    }

    pub fn add(&mut self, space: &str, memories: Vec<v1::Memory>) -> Result<Vec<v1::WriteResult>, Error> {
        let request = v1::AddMemoriesRequest { space: space.into(), memories, ..Default::default() };
        match self.write(WriteRequest::AddMemories(request))? {
            WriteResponse::AddMemories(response) => Ok(response.results),
            other => panic!("{other:?}"),
        }
    }

    pub fn delete(&mut self, request: v1::DeleteMemoriesRequest) -> Result<u64, Error> {
        match self.write(WriteRequest::DeleteMemories(request))? {
            WriteResponse::DeleteMemories(response) => Ok(response.deleted_count),
            other => panic!("{other:?}"),
        }
    }

    /// The newest state at the present time.
    pub fn at(&self) -> ReadPoint {
        ReadPoint { index: self.log.len() as u64, time_micros: self.now }
    }

    pub fn get(&self, space: &str, ids: &[&str]) -> Result<v1::GetMemoriesResponse, Error> {
        let ids = ids.iter().map(|id| id.to_string()).collect();
        let request = v1::GetMemoriesRequest { space: space.into(), ids, include_vectors: true, ..Default::default() };
        self.engine.get_memories(&me(), &request, &self.at())
    }

    pub fn count(&self, space: &str, filter: Option<v1::Filter>) -> Result<u64, Error> {
        let request = v1::CountMemoriesRequest { space: space.into(), filter, ..Default::default() };
        Ok(self.engine.count_memories(&me(), &request, &self.at())?.count)
    }

    pub fn search(&self, request: &v1::SearchMemoriesRequest) -> Result<Vec<v1::SearchHit>, Error> {
        Ok(self.engine.search_memories(&me(), request, &self.at())?.hits)
    }

    /// What a crash of the machine now would leave on disk: everything but unflushed buffers.
    pub fn crashed_copy(&self, to: &Path) -> Options {
        copy_dir(&self.options.dir, to);
        Options { dir: to.to_path_buf(), ..self.options.clone() }
    }
}

/// Copies a store in use as a crash would leave it. The store may remove files in the background that what was copied
/// before still names: a copy during which files came or went is made again.
pub fn copy_dir(from: &Path, to: &Path) {
    loop {
        std::fs::create_dir_all(to).unwrap();
        let before = files(from);
        let copied = before.iter().all(|file| match std::fs::copy(file, to.join(file.file_name().unwrap())) {
            Ok(_) => true,
            // Checkpoints of indexes.
            Err(_) if file.is_dir() => {
                copy_dir(file, &to.join(file.file_name().unwrap()));
                true
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => false,
            Err(e) => panic!("{}: {e}", file.display()),
        });
        if copied && files(from) == before {
            return;
        }
        std::fs::remove_dir_all(to).unwrap();
    }
}

/// Text that does not compress, the same for the same number.
pub fn noise(number: u64, length: usize) -> String {
    let mut state = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'!' + (state % 90) as u8)
    };
    (0..length).map(|_| next()).collect()
}

pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

pub fn space(name: &str, dimension: u32) -> v1::Space {
    let dense = v1::DenseEmbedding { dimension, ..Default::default() };
    let embedding = v1::Embedding { kind: Some(v1::embedding::Kind::Dense(dense)), ..Default::default() };
    v1::Space { name: name.into(), embeddings: vec![embedding], ..Default::default() }
}

pub fn vector(values: &[f32]) -> v1::Vector {
    let data = Data::Dense(v1::DenseVector { values: values.to_vec() });
    v1::Vector { embedding: String::new(), data: Some(data) }
}

pub fn memory(id: &str, content: &str) -> v1::Memory {
    v1::Memory { id: id.into(), content: content.into(), ..Default::default() }
}

pub fn query(space: &str, values: &[f32]) -> v1::SearchMemoriesRequest {
    let vectors = v1::QueryVectors { vectors: vec![vector(values)] };
    v1::SearchMemoriesRequest {
        space: space.into(),
        query: Some(v1::search_memories_request::Query::Vectors(vectors)),
        ..Default::default()
    }
}

pub fn condition(field: &str, test: v1::condition::Test) -> v1::Filter {
    let condition = v1::Condition { field: field.into(), test: Some(test) };
    v1::Filter { node: Some(v1::filter::Node::Where(condition)) }
}

pub fn text(value: &str) -> v1::Value {
    v1::Value { kind: Some(v1::value::Kind::StringValue(value.into())) }
}

pub fn integer(value: i64) -> v1::Value {
    v1::Value { kind: Some(v1::value::Kind::IntegerValue(value)) }
}
