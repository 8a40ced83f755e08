//! Many small partitions: what each takes beyond its vectors and codes, and how fast it answers.

use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use std::time::Instant;

use cairn_index::{
    Field, FieldType, IndexKind, MemoryBudget, Metric, Partition, PartitionOptions, Scalar, Schema, SearchParams,
    SearchRequest, VectorStorage,
};
use serde_json::json;

use crate::BenchError;
use crate::systems::key;

/// Arguments of `tenants`.
#[derive(clap::Args)]
pub(crate) struct TenantArguments {
    /// How many partitions.
    #[arg(long, default_value_t = 10_000)]
    partitions: usize,
    /// How many memories in each.
    #[arg(long, default_value_t = 10)]
    memories: usize,
    /// Values a vector.
    #[arg(long, default_value_t = 384)]
    dimension: usize,
    /// Write one JSON object here.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Makes the partitions and asks each.
pub(crate) fn run(arguments: &TenantArguments) -> Result<(), BenchError> {
    let schema = Schema::new([("tags".to_owned(), FieldType::Keyword)]).unwrap_or_default();
    let budget = MemoryBudget::unlimited();
    let _warm_up = build(arguments, 0, &schema, &budget)?;
    let (resident, start) = (resident_bytes(), Instant::now());
    let mut partitions = Vec::with_capacity(arguments.partitions);
    for number in 0..arguments.partitions {
        partitions.push(build(arguments, number, &schema, &budget)?);
    }
    let build_seconds = start.elapsed().as_secs_f64();
    let count = arguments.partitions.max(1) as f64;
    let vectors_and_codes = (arguments.memories * arguments.dimension * 5) as f64;
    let counted = partitions.iter().map(Partition::bytes).sum::<u64>() as f64 / count - vectors_and_codes;
    let resident = (resident_bytes() - resident) / count - vectors_and_codes;
    let mut times_us = Vec::with_capacity(arguments.partitions);
    for (number, partition) in partitions.iter().enumerate() {
        let query = vector(arguments.dimension, number, 3);
        let start = Instant::now();
        let request = SearchRequest { query: &query, limit: 5, matches: None, params: SearchParams::default() };
        partition.search(&request)?;
        times_us.push(start.elapsed().as_secs_f64() * 1e6);
    }
    times_us.sort_by(f64::total_cmp);
    let line = json!({
        "system": "cairn tenants",
        "partitions": arguments.partitions,
        "memories": arguments.memories,
        "dimension": arguments.dimension,
        "counted_bytes_beyond_vectors": counted,
        "resident_bytes_beyond_vectors": resident,
        "build_seconds": build_seconds,
        "p50_us": times_us.get(times_us.len() / 2),
        "p99_us": times_us.get(times_us.len() * 99 / 100),
    });
    writeln!(stdout(), "{line}")?;
    if let Some(path) = &arguments.json {
        let failed = |source| BenchError::File { path: path.display().to_string(), source };
        std::fs::write(path, format!("{line}\n")).map_err(failed)?;
    }
    Ok(())
}

/// Memory that the process has in use; 0 where the system does not say.
pub(crate) fn resident_bytes() -> f64 {
    let text = std::fs::read_to_string(Path::new("/proc/self/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("Rss:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kibibytes| kibibytes.parse::<f64>().ok()).unwrap_or(0.0) * 1024.0
}

fn vector(dimension: usize, partition: usize, memory: usize) -> Vec<f32> {
    let start = (partition * 31 + memory * 7) as u64;
    (0..dimension)
        .map(|i| (start.wrapping_add(i as u64).wrapping_mul(0x9e37_79b9) >> 16 & 255) as f32 - 127.5)
        .collect()
}

fn build(
    arguments: &TenantArguments,
    number: usize,
    schema: &Schema,
    budget: &MemoryBudget,
) -> Result<Partition, BenchError> {
    let mut partition = Partition::new(PartitionOptions {
        dimension: arguments.dimension,
        metric: Metric::Cosine,
        kind: IndexKind::Cairn,
        storage: VectorStorage::MemoryF32,
        schema: schema.clone(),
        budget: budget.clone(),
    })?;
    partition.enable_graph(0);
    let text = |text: String| vec![Scalar::String(text)];
    for memory in 0..arguments.memories {
        let fields = [
            (Field::AgentId, text(format!("agent-{number}"))),
            (Field::UserId, text(format!("0191d2c4-7b5e-7e3a-9f00-{number:012}"))),
            (Field::Kind, text("fact".into())),
            (Field::CreatedAt, vec![Scalar::Timestamp(1_700_000_000_000_000 + memory as i64)]),
            (Field::Metadata("tags".into()), ["a", "b"].map(|tag| Scalar::String(tag.into())).into()),
        ];
        let id = format!("0191d2c4-7b5e-7e3a-9f02-{memory:012}");
        let vector = vector(arguments.dimension, number, memory);
        partition.upsert(key(memory), id.as_bytes(), fields.as_slice(), Some(&vector))?;
    }
    Ok(partition)
}
