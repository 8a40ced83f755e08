//! WatchMemories: a stream that follows the feed of a space.
//!
//! ```text
//!   apply --progress--> task: anything new in the space? --no--> wait, without touching the disk
//!                         | yes
//!                         v
//!                       one page of the feed --> channel of one page --> client
//! ```
//!
//! What is to be sent lies in the feed, not in memory: a client that reads slowly makes its task wait. One that does not
//! read at all is shed, and one that falls behind what the feed keeps gets OUT_OF_RANGE.

use std::sync::Arc;
use std::time::Duration;

use cairn_engine::{FeedCursor, FeedPage, Position};
use cairn_proto::v1;
use cairn_proto::v1::watch_memories_response::Message as Sent;
use cairn_raft::ReadLevel;
use futures::{StreamExt as _, stream};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, interval_at};
use tonic::{Request, Response, Status};

use super::memories::Responses;
use super::outgoing::{End, hand_over, stream_of};
use super::{Call, Effect, Service};
use crate::error::Problem;
use crate::telemetry::Operation;

/// How often a quiet stream says that it lives, and how far it is.
const SIGN_INTERVAL: Duration = Duration::from_secs(5);

type Batch = Vec<v1::WatchMemoriesResponse>;

/// Serves the RPC: the stream is open once the position it begins behind is known to be kept.
pub(super) async fn watch(
    service: &Arc<Service>,
    request: Request<v1::WatchMemoriesRequest>,
) -> Result<Response<Responses<v1::WatchMemoriesResponse>>, Status> {
    let work = |call, message| open(Arc::clone(service), call, message);
    service.serve(Operation::WatchMemories, Effect::Observe, request, work).await
}

async fn open(
    service: Arc<Service>,
    call: Call,
    message: v1::WatchMemoriesRequest,
) -> Result<Responses<v1::WatchMemoriesResponse>, Problem> {
    let place = service.stream_gate.enter(service.monitor.metrics())?;
    let mut point = service.read_point(&call, None).await?;
    if !message.after.is_empty() {
        let after = Position::decode("after", &message.after)?;
        // Another node may have told a position that has not come here yet.
        if after.index > point.index {
            let waited = service.node.read_point(ReadLevel::AtLeast(after), call.deadline.into_std()).await;
            point = waited.map_err(|error| Problem::from(error).rename_field("consistency.at_least", "after"))?;
        }
    }
    let open =
        move |engine: &cairn_engine::Engine, principal: &_, point: &_| engine.open_feed(principal, &message, point);
    let cursor = service.read_at(&call, point, open).await?;
    let (pages, receiver) = mpsc::channel(1);
    let watch = Watch { service, call, cursor, pages, _place: place };
    let batches = stream_of(receiver, watch.run(), |problem| problem.into_status(None));
    let changes = batches.flat_map(|batch: Result<Batch, Status>| match batch {
        Ok(batch) => stream::iter(batch.into_iter().map(Ok).collect::<Vec<_>>()),
        Err(status) => stream::iter(vec![Err(status)]),
    });
    Ok(Box::pin(changes))
}

/// One open stream.
struct Watch {
    service: Arc<Service>,
    call: Call,
    cursor: FeedCursor,
    pages: mpsc::Sender<Batch>,
    _place: OwnedSemaphorePermit,
}

impl Watch {
    async fn run(mut self) -> Result<(), End> {
        let service = Arc::clone(&self.service);
        let mut progress = service.node.progress();
        let mut signs = interval_at(Instant::now() + SIGN_INTERVAL, SIGN_INTERVAL);
        // Tells where the stream begins, so that a client can go on from there whatever happens next.
        self.send_position().await?;
        loop {
            // Marked as seen before the look, so that what comes behind it wakes this task again.
            progress.borrow_and_update();
            if !service.node.engine().skip_feed(&mut self.cursor) {
                let page = self.read().await?;
                self.cursor = page.cursor;
                if !page.changes.is_empty() {
                    self.send(page.changes.into_iter().map(|change| response(Sent::Change(change))).collect()).await?;
                    signs.reset();
                }
                continue;
            }
            tokio::select! {
                changed = progress.changed() => changed.map_err(|_| stopping())?,
                _ = signs.tick() => self.send_position().await?,
                () = self.pages.closed() => return Err(End::Gone),
                () = service.streams_end.cancelled() => return Err(stopping().into()),
            }
        }
    }

    async fn read(&mut self) -> Result<FeedPage, Problem> {
        self.call.deadline = Instant::now() + self.service.limits.request_timeout;
        let level = ReadLevel::AtLeast(Position::at(0));
        let point = self.service.node.read_point(level, self.call.deadline.into_std()).await?;
        let cursor = self.cursor.clone();
        let read =
            move |engine: &cairn_engine::Engine, principal: &_, point: &_| engine.read_feed(principal, &cursor, point);
        self.service.read_at(&self.call, point, read).await
    }

    async fn send_position(&self) -> Result<(), End> {
        let progress = v1::WatchProgress { position: self.cursor.position() };
        self.send(vec![response(Sent::Progress(progress))]).await
    }

    async fn send(&self, batch: Batch) -> Result<(), End> {
        let stall = self.service.limits.stream_stall_timeout;
        tokio::select! {
            () = self.service.streams_end.cancelled() => Err(stopping().into()),
            sent = hand_over(&self.pages, batch, stall) => sent,
        }
    }
}

fn response(message: Sent) -> v1::WatchMemoriesResponse {
    v1::WatchMemoriesResponse { message: Some(message) }
}

fn stopping() -> Problem {
    Problem::unavailable(
        "NODE_STOPPED",
        "the node is stopping: go on at another one, from the last position that arrived",
    )
}
