//! Snapshots that are installed under searches, and ones that come in several attempts.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cairn_engine::{ReadPoint, WriteRequest};
use cairn_proto::peer::SnapshotManifest;
use cairn_proto::v1;
use cairn_raft::{Generation, Node, ReadLevel};
use prost::Message as _;

use crate::links::start_linked;
use crate::snapshots::{bytes_below, write_until_only_a_snapshot_helps};
use crate::support::{Cluster, SPACE, alice, count, eventually, in_time, memory, space, write};

/// Memories that are there before and after.
const KEPT: u64 = 40;

/// The direction of a memory: each has its own, and none is that of [`memory`].
fn direction(number: u64) -> v1::Vector {
    let angle = number as f32 * std::f32::consts::TAU / KEPT as f32;
    let values = vec![angle.cos(), angle.sin(), -1.0, -1.0];
    v1::Vector { embedding: String::new(), data: Some(v1::vector::Data::Dense(v1::DenseVector { values })) }
}

fn kept(number: u64) -> WriteRequest {
    let WriteRequest::AddMemories(mut request) = memory(&format!("kept-{number}"), &format!("note {number}")) else {
        unreachable!("a memory is added")
    };
    request.memories[0].vectors = vec![direction(number)];
    WriteRequest::AddMemories(request)
}

/// Fails unless the memory in this direction is found, whole, and others after it.
fn assert_found(generation: &Generation, point: &ReadPoint, number: u64) {
    let request = v1::SearchMemoriesRequest {
        space: SPACE.to_string(),
        query: Some(v1::search_memories_request::Query::Vectors(v1::QueryVectors { vectors: vec![direction(number)] })),
        limit: 3,
        ..Default::default()
    };
    let found = generation.search_memories(&alice(), &request, point).unwrap();
    let hits: Vec<_> = found.hits.iter().filter_map(|hit| hit.memory.as_ref()).collect();
    assert_eq!(hits.len(), 3, "generation {}: {hits:?}", generation.number());
    assert_eq!(hits[0].id, format!("kept-{number}"), "generation {}", generation.number());
    assert_eq!(hits[0].content, format!("note {number}"), "generation {}", generation.number());
}

/// Searches until the end; returns how many searches met the first generation, and how many a later one.
async fn search(node: Arc<Node>, level: ReadLevel, is_over: Arc<AtomicBool>) -> (u64, u64) {
    let (mut before, mut after) = (0, 0);
    while !is_over.load(Ordering::SeqCst) || after == 0 {
        let point = node.read_point(level, in_time()).await.unwrap();
        let generation = node.engine();
        assert_found(&generation, &point, (before + after) % KEPT);
        if generation.number() == 1 {
            before += 1;
        } else {
            after += 1;
        }
        tokio::task::yield_now().await;
    }
    (before, after)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn searches_stay_right_while_a_snapshot_is_installed_under_them() {
    let mut cluster = Cluster::of(3);
    cluster.limits.snapshot_bytes = 4096;
    cluster.limits.snapshot_chunk_bytes = 1000;
    let links = start_linked(&mut cluster).await;
    write(cluster.node(1), space()).await;
    let mut position = None;
    for number in 0..KEPT {
        position = Some(write(cluster.node(1), kept(number)).await.position);
    }
    let level = ReadLevel::AtLeast(position.unwrap());
    let behind = cluster.follower().await;
    let node = Arc::clone(cluster.node(behind));
    let point = node.read_point(level, in_time()).await.unwrap();
    let old = node.engine();
    assert_eq!(old.number(), 1);
    let old_dir = cluster.data_dir(behind).join("group-0").join("gen-000001");
    let is_over = Arc::new(AtomicBool::new(false));
    let searching: Vec<_> =
        (0..2).map(|_| tokio::spawn(search(Arc::clone(&node), level, Arc::clone(&is_over)))).collect();

    links.cut_off(behind);
    let held = node.status().applied_index.unwrap();
    let written = write_until_only_a_snapshot_helps(&cluster, &cluster.others(behind), held).await;
    links.mend();
    eventually("a snapshot is installed", || node.engine().number() > 1).await;
    assert_eq!(count(&node, ReadLevel::Linearizable).await, KEPT + written);

    // Whoever began with the old generation still has all of it.
    for number in 0..KEPT {
        assert_found(&old, &point, number);
    }
    is_over.store(true, Ordering::SeqCst);
    for searching in searching {
        let (before, after) = searching.await.unwrap();
        assert!(before > 0 && after > 0, "{before} searches before and {after} after the installation");
    }
    assert!(old_dir.is_dir(), "it has a reader");
    drop(old);
    eventually("the directory goes with its last reader", || !old_dir.exists()).await;
    cluster.assert_equal().await;
}

/// The bytes of the snapshot that a node receives.
fn announced_bytes(incoming: &Path) -> u64 {
    let manifest = SnapshotManifest::decode(&*std::fs::read(incoming.join("manifest")).unwrap()).unwrap();
    manifest.files.iter().map(|file| file.size).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_goes_on_after_a_link_that_broke_and_in_a_node_that_was_stopped() {
    const CHUNK_BYTES: u64 = 500;
    let mut cluster = Cluster::of(3);
    cluster.limits.snapshot_bytes = 4096;
    cluster.limits.snapshot_chunk_bytes = CHUNK_BYTES as usize;
    cluster.limits.snapshot_bytes_per_second = 64 << 10;
    let links = start_linked(&mut cluster).await;
    write(cluster.node(1), space()).await;
    let behind = cluster.follower().await;
    let node = Arc::clone(cluster.node(behind));
    let incoming = cluster.data_dir(behind).join("group-0").join("incoming");
    let files = incoming.join("files");

    links.cut_off(behind);
    let held = node.status().applied_index.unwrap();
    let written = write_until_only_a_snapshot_helps(&cluster, &cluster.others(behind), held).await;
    // The last snapshot for what was written: with another one, all would begin anew.
    tokio::time::sleep(Duration::from_secs(2)).await;
    links.mend();
    eventually("a part of a snapshot is there", || bytes_below(&files) > 0).await;
    links.cut_off(behind);
    tokio::time::sleep(cluster.timing.election_max).await;
    assert!(bytes_below(&files) > 0, "it is kept");
    let announced = announced_bytes(&incoming);
    let before = node.stats().snapshot_bytes_received;
    assert!(before < announced && node.engine().number() == 1, "it is not whole");
    links.mend();
    eventually("more of it comes", || node.stats().snapshot_bytes_received > before).await;

    node.stop().await;
    let before = node.stats().snapshot_bytes_received;
    drop(node);
    cluster.release(behind).await;
    assert!(bytes_below(&files) > 0, "it is kept");
    // Not through a link: those lead to others.
    let node = cluster.start(behind).await;
    assert_eq!(count(&node, ReadLevel::Linearizable).await, written);
    assert!(node.engine().number() > 1, "it was a snapshot that came");
    let received = before + node.stats().snapshot_bytes_received;
    // What was under way when the link broke or the node was stopped comes again.
    assert!(received <= announced + 16 * CHUNK_BYTES, "{received} bytes for {announced}");
    assert!(!files.exists(), "nothing of it lies about");
    cluster.assert_equal().await;
}
