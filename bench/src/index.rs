//! Searches of the whole corpus without filters: recall, speed, build time and memory.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use cairn_index::IndexKind;

use crate::BenchError;
use crate::corpus::{Corpus, NEIGHBOURS};
use crate::report::{Measurement, Report};
use crate::systems::{Build, Cairn, Setting, Storage, System};

/// Arguments of `index`.
#[derive(clap::Args)]
pub(crate) struct IndexArguments {
    /// The folder with `base.f16.npy`, `queries.f16.npy` and `gt100.i32.npy`.
    #[arg(long)]
    corpus: PathBuf,
    /// Other queries: float16 or float32.
    #[arg(long, requires = "truth")]
    queries: Option<PathBuf>,
    /// The true neighbours of other queries: int32, ten or more columns.
    #[arg(long, requires = "queries")]
    truth: Option<PathBuf>,
    /// Only the first so many vectors.
    #[arg(long)]
    count: Option<usize>,
    /// From so many vectors on there is a graph; 0: the default.
    #[arg(long, default_value_t = 0)]
    graph_from: u64,
    /// Threads that build; 1: one vector after the other.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Add all vectors before the first is linked, on one thread too.
    #[arg(long)]
    batch: bool,
    /// Where the vectors are by which candidates are scored exactly.
    #[arg(long, value_enum, default_value_t)]
    storage: Storage,
    /// Write one JSON object per line and measurement here.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Measures every system at every setting.
pub(crate) fn run(arguments: &IndexArguments) -> Result<(), BenchError> {
    let mut corpus = Corpus::read(&arguments.corpus, arguments.queries.as_deref(), arguments.truth.as_deref())?;
    if let Some(count) = arguments.count {
        corpus = corpus.cut(count);
    }
    let mut report = Report::new(arguments.json.as_deref())?;
    // hnsw_rs too, in the feature of that name.
    for kind in IndexKind::ALL {
        let build = Build {
            kind: *kind,
            storage: arguments.storage,
            threads: arguments.threads,
            is_batch: arguments.batch,
            graph_from: arguments.graph_from,
        };
        let start = Instant::now();
        let cairn = Cairn::build_as(build, &corpus.base, corpus.base.rows())?;
        let built = Built { name: cairn.name(), seconds: start.elapsed().as_secs_f64() };
        for setting in cairn.settings() {
            report.add(&measure(&cairn, setting, &corpus, &built)?)?;
        }
    }
    Ok(())
}

/// What is known of a build.
pub(crate) struct Built {
    /// What was built.
    pub(crate) name: String,
    /// How long it took.
    pub(crate) seconds: f64,
}

/// Measures a system at a setting, with all queries.
pub(crate) fn measure(
    system: &dyn System,
    setting: Setting,
    corpus: &Corpus,
    built: &Built,
) -> Result<Measurement, BenchError> {
    let queries = corpus.queries.rows();
    let mut times_us = Vec::with_capacity(queries);
    let mut recall = 0.0;
    for query in 0..queries {
        let start = Instant::now();
        let found = system.search(corpus.queries.row(query), NEIGHBOURS, setting)?;
        times_us.push(start.elapsed().as_secs_f64() * 1e6);
        let rows: Vec<u32> = found.iter().map(|(row, _)| *row).collect();
        recall += corpus.recall(query, &rows);
    }
    let total_us: f64 = times_us.iter().sum();
    times_us.sort_by(f64::total_cmp);
    let count = corpus.base.rows();
    Ok(Measurement {
        system: built.name.clone(),
        dimension: corpus.base.columns,
        count,
        setting: setting.name(),
        recall_at_10: recall / queries as f64,
        qps_1_thread: queries as f64 * 1e6 / total_us,
        qps_all_threads: all_threads(queries, |query| {
            system.search(corpus.queries.row(query), NEIGHBOURS, setting).map(drop)
        })?,
        p50_us: times_us[queries / 2],
        p99_us: times_us[queries * 99 / 100],
        build_seconds: built.seconds,
        build_threads: system.build_threads(),
        bytes_per_vector: system.bytes() as f64 / count as f64,
    })
}

/// What a thread has found. A panic of it goes on here: what the others have measured without it is of no use.
pub(crate) fn unless_panicked<T>(ended: std::thread::Result<T>) -> T {
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Queries a second with one thread for each core, which take the next query as soon as they are done.
pub(crate) fn all_threads(
    queries: usize,
    search: impl Fn(usize) -> Result<(), BenchError> + Sync,
) -> Result<f64, BenchError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| {
        let work = || -> Result<(), BenchError> {
            loop {
                let query = next.fetch_add(1, Ordering::Relaxed);
                if query >= queries {
                    return Ok(());
                }
                search(query)?;
            }
        };
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        running.into_iter().try_for_each(|thread| unless_panicked(thread.join()))
    })?;
    Ok(queries as f64 / start.elapsed().as_secs_f64())
}
