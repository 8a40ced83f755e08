//! Measures hnsw_rs as `serve.py` measures the others: builds an index over a corpus, then takes a setting for each line of input
//! and writes a JSON object for each.

#[path = "../../../src/npy.rs"]
mod npy;

use std::collections::HashSet;
use std::io::{BufRead, Write, stdin, stdout};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use hnsw_rs::prelude::{DistDot, Hnsw};
use serde_json::{Value, json};

const NEIGHBOURS: usize = 10;
const SETTINGS: [usize; 8] = [16, 32, 48, 64, 96, 128, 192, 256];

#[derive(Debug, thiserror::Error)]
enum BenchError {
    #[error("{path}: {source}")]
    File { path: String, source: std::io::Error },
    #[error("{path}: {reason}")]
    Format { path: String, reason: String },
    #[error(transparent)]
    Pipe(#[from] std::io::Error),
}

fn main() -> Result<(), BenchError> {
    let arguments: Vec<String> = std::env::args().collect();
    let named = arguments.iter().position(|argument| argument == "--corpus").and_then(|at| arguments.get(at + 1));
    let folder = PathBuf::from(named.map_or(".", String::as_str));
    let base = npy::read_floats(&folder.join("base.f16.npy"))?;
    let queries = npy::read_floats(&folder.join("queries.f16.npy"))?;
    let truth = npy::read_integers(&folder.join("gt100.i32.npy"))?;
    let (resident, cpu, start) = (resident_bytes(), cpu_seconds(), Instant::now());
    let index = Hnsw::<f32, DistDot>::new(16, base.rows(), 16, 200, DistDot {});
    // The inner product as hnsw_rs has it must not go below 0 for rounding: it asserts on that.
    let shrunk = |row: &[f32]| row.iter().map(|value| value * 0.9999).collect::<Vec<f32>>();
    for row in 0..base.rows() {
        index.insert_slice((&shrunk(base.row(row)), row));
    }
    let common = json!({
        "system": "hnsw_rs 0.3.5",
        "dimension": base.columns,
        "count": base.rows(),
        "build_seconds": start.elapsed().as_secs_f64(),
        "build_cpu_seconds": cpu_seconds() - cpu,
        "build_threads": 1,
        "bytes_per_vector": (resident_bytes() - resident) / base.rows() as f64,
    });
    say(&common, json!({ "settings": SETTINGS.map(|setting| setting.to_string()) }))?;
    for line in stdin().lock().lines() {
        let setting: usize = line?.trim().parse().unwrap_or(SETTINGS[0]);
        let (mut times_us, mut hits) = (Vec::with_capacity(queries.rows()), 0);
        for query in 0..queries.rows() {
            let begin = Instant::now();
            let found = index.search(&shrunk(queries.row(query)), NEIGHBOURS, setting);
            times_us.push(begin.elapsed().as_secs_f64() * 1e6);
            let found: HashSet<i32> = found.iter().map(|hit| hit.d_id as i32).collect();
            hits += truth.row(query)[..NEIGHBOURS].iter().filter(|row| found.contains(row)).count();
        }
        let total_us: f64 = times_us.iter().sum();
        times_us.sort_by(f64::total_cmp);
        let count = queries.rows();
        say(&common, json!({
            "setting": setting.to_string(),
            "recall_at_10": hits as f64 / (count * NEIGHBOURS) as f64,
            "qps_1_thread": count as f64 * 1e6 / total_us,
            "qps_all_threads": all_threads(count, |query| {
                std::hint::black_box(index.search(&shrunk(queries.row(query)), NEIGHBOURS, setting));
            }),
            "p50_us": times_us[count / 2],
            "p99_us": times_us[count * 99 / 100],
        }))?;
    }
    Ok(())
}

/// Queries a second with one thread for each core, which take the next query as soon as they are done.
fn all_threads(queries: usize, search: impl Fn(usize) + Sync) -> f64 {
    let (next, start) = (AtomicUsize::new(0), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let query = next.fetch_add(1, Ordering::Relaxed);
                    if query >= queries {
                        return;
                    }
                    search(query);
                }
            });
        }
    });
    queries as f64 / start.elapsed().as_secs_f64()
}

fn say(common: &Value, more: Value) -> Result<(), BenchError> {
    let mut line = common.clone();
    if let (Value::Object(line), Value::Object(more)) = (&mut line, more) {
        line.extend(more);
    }
    writeln!(stdout(), "{line}")?;
    Ok(stdout().flush()?)
}

fn field(path: &Path, number: usize) -> f64 {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let text = text.rsplit(')').next().unwrap_or_default().to_owned();
    text.split_whitespace().nth(number).and_then(|value| value.parse().ok()).unwrap_or(0.0)
}

fn resident_bytes() -> f64 {
    field(Path::new("/proc/self/statm"), 1) * 4096.0
}

/// User and system time, which Linux counts in hundredths of a second.
fn cpu_seconds() -> f64 {
    // After the name in parentheses, fields are counted from the third.
    let stat = Path::new("/proc/self/stat");
    (field(stat, 11) + field(stat, 12)) / 100.0
}
