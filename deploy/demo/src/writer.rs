//! [`Writers`]: tasks that add memories one by one and note each acknowledgement, whatever happens to the cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cairn_client::{Client, Memory};
use parking_lot::Mutex;
use tokio::task::JoinSet;

/// Agents that write at one time.
const WRITERS: usize = 4;
/// Between two writes of one agent.
const PAUSE: Duration = Duration::from_millis(5);
/// Long enough for a failover.
const WRITE_WITHIN: Duration = Duration::from_secs(30);
/// The user to whom all these memories belong.
pub(crate) const USER: &str = "night-shift";

/// What has been written so far.
#[derive(Debug, Default, Clone)]
pub(crate) struct Ledger {
    /// Writes that were begun.
    pub(crate) attempted: u64,
    /// Acknowledged ids, each with the time of its acknowledgement, in the order of time.
    pub(crate) acknowledged: Vec<(String, Instant)>,
    /// What the client says of writes that were not acknowledged.
    pub(crate) failed: Vec<String>,
}

impl Ledger {
    /// The longest time without an acknowledgement that ended after `since`.
    pub(crate) fn longest_pause(&self, since: Instant) -> Duration {
        let times = self.acknowledged.windows(2).filter(|pair| pair[1].1 > since);
        times.map(|pair| pair[1].1.duration_since(pair[0].1)).max().unwrap_or_default()
    }

    /// How many writes were acknowledged before `time`.
    pub(crate) fn acknowledged_before(&self, time: Instant) -> usize {
        self.acknowledged.partition_point(|(_, at)| *at < time)
    }
}

/// Agents that write until they are told to stop.
pub(crate) struct Writers {
    ledger: Arc<Mutex<Ledger>>,
    stopping: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Writers {
    /// Starts writing into `space`, with vectors of `dimension` values.
    pub(crate) fn start(client: &Client, space: &str, dimension: u32) -> Self {
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let stopping = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for writer in 1..=WRITERS {
            let space = client.space(space);
            let (ledger, stopping) = (ledger.clone(), stopping.clone());
            tasks.spawn(async move {
                for number in 1_u64.. {
                    if stopping.load(Ordering::Relaxed) {
                        break;
                    }
                    let id = format!("{USER}-{writer}-{number:05}");
                    ledger.lock().attempted += 1;
                    let answer = space.add(memory(&id, writer, number, dimension)).deadline(WRITE_WITHIN).await;
                    match answer {
                        Ok(_) => ledger.lock().acknowledged.push((id, Instant::now())),
                        Err(error) => ledger.lock().failed.push(format!("{id}: {error}")),
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            });
        }
        Self { ledger, stopping, tasks }
    }

    /// What has been written so far.
    pub(crate) fn so_far(&self) -> Ledger {
        self.ledger.lock().clone()
    }

    /// How many writes were acknowledged so far.
    pub(crate) fn acknowledged(&self) -> usize {
        self.ledger.lock().acknowledged.len()
    }

    /// Lets every agent end the write that it has begun.
    pub(crate) async fn stop(mut self) -> Ledger {
        self.stopping.store(true, Ordering::Relaxed);
        while self.tasks.join_next().await.is_some() {}
        let ledger = self.ledger.lock();
        ledger.clone()
    }
}

/// What the agents write. The text follows from the id, so that it can be compared later.
pub(crate) fn content(writer: u64, number: u64) -> String {
    format!("Night shift, desk {writer}, entry {number}: handed over, nothing left open.")
}

fn memory(id: &str, writer: usize, number: u64, dimension: u32) -> Memory {
    Memory::new(content(writer as u64, number))
        .id(id)
        .kind("log")
        .agent("shift-logger")
        .user(USER)
        .metadata("topic", "handover")
        .metadata("priority", 4)
        .vector(direction(number * WRITERS as u64 + writer as u64, dimension))
}

/// A direction of its own for each `seed`, nearly at right angles to every text, so that these memories are never among
/// the answers to a question.
fn direction(seed: u64, dimension: u32) -> Vec<f32> {
    let mut state = seed;
    let values = (0..dimension).map(|_| {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        (mixed >> 40) as f32 / (1_u32 << 23) as f32 - 1.0
    });
    values.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions_are_nearly_at_right_angles() {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let (a, b) = (direction(1, 384), direction(2, 384));
        assert!(dot(&a, &b).abs() / (dot(&a, &a) * dot(&b, &b)).sqrt() < 0.2);
    }

    #[test]
    fn the_longest_pause_is_the_one_that_ends_after_the_kill() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let acknowledged = [0, 900, 1_000, 1_800].map(|milliseconds| (String::new(), at(milliseconds))).to_vec();
        let ledger = Ledger { acknowledged, ..Ledger::default() };
        assert_eq!(ledger.longest_pause(at(1_000)), Duration::from_millis(800));
        assert_eq!(ledger.acknowledged_before(at(950)), 2);
    }
}
