//! How a snapshot leaves its sender.

use std::sync::Arc;
use std::time::Duration;

use cairn_raft::Node;

use crate::scripted::{Follower, Taken};
use crate::snapshots::{first_log_index, write_until_purged};
use crate::support::{Cluster, PATIENCE, memory, ready, space, write};

const CHUNK_BYTES: u64 = 500;
const BYTES_PER_SECOND: u64 = 64 << 10;

/// Fails unless each file comes piece by piece, from where the follower said that its own bytes end.
fn assert_resumed(taken: &Taken) {
    let mut received = taken.held_bytes.clone();
    for (file, offset, bytes) in &taken.pieces {
        let received = &mut received[*file as usize];
        assert_eq!(offset, received, "file {file}: {:?}", taken.pieces);
        assert!((1..=CHUNK_BYTES).contains(bytes), "file {file}: {:?}", taken.pieces);
        *received += bytes;
    }
    let sizes: Vec<u64> = taken.manifest.files.iter().map(|file| file.size).collect();
    assert_eq!(received, sizes, "all of it came");
    assert!(taken.held_bytes.iter().any(|bytes| *bytes > 0), "there was something to resume");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_goes_on_where_it_broke_off_at_its_rate_and_holds_up_nobody() {
    let mut cluster = Cluster::of(3);
    cluster.limits.snapshot_bytes = 4096;
    cluster.limits.snapshot_chunk_bytes = CHUNK_BYTES as usize;
    cluster.limits.snapshot_bytes_per_second = BYTES_PER_SECOND;
    let _second = Follower::serve(&cluster, 2);
    let third = Follower::serve_without_log(&cluster, 3);
    let mut config = cluster.config(1);
    // Entries that a follower takes and does not answer are given up soon.
    config.timing.peer_timeout = Duration::from_millis(400);
    let node = tokio::time::timeout(PATIENCE, Node::start(config)).await.unwrap().unwrap();
    cluster.adopt(Arc::clone(&node));
    ready(&node).await;
    write(&node, space()).await;
    write_until_purged(&cluster, 1).await;
    let term = node.status().term;

    third.received(|received| received.pieces > 0).await;
    let mut log_begins = Vec::new();
    let taken = loop {
        if let Some(taken) = third.taken() {
            break taken;
        }
        let id = format!("during-{}", log_begins.len());
        write(&node, memory(&id, &"tea ".repeat(100))).await;
        log_begins.push(first_log_index(&cluster, 1));
        tokio::time::sleep(Duration::from_millis(5)).await;
    };

    assert_resumed(&taken);
    // The last piece need not have waited for its own time.
    let (_, _, last) = taken.pieces.last().unwrap();
    let paced = taken.pieces.iter().map(|(_, _, bytes)| bytes).sum::<u64>() - last;
    let least = Duration::from_micros(paced * 1_000_000 / BYTES_PER_SECOND);
    assert!(taken.took >= least, "{paced} bytes in {:?}", taken.took);
    assert!(least >= Duration::from_secs(1), "{paced} bytes are too few to show a rate");

    assert!(taken.heartbeats >= 3, "{} heartbeats in {:?}", taken.heartbeats, taken.took);
    assert_eq!((node.status().leader_id, node.status().term), (Some(1), term), "nobody campaigned");
    let needed = taken.manifest.last_log_id.unwrap().index + 1;
    assert!(log_begins.iter().all(|begin| *begin <= needed), "the log after {needed} was given up: {log_begins:?}");
}
