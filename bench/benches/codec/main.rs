//! Protobuf (prost) against bincode 2 and postcard on the two messages that Cairn encodes most: the mutation that goes
//! into the log, and the record that lies in the store. What came of it: `docs/decisions/0003`.
//!
//! All three hold the same values. bincode uses its own derive and its standard configuration, postcard goes through
//! serde; the plain structs are in `plain.rs`, the protobuf ones are Cairn's own.

#![allow(missing_docs, reason = "a bench has no public items but those that criterion's macros make")]
#![allow(clippy::expect_used, clippy::print_stdout, reason = "a bench that cannot be set up says so and ends")]

mod plain;
mod proto;

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use prost::Message;

/// Encodes and decodes one message in each codec; `name` is `message/items`.
macro_rules! compare {
    ($criterion:expr, $name:expr, $items:expr, $proto:expr => $proto_type:ty, $plain:expr => $plain_type:ty) => {{
        let (proto, plain): ($proto_type, $plain_type) = ($proto, $plain);
        let as_protobuf = proto.encode_to_vec();
        let as_bincode = bincode::encode_to_vec(&plain, bincode::config::standard()).expect("encodes");
        let as_postcard = postcard::to_stdvec(&plain).expect("encodes");
        let lens = (as_protobuf.len(), as_bincode.len(), as_postcard.len());
        println!("{}: {} bytes as protobuf, {} as bincode, {} as postcard", $name, lens.0, lens.1, lens.2);

        let mut group = $criterion.benchmark_group(format!("encode/{}", $name));
        group.throughput(Throughput::Elements($items));
        group.bench_function("protobuf", |b| b.iter(|| black_box(&proto).encode_to_vec()));
        group.bench_function("bincode", |b| {
            b.iter(|| bincode::encode_to_vec(black_box(&plain), bincode::config::standard()).expect("encodes"));
        });
        group.bench_function("postcard", |b| b.iter(|| postcard::to_stdvec(black_box(&plain)).expect("encodes")));
        group.finish();

        let mut group = $criterion.benchmark_group(format!("decode/{}", $name));
        group.throughput(Throughput::Elements($items));
        group.bench_function("protobuf", |b| {
            let decode = |bytes: &Vec<u8>| <$proto_type>::decode(bytes.as_slice()).expect("decodes");
            b.iter_batched_ref(|| as_protobuf.clone(), |bytes| decode(bytes), BatchSize::SmallInput);
        });
        group.bench_function("bincode", |b| {
            let decode = |bytes: &Vec<u8>| -> $plain_type {
                bincode::decode_from_slice(bytes, bincode::config::standard()).expect("decodes").0
            };
            b.iter_batched_ref(|| as_bincode.clone(), |bytes| decode(bytes), BatchSize::SmallInput);
        });
        group.bench_function("postcard", |b| {
            let decode = |bytes: &Vec<u8>| -> $plain_type { postcard::from_bytes(bytes).expect("decodes") };
            b.iter_batched_ref(|| as_postcard.clone(), |bytes| decode(bytes), BatchSize::SmallInput);
        });
        group.finish();
    }};
}

fn mutations(criterion: &mut Criterion) {
    for items in [1, 100] {
        compare!(criterion, format!("add_memories/{items}"), items as u64,
            proto::mutation(items) => cairn_proto::storage::Mutation,
            plain::mutation(items) => plain::Mutation);
    }
}

fn records(criterion: &mut Criterion) {
    compare!(criterion, "memory_record/1", 1,
        proto::record() => cairn_proto::storage::MemoryRecord,
        plain::record() => plain::MemoryRecord);
}

criterion_group!(benches, mutations, records);
criterion_main!(benches);
