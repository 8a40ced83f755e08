//! Streams of answers that a task makes: a channel that holds the task back, and behind it why the task ended.

use std::time::Duration;

use futures::{Stream, StreamExt as _, stream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::error::Problem;

/// Why a stream ends before its time.
pub(super) enum End {
    /// The client is gone.
    Gone,
    /// The client is told.
    Problem(Problem),
}

impl From<Problem> for End {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// What comes through `receiver` while `work` runs in a task of its own, then the problem that has ended it, as `status` puts it.
pub(super) fn stream_of<T: Send + 'static>(
    receiver: mpsc::Receiver<T>,
    work: impl Future<Output = Result<(), End>> + Send + 'static,
    status: impl FnOnce(Problem) -> Status + Send + 'static,
) -> impl Stream<Item = Result<T, Status>> {
    let (ending, ended) = oneshot::channel();
    tokio::spawn(async move {
        if let Err(End::Problem(problem)) = work.await {
            // The client may have gone away.
            let _ = ending.send(status(problem));
        }
    });
    let end = stream::once(ended).filter_map(|ended| async move { ended.ok().map(Err) });
    ReceiverStream::new(receiver).map(Ok).chain(end)
}

/// Hands an answer to the client, and sheds one that leaves the channel full for `stall`.
pub(super) async fn hand_over<T>(to: &mpsc::Sender<T>, answer: T, stall: Duration) -> Result<(), End> {
    match timeout(stall, to.send(answer)).await {
        Ok(sent) => sent.map_err(|_| End::Gone),
        Err(_) => Err(Problem::slow_reader(stall).into()),
    }
}
