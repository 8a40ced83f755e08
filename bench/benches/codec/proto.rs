//! The same messages as Cairn has them in protobuf.

use std::collections::BTreeMap;

use cairn_proto::storage::{AddMemories, MemoryRecord, Mutation, RequestKey, VectorReference, mutation};
use cairn_proto::v1::{DenseVector, Memory, Scope, Value, Vector, value, vector};
use prost_types::Timestamp;

use crate::plain;

fn scope() -> Scope {
    Scope {
        agent_id: Some("travel-assistant".to_owned()),
        user_id: Some("user-4711".to_owned()),
        session_id: Some("0198c1f2-7a3b".to_owned()),
        namespace: Some("trips/2026/lisbon".to_owned()),
    }
}

fn metadata() -> BTreeMap<String, Value> {
    [
        ("source", value::Kind::StringValue("chat".to_owned())),
        ("confirmed", value::Kind::BoolValue(true)),
        ("turn", value::Kind::IntegerValue(17)),
        ("confidence", value::Kind::DoubleValue(0.875)),
        ("topic", value::Kind::StringValue("travel".to_owned())),
    ]
    .map(|(key, kind)| (key.to_owned(), Value { kind: Some(kind) }))
    .into()
}

fn memory(number: usize) -> Memory {
    let dense = DenseVector { values: plain::vector(number) };
    Memory {
        id: plain::id(number),
        scope: Some(scope()),
        kind: "episode".to_owned(),
        content: plain::CONTENT.to_owned(),
        metadata: metadata(),
        vectors: vec![Vector { embedding: String::new(), data: Some(vector::Data::Dense(dense)) }],
        importance: Some(0.5),
        created_at: Some(Timestamp { seconds: 1_794_000_000, nanos: 0 }),
        ..Memory::default()
    }
}

pub(crate) fn mutation(items: usize) -> Mutation {
    Mutation {
        request: Some(RequestKey {
            principal: "assistant-service".to_owned(),
            method: 1,
            request_id: plain::id(0),
            fingerprint: vec![0xa5; 16].into(),
            generated: false,
        }),
        operation: Some(mutation::Operation::AddMemories(AddMemories {
            space: "default".to_owned(),
            memories: (0..items).map(memory).collect(),
            ..AddMemories::default()
        })),
    }
}

pub(crate) fn record() -> MemoryRecord {
    MemoryRecord {
        id: plain::id(1),
        scope: Some(scope()),
        kind: "episode".to_owned(),
        content: plain::CONTENT.to_owned(),
        metadata: metadata(),
        importance: Some(0.5),
        created_at_micros: 1_794_000_000_000_000,
        updated_at_micros: 1_794_000_000_000_000,
        version: 1,
        content_hash: vec![0xa5; 32].into(),
        vectors: vec![VectorReference { embedding_id: 1, digest: vec![0xa5; 16].into() }],
        ..MemoryRecord::default()
    }
}
