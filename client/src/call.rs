//! One call: pick a node, send, judge the answer, wait, pick again, until it is done or the deadline passes.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::Instant;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::endpoints::{CallKind, Endpoints};
use crate::error::{Error, ErrorKind, LEADER_HINT, Result};
use crate::retry::{Blame, RetryPolicy, blame};

/// What all clones of a client share.
pub(crate) struct Core {
    pub(crate) endpoints: Endpoints,
    pub(crate) retry: RetryPolicy,
    pub(crate) deadline: Duration,
    pub(crate) response_bytes_max: usize,
}

/// What a method's sender returns: the answer of one try.
pub(crate) type Sent<A> = BoxFuture<'static, std::result::Result<Response<A>, Status>>;

/// A way to one node, as the generated clients need it.
pub(crate) struct Route {
    pub(crate) channel: Channel,
    pub(crate) response_bytes_max: usize,
}

/// Makes the sender of a method: `method!(MemoryServiceClient, add_memories)`.
macro_rules! method {
    ($client:ident, $method:ident) => {
        |route: $crate::call::Route, request| -> $crate::call::Sent<_> {
            Box::pin(async move {
                let mut client = $client::new(route.channel).max_decoding_message_size(route.response_bytes_max);
                client.$method(request).await
            })
        }
    };
}
pub(crate) use method;

impl Core {
    /// Sends a request until it is answered, or cannot be, or the deadline has passed.
    ///
    /// Every try sends the same message; a write carries a request id, so that what an earlier try did is not done again.
    pub(crate) async fn call<Q: Clone, A>(
        self: Arc<Self>,
        kind: CallKind,
        deadline: Option<Duration>,
        message: Q,
        send: fn(Route, tonic::Request<Q>) -> Sent<A>,
    ) -> Result<A> {
        let deadline = deadline.unwrap_or(self.deadline);
        let started = Instant::now();
        let mut attempts = 0;
        let mut unreachable = 0;
        loop {
            attempts += 1;
            let remaining = deadline.saturating_sub(started.elapsed());
            let node = self.endpoints.pick(kind);
            let error = match self.attempt(node, remaining, message.clone(), send).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error.at(self.endpoints.address(node), attempts),
            };
            self.learn(node, &error);
            unreachable = if error.is_transport() { unreachable + 1 } else { 0 };
            if self.retry.gives_up(unreachable, self.endpoints.len()) {
                return Err(error);
            }
            let remaining = deadline.saturating_sub(started.elapsed());
            match self.retry.next_wait(&error, attempts, remaining, rand::random()) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return Err(error),
            }
        }
    }

    async fn attempt<Q, A>(
        &self,
        node: usize,
        remaining: Duration,
        message: Q,
        send: fn(Route, tonic::Request<Q>) -> Sent<A>,
    ) -> Result<A> {
        let timeout = RetryPolicy::attempt_timeout(remaining, self.endpoints.len());
        let mut request = tonic::Request::new(message);
        // The server is told as well, so that it does not work for nobody.
        request.set_timeout(timeout);
        let route = Route { channel: self.endpoints.channel(node), response_bytes_max: self.response_bytes_max };
        let Ok(result) = tokio::time::timeout(timeout, send(route, request)).await else {
            return Err(timed_out(timeout));
        };
        match result {
            Ok(response) => {
                if let Some(leader) = leader_in(response.metadata()) {
                    self.endpoints.hint(leader);
                }
                Ok(response.into_inner())
            }
            Err(status) if is_timeout(&status) => Err(timed_out(timeout)),
            Err(status) => {
                let mut error = Error::from_status(&status);
                if let Some(leader) = leader_in(status.metadata()) {
                    error.set_leader_hint(leader);
                }
                Err(error)
            }
        }
    }

    /// Remembers what a failure says about the nodes.
    fn learn(&self, node: usize, error: &Error) {
        if blame(error) == Blame::Node {
            self.endpoints.failed(node);
        }
        if let Some(leader) = error.leader_hint() {
            self.endpoints.hint(leader);
        }
    }
}

fn leader_in(metadata: &MetadataMap) -> Option<&str> {
    metadata.get(LEADER_HINT)?.to_str().ok()
}

/// tonic watches over the timeout in the request too; whichever of both timers is first, it is the same event.
fn is_timeout(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<tonic::TimeoutExpired>() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn timed_out(timeout: Duration) -> Error {
    Error::new(ErrorKind::DeadlineExceeded, format!("no answer within {} ms", timeout.as_millis().max(1)))
}
