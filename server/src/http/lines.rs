//! Streams of responses as NDJSON: one JSON object a line, written as they come.
//!
//! A stream that ends by a failure ends with a line `{"error": {...}}`, which holds the problem; see [`super::refusal`].

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use parking_lot::Mutex;
use prost_reflect::MessageDescriptor;
use serde_json::json;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::Status;

use super::gateway::{Place, off_thread};
use super::json;
use super::refusal::Refusal;
use crate::error::Problem;

/// The content type of both directions.
pub(super) const NDJSON: &str = "application/x-ndjson";

/// What a stream holds while it lasts, and what ends it early.
pub(super) type Lifetime = (Place, WaitForCancellationFutureOwned);

/// Why a stream of requests ended, where it is the requests' fault. Told after the last response.
pub(super) type End = Arc<Mutex<Option<Problem>>>;

/// For streams to one request.
pub(super) fn no_end() -> End {
    End::default()
}

/// The responses as the body of an answer.
pub(super) fn response<S>(messages: S, descriptor: MessageDescriptor, lifetime: Lifetime, end: End) -> Response
where
    S: Stream<Item = Result<Bytes, Status>> + Send + Unpin + 'static,
{
    let (place, stop) = lifetime;
    let state = State { messages, descriptor, end, stop: Box::pin(stop), over: false, _place: place };
    let lines = futures::stream::unfold(state, |mut state| async move {
        let line = state.next().await?;
        Some((Ok::<_, Infallible>(line), state))
    });
    ([(header::CONTENT_TYPE, NDJSON)], Body::from_stream(lines)).into_response()
}

struct State<S> {
    messages: S,
    descriptor: MessageDescriptor,
    end: End,
    stop: std::pin::Pin<Box<WaitForCancellationFutureOwned>>,
    over: bool,
    _place: Place,
}

impl<S: Stream<Item = Result<Bytes, Status>> + Unpin> State<S> {
    /// The next line; `None` at the end.
    async fn next(&mut self) -> Option<Vec<u8>> {
        if self.over {
            return None;
        }
        let next = tokio::select! {
            next = self.messages.next() => next,
            () = &mut self.stop => Some(Err(Problem::unavailable("NODE_STOPPED", "the node is stopping").into_status(None))),
        };
        let refusal = match next {
            Some(Ok(message)) => match self.line(message).await {
                Ok(line) => return Some(line),
                Err(problem) => problem.into(),
            },
            Some(Err(status)) => Refusal::from(status),
            None => self.end.lock().take()?.into(),
        };
        self.over = true;
        Some(format!("{}\n", json!({"error": refusal.json()})).into_bytes())
    }

    async fn line(&mut self, message: Bytes) -> Result<Vec<u8>, Problem> {
        let descriptor = self.descriptor.clone();
        let mut line = off_thread(message.len(), move || json::decode(&descriptor, message)).await?;
        line.push(b'\n');
        Ok(line)
    }
}
