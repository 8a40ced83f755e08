//! `:import` over HTTP: the query names the import, each line of the body is a memory.
//!
//! ```text
//! curl -T memories.jsonl -H 'content-type: application/x-ndjson' '.../v1/spaces/notes/memories:import?import_id=monday'
//! ```
//!
//! Lines are put together to batches by their number and size alone, never by when they arrive: an import that goes on
//! from the last acknowledged offset sends the same batches again, which are then recognized. Each answer is a line.

use axum::body::{Body, BodyDataStream};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use cairn_proto::v1;
use cairn_proto::v1::import_memories_request::Message as Part;
use futures::StreamExt as _;
use prost::Message as _;
use prost_reflect::MessageDescriptor;
use serde_json::{Map, Value};

use super::calls::{Calls, metadata};
use super::gateway::off_thread;
use super::lines::{self, End, Lifetime, NDJSON};
use super::refusal::Refusal;
use super::routes::{PathValues, Route};
use super::{json, request};
use crate::error::Problem;

/// Memories in a batch.
const BATCH_MEMORIES_MAX: usize = 500;

/// Encoded bytes after which a batch is full. A single memory may be larger.
const BATCH_BYTES_FULL: usize = 1 << 20;

/// The longest line. The largest memory that is allowed is far below it.
const LINE_BYTES_MAX: usize = 8 << 20;

/// The parameter that says where the body goes on.
const OFFSET: &str = "offset";

/// Serves an import.
pub(super) async fn serve(
    calls: &Calls,
    route: &Route,
    values: &PathValues,
    parts: &Parts,
    body: Body,
    lifetime: Lifetime,
) -> Result<Response, Refusal> {
    check_type(parts)?;
    let pool = route.rpc.parent_pool();
    let message =
        |name: &str| pool.get_message_by_name(name).ok_or_else(|| Problem::internal("the node failed; see its log"));
    let (header, offset) = read_query(route, values, &message("cairn.v1.ImportHeader")?, parts)?;
    let header = v1::ImportHeader::decode(header).map_err(|error| Problem::invalid("request", error.to_string()))?;

    let end = End::default();
    let mut batches = Batches {
        body: body.into_data_stream(),
        memory: message("cairn.v1.Memory")?,
        buffer: BytesMut::new(),
        line_number: 0,
        offset,
        over: false,
    };
    // The first batch is read before the call, so that a mistake in it is a refusal of its own and no line of an answer.
    let first = batches.next().await?;
    let header = part(Part::Header(header));
    let first = futures::stream::iter([Some(header), first].into_iter().flatten());
    let state = (batches, std::sync::Arc::clone(&end));
    let rest = futures::stream::unfold(state, |(mut batches, end)| async move {
        match batches.next().await {
            Ok(batch) => Some((batch?, (batches, end))),
            Err(problem) => {
                *end.lock() = Some(problem);
                None
            }
        }
    });
    let responses = calls.streaming(&route.rpc, metadata(&parts.headers), first.chain(rest)).await?;
    let mut responses = responses.into_inner();
    // So is a refusal in place of the first acknowledgement.
    let first = match responses.next().await {
        Some(Err(status)) => return Err(status.into()),
        first => first,
    };
    let responses = futures::stream::iter(first).chain(responses);
    Ok(lines::response(responses, route.rpc.output(), lifetime, end))
}

fn check_type(parts: &Parts) -> Result<(), Refusal> {
    let given = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = given.split(';').next().unwrap_or_default().trim();
    if [NDJSON, "application/jsonl", "application/json-lines"]
        .iter()
        .any(|known| media_type.eq_ignore_ascii_case(known))
    {
        return Ok(());
    }
    let problem = Problem::http("UNSUPPORTED_MEDIA_TYPE", format!("content-type is {given:?}; send {NDJSON}"));
    Err(Refusal::with_http(StatusCode::UNSUPPORTED_MEDIA_TYPE, problem))
}

/// The encoded header of an import, and the number of memories before the body's first one.
fn read_query(
    route: &Route,
    values: &PathValues,
    descriptor: &MessageDescriptor,
    parts: &Parts,
) -> Result<(Bytes, u64), Problem> {
    let query = parts.uri.query().unwrap_or_default();
    let (mut offset, mut others) = (0, form_urlencoded::Serializer::new(String::new()));
    for (name, text) in form_urlencoded::parse(query.as_bytes()) {
        if name == OFFSET {
            offset =
                text.parse().map_err(|_| Problem::invalid(OFFSET, format!("{text:?} is no number of memories")))?;
        } else {
            others.append_pair(&name, &text);
        }
    }
    let mut object: Map<String, Value> = request::query(descriptor, &others.finish())?;
    request::complete(route.rule, descriptor, values, &mut object)?;
    Ok((json::encode(descriptor, Value::Object(object))?, offset))
}

fn part(message: Part) -> Bytes {
    v1::ImportMemoriesRequest { message: Some(message) }.encode_to_vec().into()
}

/// The batches of a body.
struct Batches {
    body: BodyDataStream,
    memory: MessageDescriptor,
    buffer: BytesMut,
    line_number: u64,
    offset: u64,
    over: bool,
}

impl Batches {
    /// The next batch, encoded; `None` at the end of the body.
    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        let (mut memories, mut bytes) = (Vec::new(), 0);
        while memories.len() < BATCH_MEMORIES_MAX && bytes < BATCH_BYTES_FULL {
            let Some(line) = self.line().await? else { break };
            let memory = self.read(line).await?;
            bytes += memory.encoded_len();
            memories.push(memory);
        }
        if memories.is_empty() {
            return Ok(None);
        }
        let batch = v1::ImportBatch { offset: self.offset, memories };
        self.offset += batch.memories.len() as u64;
        Ok(Some(part(Part::Batch(batch))))
    }

    async fn read(&mut self, line: Bytes) -> Result<v1::Memory, Problem> {
        let (descriptor, number) = (self.memory.clone(), self.line_number);
        off_thread(line.len(), move || {
            let message = json::parse(&line).and_then(|value| json::encode(&descriptor, value));
            let message = message.map_err(|problem| problem.below(&format!("line {number}")))?;
            v1::Memory::decode(message).map_err(|_| Problem::invalid(&format!("line {number}"), "is nested too deeply"))
        })
        .await
    }

    /// The next line that is not blank; `None` at the end of the body. A body that breaks off is an error, so that half
    /// a batch is never taken for a whole one.
    async fn line(&mut self) -> Result<Option<Bytes>, Problem> {
        let mut searched = 0;
        loop {
            if let Some(length) = self.buffer[searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(searched + length + 1).freeze();
                searched = 0;
                self.line_number += 1;
                if !line.trim_ascii().is_empty() {
                    return Ok(Some(line));
                }
                continue;
            }
            searched = self.buffer.len();
            if searched > LINE_BYTES_MAX {
                let field = format!("line {}", self.line_number + 1);
                return Err(Problem::invalid(&field, format!("holds more than {LINE_BYTES_MAX} bytes")));
            }
            if self.over {
                self.line_number += 1;
                let line = self.buffer.split().freeze();
                return Ok(Some(line).filter(|line| !line.trim_ascii().is_empty()));
            }
            match self.body.next().await {
                Some(Ok(chunk)) => self.buffer.extend_from_slice(&chunk),
                Some(Err(error)) => return Err(Problem::invalid("request", format!("the body broke off: {error}"))),
                None => self.over = true,
            }
        }
    }
}
