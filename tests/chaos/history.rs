//! What clients saw, and whether it could have happened one call after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};

/// What is asked of one memory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Op {
    Write(u64),
    Delete,
    Read,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Ret {
    Written,
    /// Whether it was there.
    Deleted(bool),
    Value(Option<u64>),
}

/// A memory as it should behave.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Register(Option<u64>);

impl SequentialSpec for Register {
    type Op = Op;
    type Ret = Ret;

    fn invoke(&mut self, op: &Op) -> Ret {
        match op {
            Op::Write(value) => {
                self.0 = Some(*value);
                Ret::Written
            }
            Op::Delete => Ret::Deleted(self.0.take().is_some()),
            Op::Read => Ret::Value(self.0),
        }
    }
}

#[derive(Debug, Clone)]
enum Event {
    Invoked(Op),
    Answered(Ret),
}

/// The calls in the order in which they were sent and answered.
#[derive(Default)]
pub(crate) struct History {
    /// Call and event, by memory.
    events: Mutex<BTreeMap<String, Vec<(u64, Event)>>>,
    calls: AtomicU64,
    values: AtomicU64,
    lost_reads: AtomicU64,
    lost_writes: AtomicU64,
}

/// What a check has found.
pub(crate) struct Checked {
    pub(crate) answered: u64,
    lost_reads: u64,
    lost_writes: u64,
    keys: usize,
    pub(crate) violations: Vec<String>,
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} calls answered, {} reads and {} writes without an answer, over {} memories: {} violations",
            self.answered,
            self.lost_reads,
            self.lost_writes,
            self.keys,
            self.violations.len()
        )
    }
}

impl History {
    /// The memory for the next call: `slot` of those in use. They are replaced after `calls` calls each.
    pub(crate) fn next_key(&self, keys: u64, calls: u64, slot: u64) -> String {
        let epoch = self.calls.load(Ordering::Relaxed) / (keys * calls);
        format!("k{epoch}-{slot}")
    }

    /// A value that was never written.
    pub(crate) fn next_value(&self) -> u64 {
        self.values.fetch_add(1, Ordering::Relaxed)
    }

    /// Writes down a call before it is sent.
    pub(crate) fn invoke(&self, key: &str, op: &Op) -> u64 {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        self.events.lock().entry(key.to_owned()).or_default().push((call, Event::Invoked(op.clone())));
        call
    }

    /// Writes down its answer.
    pub(crate) fn answer(&self, call: u64, key: &str, answer: Ret) {
        self.events.lock().entry(key.to_owned()).or_default().push((call, Event::Answered(answer)));
    }

    /// Counts a call that was not answered.
    pub(crate) fn lose(&self, op: &Op) {
        let counter = if *op == Op::Read { &self.lost_reads } else { &self.lost_writes };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// The memories that were called for.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.events.lock().keys().cloned().collect()
    }

    /// What a memory held when it was read last.
    pub(crate) fn last_read(&self, key: &str) -> Option<u64> {
        let events = self.events.lock();
        let last = events.get(key)?.iter().rev().find_map(|(_, event)| match event {
            Event::Answered(Ret::Value(value)) => Some(*value),
            _ => None,
        });
        last.flatten()
    }

    /// Looks for an order of the calls of each memory that explains all answers.
    pub(crate) fn check(&self) -> Checked {
        let events = self.events.lock();
        let violations = events.iter().filter(|(_, events)| !is_linearizable(events));
        let answered = |events: &Vec<(u64, Event)>| {
            events.iter().filter(|(_, event)| matches!(event, Event::Answered(_))).count() as u64
        };
        Checked {
            answered: events.values().map(answered).sum(),
            lost_reads: self.lost_reads.load(Ordering::Relaxed),
            lost_writes: self.lost_writes.load(Ordering::Relaxed),
            keys: events.len(),
            violations: violations.map(|(key, events)| format!("{key}: {events:?}")).collect(),
        }
    }
}

fn is_linearizable(events: &[(u64, Event)]) -> bool {
    let answered: BTreeSet<u64> =
        events.iter().filter(|(_, event)| matches!(event, Event::Answered(_))).map(|(call, _)| *call).collect();
    let mut tester = LinearizabilityTester::new(Register::default());
    for (call, event) in events {
        let taken = match event {
            // A read without an answer says nothing, and only makes the search longer.
            Event::Invoked(Op::Read) if !answered.contains(call) => continue,
            // Each call is a thread of its own: one without an answer may take effect at any later time, or never.
            Event::Invoked(op) => tester.on_invoke(*call, op.clone()),
            Event::Answered(answer) => tester.on_return(*call, answer.clone()),
        };
        if taken.is_err() {
            return false;
        }
    }
    tester.is_consistent()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(calls: &[(u64, Event)]) -> bool {
        is_linearizable(calls)
    }

    #[test]
    fn the_check_can_fail() {
        use Event::{Answered, Invoked};
        let write = |value| Invoked(Op::Write(value));
        let read = |value| Answered(Ret::Value(value));
        let good = [(0, write(1)), (0, Answered(Ret::Written)), (1, Invoked(Op::Read)), (1, read(Some(1)))];
        assert!(history(&good));
        let stale = [(0, write(1)), (0, Answered(Ret::Written)), (1, Invoked(Op::Read)), (1, read(None))];
        assert!(!history(&stale), "a read that missed an acknowledged write");
        let lost = [(0, write(1)), (1, Invoked(Op::Read)), (1, read(Some(1))), (2, Invoked(Op::Read)), (2, read(None))];
        assert!(!history(&lost), "a write that was seen and is gone");
        let late = [(0, write(1)), (1, Invoked(Op::Read)), (1, read(None)), (2, Invoked(Op::Read)), (2, read(Some(1)))];
        assert!(history(&late), "an unanswered write may take effect later");
        let twice = [
            (0, write(1)),
            (0, Answered(Ret::Written)),
            (1, Invoked(Op::Delete)),
            (1, Answered(Ret::Deleted(true))),
            (2, Invoked(Op::Delete)),
            (2, Answered(Ret::Deleted(true))),
        ];
        assert!(!history(&twice), "it cannot be deleted twice");
    }
}
