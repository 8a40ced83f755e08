//! Searches with filters: recall and speed by the share of vectors that match, with labels that have nothing to do with the
//! query, that lie around it, and that lie far from it. The truth is Cairn's own exact search, which is proven exact.

use std::path::PathBuf;
use std::time::Instant;

use cairn_index::{
    Condition, Field, FieldType, Filter, IndexKind, Matches, MemoryBudget, Metric, Partition, PartitionOptions, Scalar,
    Schema, SearchParams, SearchRequest, Test, VectorStorage,
};

use crate::BenchError;
use crate::corpus::{Corpus, NEIGHBOURS};
use crate::npy::Table;
use crate::report::{Measurement, Report};
use crate::systems::key;

/// Arguments of `filters`.
#[derive(clap::Args)]
pub(crate) struct FilterArguments {
    /// The folder with `base.f16.npy`, `queries.f16.npy` and `gt100.i32.npy`.
    #[arg(long)]
    corpus: PathBuf,
    /// How many queries for each kind of label and share.
    #[arg(long, default_value_t = 200)]
    queries: usize,
    /// Only the first so many vectors.
    #[arg(long)]
    count: Option<usize>,
    /// Write one JSON object per line and measurement here.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// The shares of matching vectors, in percent.
const PERCENT: [f64; 8] = [100.0, 50.0, 20.0, 10.0, 5.0, 1.0, 0.1, 0.01];

/// How labels are given and queries chosen.
#[derive(Clone, Copy)]
enum Labels {
    /// By chance.
    Random,
    /// To the vectors nearest to an anchor; queries near it.
    Near,
    /// To the vectors nearest to an anchor; queries far from it.
    Far,
}

impl Labels {
    fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Near => "near",
            Self::Far => "far",
        }
    }

    /// The label of the vectors that belong to a share.
    fn label(self, percent: f64) -> String {
        let kind = if matches!(self, Self::Random) { "random" } else { "anchored" };
        format!("{kind} {percent}%")
    }
}

/// Measures every kind of label at every share.
pub(crate) fn run(arguments: &FilterArguments) -> Result<(), BenchError> {
    let corpus = Corpus::read(&arguments.corpus, None, None)?;
    let mut report = Report::new(arguments.json.as_deref())?;
    let start = Instant::now();
    let mut corpus = corpus;
    if let Some(count) = arguments.count {
        corpus.base.values.truncate(count * corpus.base.columns);
    }
    let partition = build_with_labels(&corpus.base)?;
    let build_seconds = start.elapsed().as_secs_f64();
    let by_distance = order_by_product(&corpus.queries, corpus.base.row(0));
    for labels in [Labels::Random, Labels::Near, Labels::Far] {
        let chosen: Vec<usize> = match labels {
            Labels::Random => (0..corpus.queries.rows()).take(arguments.queries).collect(),
            Labels::Near => by_distance.iter().copied().take(arguments.queries).collect(),
            Labels::Far => by_distance.iter().rev().copied().take(arguments.queries).collect(),
        };
        for percent in PERCENT {
            report.add(&measure(&partition, &corpus, labels, percent, &chosen, build_seconds)?)?;
        }
    }
    Ok(())
}

/// The rows of a table by their product with a vector, the highest first.
fn order_by_product(table: &Table<f32>, with: &[f32]) -> Vec<usize> {
    let product = |row: usize| -> f32 { table.row(row).iter().zip(with).map(|(a, b)| a * b).sum() };
    let mut order: Vec<(f32, usize)> = (0..table.rows()).map(|row| (product(row), row)).collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0));
    order.into_iter().map(|(_, row)| row).collect()
}

/// A partition whose vectors have labels for each share, by chance and by distance from the first one.
pub(crate) fn build_with_labels(base: &Table<f32>) -> Result<Partition, BenchError> {
    let schema = Schema::new([("labels".to_owned(), FieldType::Keyword)]).unwrap_or_default();
    let options = PartitionOptions {
        dimension: base.columns,
        metric: Metric::Cosine,
        kind: IndexKind::Cairn,
        storage: VectorStorage::MemoryF32,
        schema,
        budget: MemoryBudget::unlimited(),
    };
    let mut partition = Partition::new(options)?;
    partition.enable_graph(0);
    let mut rank = vec![0usize; base.rows()];
    for (position, row) in order_by_product(base, base.row(0)).into_iter().enumerate() {
        rank[row] = position;
    }
    for (row, position) in rank.into_iter().enumerate() {
        let chance = (row as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11;
        let within = |percent: f64, part: f64| part < percent / 100.0;
        let random = chance as f64 / (1u64 << 53) as f64;
        let near = position as f64 / base.rows() as f64;
        let of_random = PERCENT.iter().filter(|percent| within(**percent, random)).map(|p| Labels::Random.label(*p));
        let of_near = PERCENT.iter().filter(|percent| within(**percent, near)).map(|p| Labels::Near.label(*p));
        let labels: Vec<Scalar> = of_random.chain(of_near).map(Scalar::String).collect();
        let fields = [(Field::Metadata("labels".into()), labels)];
        partition.upsert(key(row), row.to_string().as_bytes(), fields.as_slice(), Some(base.row(row)))?;
    }
    while partition.maintain(1000) > 0 {}
    Ok(partition)
}

fn request<'a>(query: &'a [f32], matches: &'a Matches<'a>, exact: bool) -> SearchRequest<'a> {
    let params = SearchParams { exact, effort: 0 };
    SearchRequest { query, limit: NEIGHBOURS, matches: Some(matches), params }
}

fn measure(
    partition: &Partition,
    corpus: &Corpus,
    labels: Labels,
    percent: f64,
    chosen: &[usize],
    build_seconds: f64,
) -> Result<Measurement, BenchError> {
    let test = Test::Eq(Scalar::String(labels.label(percent)));
    let filter = Filter::Where(Condition { field: Field::Metadata("labels".into()), test });
    let mut truths = Vec::with_capacity(chosen.len());
    let matches = partition.matches(&filter);
    for query in chosen {
        truths.push(partition.search(&request(corpus.queries.row(*query), &matches, true))?.hits);
    }
    let mut times_us = Vec::with_capacity(chosen.len());
    let (mut recall, mut strategy) = (0.0, "");
    for (query, truth) in chosen.iter().zip(&truths) {
        let start = Instant::now();
        let matches = partition.matches(&filter);
        let found = partition.search(&request(corpus.queries.row(*query), &matches, false))?;
        times_us.push(start.elapsed().as_secs_f64() * 1e6);
        let hits = truth.iter().filter(|truth| found.hits.iter().any(|hit| hit.slot == truth.slot)).count();
        recall += hits as f64 / truth.len().max(1) as f64;
        strategy = found.strategy.name();
    }
    let total_us: f64 = times_us.iter().sum();
    times_us.sort_by(f64::total_cmp);
    let queries_per_second = chosen.len() as f64 * 1e6 / total_us;
    Ok(Measurement {
        system: format!("cairn {strategy}"),
        dimension: corpus.base.columns,
        count: corpus.base.rows(),
        setting: format!("{} {percent}%", labels.name()),
        recall_at_10: recall / chosen.len() as f64,
        qps_1_thread: queries_per_second,
        qps_all_threads: f64::NAN,
        p50_us: times_us[chosen.len() / 2],
        p99_us: times_us[chosen.len() * 99 / 100],
        build_seconds,
        build_threads: 1,
        bytes_per_vector: partition.bytes() as f64 / corpus.base.rows() as f64,
    })
}
