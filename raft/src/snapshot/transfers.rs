//! Transfers of snapshots, and the log that their receivers still need.
//!
//! Who gets a snapshot goes on from there with the log, so the log after it is kept: while the snapshot is on its way,
//! and then until the receiver has passed the newest snapshot. Were it let go on arrival, a receiver that needs longer
//! for a snapshot than the leader needs to take the next two would get snapshot after snapshot and never catch up. A
//! receiver that falls silent is waited for too, but only for a few snapshots.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// For how many further snapshots the log is kept for a receiver that has its snapshot.
const SNAPSHOTS_WAITED: u32 = 4;

/// The transfers of this node. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Transfers(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    next: u64,
    holds: BTreeMap<u64, Hold>,
}

/// The log after `index` is kept for `target`.
struct Hold {
    target: u64,
    index: u64,
    /// How many snapshots were taken since this one arrived; `None` while it is on its way.
    since_arrival: Option<u32>,
}

impl Transfers {
    /// Notes that the snapshot up to `index` is being sent to `target`.
    pub(crate) fn begin(&self, target: u64, index: u64) -> Transfer {
        let mut state = self.0.lock();
        // Whoever needs another snapshot has not caught up with the last one.
        state.holds.retain(|_, hold| hold.target != target || hold.since_arrival.is_none());
        state.next += 1;
        let id = state.next;
        state.holds.insert(id, Hold { target, index, since_arrival: None });
        Transfer { id, transfers: self.clone() }
    }

    /// The lowest index after which the log is kept for someone.
    pub(crate) fn min(&self) -> Option<u64> {
        self.0.lock().holds.values().map(|hold| hold.index).min()
    }

    /// Counts a snapshot that was taken, and lets go of receivers that were waited for long enough.
    pub(crate) fn count_snapshot(&self) {
        self.0.lock().holds.retain(|_, hold| {
            hold.since_arrival = hold.since_arrival.map(|count| count + 1);
            hold.since_arrival.is_none_or(|count| count <= SNAPSHOTS_WAITED)
        });
    }

    /// Lets go of the receivers that have caught up with the newest snapshot, and of those that this node no longer
    /// replicates to. `matched`: how far each receiver's log goes, by its id.
    pub(crate) fn release(&self, newest_snapshot: Option<u64>, matched: &BTreeMap<u64, Option<u64>>) {
        self.0.lock().holds.retain(|_, hold| {
            let lags = matched.get(&hold.target).is_some_and(|matched| *matched < newest_snapshot);
            hold.since_arrival.is_none() || lags
        });
    }
}

/// A running transfer; dropped, it has failed.
pub(crate) struct Transfer {
    id: u64,
    transfers: Transfers,
}

impl Transfer {
    /// Notes that the snapshot has been installed.
    pub(crate) fn arrived(self) {
        if let Some(hold) = self.transfers.0.lock().holds.get_mut(&self.id) {
            hold.since_arrival = Some(0);
        }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        let mut state = self.transfers.0.lock();
        if state.holds.get(&self.id).is_some_and(|hold| hold.since_arrival.is_none()) {
            state.holds.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_that_fails_lets_go_of_the_log() {
        let transfers = Transfers::default();
        let transfer = transfers.begin(2, 10);
        transfers.release(Some(50), &BTreeMap::new());
        for _ in 0..10 {
            transfers.count_snapshot();
        }
        assert_eq!(transfers.min(), Some(10), "it takes as long as it takes");
        drop(transfer);
        assert_eq!(transfers.min(), None);
    }

    #[test]
    fn the_log_is_kept_until_the_receiver_has_passed_the_newest_snapshot() {
        let transfers = Transfers::default();
        transfers.begin(2, 10).arrived();
        for matched in [None, Some(10), Some(29)] {
            transfers.release(Some(30), &BTreeMap::from([(2, matched)]));
            assert_eq!(transfers.min(), Some(10));
        }
        transfers.release(Some(30), &BTreeMap::from([(2, Some(30))]));
        assert_eq!(transfers.min(), None);
    }

    #[test]
    fn a_receiver_that_does_not_catch_up_is_waited_for_within_bounds() {
        let transfers = Transfers::default();
        transfers.begin(2, 10).arrived();
        for _ in 0..SNAPSHOTS_WAITED {
            transfers.count_snapshot();
        }
        assert_eq!(transfers.min(), Some(10));
        transfers.count_snapshot();
        assert_eq!(transfers.min(), None);
    }

    #[test]
    fn a_follower_waits_for_nobody_and_a_new_transfer_replaces_the_last() {
        let transfers = Transfers::default();
        transfers.begin(2, 10).arrived();
        let second = transfers.begin(2, 20);
        assert_eq!(transfers.min(), Some(20));
        second.arrived();
        transfers.release(Some(30), &BTreeMap::new());
        assert_eq!(transfers.min(), None, "this node no longer leads");
    }
}
