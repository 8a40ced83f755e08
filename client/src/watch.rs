//! [`Watch`]: the changes of a space as a stream that survives the nodes that it comes from.

use std::sync::Arc;
use std::time::Duration;

use cairn_proto::v1::memory_service_client::MemoryServiceClient;
use futures::stream::{self, BoxStream, StreamExt};
use tokio::time::Instant;

use crate::call::{Core, method};
use crate::endpoints::CallKind;
use crate::error::{Error, ErrorKind, Result};
use crate::proto::watch_memories_response::Message;
use crate::results::Position;
use crate::{Memory, Scope, Timestamp, proto};

/// A server says something every few seconds; one that is silent for this long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// What a watch tells.
#[derive(Debug, Clone, PartialEq)]
pub enum WatchEvent {
    /// A memory changed.
    Change(Box<Change>),
    /// Nothing else happened up to here. The first event of a watch tells the position that it begins behind.
    Progress(Position),
}

impl WatchEvent {
    /// Give this to another watch as `after` to go on behind this event.
    pub fn position(&self) -> &Position {
        match self {
            Self::Change(change) => &change.position,
            Self::Progress(position) => position,
        }
    }
}

/// What happened to a memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It was written for the first time.
    Created,
    /// It was replaced or changed.
    Updated,
    /// It was deleted.
    Deleted,
    /// Its time was over.
    Expired,
}

/// A change of one memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// The memory's id.
    pub id: String,
    /// The version after the change; of a memory that is gone, its last one.
    pub version: u64,
    /// When.
    pub changed_at: Option<Timestamp>,
    /// The memory, where asked for and still there in this version.
    pub memory: Option<Memory>,
    /// Give this to another watch as `after` to go on behind this change.
    pub position: Position,
}

/// A watch that is not open yet; turn it into a [`stream`](Watch::stream).
#[derive(Clone)]
#[must_use = "a watch is opened by its stream"]
pub struct Watch {
    core: Arc<Core>,
    request: proto::WatchMemoriesRequest,
    patience: Duration,
}

impl Watch {
    pub(crate) fn new(core: Arc<Core>, space: String) -> Self {
        let request = proto::WatchMemoriesRequest { space, ..Default::default() };
        Self { core, request, patience: Duration::MAX }
    }

    /// Only changes of memories of this scope.
    pub fn scope(mut self, scope: Scope) -> Self {
        self.request.scope = scope.into_proto();
        self
    }

    /// Only changes behind this position, which any write, read or event told; from now on where it is not said. A
    /// position that is no longer kept is `OutOfRange`: list the memories anew, and watch from the position of the list.
    pub fn after(mut self, position: impl Into<Position>) -> Self {
        self.request.after = position.into().as_str().to_owned();
        self
    }

    /// Sends the memories themselves beside their ids.
    pub fn include_memory(mut self, include: bool) -> Self {
        self.request.include_memory = include;
        self
    }

    /// How long to look for a node after one was lost; for ever where it is not said. The first connection is given as
    /// long as any call.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The events, in order, none left out and none twice: when a node stops, hangs or sheds the stream, it goes on at
    /// another one behind the last event. Ends after the first error that a repetition would not mend.
    pub fn stream(self) -> BoxStream<'static, Result<WatchEvent>> {
        let following = Following { watch: self, open: None, began: false, lost: None };
        stream::unfold(Some(following), |following| async move {
            let mut following = following?;
            match following.next().await {
                Ok(event) => Some((Ok(event), Some(following))),
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }
}

/// An open watch, and how far it is.
struct Following {
    watch: Watch,
    open: Option<tonic::Streaming<proto::WatchMemoriesResponse>>,
    /// Whether any event has come yet.
    began: bool,
    /// Since when there is no node, and how many tries failed.
    lost: Option<(Instant, u32)>,
}

impl Following {
    async fn next(&mut self) -> Result<WatchEvent> {
        loop {
            let error = match self.receive().await {
                Ok(event) => {
                    event.position().as_str().clone_into(&mut self.watch.request.after);
                    self.began = true;
                    self.lost = None;
                    return Ok(event);
                }
                Err(error) => error,
            };
            self.open = None;
            let (since, failures) = self.lost.map_or((Instant::now(), 1), |(since, failures)| (since, failures + 1));
            self.lost = Some((since, failures));
            // Before its first event nobody relies on the watch; afterwards a missing node is a reason to wait.
            let over = !self.began || since.elapsed() >= self.watch.patience;
            if over || !error.is_retryable() {
                return Err(error);
            }
            let wait = self.watch.core.retry.backoff(failures, rand::random());
            tokio::time::sleep(error.retry_after().unwrap_or_default() + wait).await;
        }
    }

    /// The next event of the stream that is open, or of one that is opened.
    async fn receive(&mut self) -> Result<WatchEvent> {
        let stream = match &mut self.open {
            Some(stream) => stream,
            None => {
                let send = method!(MemoryServiceClient, watch_memories);
                let request = self.watch.request.clone();
                let opened = self.watch.core.clone().call(CallKind::Read, None, request, send).await?;
                self.open.insert(opened)
            }
        };
        match tokio::time::timeout(SILENCE_MAX, stream.message()).await {
            Ok(Ok(Some(response))) => WatchEvent::from_proto(response),
            Ok(Ok(None)) => Err(Error::new(ErrorKind::Unavailable, "the watch ended without a reason")),
            Ok(Err(status)) => Err(Error::from_status(&status)),
            Err(_) => {
                let silence = format!("the watch was silent for {} s", SILENCE_MAX.as_secs());
                Err(Error::new(ErrorKind::Unavailable, silence))
            }
        }
    }
}

impl WatchEvent {
    /// # Errors
    /// `Internal` where the message is none of both, or the change is of no known kind.
    fn from_proto(response: proto::WatchMemoriesResponse) -> Result<Self> {
        let change = match response.message {
            Some(Message::Progress(progress)) => return Ok(Self::Progress(progress.position.into())),
            Some(Message::Change(change)) => change,
            None => return Err(Error::malformed("the message of a watch")),
        };
        let kind = change_kind(change.r#type())?;
        Ok(Self::Change(Box::new(Change {
            kind,
            id: change.id,
            version: change.version,
            changed_at: change.changed_at.map(Into::into),
            memory: change.memory.map(Into::into),
            position: change.position.into(),
        })))
    }
}

/// # Errors
/// `Internal` where it is of no known kind.
pub(crate) fn change_kind(kind: proto::ChangeType) -> Result<ChangeKind> {
    match kind {
        proto::ChangeType::Created => Ok(ChangeKind::Created),
        proto::ChangeType::Updated => Ok(ChangeKind::Updated),
        proto::ChangeType::Deleted => Ok(ChangeKind::Deleted),
        proto::ChangeType::Expired => Ok(ChangeKind::Expired),
        proto::ChangeType::Unspecified => Err(Error::malformed("the kind of a change")),
    }
}
