//! Closed-loop clients: each sends its next call when the last one was answered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

/// How much, for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub(super) clients: usize,
    pub(super) seconds: u64,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Measured {
    /// Calls that were answered well.
    pub(super) done: u64,
    /// Calls that were not.
    pub(super) failed: u64,
    pub(super) took: Duration,
    /// Sorted.
    micros: Vec<u32>,
}

impl Load {
    /// Calls `call(client, number)` from each client, over and over; it says whether it went well.
    pub(super) async fn run<F, Fut>(self, call: F) -> Measured
    where
        F: Fn(usize, u64) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = bool> + Send,
    {
        let call = Arc::new(call);
        let began = Instant::now();
        let until = began + Duration::from_secs(self.seconds);
        // Numbers of one run are not used again by the next.
        let first = u64::from(rand::random::<u32>()) << 24;
        let mut clients = JoinSet::new();
        for client in 0..self.clients {
            let call = Arc::clone(&call);
            clients.spawn(async move {
                let mut measured = Measured::default();
                let mut number = first;
                while Instant::now() < until {
                    let sent = Instant::now();
                    let went_well = call(client, number).await;
                    measured.note(sent.elapsed(), went_well);
                    number += 1;
                }
                measured
            });
        }
        let mut all = Measured::default();
        while let Some(joined) = clients.join_next().await {
            let Ok(measured) = joined else { continue };
            all.done += measured.done;
            all.failed += measured.failed;
            all.micros.extend(measured.micros);
        }
        all.took = began.elapsed();
        all.sort();
        all
    }
}

impl Measured {
    fn note(&mut self, latency: Duration, went_well: bool) {
        self.micros.push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
        self.done += u64::from(went_well);
        self.failed += u64::from(!went_well);
    }

    /// Counts a call that went well, one after the other.
    pub(super) fn add(&mut self, latency: Duration) {
        self.note(latency, true);
        self.took += latency;
    }

    /// To be called before percentiles are asked for.
    pub(super) fn sort(&mut self) {
        self.micros.sort_unstable();
    }

    /// So many of the calls, for each second.
    pub(super) fn rate_of(&self, calls: u64) -> f64 {
        calls as f64 / self.took.as_secs_f64()
    }

    /// The latency below which this share of the calls stayed.
    pub(super) fn percentile_ms(&self, share: f64) -> f64 {
        let Some(last) = self.micros.len().checked_sub(1) else { return 0.0 };
        f64::from(self.micros[(last as f64 * share).round() as usize]) / 1e3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn calls_are_counted_and_ordered() {
        let measured = Load { clients: 3, seconds: 1 }
            .run(|client, _| async move {
                tokio::time::sleep(Duration::from_millis(5)).await;
                client != 2
            })
            .await;
        assert!(measured.done > 0 && measured.failed > 0, "{measured:?}");
        assert_eq!(measured.micros.len() as u64, measured.done + measured.failed);
        assert!(measured.percentile_ms(0.5) >= 5.0 && measured.percentile_ms(0.5) <= measured.percentile_ms(1.0));
        assert_eq!(Measured::default().percentile_ms(0.5), 0.0);
    }
}
