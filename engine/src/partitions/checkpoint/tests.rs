//! A crash at every step of writing a checkpoint, and keys that are gone.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cairn_proto::v1;
use cairn_proto::v1::vector::Data;

use super::save::Step;
use super::*;
use crate::api::{ApplyEntry, EntryBody, Principal, ReadPoint, WriteRequest};
use crate::crypto::{ClusterId, TenantId};
use crate::engine::Engine;
use crate::error::Error;
use crate::keyring::{Keyring, RootKey};
use crate::options::Options;
use crate::position::LogId;

struct Bed {
    dir: tempfile::TempDir,
    keyring: Arc<Keyring>,
    engine: Engine,
    index: u64,
}

const SPACE: SpaceRef = SpaceRef { tenant: 1, space: 1 };

fn open(dir: &Path, keyring: &Arc<Keyring>) -> Engine {
    let options = Options {
        index_checkpoint_from: 10,
        index_checkpoint_thread: false,
        index_graph_from: 50,
        ..Options::new(dir.join("store"))
    };
    Engine::open(&options, Arc::clone(keyring)).unwrap()
}

fn me() -> Principal {
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
    fn new() -> Self {
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

    fn wait_until_linked(&self) {
        while self.engine.index_counts().waiting > 0 {
            std::thread::yield_now();
        }
    }

    fn apply(&mut self, command: cairn_proto::storage::Command) {
        self.index += 1;
        let log_id = LogId { term: 1, node_id: 1, index: self.index };
        let command = cairn_proto::storage::Command { stamp_micros: 1_800_000_000_000_000, ..command };
        self.engine.apply(&[ApplyEntry { log_id, body: EntryBody::Command(command) }]).unwrap();
    }

    fn write(&mut self, request: WriteRequest) {
        self.apply(self.engine.prepare(&me(), request).unwrap());
    }

    fn add(&mut self, numbers: std::ops::Range<u64>) {
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
    fn found(&self) -> usize {
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

    fn reopen(&mut self) {
        self.engine.flush().unwrap();
        let elsewhere = self.dir.path().join("elsewhere");
        self.engine = open(&elsewhere, &self.keyring);
        self.engine = open(self.dir.path(), &self.keyring);
    }

    fn checkpoint_dir(&self) -> PathBuf {
        self.dir.path().join("store").join(INDEX_DIR).join("1-1-0")
    }

    fn files(&self) -> usize {
        std::fs::read_dir(self.checkpoint_dir()).map_or(0, Iterator::count)
    }
}

#[test]
fn a_crash_at_any_step_leaves_the_old_checkpoint_or_the_new_one() {
    let mut stopped = Vec::new();
    for crash_at in 0.. {
        let mut bed = Bed::new();
        bed.engine.checkpoint_indexes();
        bed.add(70..95);
        bed.wait_until_linked();
        let slot = bed.engine.partitions().slot(SPACE);
        let mut steps = Vec::new();
        let saved = bed.engine.partitions().keeper.shared.save(&slot, &mut |step| {
            steps.push(step);
            if steps.len() > crash_at { Err(Error::internal("crashed by the test")) } else { Ok(()) }
        });
        drop(slot);
        bed.reopen();
        assert_eq!(bed.found(), 95, "after {steps:?}");
        let counts = bed.engine.index_counts();
        assert_eq!((counts.checkpoints_loaded, counts.made), (1, 0), "after {steps:?}");
        assert!(bed.files() <= 4, "loading has removed what the manifest does not name, after {steps:?}");
        // The next one goes through, and counts.
        bed.add(95..120);
        bed.engine.checkpoint_indexes();
        bed.reopen();
        assert_eq!(bed.found(), 120, "after {steps:?}");
        assert_eq!(bed.engine.index_counts().checkpoints_loaded, 1, "after {steps:?}");
        stopped.extend(steps.last().copied());
        if saved.is_ok() {
            break;
        }
    }
    for step in [Step::Directory, Step::Chunk, Step::Chunks, Step::Manifest, Step::Named, Step::Durable, Step::Cleaned]
    {
        assert!(stopped.contains(&step), "{step:?} was never the last step");
    }
}

#[test]
fn a_save_that_failed_is_made_good_in_the_same_process() {
    let mut bed = Bed::new();
    bed.engine.checkpoint_indexes();
    for fail_at in [Step::Chunk, Step::Chunks, Step::Named] {
        let before = bed.found() as u64;
        bed.add(before..before + 10);
        let slot = bed.engine.partitions().slot(SPACE);
        let fail = &mut |step| if step == fail_at { Err(Error::internal("failed by the test")) } else { Ok(()) };
        assert!(bed.engine.partitions().keeper.shared.save(&slot, fail).is_err());
        drop(slot);
        assert_eq!(bed.engine.checkpoint_indexes(), 1);
        bed.reopen();
        assert_eq!((bed.found() as u64, bed.engine.index_counts().checkpoints_loaded), (before + 10, 1));
        assert!(bed.files() <= 4);
    }
}

#[test]
fn what_was_kept_opens_for_nobody_once_the_tenants_keys_are_gone() {
    let bed = Bed::new();
    bed.engine.checkpoint_indexes();
    let sealer = bed.engine.sealer().clone();
    let place = Place::new(&bed.dir.path().join("store").join(INDEX_DIR), &sealer, SPACE);
    assert!(place.read_file(&place.manifest(), None).unwrap().is_some());
    // Another keyring of the same cluster id has other keys.
    let root = RootKey::from_bytes(&[8; 32]);
    let other = Keyring::create(&bed.dir.path().join("other"), &root, ClusterId([9; 16])).unwrap();
    other.install_tenant_keys(&other.new_tenant_keys(TenantId::DEFAULT).unwrap()).unwrap();
    let stranger = Sealer::new(Arc::new(other), sealer.group());
    let error =
        Place { sealer: &stranger, ..Place::new(&bed.dir.path().join("store").join(INDEX_DIR), &stranger, SPACE) }
            .read_file(&place.manifest(), None)
            .unwrap_err();
    assert!(error.to_string().contains("key that does not open"), "{error}");
    bed.keyring.destroy_tenant(TenantId::DEFAULT, 5).unwrap();
    assert!(place.read_file(&place.manifest(), None).is_err());
    // The next start removes the files too.
    let Bed { dir, keyring, engine, .. } = bed;
    drop(engine);
    let engine = open(dir.path(), &keyring);
    assert!(!dir.path().join("store").join(INDEX_DIR).join("1-1-0").exists());
    assert_eq!(engine.partitions().keeper.shared.counters.loaded.load(Ordering::Relaxed), 0);
}
