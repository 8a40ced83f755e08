//! Many small partitions must be cheap: what a partition of ten memories takes beyond its vectors and codes.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::fs;

use cairn_index::{
    Field, FieldType, IndexKind, MemoryBudget, MemoryKey, Metric, Partition, PartitionOptions, Scalar, Schema,
    SearchParams, SearchRequest, VectorStorage,
};

const PARTITIONS: usize = 2_000;
const MEMORIES: usize = 10;
const DIMENSION: usize = 384;
/// Values and codes of a partition's vectors.
const VECTOR_BYTES: usize = MEMORIES * DIMENSION * 5;
const LIMIT_BYTES: usize = 8 * 1024;

/// Memory that the process has in use; `None` where the system does not say.
fn resident_bytes() -> Option<usize> {
    let fields = fs::read_to_string("/proc/self/smaps_rollup").ok()?;
    let line = fields.lines().find(|line| line.starts_with("Rss:"))?;
    line.split_whitespace().nth(1)?.parse::<usize>().ok().map(|kibibytes| kibibytes * 1024)
}

fn fields(partition: usize, memory: usize) -> Vec<(Field, Vec<Scalar>)> {
    let text = |text: String| vec![Scalar::String(text)];
    let time = |offset: usize| vec![Scalar::Timestamp(1_700_000_000_000_000 + offset as i64)];
    vec![
        (Field::AgentId, text(format!("agent-{partition}"))),
        (Field::UserId, text(format!("0191d2c4-7b5e-7e3a-9f00-{partition:012}"))),
        (Field::SessionId, text(format!("0191d2c4-7b5e-7e3a-9f01-{memory:012}"))),
        (Field::Namespace, text(format!("team/{}/notes", memory % 3))),
        (Field::Kind, text("fact".into())),
        (Field::CreatedAt, time(memory)),
        (Field::UpdatedAt, time(memory * 2)),
        (Field::Importance, vec![Scalar::Double(memory as f64 / 10.0)]),
        (Field::Metadata("tags".into()), ["a", "b"].map(|tag| Scalar::String(tag.into())).into()),
    ]
}

fn build(partition: usize, schema: &Schema, budget: &MemoryBudget) -> Partition {
    let options = PartitionOptions {
        dimension: DIMENSION,
        metric: Metric::Cosine,
        kind: IndexKind::Cairn,
        storage: VectorStorage::MemoryF32,
        schema: schema.clone(),
        budget: budget.clone(),
    };
    let mut built = Partition::new(options).unwrap();
    for memory in 0..MEMORIES {
        let mut key = [0; 16];
        key[0] = memory as u8 * 17;
        let id = format!("0191d2c4-7b5e-7e3a-9f02-{memory:012}");
        let vector: Vec<f32> = (0..DIMENSION).map(|i| ((i + memory * 7) % 11) as f32 - 5.5).collect();
        built.upsert(MemoryKey(key), id.as_bytes(), fields(partition, memory).as_slice(), Some(&vector)).unwrap();
    }
    built
}

#[test]
fn a_small_partition_takes_less_than_eight_kibibytes_beyond_its_vectors() {
    let schema = Schema::new([("tags".to_owned(), FieldType::Keyword)]).unwrap();
    let budget = MemoryBudget::unlimited();
    let warm_up = build(0, &schema, &budget);
    let before = resident_bytes();
    let partitions: Vec<Partition> = (0..PARTITIONS).map(|number| build(number, &schema, &budget)).collect();
    let counted = partitions.iter().map(Partition::bytes).sum::<u64>() as usize / PARTITIONS - VECTOR_BYTES;
    assert!(counted < LIMIT_BYTES, "counted {counted} bytes each");
    if let (Some(before), Some(after)) = (before, resident_bytes()) {
        let resident = (after - before) / PARTITIONS - VECTOR_BYTES;
        assert!(resident < LIMIT_BYTES, "resident {resident} bytes each");
        assert!(resident < counted * 2 && counted < resident * 2, "counted {counted}, resident {resident}");
        println!("counted {counted}, resident {resident}");
    }
    let query = vec![1.0; DIMENSION];
    let request = SearchRequest { query: &query, limit: 3, matches: None, params: SearchParams::default() };
    let every =
        partitions.iter().chain([&warm_up]).all(|partition| partition.search(&request).unwrap().hits.len() == 3);
    assert!(every);
}
