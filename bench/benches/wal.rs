//! Durable appends to the Raft log, and how many of them share one fdatasync, at 1, 8 and 64 writers at a time; beside
//! them RocksDB as the log, behind a queue and a thread of the same kind, unencrypted. What came of it:
//! `docs/decisions/0001`.
//!
//! The files lie in the build's target directory, so that the disk is a real one.

#![allow(missing_docs, reason = "a bench has no public items but those that criterion's macros make")]
#![allow(clippy::expect_used, clippy::print_stdout, reason = "a bench that cannot be set up says so and ends")]

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cairn_engine::crypto::ClusterId;
use cairn_engine::keyring::{Keyring, RootKey};
use cairn_raft::wal::{SealContext, Wal, WalOptions};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tokio::sync::{Mutex, oneshot};

/// About an encoded memory of a few sentences with a vector of 384 dimensions.
const ENTRY_BYTES: usize = 2 << 10;
const WRITERS: [u64; 3] = [1, 8, 64];

fn keyring(directory: &Path) -> Keyring {
    let mut root = [0; 32];
    getrandom::fill(&mut root).expect("random bytes");
    Keyring::create(&directory.join("keyring"), &RootKey::from_bytes(&root), ClusterId([1; 16])).expect("a keyring")
}

/// Something that makes entries durable: queues one and says later that it is.
#[derive(Clone)]
enum Log {
    Own(Arc<Wal>),
    RocksDb(mpsc::Sender<(u64, Bytes, oneshot::Sender<()>)>),
}

impl Log {
    async fn append(&self, index: u64, entry: Bytes, durable: oneshot::Sender<()>) {
        match self {
            Log::Own(wal) => {
                let done = Box::new(move |result: Result<(), _>| {
                    result.expect("durable");
                    let _ = durable.send(());
                });
                wal.append(index, vec![entry], done).await.expect("appends");
                // Keeps the log short, as a node does.
                if index.is_multiple_of(4096) {
                    wal.purge_to(index - 2048, Bytes::new()).expect("purges");
                }
            }
            Log::RocksDb(queue) => queue.send((index, entry, durable)).expect("the thread lives"),
        }
    }
}

/// A thread that puts all that is queued into one synced batch, as the log's own thread does. Counts entries and syncs.
fn rocksdb_log(directory: &Path) -> (Log, Arc<[AtomicU64; 2]>) {
    let mut options = rocksdb::Options::default();
    options.create_if_missing(true);
    let database = rocksdb::DB::open(&options, directory).expect("a database");
    let mut synced = rocksdb::WriteOptions::default();
    synced.set_sync(true);
    let (queue, queued) = mpsc::channel();
    let counters = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    let counted = Arc::clone(&counters);
    std::thread::spawn(move || {
        let [entries, syncs] = &*counters;
        while let Ok(first) = queued.recv() {
            let all: Vec<(u64, Bytes, oneshot::Sender<()>)> = std::iter::once(first).chain(queued.try_iter()).collect();
            let mut batch = rocksdb::WriteBatch::default();
            for (index, entry, _) in &all {
                batch.put(index.to_be_bytes(), entry);
            }
            database.write_opt(batch, &synced).expect("writes");
            entries.fetch_add(all.len() as u64, Ordering::Relaxed);
            syncs.fetch_add(1, Ordering::Relaxed);
            for (_, _, durable) in all {
                let _ = durable.send(());
            }
        }
    });
    (Log::RocksDb(queue), counted)
}

/// `writers` tasks append one entry each, over and over, until `appends` are durable.
async fn append(log: &Log, next_index: &Arc<Mutex<u64>>, writers: u64, appends: u64) {
    let entry = Bytes::from(vec![7; ENTRY_BYTES]);
    let tasks = (0..writers).map(|writer| {
        let (log, next_index, entry) = (log.clone(), Arc::clone(next_index), entry.clone());
        let count = appends / writers + u64::from(writer < appends % writers);
        tokio::spawn(async move {
            for _ in 0..count {
                let (done, durable) = oneshot::channel();
                let mut index = next_index.lock().await;
                log.append(*index, entry.clone(), done).await;
                *index += 1;
                drop(index);
                durable.await.expect("durable");
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("a writer");
    }
}

fn appends(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("a runtime");
    let mut group = criterion.benchmark_group("wal/append");
    group.throughput(Throughput::Elements(1)).sample_size(20).measurement_time(Duration::from_secs(6));
    for writers in WRITERS {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let seal = SealContext { keyring: Arc::new(keyring(directory.path())), node_id: 1, group: 0 };
        let (wal, _) = Wal::open(&directory.path().join("wal"), WalOptions::default(), seal).expect("a log");
        let wal = Arc::new(wal);
        let (rocksdb, counters) = rocksdb_log(&directory.path().join("rocksdb"));
        let logs = [("own", Log::Own(Arc::clone(&wal))), ("rocksdb", rocksdb)];
        for (name, log) in logs {
            let next_index = Arc::new(Mutex::new(1));
            group.bench_function(BenchmarkId::new(name, writers), |b| {
                b.iter_custom(|appends| {
                    let begin = Instant::now();
                    runtime.block_on(append(&log, &next_index, writers, appends));
                    begin.elapsed()
                });
            });
        }
        let stats = wal.stats();
        let [entries, syncs] = &*counters;
        let (entries, syncs) = (entries.load(Ordering::Relaxed), syncs.load(Ordering::Relaxed));
        for (name, entries, syncs) in [("own", stats.entries, stats.syncs), ("rocksdb", entries, syncs)] {
            if syncs > 0 {
                println!("{name}, {writers} writers: {:.1} entries for each sync", entries as f64 / syncs as f64);
            }
        }
    }
    group.finish();
}

criterion_group!(benches, appends);
criterion_main!(benches);
