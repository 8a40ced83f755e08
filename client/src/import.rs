//! [`Import`]: any number of memories into a space, over whatever breaks on the way.
//!
//! ```text
//!   memories --> batches --> sent, and kept until acknowledged --> acknowledged
//!                               ^ the connection broke: sent again, under the same offsets
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use cairn_proto::v1::memory_service_client::MemoryServiceClient;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, Stream, StreamExt};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use crate::batch::{BATCH_BYTES_MAX, BATCH_COUNT_MAX, encoded_bytes};
use crate::call::{Core, Route, Sent};
use crate::client::history_builder;
use crate::endpoints::CallKind;
use crate::error::{Error, ErrorKind, Result};
use crate::proto::import_memories_request::Message;
use crate::results::{Position, WriteResult};
use crate::{Memory, proto};

/// Batches that may wait for their acknowledgement.
const UNACKNOWLEDGED_MAX: usize = 4;
/// Room for the rest of a message beside its memories.
const MESSAGE_OVERHEAD_BYTES: usize = 8 << 10;
/// A server that has batches and acknowledges none for this long is gone. It waits out a failover by itself.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long an import looks for a node by default.
const PATIENCE: Duration = Duration::from_secs(300);

/// What has been acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportProgress {
    /// All memories before this number are durable.
    pub acknowledged: u64,
    /// What was done with each memory of the batch.
    pub results: Vec<WriteResult>,
    /// Where in the log the batch is.
    pub position: Position,
}

/// An import that has not begun; give it the memories with [`stream`](Import::stream).
#[derive(Clone)]
#[must_use = "an import is carried out by its stream"]
pub struct Import {
    core: Arc<Core>,
    header: proto::ImportHeader,
    first_offset: u64,
    patience: Duration,
}

history_builder!(Import, header);

impl Import {
    pub(crate) fn new(core: Arc<Core>, space: String, import_id: String) -> Self {
        let header = proto::ImportHeader { space, import_id, ..Default::default() };
        Self { core, header, first_offset: 0, patience: PATIENCE }
    }

    /// Fails with `AlreadyExists` where an id is there already, instead of replacing the memory.
    pub fn insert_only(mut self) -> Self {
        self.header.write_mode = proto::WriteMode::Insert.into();
        self
    }

    /// Goes on behind so many memories that were acknowledged before; the stream then begins with the next one.
    pub fn from_offset(mut self, acknowledged: u64) -> Self {
        self.first_offset = acknowledged;
        self
    }

    /// How long to go on without an acknowledgement after the connection broke; 5 min where it is not said.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Sends the memories, in order, and tells what has been acknowledged. Each batch is atomic, the import is not. Ends
    /// after the last acknowledgement, or after the first error that a repetition would not mend; all memories before
    /// `acknowledged` are written then, and none behind the batch that failed.
    pub fn stream(
        self,
        memories: impl Stream<Item = Memory> + Send + 'static,
    ) -> BoxStream<'static, Result<ImportProgress>> {
        let importing = Importing {
            next_offset: self.first_offset,
            batcher: Batcher { memories: memories.boxed(), batch: Vec::new(), bytes: 0, next: None, ended: false },
            unacknowledged: VecDeque::new(),
            connection: None,
            began: false,
            lost: None,
            import: self,
        };
        stream::unfold(Some(importing), |importing| async move {
            let mut importing = importing?;
            match importing.next().await {
                Ok(Some(progress)) => Some((Ok(progress), Some(importing))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }
}

/// A call under way, without a reference to the import: memories may come from anywhere.
type Sending<T> = BoxFuture<'static, Result<T>>;
type Requests = mpsc::Sender<proto::ImportMemoriesRequest>;
type Responses = tonic::Streaming<proto::ImportMemoriesResponse>;

/// An import on its way.
struct Importing {
    import: Import,
    batcher: Batcher,
    next_offset: u64,
    unacknowledged: VecDeque<proto::ImportBatch>,
    connection: Option<(Requests, Responses)>,
    /// Whether a connection was there at all.
    began: bool,
    /// Since when nothing was acknowledged, and how many connections broke.
    lost: Option<(Instant, u32)>,
}

/// What happened first.
enum Event {
    Batch(Option<Vec<proto::Memory>>),
    Response(std::result::Result<Option<proto::ImportMemoriesResponse>, tonic::Status>),
    Silence,
}

impl Importing {
    async fn next(&mut self) -> Result<Option<ImportProgress>> {
        loop {
            let error = match self.step().await {
                Ok(Step::Goes) => continue,
                Ok(Step::Acknowledged(progress)) => {
                    self.lost = None;
                    return Ok(Some(progress));
                }
                Ok(Step::Done) => return Ok(None),
                Err(error) => error,
            };
            self.connection = None;
            let (since, failures) = self.lost.map_or((Instant::now(), 1), |(since, failures)| (since, failures + 1));
            self.lost = Some((since, failures));
            if !error.is_retryable() || !self.began || since.elapsed() >= self.import.patience {
                return Err(error);
            }
            let wait = self.import.core.retry.backoff(failures, rand::random());
            tokio::time::sleep(error.retry_after().unwrap_or_default() + wait).await;
        }
    }

    async fn step(&mut self) -> Result<Step> {
        if self.batcher.ended && self.unacknowledged.is_empty() {
            return Ok(Step::Done);
        }
        let is_full = self.unacknowledged.len() >= UNACKNOWLEDGED_MAX;
        if self.connection.is_none() && self.unacknowledged.is_empty() {
            // Nothing to say yet: no connection is kept waiting for a source that is slow.
            let batch = self.batcher.next().await;
            self.keep(batch);
            return Ok(Step::Goes);
        }
        let (requests, responses) = match &mut self.connection {
            Some(connection) => connection,
            None => {
                let connection = self.connect().await?;
                self.began = true;
                self.connection.insert(connection)
            }
        };
        let may_wait = if self.unacknowledged.is_empty() { Duration::MAX } else { SILENCE_MAX };
        let event = tokio::select! {
            biased;
            response = responses.message() => Event::Response(response),
            batch = self.batcher.next(), if !is_full && !self.batcher.ended => Event::Batch(batch),
            () = silence(may_wait) => Event::Silence,
        };
        match event {
            Event::Batch(batch) => {
                let requests = requests.clone();
                if let Some(batch) = self.keep(batch) {
                    // Where the connection is gone, the responses say why.
                    let _ = requests.send(request(Message::Batch(batch))).await;
                }
                Ok(Step::Goes)
            }
            Event::Response(Ok(Some(response))) => self.acknowledge(response),
            Event::Response(Ok(None)) => Err(Error::new(ErrorKind::Unavailable, "the import ended without a reason")),
            Event::Response(Err(status)) => Err(Error::from_status(&status)),
            Event::Silence => {
                let silence = format!("nothing was acknowledged for {} s", SILENCE_MAX.as_secs());
                Err(Error::new(ErrorKind::Unavailable, silence))
            }
        }
    }

    /// Keeps a batch until it is acknowledged; `None` at the end of the memories.
    fn keep(&mut self, memories: Option<Vec<proto::Memory>>) -> Option<proto::ImportBatch> {
        let batch = proto::ImportBatch { offset: self.next_offset, memories: memories? };
        self.next_offset += batch.memories.len() as u64;
        self.unacknowledged.push_back(batch.clone());
        Some(batch)
    }

    fn acknowledge(&mut self, response: proto::ImportMemoriesResponse) -> Result<Step> {
        let batch = self.unacknowledged.pop_front().ok_or_else(|| Error::malformed("a batch to acknowledge"))?;
        let end = batch.offset + batch.memories.len() as u64;
        if response.acknowledged_offset != end || response.results.len() != batch.memories.len() {
            return Err(Error::malformed("the acknowledgement of a batch"));
        }
        let progress = ImportProgress {
            acknowledged: end,
            results: response.results.into_iter().map(WriteResult::from_proto).collect::<Result<_>>()?,
            position: response.position.into(),
        };
        Ok(Step::Acknowledged(progress))
    }

    /// Opens a stream that begins with the header and all that is not acknowledged.
    fn connect(&self) -> Sending<(Requests, Responses)> {
        let header = request(Message::Header(self.import.header.clone()));
        let batches = self.unacknowledged.iter().map(|batch| request(Message::Batch(batch.clone())));
        let first: Vec<_> = std::iter::once(header).chain(batches).collect();
        Box::pin(self.import.core.clone().call(CallKind::Write, None, first, open))
    }
}

/// What a step of an import led to.
enum Step {
    Goes,
    Acknowledged(ImportProgress),
    Done,
}

fn request(message: Message) -> proto::ImportMemoriesRequest {
    proto::ImportMemoriesRequest { message: Some(message) }
}

/// Opens one stream at one node, with its first messages.
fn open(route: Route, first: tonic::Request<Vec<proto::ImportMemoriesRequest>>) -> Sent<(Requests, Responses)> {
    Box::pin(async move {
        let (metadata, extensions, first) = first.into_parts();
        // Room for the header and for every batch that may be on its way.
        let (requests, messages) = mpsc::channel(UNACKNOWLEDGED_MAX + 1);
        for message in first {
            // There is room, and the other end is in this very function.
            let _ = requests.try_send(message);
        }
        let messages = tonic::Request::from_parts(metadata, extensions, ReceiverStream::new(messages));
        let mut client = MemoryServiceClient::new(route.channel).max_decoding_message_size(route.response_bytes_max);
        let response = client.import_memories(messages).await?;
        Ok(response.map(|responses| (requests, responses)))
    })
}

async fn silence(max: Duration) {
    if max == Duration::MAX {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(max).await;
}

/// Cuts memories into batches as they come. Nothing is lost when [`next`](Batcher::next) is dropped half-way.
struct Batcher {
    memories: BoxStream<'static, Memory>,
    batch: Vec<proto::Memory>,
    bytes: usize,
    /// Did not fit into the batch before.
    next: Option<(proto::Memory, usize)>,
    ended: bool,
}

impl Batcher {
    async fn next(&mut self) -> Option<Vec<proto::Memory>> {
        const BYTES_MAX: usize = BATCH_BYTES_MAX - MESSAGE_OVERHEAD_BYTES;
        loop {
            if let Some((memory, bytes)) = self.next.take() {
                self.bytes += bytes;
                self.batch.push(memory);
            }
            if self.batch.len() >= BATCH_COUNT_MAX {
                return self.cut();
            }
            match self.memories.next().await {
                None => {
                    self.ended = true;
                    return self.cut();
                }
                Some(memory) => {
                    let bytes = encoded_bytes(&memory);
                    self.next = Some((memory.into(), bytes));
                    if self.bytes + bytes > BYTES_MAX && !self.batch.is_empty() {
                        return self.cut();
                    }
                }
            }
        }
    }

    fn cut(&mut self) -> Option<Vec<proto::Memory>> {
        self.bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        (!batch.is_empty()).then_some(batch)
    }
}
