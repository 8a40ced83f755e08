//! Followers that the log can no longer help.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use cairn_proto::peer::peer_service_client::PeerServiceClient;
use cairn_proto::peer::{
    PeerHeader, SendSnapshotRequest, SnapshotChunk, SnapshotFile, SnapshotManifest, SnapshotStart,
    send_snapshot_request::Part,
};
use cairn_proto::storage::{LogStoredMembership, LogVote};
use cairn_raft::{ReadLevel, StartError};

use crate::support::{Cluster, PATIENCE, count, eventually, incompressible, memory, space, write};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_is_far_behind_gets_a_snapshot() {
    let mut cluster = Cluster::of(3);
    cluster.limits.snapshot_bytes = 4096;
    cluster.limits.snapshot_chunk_bytes = 1000;
    cluster.start_all().await;
    write(cluster.node(1), space()).await;
    let behind = cluster.follower().await;
    cluster.stop(behind).await;
    let left = cluster.leader().await;
    let held = cluster.node(left).status().applied_index.unwrap();

    let written = write_until_only_a_snapshot_helps(&cluster, &cluster.running_ids(), held).await;
    cluster.start(behind).await;
    assert_eq!(count(cluster.node(behind), ReadLevel::Linearizable).await, written);
    assert!(cluster.node(behind).engine().number() > 1, "it was a snapshot that came");
    assert!(cluster.node(behind).stats().snapshot_bytes_received > 0);
    cluster.assert_equal().await;

    // What was installed survives a restart, and the node goes on from there.
    cluster.stop(behind).await;
    write(cluster.node(left), memory("later", "tea")).await;
    cluster.start(behind).await;
    assert_eq!(count(cluster.node(behind), ReadLevel::Linearizable).await, written + 1);
    cluster.assert_equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_log_is_purged_restarts() {
    let mut cluster = Cluster::of(1);
    cluster.limits.snapshot_bytes = 4096;
    cluster.start_all().await;
    write(cluster.node(1), space()).await;
    let written = write_until_purged(&cluster, 1).await;
    let (_, before) = cluster.digests().await;
    cluster.stop(1).await;
    cluster.start(1).await;
    cluster.ready().await;
    assert_eq!(count(cluster.node(1), ReadLevel::Linearizable).await, written);
    assert_eq!(cluster.digests().await.1, before);
    eventually("the status says where the log begins", || first_log_index(&cluster, 1) > 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_was_not_offered_is_refused_and_leaves_no_file() {
    let cluster = Cluster::running(1).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("x");
    let address = format!("http://{}", cluster.peer_address(1));
    let mut client = PeerServiceClient::connect(address).await.unwrap();
    for name in [file.to_str().unwrap(), "../x", "x"] {
        let start = SnapshotStart {
            header: Some(PeerHeader {
                cluster_id: cluster.node(1).status().cluster_id.to_vec().into(),
                group: 0,
                from_node_id: 2,
                from_incarnation: vec![2; 16].into(),
                to_node_id: 1,
            }),
            vote: Some(LogVote { term: 1000, node_id: 2, committed: true }),
            manifest: Some(SnapshotManifest {
                snapshot_id: "1".to_string(),
                last_log_id: None,
                membership: Some(LogStoredMembership::default()),
                files: vec![SnapshotFile { name: name.to_string(), size: 1, sha256: vec![0; 32].into() }],
            }),
            keyring: cluster.node(1).keyring().export().unwrap().into(),
        };
        let chunk = SnapshotChunk { file: 0, offset: 0, crc32: crc32fast::hash(b"x"), data: b"x".to_vec().into() };
        let parts = [Part::Start(start), Part::Chunk(chunk)].map(|part| SendSnapshotRequest { part: Some(part) });
        let refused = client.send_snapshot(futures::stream::iter(parts)).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Aborted, "{refused}");
        assert!(refused.message().contains("not the snapshot that was offered"), "{refused}");
    }
    assert!(!file.exists());
    let group_dir = cluster.data_dir(1).join("group-0");
    let names: Vec<_> = fs::read_dir(group_dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| name != "x" && name != "incoming"), "{names:?}");
    assert!(cluster.node(1).is_alive());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_older_than_the_purged_log_is_refused() {
    let mut cluster = Cluster::of(1);
    cluster.limits.snapshot_bytes = 4096;
    cluster.start_all().await;
    write(cluster.node(1), space()).await;
    cluster.stop(1).await;
    let group_dir = cluster.data_dir(1).join("group-0");
    let old = cluster.data_dir(1).with_extension("old");
    copy_dir(&group_dir, &old);

    cluster.start(1).await;
    cluster.ready().await;
    write_until_purged(&cluster, 1).await;
    cluster.stop(1).await;
    std::fs::remove_dir_all(&group_dir).unwrap();
    std::fs::rename(&old, &group_dir).unwrap();
    let refused = cluster.try_start(1).await.err().unwrap();
    assert!(matches!(&refused, StartError::Damaged { path, .. } if *path == group_dir), "{refused}");
    assert!(refused.to_string().contains("but the log begins after index"), "{refused}");
    assert_eq!(refused.to_string().lines().count(), 1);
}

/// The log keeps what came after the snapshot before the last one, and no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_takes_a_bounded_part_of_the_disk_however_much_is_written() {
    const SEGMENT_BYTES: u64 = 128 << 10;
    const ROUND_BYTES: u64 = 4 * SEGMENT_BYTES;
    const ROUNDS: u64 = 8;
    const LOG_BYTES_MAX: u64 = 3 * ROUND_BYTES;
    let mut cluster = Cluster::of(3);
    cluster.limits.log.segment_bytes = SEGMENT_BYTES;
    cluster.limits.snapshot_bytes = ROUND_BYTES / 2;
    cluster.start_all().await;
    write(cluster.node(1), space()).await;
    let content = incompressible(20 << 10);
    let is_long = |cluster: &Cluster| {
        let logs = cluster.ids().into_iter().map(|id| cluster.data_dir(id).join("wal"));
        logs.into_iter().any(|log| bytes_below(&log) > LOG_BYTES_MAX)
    };
    let mut written = 0;
    for round in 1..=ROUNDS {
        let until = Instant::now() + PATIENCE;
        // As slowly as the log is looked after where it has grown too long: it cannot be shorter than what comes meanwhile.
        while written * (content.len() as u64) < round * ROUND_BYTES || is_long(&cluster) {
            write(cluster.node(1), memory(&format!("m{written}"), &content)).await;
            written += 1;
            assert!(Instant::now() < until, "the log is long after {written} writes");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    for node in cluster.nodes() {
        assert_eq!(count(node, ReadLevel::Linearizable).await, written);
    }
}

/// What the files below `dir` take; a file that is removed meanwhile takes nothing.
pub(crate) fn bytes_below(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    });
    bytes.sum()
}

pub(crate) fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Writes through a node until its log no longer reaches back to what it has applied now. Returns how many memories it took.
pub(crate) async fn write_until_purged(cluster: &Cluster, id: u64) -> u64 {
    let held = cluster.node(id).status().applied_index.unwrap();
    write_until_only_a_snapshot_helps(cluster, &[id], held).await
}

/// Writes through the first of these nodes until no log of theirs reaches back to `held`, so that whoever leads by then has only
/// a snapshot for a node that holds no more. Returns how many memories it took.
pub(crate) async fn write_until_only_a_snapshot_helps(cluster: &Cluster, ids: &[u64], held: u64) -> u64 {
    let mut written = 0;
    while ids.iter().any(|id| first_log_index(cluster, *id) <= held + 1) {
        write(cluster.node(ids[0]), memory(&format!("m{written}"), &"tea ".repeat(100))).await;
        written += 1;
        assert!(written < 20_000, "the log is never purged");
    }
    written
}

pub(crate) fn first_log_index(cluster: &Cluster, id: u64) -> u64 {
    let status = cluster.node(id).status();
    let own = status.members.into_iter().find(|member| member.node_id == id);
    own.and_then(|member| member.state).map_or(0, |state| state.first_log_index)
}
