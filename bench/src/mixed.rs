//! Searches while others write: how long they take with and without a steady stream of inserts, replacements and removals.
//!
//! The partition sits behind a [`SearchLock`], as in the engine. Some threads search, one writes at the wanted pace, one does the
//! upkeep: it takes a turn to plan, and another one to join.

use std::io::{Write, stdout};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use cairn_index::{Partition, SearchLock, SearchParams, SearchRequest};
use serde_json::{Value, json};

use crate::BenchError;
use crate::corpus::{Corpus, NEIGHBOURS};
use crate::index::unless_panicked;
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
    /// Threads that search.
    #[arg(long, default_value_t = 1)]
    searchers: usize,
    /// How long each phase lasts.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// How many phases of each kind, in turns.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// How many vectors are planned under one read lock.
    #[arg(long, default_value_t = 2)]
    planned: usize,
    /// Write one JSON object per line and phase here.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Steps of mending rows in one write section, as in the engine.
const SWEEP_STEPS: usize = 2;

struct Shared<'a> {
    partition: SearchLock<Partition>,
    corpus: &'a Corpus,
    is_over: AtomicBool,
    written: AtomicU64,
    planned: usize,
    searchers: usize,
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
        partition: SearchLock::new(Cairn::build(&corpus.base, half)?.partition),
        corpus: &corpus,
        is_over: AtomicBool::new(false),
        written: AtomicU64::new(0),
        planned: arguments.planned,
        searchers: arguments.searchers,
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
    let (Searches { mut times_us, mut waits_us }, sections) = std::thread::scope(|scope| {
        let upkeep = (writes > 0).then(|| {
            scope.spawn(|| write(shared, writes));
            scope.spawn(|| keep_up(shared))
        });
        let searchers: Vec<_> =
            (0..shared.searchers.max(1)).map(|_| scope.spawn(|| search(shared, duration))).collect();
        let ended: Vec<_> = searchers.into_iter().map(ScopedJoinHandle::join).collect();
        // Also where one of them has panicked: else those who write would go on for ever.
        shared.is_over.store(true, Ordering::Relaxed);
        let mut searches = ended.into_iter().map(unless_panicked);
        let searches = searches.try_fold(Searches::default(), |all, more| more.map(|more| all.and(more)));
        let sections = upkeep.map(|thread| unless_panicked(thread.join())).unwrap_or_default();
        searches.map(|searches| (searches, sections))
    })?;
    times_us.sort_by(f64::total_cmp);
    waits_us.sort_by(f64::total_cmp);
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
        "lock_p99_us": waits_us.get(waits_us.len() * 99 / 100),
        "plan_mean_us": sections.plans.mean(),
        "join_mean_us": sections.joins.mean(),
        "count": partition.vectors(),
        "waiting": partition.waiting(),
        "unreachable": partition.unreachable(),
    }))
}

/// How long searches took, and how long of that they waited for the lock.
#[derive(Default)]
struct Searches {
    times_us: Vec<f64>,
    waits_us: Vec<f64>,
}

impl Searches {
    fn and(mut self, mut more: Self) -> Self {
        self.times_us.append(&mut more.times_us);
        self.waits_us.append(&mut more.waits_us);
        self
    }
}

/// Searches without a break.
fn search(shared: &Shared<'_>, duration: Duration) -> Result<Searches, BenchError> {
    let (start, mut searches) = (Instant::now(), Searches::default());
    while start.elapsed() < duration {
        let query = shared.corpus.queries.row(searches.times_us.len() % shared.corpus.queries.rows());
        let begin = Instant::now();
        let request = SearchRequest { query, limit: NEIGHBOURS, matches: None, params: SearchParams::default() };
        let partition = shared.partition.read();
        searches.waits_us.push(begin.elapsed().as_secs_f64() * 1e6);
        partition.search(&request)?;
        drop(partition);
        searches.times_us.push(begin.elapsed().as_secs_f64() * 1e6);
    }
    Ok(searches)
}

/// Adds the other half at the wanted pace; once all are there, removes them again, and so on.
fn write(shared: &Shared<'_>, a_second: u64) {
    let (half, start) = (shared.corpus.base.rows() / 2, Instant::now());
    let preparer = shared.partition.read().preparer();
    let mut done = 0;
    while !shared.is_over.load(Ordering::Relaxed) {
        let due = (start.elapsed().as_secs_f64() * a_second as f64) as u64;
        if done >= due {
            std::thread::sleep(Duration::from_micros(500));
            continue;
        }
        let number = shared.written.fetch_add(1, Ordering::Relaxed) as usize;
        let row = half + number % half;
        if (number / half).is_multiple_of(2) {
            // Room is unlimited, and vectors of the corpus can be prepared, which the engine does without the lock too.
            if let Ok(vector) = preparer.prepare(shared.corpus.base.row(row)) {
                let mut partition = shared.partition.change();
                let _ = partition.upsert_prepared(key(row), row.to_string().as_bytes(), &(), Some(&vector));
            }
        } else {
            shared.partition.change().remove(&key(row));
        }
        done += 1;
    }
}

/// How long something took, all in all.
#[derive(Default)]
struct Spent {
    us: f64,
    times: u64,
}

impl Spent {
    fn note(&mut self, start: Instant) {
        self.us += start.elapsed().as_secs_f64() * 1e6;
        self.times += 1;
    }

    fn mean(&self) -> f64 {
        self.us / self.times.max(1) as f64
    }
}

/// What the upkeep did.
#[derive(Default)]
struct Sections {
    plans: Spent,
    joins: Spent,
}

fn keep_up(shared: &Shared<'_>) -> Sections {
    let mut sections = Sections::default();
    while !shared.is_over.load(Ordering::Relaxed) {
        if shared.partition.read().upkeep_left() == 0 {
            std::thread::sleep(Duration::from_micros(500));
            continue;
        }
        let plans = {
            let turn = shared.partition.turn();
            let start = Instant::now();
            let plans = turn.read().plan(shared.planned, 1);
            sections.plans.note(start);
            plans
        };
        let mut partition = shared.partition.change();
        let start = Instant::now();
        partition.join(plans);
        partition.sweep(SWEEP_STEPS);
        sections.joins.note(start);
    }
    sections
}
