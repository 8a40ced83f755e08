//! How long a large space takes to answer after a restart: with the checkpoint of its index, with writes since, and without it.
//! What came of it: `docs/performance.md`.
//!
//! ```text
//! CAIRN_CORPUS=DIR cargo bench -p cairn-bench --bench restart
//! ```
//!
//! The files are in the page cache, as after a restart of the process and not of the machine.

#![allow(clippy::expect_used, clippy::print_stdout, reason = "a bench that cannot be set up says so and ends")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_engine::crypto::{ClusterId, TenantId};
use cairn_engine::keyring::{Keyring, RootKey};
use cairn_engine::{ApplyEntry, Engine, EntryBody, LogId, Options, Principal, ReadPoint, WriteRequest};
use cairn_proto::v1;

const SPACE: &str = "corpus";
const BATCH: usize = 500;
const WRITTEN_SINCE: usize = 5_000;

fn me() -> Principal {
    Principal::new(TenantId::DEFAULT, "bench")
}

/// The rows of a `.npy` file of 16-bit floats.
fn read_halves(path: &Path) -> Vec<Vec<f32>> {
    let bytes = std::fs::read(path).expect("a corpus");
    let header = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let text = String::from_utf8_lossy(&bytes[10..header]).into_owned();
    let shape = text.split('(').nth(1).and_then(|rest| rest.split(')').next());
    let columns = shape.and_then(|shape| shape.split(", ").nth(1)?.parse::<usize>().ok()).expect("a shape");
    let value = |half: &[u8]| half::f16::from_le_bytes([half[0], half[1]]).to_f32();
    bytes[header..].chunks_exact(columns * 2).map(|row| row.chunks_exact(2).map(value).collect()).collect()
}

struct Bed {
    dir: tempfile::TempDir,
    keyring: Arc<Keyring>,
    index: u64,
}

impl Bed {
    fn open(&self) -> (Engine, Duration) {
        let began = Instant::now();
        let options = Options { index_checkpoint_thread: false, ..Options::new(self.dir.path().join("store")) };
        let engine = Engine::open(&options, Arc::clone(&self.keyring)).expect("opens");
        (engine, began.elapsed())
    }

    fn apply(&mut self, engine: &Engine, mut command: cairn_proto::storage::Command) {
        self.index += 1;
        command.stamp_micros = 1_750_000_000_000_000 + self.index as i64;
        let log_id = LogId { term: 1, node_id: 1, index: self.index };
        engine.apply(&[ApplyEntry { log_id, body: EntryBody::Command(command) }]).expect("applies");
    }

    fn add(&mut self, engine: &Engine, vectors: &[Vec<f32>], first: usize) {
        for (number, part) in vectors.chunks(BATCH).enumerate() {
            let memories = (first + number * BATCH..).zip(part).map(|(id, values)| v1::Memory {
                id: format!("memory-{id}"),
                content: format!("gloss number {id}, of some length, as a dictionary has it"),
                kind: "gloss".into(),
                vectors: vec![dense(values)],
                ..Default::default()
            });
            let request =
                v1::AddMemoriesRequest { space: SPACE.into(), memories: memories.collect(), ..Default::default() };
            let command = engine.prepare(&me(), WriteRequest::AddMemories(request)).expect("a command");
            self.apply(engine, command);
        }
    }
}

fn dense(values: &[f32]) -> v1::Vector {
    let data = v1::vector::Data::Dense(v1::DenseVector { values: values.to_vec() });
    v1::Vector { embedding: String::new(), data: Some(data) }
}

fn search(engine: &Engine, values: &[f32]) -> (Duration, usize) {
    let vectors = v1::QueryVectors { vectors: vec![dense(values)] };
    let request = v1::SearchMemoriesRequest {
        space: SPACE.into(),
        query: Some(v1::search_memories_request::Query::Vectors(vectors)),
        limit: 10,
        ..Default::default()
    };
    let began = Instant::now();
    let at = ReadPoint { index: 0, time_micros: 0 };
    let found = engine.search_memories(&me(), &request, &at).expect("a search").hits.len();
    (began.elapsed(), found)
}

fn report(what: &str, bed: &Bed, query: &[f32]) {
    for _ in 0..3 {
        let (engine, opened) = bed.open();
        let (first, found) = search(&engine, query);
        let (second, _) = search(&engine, query);
        let counts = engine.index_counts();
        println!(
            "{what}: open {opened:?}, first search {first:?} ({found} hits), second {second:?}, waiting {}, loaded from checkpoint {}",
            counts.waiting, counts.checkpoints_loaded
        );
    }
}

fn linked(engine: &Engine) -> Duration {
    let began = Instant::now();
    while engine.index_counts().waiting > 0 {
        std::thread::sleep(Duration::from_millis(20));
    }
    began.elapsed()
}

fn main() {
    let Some(corpus) = std::env::var_os("CAIRN_CORPUS").map(PathBuf::from) else {
        println!("set CAIRN_CORPUS to the folder of a corpus");
        return;
    };
    let vectors = read_halves(&corpus.join("base.f16.npy"));
    let base = option_env!("CARGO_TARGET_TMPDIR").unwrap_or(".");
    let dir = tempfile::tempdir_in(base).expect("a directory");
    let root = RootKey::from_bytes(&[7; 32]);
    let keyring = Keyring::create(&dir.path().join("keyring"), &root, ClusterId([1; 16])).expect("a keyring");
    let mut bed = Bed { dir, keyring: Arc::new(keyring), index: 0 };
    let (engine, _) = bed.open();
    let tenant = engine.prepare_create_tenant(TenantId::DEFAULT, "default").expect("a command");
    bed.apply(&engine, tenant);
    let embedding = v1::DenseEmbedding { dimension: vectors[0].len() as u32, ..Default::default() };
    let embedding = v1::Embedding { kind: Some(v1::embedding::Kind::Dense(embedding)), ..Default::default() };
    let space = v1::Space { name: SPACE.into(), embeddings: vec![embedding], ..Default::default() };
    let request = v1::CreateSpaceRequest { space: Some(space), ..Default::default() };
    let command = engine.prepare(&me(), WriteRequest::CreateSpace(request)).expect("a command");
    bed.apply(&engine, command);
    let (before, since) = vectors.split_at(vectors.len() - WRITTEN_SINCE);
    bed.add(&engine, before, 0);
    engine.flush().expect("flushes");
    drop(engine);
    println!("{} memories of {} dimensions", before.len(), vectors[0].len());
    report("made from the records", &bed, &vectors[3]);
    let (engine, _) = bed.open();
    search(&engine, &vectors[3]);
    println!("linked in {:?}", linked(&engine));
    let began = Instant::now();
    engine.checkpoint_indexes();
    println!("checkpoint: {:?}, {} bytes", began.elapsed(), engine.index_counts().checkpoint_bytes);
    drop(engine);
    report("loaded from the checkpoint", &bed, &vectors[3]);
    let (engine, _) = bed.open();
    search(&engine, &vectors[3]);
    bed.add(&engine, since, before.len());
    engine.flush().expect("flushes");
    drop(engine);
    report("loaded, 5,000 memories written since", &bed, &vectors[3]);
}
