//! The messages as plain structs, for codecs that derive their format from the order of fields, and their content.

use std::collections::BTreeMap;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// Dimension of the vectors: that of all-MiniLM-L6-v2.
pub(crate) const DIMENSION: usize = 384;
pub(crate) const CONTENT: &str = "The user asked for the flight to Lisbon to be moved to the morning, since the meeting \
    with the supplier starts at two and the airport is an hour away. They prefer an aisle seat, and asked twice whether \
    the hotel near the river has a quiet room. Confirm by message, not by phone.";

#[derive(Serialize, Deserialize, Encode, Decode)]
pub(crate) struct Mutation {
    request: RequestKey,
    operation: Operation,
}

#[derive(Serialize, Deserialize, Encode, Decode)]
struct RequestKey {
    principal: String,
    method: u32,
    request_id: String,
    fingerprint: Vec<u8>,
    generated: bool,
}

#[derive(Serialize, Deserialize, Encode, Decode)]
enum Operation {
    AddMemories(AddMemories),
}

#[derive(Serialize, Deserialize, Encode, Decode)]
struct AddMemories {
    space: String,
    memories: Vec<Memory>,
    insert_only: bool,
    actor: String,
    reason: String,
}

#[derive(Serialize, Deserialize, Encode, Decode)]
struct Memory {
    id: String,
    scope: Option<Scope>,
    kind: String,
    content: String,
    metadata: BTreeMap<String, Value>,
    vectors: Vec<Vector>,
    importance: Option<f32>,
    created_at_micros: Option<i64>,
    updated_at_micros: Option<i64>,
    expires_at_micros: Option<i64>,
    version: u64,
    content_hash: Vec<u8>,
}

#[derive(Serialize, Deserialize, Encode, Decode)]
struct Scope {
    agent_id: Option<String>,
    user_id: Option<String>,
    session_id: Option<String>,
    namespace: Option<String>,
}

#[derive(Serialize, Deserialize, Encode, Decode)]
enum Value {
    Bool(bool),
    Integer(i64),
    Double(f64),
    String(String),
}

#[derive(Serialize, Deserialize, Encode, Decode)]
struct Vector {
    embedding: String,
    dense: Vec<f32>,
}

#[derive(Serialize, Deserialize, Encode, Decode)]
pub(crate) struct MemoryRecord {
    id: String,
    scope: Option<Scope>,
    kind: String,
    content: String,
    metadata: BTreeMap<String, Value>,
    importance: Option<f32>,
    created_at_micros: i64,
    updated_at_micros: i64,
    expires_at_micros: Option<i64>,
    version: u64,
    content_hash: Vec<u8>,
    vectors: Vec<VectorReference>,
    actor: String,
    reason: String,
}

#[derive(Serialize, Deserialize, Encode, Decode)]
struct VectorReference {
    embedding_id: u32,
    digest: Vec<u8>,
}

/// A memory's id; its number makes it differ from the others.
pub(crate) fn id(number: usize) -> String {
    format!("0198c1f2-7a3b-7c4d-8e5f-{number:012x}")
}

/// The values of a unit vector, spread as embeddings are.
pub(crate) fn vector(number: usize) -> Vec<f32> {
    let value = |i: usize| ((number * 31 + i) as f32 * 12.9898).sin();
    let norm = (0..DIMENSION).map(|i| value(i).powi(2)).sum::<f32>().sqrt();
    (0..DIMENSION).map(|i| value(i) / norm).collect()
}

fn scope() -> Scope {
    Scope {
        agent_id: Some("travel-assistant".to_owned()),
        user_id: Some("user-4711".to_owned()),
        session_id: Some("0198c1f2-7a3b".to_owned()),
        namespace: Some("trips/2026/lisbon".to_owned()),
    }
}

fn metadata() -> BTreeMap<String, Value> {
    BTreeMap::from([
        ("source".to_owned(), Value::String("chat".to_owned())),
        ("confirmed".to_owned(), Value::Bool(true)),
        ("turn".to_owned(), Value::Integer(17)),
        ("confidence".to_owned(), Value::Double(0.875)),
        ("topic".to_owned(), Value::String("travel".to_owned())),
    ])
}

fn memory(number: usize) -> Memory {
    Memory {
        id: id(number),
        scope: Some(scope()),
        kind: "episode".to_owned(),
        content: CONTENT.to_owned(),
        metadata: metadata(),
        vectors: vec![Vector { embedding: String::new(), dense: vector(number) }],
        importance: Some(0.5),
        created_at_micros: Some(1_794_000_000_000_000),
        updated_at_micros: None,
        expires_at_micros: None,
        version: 0,
        content_hash: Vec::new(),
    }
}

pub(crate) fn mutation(items: usize) -> Mutation {
    Mutation {
        request: RequestKey {
            principal: "assistant-service".to_owned(),
            method: 1,
            request_id: id(0),
            fingerprint: vec![0xa5; 16],
            generated: false,
        },
        operation: Operation::AddMemories(AddMemories {
            space: "default".to_owned(),
            memories: (0..items).map(memory).collect(),
            insert_only: false,
            actor: String::new(),
            reason: String::new(),
        }),
    }
}

pub(crate) fn record() -> MemoryRecord {
    MemoryRecord {
        id: id(1),
        scope: Some(scope()),
        kind: "episode".to_owned(),
        content: CONTENT.to_owned(),
        metadata: metadata(),
        importance: Some(0.5),
        created_at_micros: 1_794_000_000_000_000,
        updated_at_micros: 1_794_000_000_000_000,
        expires_at_micros: None,
        version: 1,
        content_hash: vec![0xa5; 32],
        vectors: vec![VectorReference { embedding_id: 1, digest: vec![0xa5; 16] }],
        actor: String::new(),
        reason: String::new(),
    }
}
