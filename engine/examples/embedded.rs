//! The engine inside a program, without Raft: the program keeps its own order of commands by counting log ids.
//!
//! ```text
//! cargo run --release -p cairn-engine --example embedded
//! ```

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use cairn_engine::crypto::{ClusterId, TenantId};
use cairn_engine::keyring::{Keyring, RootKey};
use cairn_engine::{
    ApplyEntry, Engine, EntryBody, LogId, Options, Position, Principal, ReadPoint, WriteRequest, WriteResponse,
};
use cairn_proto::storage::Command;
use cairn_proto::v1;

/// An engine and the number of its last command.
struct Embedded {
    engine: Engine,
    index: u64,
}

/// Whoever embeds the engine tells it the time.
#[expect(clippy::disallowed_methods, reason = "the engine has no clock, its user has")]
fn now_micros() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX)
}

impl Embedded {
    /// Stamps a command and applies it. It is durable after the next `flush`; a program that needs every write durable
    /// keeps the commands in a log of its own and applies them again from `durable_applied` on.
    fn write(&mut self, mut command: Command) -> cairn_engine::Result<WriteResponse> {
        command.stamp_micros = now_micros();
        self.index += 1;
        let log_id = LogId { term: 1, node_id: 1, index: self.index };
        let outcomes = self.engine.apply(&[ApplyEntry { log_id, body: EntryBody::Command(command) }])?;
        self.engine.respond(&outcomes[0], Position::at(self.index))
    }
}

fn memory(id: &str, content: &str, values: [f32; 3]) -> v1::Memory {
    let dense = v1::vector::Data::Dense(v1::DenseVector { values: values.to_vec() });
    let vectors = vec![v1::Vector { embedding: String::new(), data: Some(dense) }];
    v1::Memory { id: id.into(), content: content.into(), vectors, ..v1::Memory::default() }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let root = RootKey::generate_file(&dir.path().join("root.key"))?;
    let keyring = Arc::new(Keyring::create(&dir.path().join("keyring"), &root, ClusterId::generate()?)?);
    let engine = Engine::open(&Options::new(dir.path().join("store")), keyring)?;
    let mut embedded = Embedded { engine, index: 0 };

    let tenant = TenantId::DEFAULT;
    let command = embedded.engine.prepare_create_tenant(tenant, "default")?;
    embedded.write(command)?;

    let me = Principal::new(tenant, "example");
    let dense = v1::DenseEmbedding { dimension: 3, ..v1::DenseEmbedding::default() };
    let embedding = v1::Embedding { kind: Some(v1::embedding::Kind::Dense(dense)), ..v1::Embedding::default() };
    let space = v1::Space { name: "notes".into(), embeddings: vec![embedding], ..v1::Space::default() };
    let request = v1::CreateSpaceRequest { space: Some(space), request_id: String::new() };
    let command = embedded.engine.prepare(&me, WriteRequest::CreateSpace(request))?;
    embedded.write(command)?;

    let request = v1::AddMemoriesRequest {
        space: "notes".into(),
        memories: vec![
            memory("tea", "The user drinks green tea.", [1.0, 0.1, 0.0]),
            memory("bike", "The user cycles to work.", [0.0, 1.0, 0.2]),
        ],
        ..v1::AddMemoriesRequest::default()
    };
    let command = embedded.engine.prepare(&me, WriteRequest::AddMemories(request))?;
    embedded.write(command)?;
    embedded.engine.flush()?;

    let query = memory("", "", [0.9, 0.2, 0.0]).vectors;
    let request = v1::SearchMemoriesRequest {
        space: "notes".into(),
        query: Some(v1::search_memories_request::Query::Vectors(v1::QueryVectors { vectors: query })),
        limit: 1,
        ..v1::SearchMemoriesRequest::default()
    };
    let at = ReadPoint { index: embedded.index, time_micros: now_micros() };
    for hit in embedded.engine.search_memories(&me, &request, &at)?.hits {
        let memory = hit.memory.unwrap_or_default();
        println!("{:.3}  {}  {}", hit.score, memory.id, memory.content);
    }
    Ok(())
}
