//! Searches while others write: how long they take with and without a steady stream of inserts, replacements and removals.
//!
//! The partition sits behind a read-write lock, as in the engine. One thread searches, one writes at the wanted pace, one does
//! the upkeep: it plans under the read lock and joins under the write lock.

use std::io::{Write, stdout};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cairn_index::{Partition, SearchParams, SearchRequest};
use parking_lot::RwLock;
use serde_json::{Value, json};

use crate::BenchError;
use crate::corpus::{Corpus, NEIGHBOURS};
use crate::systems::{Cairn, key};

/// Arguments of `mixed`.
#[derive(clap::Args)]
pub(crate) struct MixedArguments {
    /// The folder with `base.f16.npy`, `queries.f16.npy` and `gt100.i32.npy`.
    #[arg(long)]
    corpus: PathBuf,
    /// Only the first so many vectors.
    #[arg(long)]
    count: Option<usize>,
    /// Writes a second.
    #[arg(long, default_value_t = 1000)]
    writes: u64,
    /// How long each phase lasts.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// How many phases of each kind, in turns.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Write one JSON object per line and phase here.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// How many vectors are planned under one read lock.
const PLANNED: usize = 4;

struct Shared<'a> {
    partition: RwLock<Partition>,
    corpus: &'a Corpus,
    is_over: AtomicBool,
    written: AtomicU64,
}

/// Measures phases in turns.
pub(crate) fn run(arguments: &MixedArguments) -> Result<(), BenchError> {
    let mut corpus = Corpus::read(&arguments.corpus, None, None)?;
    if let Some(count) = arguments.count {
        corpus = corpus.cut(count);
    }
    // Half of the vectors are there from the start; the others come and go.
    let half = corpus.base.rows() / 2;
    let shared = Shared {
        partition: RwLock::new(Cairn::build_some(&corpus.base, half)?.partition),
        corpus: &corpus,
        is_over: AtomicBool::new(false),
        written: AtomicU64::new(0),
    };
    let mut lines = String::new();
    for round in 0..arguments.rounds {
        for writes in [0, arguments.writes] {
            let line = phase(&shared, writes, Duration::from_secs(arguments.seconds), round)?;
            writeln!(stdout(), "{line}")?;
            lines += &format!("{line}\n");
        }
    }
    if let Some(path) = &arguments.json {
        let failed = |source| BenchError::File { path: path.display().to_string(), source };
        std::fs::write(path, lines).map_err(failed)?;
    }
    Ok(())
}

fn phase(shared: &Shared<'_>, writes: u64, duration: Duration, round: u32) -> Result<Value, BenchError> {
    shared.is_over.store(false, Ordering::Relaxed);
    let before = shared.written.load(Ordering::Relaxed);
    let mut times_us = std::thread::scope(|scope| {
        if writes > 0 {
            scope.spawn(|| write(shared, writes));
            scope.spawn(|| keep_up(shared));
        }
        let times = search(shared, duration);
        shared.is_over.store(true, Ordering::Relaxed);
        times
    })?;
    times_us.sort_by(f64::total_cmp);
    let at = |share: f64| times_us.get((times_us.len() as f64 * share) as usize).copied();
    let partition = shared.partition.read();
    Ok(json!({
        "system": "cairn mixed",
        "round": round,
        "writes_per_second": writes,
        "written": shared.written.load(Ordering::Relaxed) - before,
        "searches_per_second": times_us.len() as f64 / duration.as_secs_f64(),
        "p50_us": at(0.5),
        "p99_us": at(0.99),
        "p999_us": at(0.999),
        "max_us": times_us.last(),
        "count": partition.vectors(),
        "waiting": partition.waiting(),
        "unreachable": partition.unreachable(),
    }))
}

fn search(shared: &Shared<'_>, duration: Duration) -> Result<Vec<f64>, BenchError> {
    let (start, mut times_us) = (Instant::now(), Vec::new());
    while start.elapsed() < duration {
        let query = shared.corpus.queries.row(times_us.len() % shared.corpus.queries.rows());
        let begin = Instant::now();
        let request = SearchRequest { query, limit: NEIGHBOURS, matches: None, params: SearchParams::default() };
        shared.partition.read().search(&request)?;
        times_us.push(begin.elapsed().as_secs_f64() * 1e6);
    }
    Ok(times_us)
}

/// Adds the other half at the wanted pace; once all are there, removes them again, and so on.
fn write(shared: &Shared<'_>, a_second: u64) {
    let (half, start) = (shared.corpus.base.rows() / 2, Instant::now());
    let mut done = 0;
    while !shared.is_over.load(Ordering::Relaxed) {
        let due = (start.elapsed().as_secs_f64() * a_second as f64) as u64;
        if done >= due {
            std::thread::sleep(Duration::from_micros(500));
            continue;
        }
        let number = shared.written.fetch_add(1, Ordering::Relaxed) as usize;
        let row = half + number % half;
        let mut partition = shared.partition.write();
        if (number / half).is_multiple_of(2) {
            // Room is unlimited, and the vector has been checked by those before it.
            let _ = partition.upsert(key(row), row.to_string().as_bytes(), &(), Some(shared.corpus.base.row(row)));
        } else {
            partition.remove(&key(row));
        }
        done += 1;
    }
}

fn keep_up(shared: &Shared<'_>) {
    while !shared.is_over.load(Ordering::Relaxed) {
        let plans = {
            let partition = shared.partition.read();
            if partition.upkeep_left() == 0 {
                drop(partition);
                std::thread::sleep(Duration::from_micros(500));
                continue;
            }
            partition.plan(PLANNED, 1)
        };
        shared.partition.write().join(plans);
        shared.partition.write().sweep(1);
    }
}
