//! When to take a snapshot and what to purge.
//!
//! openraft's own policies count entries; here bytes and time count, and an entry is purged only when nobody may still need
//! it: it is in RocksDB's files, in the snapshot before the newest, and in the snapshot of everyone who was sent one and
//! has not caught up since.

use std::sync::Arc;
use std::time::{Duration, Instant};

use openraft::async_runtime::watch::WatchReceiver;
use tokio_util::sync::CancellationToken;

use crate::blocking::blocking;
use crate::config::{Limits, Timing};
use crate::state_machine::{Shared, StateMachine};
use crate::types::{CairnTypes, LogId, TypeConfig};

/// How often the controller looks.
const TICK: Duration = Duration::from_millis(500);

/// What the controller knows when it looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct View {
    bytes_since_snapshot: u64,
    since_snapshot: Duration,
    durable_applied: Option<u64>,
    snapshot: Option<u64>,
    previous_snapshot: Option<u64>,
    transfers_min: Option<u64>,
    purged: Option<u64>,
}

/// What it does then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Decision {
    take_snapshot: bool,
    purge_to: Option<u64>,
}

fn decide(view: &View, limits: &Limits, timing: &Timing) -> Decision {
    let written = view.bytes_since_snapshot > 0;
    let take_snapshot = view.bytes_since_snapshot >= limits.snapshot_bytes
        || (written && view.since_snapshot >= timing.snapshot_interval);
    // `Option` orders None below everything: while any of these is not known, nothing is purged.
    let covered = view.durable_applied.min(view.snapshot).min(view.previous_snapshot);
    let purge_to = match (covered, view.transfers_min) {
        (Some(covered), Some(transfer)) => Some(covered.min(transfer)),
        (covered, _) => covered,
    };
    Decision { take_snapshot, purge_to: purge_to.filter(|&index| Some(index) > view.purged) }
}

/// Runs until `stop`.
pub(crate) async fn run(
    raft: openraft::Raft<TypeConfig, StateMachine>,
    shared: Arc<Shared>,
    limits: Limits,
    timing: Timing,
    stop: CancellationToken,
) {
    let mut last_snapshot = Instant::now();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        match look(&raft, &shared, &limits, &timing, last_snapshot.elapsed()).await {
            Ok(Look { took_snapshot: true }) => last_snapshot = Instant::now(),
            Ok(Look { took_snapshot: false }) => {}
            Err(Stopped) => return,
        }
    }
}

/// What a look has led to.
pub(crate) struct Look {
    /// Whether a snapshot was asked for.
    pub(crate) took_snapshot: bool,
}

/// Replication has stopped.
#[derive(Debug)]
pub(crate) struct Stopped;

/// Looks once, and has openraft take a snapshot or purge the log where it is time. `since_snapshot`: since the last one was
/// asked for.
pub(crate) async fn look<C: CairnTypes>(
    raft: &openraft::Raft<C, StateMachine>,
    shared: &Shared,
    limits: &Limits,
    timing: &Timing,
    since_snapshot: Duration,
) -> Result<Look, Stopped> {
    let generation = shared.generations.current();
    let durable = blocking(move || generation.durable_applied()).await;
    let Ok(Ok(durable)) = durable else { return Ok(Look { took_snapshot: false }) };
    let (purged, matched) = {
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        let index = |log_id: &Option<LogId>| log_id.as_ref().map(|log_id| log_id.index);
        let matched = metrics.replication.iter().flatten().map(|(&id, log_id)| (id, index(log_id)));
        (index(&metrics.purged), matched.collect())
    };
    let snapshot = shared.snapshots.current().and_then(|dir| dir.index());
    shared.snapshots.transfers().release(snapshot, &matched);
    let view = View {
        bytes_since_snapshot: shared.bytes_since_snapshot(),
        since_snapshot,
        durable_applied: durable.map(|log_id| log_id.index),
        snapshot,
        previous_snapshot: shared.snapshots.previous_index(),
        transfers_min: shared.snapshots.transfers().min(),
        purged,
    };
    let decision = decide(&view, limits, timing);
    if decision.take_snapshot {
        raft.trigger().snapshot().await.map_err(|_| Stopped)?;
    }
    if let Some(index) = decision.purge_to {
        raft.trigger().purge_log(index).await.map_err(|_| Stopped)?;
    }
    Ok(Look { took_snapshot: decision.take_snapshot })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide_on(view: View) -> Decision {
        let limits = Limits { snapshot_bytes: 100, ..Limits::default() };
        let timing = Timing { snapshot_interval: Duration::from_secs(60), ..Timing::default() };
        decide(&view, &limits, &timing)
    }

    #[test]
    fn snapshots_follow_bytes_and_time() {
        let at = |bytes_since_snapshot, seconds| {
            decide_on(View { bytes_since_snapshot, since_snapshot: Duration::from_secs(seconds), ..View::default() })
                .take_snapshot
        };
        assert!(!at(99, 59));
        assert!(at(100, 0));
        assert!(at(1, 60));
        assert!(!at(0, 9_999), "an idle cluster takes none");
    }

    #[test]
    fn nothing_is_purged_that_is_still_needed() {
        let all = View {
            durable_applied: Some(50),
            snapshot: Some(40),
            previous_snapshot: Some(30),
            purged: Some(10),
            ..View::default()
        };
        assert_eq!(decide_on(all).purge_to, Some(30));
        assert_eq!(decide_on(View { durable_applied: Some(20), ..all }).purge_to, Some(20));
        assert_eq!(decide_on(View { transfers_min: Some(15), ..all }).purge_to, Some(15));
        assert_eq!(decide_on(View { transfers_min: Some(5), ..all }).purge_to, None);
        assert_eq!(decide_on(View { durable_applied: None, ..all }).purge_to, None);
        assert_eq!(decide_on(View { previous_snapshot: None, ..all }).purge_to, None);
        assert_eq!(decide_on(View { purged: Some(30), ..all }).purge_to, None);
    }
}
