//! What the node takes on at a time. Work beyond it is refused at once, since a queue without an end only turns
//! overload into timeouts.
//!
//! ```text
//! call -> Gate: a bounded number in flight, else RESOURCE_EXHAUSTED -> Workers: a bounded number of threads
//! ```

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::error::Problem;
use crate::telemetry::Metrics;
use crate::telemetry::definitions;

/// How long a caller that was refused should wait: some times a usual call.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// The entrance for calls of one pool.
pub(crate) struct Gate {
    pool: &'static str,
    limit: usize,
    places: Arc<Semaphore>,
}

impl Gate {
    /// A gate that lets `limit` calls in at a time. `pool` is `write` or `read`.
    pub(crate) fn new(pool: &'static str, limit: usize) -> Self {
        Self { pool, limit, places: Arc::new(Semaphore::new(limit)) }
    }

    /// Lets a call in for as long as it holds what is returned.
    ///
    /// # Errors
    /// All places are taken: RESOURCE_EXHAUSTED with a time to wait.
    pub(crate) fn enter(&self, metrics: &Metrics) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            metrics.add(definitions::SHED, &[self.pool], 1);
            Problem::overloaded(self.pool, self.limit, RETRY_AFTER)
        })
    }

    /// Writes how many calls are in flight.
    pub(crate) fn report(&self, metrics: &Metrics) {
        let taken = self.limit - self.places.available_permits().min(self.limit);
        metrics.set_count(definitions::IN_FLIGHT, &[self.pool], taken as u64);
    }
}

/// Threads for work that computes or blocks, so that it never holds up an async worker. Clones share them.
#[derive(Clone)]
pub(crate) struct Workers {
    threads: Arc<Semaphore>,
}

impl Workers {
    /// At most `threads` pieces of work at a time.
    pub(crate) fn new(threads: usize) -> Self {
        Self { threads: Arc::new(Semaphore::new(threads)) }
    }

    /// Runs `work` on a thread of its own, waiting for a free one until `deadline`. Work that has begun goes on when the
    /// caller goes away, and keeps its place until it ends.
    ///
    /// # Errors
    /// No thread became free in time, or the work panicked.
    pub(crate) async fn run<T, F>(&self, deadline: Instant, work: F) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, Problem> + Send + 'static,
    {
        let place = match timeout_at(deadline, Arc::clone(&self.threads).acquire_owned()).await {
            Ok(Ok(place)) => place,
            Ok(Err(_)) => return Err(Problem::unavailable("NODE_STOPPED", "the node is stopping")),
            Err(_) => return Err(Problem::deadline()),
        };
        let task = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(place);
            result
        });
        match timeout_at(deadline, task).await {
            Ok(Ok(result)) => result,
            Ok(Err(failure)) => {
                tracing::error!(%failure, "a worker thread failed");
                Err(Problem::internal("the node failed; see its log"))
            }
            Err(_) => Err(Problem::deadline()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn a_full_gate_refuses_and_opens_again() {
        let (gate, metrics) = (Gate::new("write", 1), Metrics::new());
        let place = gate.enter(&metrics).unwrap();
        gate.report(&metrics);
        assert_eq!(gate.enter(&metrics).unwrap_err().code(), Code::ResourceExhausted);
        drop(place);
        assert!(gate.enter(&metrics).is_ok());
        let text = metrics.render();
        assert!(text.contains(r#"cairn_requests_shed_total{pool="write"} 1"#), "{text}");
        assert!(text.contains(r#"cairn_requests_in_flight{pool="write"} 1"#), "{text}");
    }

    #[tokio::test]
    async fn workers_are_bounded_and_respect_the_deadline() {
        let workers = Workers::new(1);
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let soon = Instant::now() + Duration::from_millis(30);
        let first = workers.run(soon, move || Ok(wait.recv().is_ok()));
        assert_eq!(first.await.unwrap_err().code(), Code::DeadlineExceeded);
        let soon = Instant::now() + Duration::from_millis(30);
        assert_eq!(
            workers.run(soon, || Ok(())).await.unwrap_err().code(),
            Code::DeadlineExceeded,
            "the place is taken"
        );
        release.send(()).unwrap();
        let later = Instant::now() + Duration::from_secs(10);
        assert_eq!(workers.run(later, || Ok(7)).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_panic_is_an_internal_error() {
        let later = Instant::now() + Duration::from_secs(10);
        let result: Result<(), Problem> = Workers::new(1).run(later, || panic!("on purpose")).await;
        assert_eq!(result.unwrap_err().code(), Code::Internal);
        assert!(Workers::new(1).run(later, || Ok(())).await.is_ok());
    }
}
