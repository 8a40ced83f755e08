//! How long searches of a space wait while batches of 1,000 memories are applied to it, beside searches of a space that
//! nobody writes to. What came of it: `docs/decisions/0013`.
//!
//! The engine's directory lies in the build's target directory, so that the disk is a real one.

#![allow(clippy::expect_used, clippy::print_stdout, reason = "a bench that cannot be set up says so and ends")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cairn_engine::crypto::{ClusterId, TenantId};
use cairn_engine::keyring::{Keyring, RootKey};
use cairn_engine::{ApplyEntry, Engine, EntryBody, LogId, Options, Principal, ReadPoint, WriteRequest};
use cairn_proto::v1;

const DIMENSION: usize = 384;
/// Small enough that a search itself takes little.
const MEMORIES_BEFORE: u64 = 1_000;
const BATCH: u64 = 1_000;
const BATCHES: u64 = 40;

struct Bed {
    engine: Engine,
    index: AtomicU64,
    _dir: tempfile::TempDir,
}

fn values(seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1_u64 << 24) as f32 - 0.5
    };
    (0..DIMENSION).map(|_| next()).collect()
}

fn me() -> Principal {
    Principal::new(TenantId::DEFAULT, "bench")
}

impl Bed {
    fn new() -> Self {
        let base = option_env!("CARGO_TARGET_TMPDIR").unwrap_or(".");
        let dir = tempfile::tempdir_in(base).expect("a directory");
        let root = RootKey::from_bytes(&[7; 32]);
        let keyring = Keyring::create(&dir.path().join("keyring"), &root, ClusterId([1; 16])).expect("a keyring");
        let engine = Engine::open(&Options::new(dir.path().join("store")), Arc::new(keyring)).expect("opens");
        let bed = Self { engine, index: AtomicU64::new(0), _dir: dir };
        let tenant = bed.engine.prepare_create_tenant(TenantId::DEFAULT, "default").expect("a command");
        bed.apply(tenant);
        for name in ["busy", "quiet"] {
            let dense = v1::DenseEmbedding { dimension: DIMENSION as u32, ..Default::default() };
            let embedding = v1::Embedding { kind: Some(v1::embedding::Kind::Dense(dense)), ..Default::default() };
            let space = v1::Space { name: name.into(), embeddings: vec![embedding], ..Default::default() };
            let request = v1::CreateSpaceRequest { space: Some(space), ..Default::default() };
            let command = bed.engine.prepare(&me(), WriteRequest::CreateSpace(request)).expect("a command");
            bed.apply(command);
            bed.add(name, 0..MEMORIES_BEFORE);
            search(&bed.engine, name, 0);
        }
        bed
    }

    fn apply(&self, mut command: cairn_proto::storage::Command) -> Duration {
        let index = self.index.fetch_add(1, Ordering::Relaxed) + 1;
        command.stamp_micros = 1_750_000_000_000_000 + index as i64;
        let log_id = LogId { term: 1, node_id: 1, index };
        let began = Instant::now();
        self.engine.apply(&[ApplyEntry { log_id, body: EntryBody::Command(command) }]).expect("applies");
        began.elapsed()
    }

    fn add(&self, space: &str, ids: std::ops::Range<u64>) -> Duration {
        let memory = |id: u64| v1::Memory {
            id: format!("m{id}"),
            content: "The user prefers oat milk in the morning, and black coffee later. ".repeat(6),
            vectors: vec![v1::Vector {
                embedding: String::new(),
                data: Some(v1::vector::Data::Dense(v1::DenseVector { values: values(id) })),
            }],
            ..Default::default()
        };
        let request =
            v1::AddMemoriesRequest { space: space.into(), memories: ids.map(memory).collect(), ..Default::default() };
        let command = self.engine.prepare(&me(), WriteRequest::AddMemories(request)).expect("a command");
        self.apply(command)
    }
}

fn search(engine: &Engine, space: &str, seed: u64) {
    let vector = v1::Vector {
        embedding: String::new(),
        data: Some(v1::vector::Data::Dense(v1::DenseVector { values: values(seed) })),
    };
    let query = v1::search_memories_request::Query::Vectors(v1::QueryVectors { vectors: vec![vector] });
    let request = v1::SearchMemoriesRequest { space: space.into(), query: Some(query), limit: 3, ..Default::default() };
    engine.search_memories(&me(), &request, &ReadPoint { index: 0, time_micros: 0 }).expect("finds");
}

fn say(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!(
        "{what:>32}: {:>6} times, p50 {:>7.2} ms, p90 {:>7.2} ms, p99 {:>7.2} ms, max {:>7.2} ms",
        times.len(),
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0)
    );
}

fn main() {
    let bed = Bed::new();
    for (round, searched) in (1..).zip(["quiet", "busy"]) {
        let stop = AtomicBool::new(false);
        let (applied, waited) = std::thread::scope(|scope| {
            let searching = scope.spawn(|| {
                let mut waited = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    search(&bed.engine, searched, 7);
                    waited.push(began.elapsed());
                    std::thread::sleep(Duration::from_micros(300));
                }
                waited
            });
            let batch = |number: u64| {
                let from = round * 1_000_000 + number * BATCH;
                bed.add("busy", from..from + BATCH)
            };
            let applied: Vec<_> = (0..BATCHES).map(batch).collect();
            stop.store(true, Ordering::Relaxed);
            (applied, searching.join().expect("searches"))
        });
        say("batches of 1,000 applied", applied);
        say(&format!("searches of the {searched} space"), waited);
    }
}
