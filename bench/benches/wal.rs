//! Durable appends to the Raft log, and how many of them share one fdatasync, at 1, 8 and 64 writers at a time; beside
//! them RocksDB as a log: a synced write of its own log file for each entry, grouped by RocksDB. What came of it:
//! `docs/decisions/0001`.
//!
//! The files lie in the build's target directory, so that the disk is a real one.

#![allow(missing_docs, reason = "a bench has no public items but those that criterion's macros make")]
#![allow(clippy::expect_used, clippy::print_stdout, reason = "a bench that cannot be set up says so and ends")]

use std::path::Path;
use std::sync::Arc;
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

/// `writers` tasks append one entry each, over and over, until `appends` are durable.
async fn append(wal: &Arc<Wal>, next_index: &Arc<Mutex<u64>>, writers: u64, appends: u64) {
    let entry = Bytes::from(vec![7; ENTRY_BYTES]);
    let tasks = (0..writers).map(|writer| {
        let (wal, next_index, entry) = (Arc::clone(wal), Arc::clone(next_index), entry.clone());
        let count = appends / writers + u64::from(writer < appends % writers);
        tokio::spawn(async move {
            for _ in 0..count {
                let (done, durable) = oneshot::channel();
                let mut index = next_index.lock().await;
                let done = Box::new(move |result| drop(done.send(result)));
                wal.append(*index, vec![entry.clone()], done).await.expect("appends");
                *index += 1;
                // Keeps the log short, as a node does.
                if index.is_multiple_of(4096) {
                    wal.purge_to(*index - 2048, Bytes::new()).expect("purges");
                }
                drop(index);
                durable.await.expect("an answer").expect("durable");
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("a writer");
    }
}

fn own_log(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("a runtime");
    let mut group = criterion.benchmark_group("wal/append");
    group.throughput(Throughput::Elements(1)).sample_size(20).measurement_time(Duration::from_secs(6));
    for writers in WRITERS {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let seal = SealContext { keyring: Arc::new(keyring(directory.path())), node_id: 1, group: 0 };
        let (wal, _) = Wal::open(&directory.path().join("wal"), WalOptions::default(), seal).expect("a log");
        let (wal, next_index) = (Arc::new(wal), Arc::new(Mutex::new(1)));
        group.bench_function(BenchmarkId::new("own", writers), |b| {
            b.iter_custom(|appends| {
                let begin = Instant::now();
                runtime.block_on(append(&wal, &next_index, writers, appends));
                begin.elapsed()
            });
        });
        let stats = wal.stats();
        if stats.syncs > 0 {
            println!("{writers} writers: {:.1} entries for each fdatasync", stats.entries as f64 / stats.syncs as f64);
        }
    }
    group.finish();
}

fn rocksdb_as_log(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wal/append");
    group.throughput(Throughput::Elements(1)).sample_size(20).measurement_time(Duration::from_secs(6));
    for writers in WRITERS {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let mut options = rocksdb::Options::default();
        options.create_if_missing(true);
        let database = rocksdb::DB::open(&options, directory.path()).expect("a database");
        let next_index = std::sync::atomic::AtomicU64::new(1);
        group.bench_function(BenchmarkId::new("rocksdb", writers), |b| {
            b.iter_custom(|appends| {
                let begin = Instant::now();
                std::thread::scope(|scope| {
                    for writer in 0..writers {
                        let count = appends / writers + u64::from(writer < appends % writers);
                        let (database, next_index) = (&database, &next_index);
                        scope.spawn(move || put(database, next_index, count));
                    }
                });
                begin.elapsed()
            });
        });
    }
    group.finish();
}

fn put(database: &rocksdb::DB, next_index: &std::sync::atomic::AtomicU64, count: u64) {
    let mut synced = rocksdb::WriteOptions::default();
    synced.set_sync(true);
    let entry = vec![7; ENTRY_BYTES];
    for _ in 0..count {
        let index = next_index.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        database.put_opt(index.to_be_bytes(), &entry, &synced).expect("puts");
    }
}

criterion_group!(benches, own_log, rocksdb_as_log);
criterion_main!(benches);
