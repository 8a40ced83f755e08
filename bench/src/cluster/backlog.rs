//! What nodes still have to do for writes that they have acknowledged: vectors to link, checkpoints to write, compaction.

use std::time::{Duration, Instant};

use cairn_client::{Client, Query};
use cairn_demo::cluster::Cluster;

use super::failed;
use super::usage::{self, Usage};
use super::values::{HITS, vector};
use crate::BenchError;

/// Gauge of the vectors that a node has not linked into a graph yet.
const WAITING: &str = "cairn_index_waiting_vectors";
/// Counter of the checkpoints that a node has written.
const SAVED: &str = "cairn_index_checkpoints_saved_total";
/// How far the metrics are behind what they tell of: they follow it twice a second.
pub(super) const METRICS_BEHIND: Duration = Duration::from_millis(600);
/// How often to look.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long nodes may take.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(600);
/// The disk has come to rest when nothing was written for so long.
const REST: Duration = Duration::from_secs(8);

/// Searches a space on every node: a node makes an index at its first search, and none before.
pub(super) async fn open_everywhere(cluster: &Cluster, space: &str) -> Result<(), BenchError> {
    for node in cluster.nodes() {
        let client = Client::builder().endpoints([node.endpoint()]).deadline(CAUGHT_UP_WITHIN).build();
        let search = client.map_err(failed)?.space(space).search(Query::vector(vector(0))).limit(HITS as u32).await;
        search.map_err(failed)?;
    }
    Ok(())
}

/// How long it takes until no node has a vector to link: to the last look at which one had.
pub(super) async fn until_linked(cluster: &Cluster) -> Result<Duration, BenchError> {
    let began = Instant::now();
    cluster.settled_states(CAUGHT_UP_WITHIN).await.map_err(failed)?;
    let applied = Instant::now();
    let mut behind = applied - began;
    while began.elapsed() < CAUGHT_UP_WITHIN {
        if sum(cluster, WAITING).await? > 0.0 {
            behind = began.elapsed();
        } else if applied.elapsed() > METRICS_BEHIND {
            return Ok(behind);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err(failed("the index does not catch up"))
}

/// The checkpoints that each node has written.
pub(super) async fn checkpoints(cluster: &Cluster) -> Result<Vec<f64>, BenchError> {
    tokio::time::sleep(METRICS_BEHIND).await;
    let mut saved = Vec::new();
    for node in cluster.nodes() {
        saved.push(usage::sample(&usage::get(node.http, "/metrics").await?, SAVED));
    }
    Ok(saved)
}

/// Waits until every node has written a checkpoint more than it had.
pub(super) async fn until_checkpoints(cluster: &Cluster, before: &[f64]) -> Result<(), BenchError> {
    let began = Instant::now();
    while began.elapsed() < CAUGHT_UP_WITHIN {
        let saved = checkpoints(cluster).await?;
        if saved.iter().zip(before).all(|(now, before)| now > before) {
            return Ok(());
        }
    }
    Err(failed("no checkpoint of the index is written"))
}

/// Waits until these processes write nothing any more that matters.
pub(super) async fn until_rest(processes: &[u32]) {
    let began = Instant::now();
    let mut quiet_since = Instant::now();
    let mut last = Usage::of(processes).written_bytes;
    while quiet_since.elapsed() < REST && began.elapsed() < CAUGHT_UP_WITHIN {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let written = Usage::of(processes).written_bytes;
        // Heartbeats and the log's last words are no compaction.
        if written > last + (1 << 20) {
            quiet_since = Instant::now();
            last = written;
        }
    }
}

/// A metric of all nodes together.
pub(super) async fn sum(cluster: &Cluster, metric: &str) -> Result<f64, BenchError> {
    let mut sum = 0.0;
    for node in cluster.nodes() {
        sum += usage::sample(&usage::get(node.http, "/metrics").await?, metric);
    }
    Ok(sum)
}
