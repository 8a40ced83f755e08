//! Whether the node lives, has started, and is ready: what the probes, the health service and the metrics say.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often the loop ticks.
pub(crate) const TICK: Duration = Duration::from_millis(500);

/// A loop that has not ticked for this long hangs.
const TICK_OVERDUE: Duration = Duration::from_secs(10);

/// The answer to a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Yes.
    Yes,
    /// No, because of this.
    No(&'static str),
}

/// What the node says of its replication at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Replication {
    /// Whether it runs; it stops itself, for example, when the disk fails.
    pub(crate) alive: bool,
    /// Whether it knows a leader.
    pub(crate) leader_known: bool,
    /// Whether it has heard from that leader lately or, where it leads itself, from a majority.
    pub(crate) in_touch: bool,
    /// Committed entries that are not applied yet.
    pub(crate) lag_entries: u64,
    /// Whether it would serve calls.
    pub(crate) serving: bool,
}

/// The signs of life of one node.
pub(crate) struct Vitals {
    began: Instant,
    ticked_ms: AtomicU64,
    started: OnceLock<()>,
    draining: AtomicBool,
}

impl Vitals {
    /// A node that has not started.
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            ticked_ms: AtomicU64::new(0),
            started: OnceLock::new(),
            draining: AtomicBool::new(false),
        }
    }

    /// Notes that the loop runs.
    pub(crate) fn tick(&self) {
        self.ticked_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// Notes that the data directory is open and the log is read.
    pub(crate) fn set_started(&self) {
        // A second call changes nothing.
        let _ = self.started.set(());
    }

    /// Notes that the node is stopping.
    pub(crate) fn set_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the node is stopping.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Whether the process does its work. A missing leader or quorum is no reason to restart it.
    pub(crate) fn live(&self, replication: Option<Replication>) -> Answer {
        let silence = self.now_ms().saturating_sub(self.ticked_ms.load(Ordering::Relaxed));
        if u128::from(silence) > TICK_OVERDUE.as_millis() {
            return Answer::No("the loop hangs");
        }
        if replication.is_some_and(|replication| !replication.alive) {
            return Answer::No("replication has stopped; see the log");
        }
        Answer::Yes
    }

    /// Whether the node has come up.
    pub(crate) fn started(&self) -> Answer {
        if self.started.get().is_some() { Answer::Yes } else { Answer::No("starting") }
    }

    /// Whether the node can serve calls.
    pub(crate) fn ready(&self, replication: Option<Replication>, lag_entries_max: u64) -> Answer {
        let Some(replication) = replication.filter(|_| self.started.get().is_some()) else {
            return Answer::No("starting");
        };
        if self.is_draining() {
            return Answer::No("stopping");
        }
        if !replication.alive {
            return Answer::No("replication has stopped; see the log");
        }
        if !replication.leader_known {
            return Answer::No("no leader is known");
        }
        if !replication.in_touch {
            return Answer::No("no leader with a majority is in touch");
        }
        if replication.lag_entries > lag_entries_max {
            return Answer::No("too far behind the leader");
        }
        if !replication.serving {
            return Answer::No("the cluster is being formed");
        }
        Answer::Yes
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Replication =
        Replication { alive: true, leader_known: true, in_touch: true, lag_entries: 0, serving: true };

    #[test]
    fn a_node_without_a_leader_lives_and_is_not_ready() {
        let vitals = Vitals::new();
        assert_eq!(vitals.started(), Answer::No("starting"));
        assert_eq!(vitals.ready(Some(GOOD), 10), Answer::No("starting"));
        vitals.set_started();
        vitals.tick();
        let alone = Replication { leader_known: false, ..GOOD };
        assert_eq!(vitals.live(Some(alone)), Answer::Yes);
        assert_eq!(vitals.ready(Some(alone), 10), Answer::No("no leader is known"));
        let cut_off = Replication { in_touch: false, ..GOOD };
        assert_eq!(vitals.live(Some(cut_off)), Answer::Yes);
        assert_eq!(vitals.ready(Some(cut_off), 10), Answer::No("no leader with a majority is in touch"));
        let forming = Replication { serving: false, ..GOOD };
        assert_eq!(vitals.ready(Some(forming), 10), Answer::No("the cluster is being formed"));
        assert_eq!(vitals.ready(Some(GOOD), 10), Answer::Yes);
    }

    #[test]
    fn lag_draining_and_a_stop_make_it_unready() {
        let vitals = Vitals::new();
        vitals.set_started();
        assert_eq!(vitals.ready(Some(Replication { lag_entries: 10, ..GOOD }), 10), Answer::Yes);
        assert_eq!(
            vitals.ready(Some(Replication { lag_entries: 11, ..GOOD }), 10),
            Answer::No("too far behind the leader")
        );
        let stopped = Some(Replication { alive: false, ..GOOD });
        assert!(matches!(vitals.ready(stopped, 10), Answer::No(_)));
        assert!(matches!(vitals.live(stopped), Answer::No(_)));
        vitals.set_draining();
        assert_eq!(vitals.ready(Some(GOOD), 10), Answer::No("stopping"));
        assert_eq!(vitals.live(Some(GOOD)), Answer::Yes);
    }
}
