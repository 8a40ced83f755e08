//! What the tests of partitions share: an engine whose spaces have graphs and checkpoints early.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_proto::v1;
use cairn_proto::v1::vector::Data;

use super::checkpoint::INDEX_DIR;
use crate::api::{ApplyEntry, EntryBody, Principal, ReadPoint, WriteRequest};
use crate::crypto::{ClusterId, TenantId};
use crate::engine::Engine;
use crate::keyring::{Keyring, RootKey};
use crate::options::Options;
use crate::position::LogId;
use crate::store::keys::SpaceRef;

/// An engine with one space, its log, and its directory.
pub(super) struct Bed {
    pub(super) dir: tempfile::TempDir,
    pub(super) keyring: Arc<Keyring>,
    pub(super) engine: Engine,
    pub(super) index: u64,
}

/// The only space.
pub(super) const SPACE: SpaceRef = SpaceRef { tenant: 1, space: 1 };

/// Opens the engine of `dir`, whose graphs and checkpoints begin with few vectors.
pub(super) fn open(dir: &Path, keyring: &Arc<Keyring>) -> Engine {
    let options = Options {
        index_checkpoint_from: 10,
        index_checkpoint_thread: false,
        index_graph_from: 50,
        ..Options::new(dir.join("store"))
    };
    Engine::open(&options, Arc::clone(keyring)).unwrap()
}

pub(super) fn me() -> Principal {
    Principal::new(TenantId::DEFAULT, "tester")
}

fn vector(number: u64) -> v1::Vector {
    let value = |place: u64| ((number * 7 + 1) * (place + 3) % 101) as f32 - 50.0;
    v1::Vector {
        embedding: String::new(),
        data: Some(Data::Dense(v1::DenseVector { values: (0..8).map(value).collect() })),
    }
}

impl Bed {
    pub(super) fn new() -> Self {
        let dir = tempfile::TempDir::new().unwrap();
        let root = RootKey::from_bytes(&[7; 32]);
        let keyring = Arc::new(Keyring::create(&dir.path().join("keyring"), &root, ClusterId([9; 16])).unwrap());
        let engine = open(dir.path(), &keyring);
        let mut bed = Self { dir, keyring, engine, index: 0 };
        bed.apply(bed.engine.prepare_create_tenant(TenantId::DEFAULT, "default").unwrap());
        let dense = v1::DenseEmbedding { dimension: 8, ..Default::default() };
        let embedding = v1::Embedding { kind: Some(v1::embedding::Kind::Dense(dense)), ..Default::default() };
        let space = v1::Space { name: "notes".into(), embeddings: vec![embedding], ..Default::default() };
        bed.write(WriteRequest::CreateSpace(v1::CreateSpaceRequest { space: Some(space), request_id: String::new() }));
        bed.add(0..80);
        assert_eq!(bed.found(), 80);
        bed.wait_until_linked();
        bed
    }

    pub(super) fn wait_until_linked(&self) {
        while self.engine.index_counts().waiting > 0 {
            std::thread::yield_now();
        }
    }

    pub(super) fn apply(&mut self, command: cairn_proto::storage::Command) {
        self.index += 1;
        let log_id = LogId { term: 1, node_id: 1, index: self.index };
        let command = cairn_proto::storage::Command { stamp_micros: 1_800_000_000_000_000, ..command };
        self.engine.apply(&[ApplyEntry { log_id, body: EntryBody::Command(command) }]).unwrap();
    }

    pub(super) fn write(&mut self, request: WriteRequest) {
        self.apply(self.engine.prepare(&me(), request).unwrap());
    }

    pub(super) fn add(&mut self, numbers: std::ops::Range<u64>) {
        let memory = |n| v1::Memory {
            id: format!("m{n}"),
            content: "text".into(),
            vectors: vec![vector(n)],
            ..Default::default()
        };
        let memories = numbers.map(memory).collect();
        self.write(WriteRequest::AddMemories(v1::AddMemoriesRequest {
            space: "notes".into(),
            memories,
            ..Default::default()
        }));
    }

    /// How many memories a search finds.
    pub(super) fn found(&self) -> usize {
        let vectors = v1::QueryVectors { vectors: vec![vector(3)] };
        let request = v1::SearchMemoriesRequest {
            space: "notes".into(),
            limit: 1000,
            query: Some(v1::search_memories_request::Query::Vectors(vectors)),
            ..Default::default()
        };
        let at = ReadPoint { index: self.index, time_micros: 0 };
        self.engine.search_memories(&me(), &request, &at).unwrap().hits.len()
    }

    pub(super) fn reopen(&mut self) {
        self.engine.flush().unwrap();
        let elsewhere = self.dir.path().join("elsewhere");
        self.engine = open(&elsewhere, &self.keyring);
        self.engine = open(self.dir.path(), &self.keyring);
    }

    pub(super) fn checkpoint_dir(&self) -> PathBuf {
        self.dir.path().join("store").join(INDEX_DIR).join("1-1-0")
    }

    pub(super) fn files(&self) -> usize {
        std::fs::read_dir(self.checkpoint_dir()).map_or(0, Iterator::count)
    }
}
