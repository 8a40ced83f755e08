//! ImportMemories: batches in, acknowledged offsets out.
//!
//! ```text
//!   client --batches--> offsets checked --> prepared: a few at a time --> proposed: one after the other --> acknowledged
//! ```
//!
//! A batch is a write whose request id is made of the import's id and the batch's offset. So a batch that is sent again,
//! on whichever node and after whatever broke, is applied once within 24 hours, and a client that has lost everything but
//! its file begins at 0 again. Batches are proposed in order, since a later one may replace what an earlier one wrote;
//! turning text into vectors, checking and sealing go ahead of that. The failure of a batch ends the stream: nothing behind
//! it was proposed.

use std::sync::Arc;
use std::time::Duration;

use cairn_engine::{EMBEDDER_CHANGED, Principal, WriteRequest, WriteResponse};
use cairn_proto::storage::Command;
use cairn_proto::v1;
use cairn_proto::v1::import_memories_request::Message as Received;
use futures::{Stream, StreamExt as _, stream};
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, sleep};
use tonic::{Code, Request, Response, Status, Streaming};

use super::embedding::Knowledge;
use super::memories::Responses;
use super::outgoing::{End, hand_over, stream_of};
use super::{Call, MESSAGE_BYTES_MAX, REQUEST_BYTES_MAX, Record, Service};
use crate::auth::authenticate;
use crate::error::Problem;
use crate::telemetry::Operation;

/// Batches that are made ready while one is proposed.
const PREPARED_MAX: usize = 3;
/// Acknowledgements that wait for a client to read them.
const ACKNOWLEDGED_MAX: usize = 16;
/// How long one batch may take: a failover and some waiting for room.
const BATCH_TIME_MAX: Duration = Duration::from_secs(30);
/// Bytes of an import's id.
const IMPORT_ID_BYTES_MAX: usize = 64;

/// Serves the RPC. All that can go wrong is told within the stream.
pub(super) fn import(
    service: &Arc<Service>,
    request: Request<Streaming<v1::ImportMemoriesRequest>>,
) -> Result<Response<Responses<v1::ImportMemoriesResponse>>, Status> {
    let mut record = Record::new(&service.monitor, Operation::ImportMemories);
    let admitted = authenticate(request.metadata())
        .and_then(|principal| Ok((principal, service.import_gate.enter(service.monitor.metrics())?)));
    let (principal, place) = match admitted {
        Ok(admitted) => admitted,
        Err(problem) => {
            record.outcome = problem.outcome();
            return Err(problem.into_status(None));
        }
    };
    record.outcome = "ok";
    let (acknowledged, receiver) = mpsc::channel(ACKNOWLEDGED_MAX);
    let import = Import { service: Arc::clone(service), principal, acknowledged, _place: place };
    let (received, hinting) = (request.into_inner(), Arc::clone(service));
    let status = move |problem: Problem| problem.into_status(hinting.leader_hint().as_ref());
    let answers = stream_of(receiver, async move { import.run(received).await }, status);
    Ok(Response::new(Box::pin(answers)))
}

/// One open stream.
struct Import {
    service: Arc<Service>,
    principal: Principal,
    acknowledged: mpsc::Sender<v1::ImportMemoriesResponse>,
    _place: OwnedSemaphorePermit,
}

/// A batch that is ready for the log.
struct Prepared {
    command: Command,
    /// The number of memories of the import before this batch, and up to its end.
    offset: u64,
    end: u64,
}

impl Import {
    async fn run(&self, mut received: Streaming<v1::ImportMemoriesRequest>) -> Result<(), End> {
        let header = tokio::select! {
            header = header(&mut received) => header?,
            () = self.service.streams_end.cancelled() => return Err(stopping().into()),
        };
        let header = Arc::new(self.resolve(header).await?);
        let prepared = batches(received).map(|batch| self.make_ready(&header, batch)).buffered(PREPARED_MAX);
        let mut prepared = std::pin::pin!(prepared);
        loop {
            let next = tokio::select! {
                next = prepared.next() => next,
                () = self.acknowledged.closed() => return Err(End::Gone),
                () = self.service.streams_end.cancelled() => return Err(stopping().into()),
            };
            let Some(batch) = next else { return Ok(()) };
            let response = self.propose(batch?).await?;
            self.acknowledge(response).await?;
        }
    }

    fn call(&self) -> Call {
        Call { principal: self.principal.clone(), deadline: Instant::now() + BATCH_TIME_MAX }
    }

    /// Names the space itself, so that an alias that is switched in the midst of the import does not part it.
    async fn resolve(&self, mut header: v1::ImportHeader) -> Result<v1::ImportHeader, Problem> {
        let call = self.call();
        let point = self.service.read_point(&call, None).await?;
        let get = v1::GetSpaceRequest { name: header.space.clone(), consistency: None };
        let read =
            move |engine: &cairn_engine::Engine, principal: &_, point: &_| engine.get_space(principal, &get, point);
        let found = self.service.read_at(&call, point, read).await;
        let found = found.map_err(|problem| problem.rename_field("name", "header.space"))?;
        header.space = found.space.unwrap_or_default().name;
        Ok(header)
    }

    async fn make_ready(
        &self,
        header: &v1::ImportHeader,
        batch: Result<v1::ImportBatch, End>,
    ) -> Result<Prepared, End> {
        let v1::ImportBatch { offset, memories } = batch?;
        let end = offset + memories.len() as u64;
        let request = v1::AddMemoriesRequest {
            space: header.space.clone(),
            memories,
            write_mode: header.write_mode,
            request_id: request_id(&header.import_id, offset),
            actor: header.actor.clone(),
            reason: header.reason.clone(),
        };
        let call = self.call();
        let command = self
            .service
            .prepare(&call, WriteRequest::AddMemories(request), Knowledge::Own)
            .await
            .map_err(|problem| problem.rename_fields(field_of_import))?;
        Ok(Prepared { command, offset, end })
    }

    /// Proposes a batch, and waits while the node or the leader is busy: the stream is what holds the client back.
    async fn propose(&self, batch: Prepared) -> Result<v1::ImportMemoriesResponse, Problem> {
        let mut record = Record::new(&self.service.monitor, Operation::ImportMemories);
        let call = self.call();
        let problem = loop {
            let attempt = async {
                let _place = self.service.write_gate.enter(self.service.monitor.metrics())?;
                self.service.carry_out(&call, batch.command.clone()).await
            };
            let problem = match attempt.await {
                Ok(WriteResponse::AddMemories(added)) => {
                    record.outcome = "ok";
                    return Ok(v1::ImportMemoriesResponse {
                        acknowledged_offset: batch.end,
                        results: added.results,
                        position: added.position,
                    });
                }
                Ok(_) => break Problem::mismatch(),
                Err(problem) => problem,
            };
            match problem.overload_wait().filter(|wait| Instant::now() + *wait < call.deadline) {
                Some(wait) => sleep(wait).await,
                None => break problem,
            }
        };
        // The client sends the batch again, and then its vectors are made by the embedder of now.
        let changed = problem.reason() == EMBEDDER_CHANGED;
        let problem = if changed { Problem::unavailable(EMBEDDER_CHANGED, problem.to_string()) } else { problem };
        record.outcome = problem.outcome();
        Err(problem.rename_fields(|field| match field {
            "request_id" => format!("batch.offset (at {})", batch.offset),
            field => field_of_import(field),
        }))
    }

    async fn acknowledge(&self, response: v1::ImportMemoriesResponse) -> Result<(), End> {
        hand_over(&self.acknowledged, response, self.service.limits.stream_stall_timeout).await
    }
}

/// The first message of a stream.
async fn header(received: &mut Streaming<v1::ImportMemoriesRequest>) -> Result<v1::ImportHeader, End> {
    let first = received.message().await.map_err(|status| unreadable(&status))?;
    let Some(Received::Header(header)) = first.and_then(|first| first.message) else {
        return Err(Problem::invalid("header", "must be the first message of the stream").into());
    };
    let bytes = header.import_id.len();
    if bytes == 0 || bytes > IMPORT_ID_BYTES_MAX {
        let what = format!("has {bytes} bytes; 1 to {IMPORT_ID_BYTES_MAX} are allowed");
        return Err(Problem::invalid("header.import_id", what).into());
    }
    Ok(header)
}

/// The batches behind the header, in order and without gaps; ends after the first failure.
fn batches(received: Streaming<v1::ImportMemoriesRequest>) -> impl Stream<Item = Result<v1::ImportBatch, End>> {
    stream::unfold(Some((received, None)), |state| async move {
        let (mut received, expected) = state?;
        match next_batch(&mut received, expected).await {
            Ok(Some(batch)) => {
                let end = batch.offset + batch.memories.len() as u64;
                Some((Ok(batch), Some((received, Some(end)))))
            }
            Ok(None) => None,
            Err(end) => Some((Err(end), None)),
        }
    })
}

async fn next_batch(
    received: &mut Streaming<v1::ImportMemoriesRequest>,
    expected: Option<u64>,
) -> Result<Option<v1::ImportBatch>, End> {
    let Some(message) = received.message().await.map_err(|status| unreadable(&status))? else { return Ok(None) };
    let bytes = message.encoded_len();
    let Some(Received::Batch(batch)) = message.message else {
        return Err(Problem::invalid("batch", "must be set in every message behind the first").into());
    };
    if let Some(expected) = expected.filter(|expected| *expected != batch.offset) {
        let what = format!("is {}; {expected} is expected, where the batch before ended", batch.offset);
        return Err(Problem::invalid("batch.offset", what).into());
    }
    if batch.offset.checked_add(batch.memories.len() as u64).is_none() {
        return Err(Problem::invalid("batch.offset", format!("is {}, which no import reaches", batch.offset)).into());
    }
    if bytes > REQUEST_BYTES_MAX {
        let what = format!("the batch has {bytes} bytes; at most {REQUEST_BYTES_MAX} are allowed");
        return Err(Problem::invalid("batch.memories", what).into());
    }
    Ok(Some(batch))
}

/// What a message that could not be read means: one that is too large or none at all, else that the client is gone.
fn unreadable(status: &Status) -> End {
    let limit = MESSAGE_BYTES_MAX >> 20;
    match status.code() {
        Code::OutOfRange => Problem::invalid("batch", format!("a message holds at most {limit} MiB")).into(),
        Code::Internal if status.message().contains("decode Protobuf") => {
            Problem::invalid("batch", "is not a message of this method").into()
        }
        _ => End::Gone,
    }
}

/// The request id of a batch: at most 64 bytes, whatever the import is called.
fn request_id(import_id: &str, offset: u64) -> String {
    let hash = hex::encode(&Sha256::digest(import_id.as_bytes())[..16]);
    format!("import-{hash}-{offset}")
}

/// A field of AddMemories as a field of the message that it came from.
fn field_of_import(field: &str) -> String {
    let part = if field.starts_with("memories") { "batch" } else { "header" };
    format!("{part}.{field}")
}

fn stopping() -> Problem {
    Problem::unavailable(
        "NODE_STOPPED",
        "the node is stopping: go on at another one, from the last acknowledged offset",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_fit_and_differ() {
        let longest = request_id(&"x".repeat(IMPORT_ID_BYTES_MAX), u64::MAX);
        assert!(longest.len() <= 64, "{longest}");
        let ids = [request_id("a", 1), request_id("a", 11), request_id("a1", 1)];
        assert!(ids[0] != ids[1] && ids[0] != ids[2] && ids[1] != ids[2], "{ids:?}");
    }

    #[test]
    fn fields_are_named_where_the_client_wrote_them() {
        assert_eq!(field_of_import("memories[3].id"), "batch.memories[3].id");
        assert_eq!(field_of_import("actor"), "header.actor");
    }
}
