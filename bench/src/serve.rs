//! Cairn as `bench/peers` measures it beside the others: builds the index, then takes a setting for each line of input and writes a
//! JSON object for each of output.

use std::io::{BufRead, Write, stdin, stdout};
use std::path::PathBuf;
use std::time::Instant;

use cairn_index::{Condition, Field, Filter, Partition, Scalar, SearchParams, SearchRequest, Test};
use serde_json::{Value, json};

use crate::BenchError;
use crate::corpus::{Corpus, NEIGHBOURS};
use crate::filters::build_with_labels;
use crate::index::all_threads;
use crate::systems::{Build, Cairn, EFFORTS, row_of};
use crate::tenants::resident_bytes;

/// Arguments of `serve`.
#[derive(clap::Args)]
pub(crate) struct ServeArguments {
    /// The folder with `base.f16.npy`, `queries.f16.npy` and `gt100.i32.npy`.
    #[arg(long)]
    corpus: PathBuf,
    /// Threads that build.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Give labels to the vectors, so that `EFFORT SHARE%` can be measured.
    #[arg(long)]
    filters: bool,
}

/// Serves until the input ends.
pub(crate) fn run(arguments: &ServeArguments) -> Result<(), BenchError> {
    let corpus = Corpus::read(&arguments.corpus, None, None)?;
    let (resident, cpu, start) = (resident_bytes(), cpu_seconds(), Instant::now());
    let partition = if arguments.filters {
        build_with_labels(&corpus.base)?
    } else {
        let build = Build { threads: arguments.threads, ..Build::default() };
        Cairn::build_as(build, &corpus.base, corpus.base.rows())?.partition
    };
    let common = json!({
        "system": "cairn",
        "dimension": corpus.base.columns,
        "count": corpus.base.rows(),
        "build_seconds": start.elapsed().as_secs_f64(),
        "build_cpu_seconds": cpu_seconds() - cpu,
        "build_threads": arguments.threads,
        "bytes_per_vector": (resident_bytes() - resident) / corpus.base.rows() as f64,
    });
    // With a filter, the default is what counts.
    let settings: Vec<String> =
        if arguments.filters { vec!["0".into()] } else { EFFORTS.iter().map(u32::to_string).collect() };
    say(&common, json!({ "settings": settings }))?;
    for line in stdin().lock().lines() {
        let line = line?;
        let (effort, only) =
            line.trim().split_once(' ').map_or((line.trim(), None), |(effort, only)| (effort, Some(only)));
        say(&common, measure(&partition, &corpus, effort.parse().unwrap_or(0), only)?)?;
    }
    Ok(())
}

fn say(common: &Value, more: Value) -> Result<(), BenchError> {
    let mut line = common.clone();
    if let (Value::Object(line), Value::Object(more)) = (&mut line, more) {
        line.extend(more);
    }
    writeln!(stdout(), "{line}")?;
    Ok(stdout().flush()?)
}

fn measure(partition: &Partition, corpus: &Corpus, effort: u32, only: Option<&str>) -> Result<Value, BenchError> {
    let filter = only.map(|share| {
        let test = Test::Eq(Scalar::String(format!("random {share}")));
        Filter::Where(Condition { field: Field::Metadata("labels".into()), test })
    });
    let search = |query: usize, exact: bool| {
        let matches = filter.as_ref().map(|filter| partition.matches(filter));
        let params = SearchParams { exact, effort };
        let query = corpus.queries.row(query);
        partition.search(&SearchRequest { query, limit: NEIGHBOURS, matches: matches.as_ref(), params })
    };
    let queries = corpus.queries.rows();
    let (mut times_us, mut recall, mut strategy) = (Vec::with_capacity(queries), 0.0, "");
    for query in 0..queries {
        let start = Instant::now();
        let found = search(query, false)?;
        times_us.push(start.elapsed().as_secs_f64() * 1e6);
        strategy = found.strategy.name();
        recall += if filter.is_some() {
            // Cairn's exact search is proven exact.
            let truth = search(query, true)?.hits;
            let hits = truth.iter().filter(|truth| found.hits.iter().any(|hit| hit.slot == truth.slot)).count();
            hits as f64 / truth.len().max(1) as f64
        } else {
            corpus.recall(query, &found.hits.iter().map(|hit| row_of(hit.key)).collect::<Vec<_>>())
        };
    }
    let total_us: f64 = times_us.iter().sum();
    times_us.sort_by(f64::total_cmp);
    Ok(json!({
        "setting": only.map_or_else(|| effort.to_string(), |only| format!("default only {only} ({strategy})")),
        "recall_at_10": recall / queries as f64,
        "qps_1_thread": queries as f64 * 1e6 / total_us,
        "qps_all_threads": all_threads(queries, |query| Ok(search(query, false).map(drop)?))?,
        "p50_us": times_us.get(queries / 2),
        "p99_us": times_us.get(queries * 99 / 100),
    }))
}

/// User and system time of this process, which Linux counts in hundredths of a second.
pub(crate) fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let rest = text.rsplit(')').next().unwrap_or_default();
    let ticks: f64 = rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / 100.0
}
