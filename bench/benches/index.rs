//! The index's hot paths on vectors made by a fixed seed: coding a vector, the flat scan, the graph, filters, and linking.
//!
//! The kernels below them are measured through the flat scan, which is nothing but kernels for a large partition.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a bench that cannot go on fails; its functions are not an interface"
)]

use std::hint::black_box;

use cairn_index::{
    Condition, Field, Filter, IndexKind, MemoryBudget, MemoryKey, Metric, Partition, PartitionOptions, Scalar, Schema,
    SearchParams, SearchRequest, Test, VectorStorage,
};
use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};

const COUNT: u64 = 10_000;
const DIMENSIONS: [usize; 3] = [384, 768, 1536];

fn key(number: u64) -> MemoryKey {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    key[8..].copy_from_slice(&number.to_le_bytes());
    MemoryKey(key)
}

fn vector(dimension: usize, number: u64) -> Vec<f32> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..dimension).map(|_| next()).collect()
}

/// Every tenth memory is of the kind `tenth`.
fn upsert(partition: &mut Partition, dimension: usize, number: u64) {
    let kind = if number.is_multiple_of(10) { "tenth" } else { "other" };
    let fields = [(Field::Kind, vec![Scalar::String(kind.into())])];
    partition.upsert(key(number), &number.to_be_bytes(), &fields[..], Some(&vector(dimension, number))).unwrap();
}

fn partition(dimension: usize, graph_from: u64) -> Partition {
    let options = PartitionOptions {
        dimension,
        metric: Metric::Cosine,
        kind: IndexKind::Cairn,
        storage: VectorStorage::MemoryF32,
        schema: Schema::default(),
        budget: MemoryBudget::unlimited(),
    };
    let mut partition = Partition::new(options).unwrap();
    for number in 0..COUNT {
        upsert(&mut partition, dimension, number);
    }
    partition.enable_graph(graph_from);
    partition.link_all(1);
    partition
}

fn searches(criterion: &mut Criterion) {
    for dimension in DIMENSIONS {
        let (flat, graph) = (partition(dimension, u64::MAX), partition(dimension, 1_000));
        let tenth = Condition { field: Field::Kind, test: Test::Eq(Scalar::String("tenth".into())) };
        let filter = Filter::Where(tenth);
        let query = vector(dimension, COUNT + 1);
        let mut group = criterion.benchmark_group(format!("search {COUNT} x {dimension}"));
        for (name, partition) in [("flat", &flat), ("graph", &graph)] {
            let request = SearchRequest { query: &query, limit: 10, matches: None, params: SearchParams::default() };
            group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
                bencher.iter(|| partition.search(black_box(&request)).unwrap());
            });
        }
        group.bench_function(BenchmarkId::from_parameter("flat, one in ten matches"), |bencher| {
            bencher.iter(|| {
                let matches = flat.matches(black_box(&filter));
                let params = SearchParams::default();
                flat.search(&SearchRequest { query: &query, limit: 10, matches: Some(&matches), params }).unwrap()
            });
        });
        group.finish();
    }
}

fn writes(criterion: &mut Criterion) {
    let dimension = DIMENSIONS[0];
    let mut group = criterion.benchmark_group(format!("write {COUNT} x {dimension}"));
    group.sample_size(20);
    let mut flat = partition(dimension, u64::MAX);
    let mut number = COUNT;
    group.bench_function("replace, flat", |bencher| {
        bencher.iter(|| {
            number += 1;
            let vector = vector(dimension, number);
            flat.upsert(key(number % COUNT), b"id", &(), Some(&vector)).unwrap()
        });
    });
    let mut graph = partition(dimension, 1_000);
    group.bench_function("replace and link", |bencher| {
        bencher.iter_batched(
            || {
                number += 1;
                (number, vector(dimension, number))
            },
            |(number, vector)| {
                graph.upsert(key(number % COUNT), b"id", &(), Some(&vector)).unwrap();
                graph.maintain(1)
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, searches, writes);
criterion_main!(benches);
