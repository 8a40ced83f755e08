//! Clients of a simulated cluster, which write down every call, and what is asked of the cluster at the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cairn_engine::{ReadPoint, WriteRequest, WriteResponse};
use cairn_proto::v1;

use super::history::{History, Op, Ret};
use super::node::{SimNode, alice};
use super::runtime::sleep;
use super::world::World;

/// The space that clients write to.
pub(super) const SPACE: &str = "register";
/// Memories that are in use at one time.
const KEYS: u64 = 3;
/// Calls to one memory, about: the search for an order grows quickly with them.
const CALLS_PER_KEY: u64 = 16;
const CALL_WITHIN: Duration = Duration::from_secs(3);

pub(super) fn space() -> WriteRequest {
    let dense = v1::DenseEmbedding { dimension: 2, metric: v1::Metric::Cosine.into(), ..Default::default() };
    let embedding = v1::Embedding {
        name: "default".to_string(),
        kind: Some(v1::embedding::Kind::Dense(dense)),
        ..Default::default()
    };
    let space = v1::Space { name: SPACE.to_string(), embeddings: vec![embedding], ..Default::default() };
    WriteRequest::CreateSpace(v1::CreateSpaceRequest { space: Some(space), request_id: "space".to_string() })
}

fn vector(value: f32) -> v1::Vector {
    let values = vec![1.0, value + 1.0];
    let data = Some(v1::vector::Data::Dense(v1::DenseVector { values }));
    v1::Vector { embedding: String::new(), data }
}

fn request(key: &str, op: &Op, request_id: String) -> WriteRequest {
    match op {
        Op::Write(value) => {
            let memory = v1::Memory {
                id: key.to_string(),
                content: value.to_string(),
                vectors: vec![vector(*value as f32)],
                ..Default::default()
            };
            WriteRequest::AddMemories(v1::AddMemoriesRequest {
                space: SPACE.to_string(),
                memories: vec![memory],
                write_mode: v1::WriteMode::Upsert.into(),
                request_id,
                ..Default::default()
            })
        }
        Op::Delete | Op::Read => {
            let ids = v1::MemoryIds { ids: vec![key.to_string()] };
            let target = Some(v1::delete_memories_request::Target::Ids(ids));
            WriteRequest::DeleteMemories(v1::DeleteMemoriesRequest { space: SPACE.to_string(), target, request_id })
        }
    }
}

/// Carries out a call on a node; `None` when nobody knows what became of it.
async fn carry_out(node: Arc<SimNode>, key: String, op: Op, call: u64) -> Option<Ret> {
    if op == Op::Read {
        let point = Arc::clone(&node).read_point(CALL_WITHIN).await?;
        return Some(Ret::Value(read(&node, &key, &point)));
    }
    let engine = node.shared.generations.current();
    let command = engine.prepare(&alice(), request(&key, &op, format!("call-{call}"))).ok()?;
    drop(engine);
    let (position, outcome) = Arc::clone(&node).propose(command, CALL_WITHIN).await?;
    match node.shared.generations.current().respond(&outcome, position) {
        Ok(WriteResponse::AddMemories(_)) => Some(Ret::Written),
        Ok(WriteResponse::DeleteMemories(deleted)) => Some(Ret::Deleted(deleted.deleted_count == 1)),
        other => {
            node.world().violate(format!("{key}: {op:?} brings {other:?}"));
            None
        }
    }
}

/// The value of a memory.
fn read(node: &SimNode, key: &str, point: &ReadPoint) -> Option<u64> {
    let request = v1::GetMemoriesRequest { space: SPACE.to_string(), ids: vec![key.to_string()], ..Default::default() };
    match node.shared.generations.current().get_memories(&alice(), &request, point) {
        Ok(found) => found.memories.first().map(|memory| memory.content.parse().unwrap()),
        Err(error) => {
            node.world().violate(format!("{key}: a read at {} fails: {error}", point.index));
            None
        }
    }
}

/// Calls one node after the other until the end.
pub(super) async fn work(world: Arc<World>, history: Arc<History>, is_over: Arc<AtomicBool>) {
    while !is_over.load(Ordering::Relaxed) {
        let pick = |bound: u64| world.executor.below(bound);
        let ids = world.ids();
        let id = ids[pick(ids.len() as u64) as usize];
        let key = history.next_key(KEYS, CALLS_PER_KEY, pick(KEYS));
        let op = match pick(10) {
            0..4 => Op::Write(history.next_value()),
            4 => Op::Delete,
            _ => Op::Read,
        };
        if !call(&world, &history, id, &key, &op).await {
            sleep(Duration::from_millis(100)).await;
        }
        sleep(world.executor.between(Duration::from_millis(5), Duration::from_millis(120))).await;
    }
}

/// One call, written down before it is sent and when it is answered. Returns whether it was answered.
pub(super) async fn call(world: &Arc<World>, history: &History, id: u64, key: &str, op: &Op) -> bool {
    let Some(node) = world.node(id) else { return false };
    let call = history.invoke(key, op);
    world.executor.trace(&format_args!("call {call} to {id}: {op:?} {key}"));
    let answering = world.executor.spawn_on(node.host, carry_out(node, key.to_string(), op.clone(), call));
    match answering.await {
        Ok(Some(answer)) => {
            world.executor.trace(&format_args!("call {call} answered: {answer:?}"));
            history.answer(call, key, answer);
            true
        }
        Ok(None) | Err(_) => {
            world.executor.trace(&format_args!("call {call} lost"));
            history.lose(op);
            false
        }
    }
}

/// Whether a node finds exactly these memories, by an exact search and by a count.
pub(super) fn check_completeness(node: &SimNode, present: &[String], point: &ReadPoint) {
    let engine = node.shared.generations.current();
    let query = v1::search_memories_request::Query::Vectors(v1::QueryVectors { vectors: vec![vector(1.0)] });
    let search = v1::SearchMemoriesRequest {
        space: SPACE.to_string(),
        query: Some(query),
        limit: 1000,
        params: Some(v1::SearchParams { exact: true, ..Default::default() }),
        ..Default::default()
    };
    let found = engine.search_memories(&alice(), &search, point).map(|found| {
        let ids = found.hits.into_iter().filter_map(|hit| hit.memory.map(|memory| memory.id));
        let mut ids: Vec<String> = ids.collect();
        ids.sort_unstable();
        ids
    });
    if found.as_deref().ok() != Some(present) {
        node.world().violate(format!("node {} finds {found:?}, not {present:?}", node.id));
    }
    let count = v1::CountMemoriesRequest { space: SPACE.to_string(), ..Default::default() };
    let count = engine.count_memories(&alice(), &count, point).map(|count| count.count);
    if count.as_ref().ok() != Some(&(present.len() as u64)) {
        node.world().violate(format!("node {} counts {count:?}, not {}", node.id, present.len()));
    }
}
