//! Nodes whose clock jumps.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use cairn_raft::{Clock, Environment, Node, ProposeError, SystemClock};

use crate::support::{Cluster, PATIENCE, eventually, in_time, memory, ready, space, try_write, write};

/// The machine's clock, ahead by some microseconds.
#[derive(Default)]
struct Ahead(AtomicI64);

impl Clock for Ahead {
    fn wall_micros(&self) -> i64 {
        SystemClock.wall_micros() + self.0.load(Ordering::SeqCst)
    }

    fn steady(&self) -> Duration {
        SystemClock.steady()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_clock_jumps_hands_over() {
    let cluster = Cluster::of(3);
    let clocks: Vec<Arc<Ahead>> = (0..3).map(|_| Arc::default()).collect();
    let starts = cluster.ids().into_iter().zip(&clocks).map(|(id, clock)| {
        let environment = Environment { clock: Arc::clone(clock) as Arc<dyn Clock>, ..Environment::default() };
        Node::start_in(cluster.config(id), environment)
    });
    let nodes = tokio::time::timeout(PATIENCE, futures::future::try_join_all(starts)).await.unwrap().unwrap();
    for node in &nodes {
        ready(node).await;
    }
    write(&nodes[0], space()).await;
    let leader = nodes[0].status().leader_id.unwrap();
    let jumped = leader as usize - 1;
    clocks[jumped].0.store(3_600_000_000, Ordering::SeqCst);

    let left = &nodes[(jumped + 1) % 3];
    eventually("another node leads", || left.status().leader_id.is_some_and(|id| id != leader)).await;
    // Through the node with the wrong clock too.
    for (number, node) in nodes.iter().enumerate() {
        let deadline = in_time();
        let mut written = try_write(node, memory(&format!("m{number}"), "tea"), deadline).await;
        while matches!(written, Err(ProposeError::ClockRefused { .. })) && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(50)).await;
            written = try_write(node, memory(&format!("m{number}"), "tea"), deadline).await;
        }
        written.unwrap();
    }
}
