//! Three nodes under mixed traffic: what they hold of memory, files and disk stays bounded, and nothing is lost or left over.
//!
//! `CAIRN_SOAK_SECONDS` says how long; without it the run is short, and only shows that nothing breaks.

#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use cairn_client::{Client, ErrorKind, Memory, NewSpace, Query, Revision, Scope, Space, field};
use cairn_tests::{Sample, TestCluster};
use futures::TryStreamExt as _;
use tokio::task::JoinSet;

const SPACE: &str = "soak";
const DIMENSION: u32 = 64;
const WORKERS: u32 = 6;
const BATCH: u32 = 25;
/// A worker deletes what is older than so many rounds.
const ROUNDS_KEPT: u32 = 4;
/// Earlier versions that the space keeps of each memory.
const HISTORY_DEPTH: u32 = 5;
const TTL: Duration = Duration::from_secs(2);
const SAMPLE_EVERY: Duration = Duration::from_millis(500);

fn vector(worker: u32, number: u32) -> Vec<f32> {
    let seed = (worker * 1_000 + number).wrapping_mul(0x9e37_79b9);
    let mixed = |place: u32| (seed ^ place.wrapping_mul(0x85eb_ca6b)).wrapping_mul(0xc2b2_ae35);
    (0..DIMENSION).map(|place| (mixed(place + 1) >> 16) as f32 - 32_768.0).collect()
}

fn memory(worker: u32, round: u32, number: u32) -> Memory {
    let memory = Memory::new(format!("worker {worker} saw {number} in round {round}: {}", "and so on ".repeat(20)))
        .user(format!("user-{worker}"))
        .session(format!("session-{worker}-{round}"))
        .metadata("number", i64::from(number))
        .vector(vector(worker, number));
    // One in five goes by itself.
    if number.is_multiple_of(5) { memory.ttl(TTL) } else { memory }
}

fn session(worker: u32, round: u32) -> Scope {
    Scope::new().user(format!("user-{worker}")).session(format!("session-{worker}-{round}"))
}

/// Changes the same memory again and again: its text and vector, one value of its metadata, its version known each time. What its
/// history tells is what was done, as much of it as the space keeps.
async fn revise(space: &Space, worker: u32, round: u32) -> u64 {
    let id = format!("revised-{worker}");
    if round == 0 {
        space.add(memory(worker, round, 2).session("revised").id(&id)).await.unwrap();
        return 1;
    }
    let text = format!("worker {worker} has thought again in round {round}");
    let known = space.get([&id]).await.unwrap().memories.remove(0);
    let change =
        space.update(&id).content(&text).vector(vector(worker, round % 1_000)).metadata("round", i64::from(round));
    let change =
        change.expected_version(known.version).actor(format!("worker-{worker}")).reason(format!("round {round}"));
    let updated = change.await.unwrap().memory;
    assert_eq!((updated.version, &updated.content), (known.version + 1, &text));
    let stale = space.update(&id).kind("stale").expected_version(known.version).await.unwrap_err();
    assert_eq!(stale.kind(), ErrorKind::Conflict, "{stale}");
    let told: Vec<Revision> = space.history(&id).page_size(2).stream().try_collect().await.unwrap();
    assert_eq!(told.len() as u32, (round + 1).min(HISTORY_DEPTH + 1), "{told:?}");
    assert_eq!((told[0].reason.as_str(), told[0].memory.version), (&*format!("round {round}"), updated.version));
    assert!(told.windows(2).all(|two| two[0].memory.version == two[1].memory.version + 1), "{told:?}");
    5
}

/// Adds, changes, searches, lists, counts and deletes until `end`. Returns the operations and the memories that it leaves behind
/// once those with a time to live are gone.
async fn work(client: Client, worker: u32, end: Instant) -> (u64, u64) {
    let space = client.space(SPACE);
    let mut round = 0;
    let mut operations = 0;
    while Instant::now() < end {
        space.add_all((0..BATCH).map(|number| memory(worker, round, number))).await.unwrap();
        // The same ids over and over: replaced, never more than one.
        space.add(memory(worker, round, 1).session("pinned").id(format!("pinned-{worker}"))).await.unwrap();
        for number in 1..4 {
            let filter = field("metadata.number").eq(i64::from(number));
            let scope = session(worker, round);
            let found = space.search(Query::vector(vector(worker, number))).scope(scope).filter(filter).await.unwrap();
            assert_eq!(found.hits.len(), 1, "worker {worker}, round {round}: its own memory, at once");
        }
        let listed = space.list().scope(session(worker, round)).page_size(10).await.unwrap();
        assert_eq!(listed.memories.len(), 10);
        if round >= ROUNDS_KEPT {
            let deleted = space.delete_matching(session(worker, round - ROUNDS_KEPT), None).await.unwrap();
            assert!((BATCH - BATCH / 5..=BATCH).contains(&(deleted.count as u32)), "{deleted:?}");
        }
        operations += revise(&space, worker, round).await;
        round += 1;
        operations += 6 + u64::from(round > ROUNDS_KEPT);
    }
    // Beside what its last rounds wrote: the memory that was replaced, and the one that was revised.
    (operations, u64::from(round.min(ROUNDS_KEPT) * (BATCH - BATCH / 5)) + 2)
}

/// Samples all nodes until `end`; the largest values of the middle third and of the last.
async fn watch(nodes: Vec<(u32, PathBuf)>, end: Instant) -> (Sample, Sample) {
    let began = Instant::now();
    let third = (end - began) / 3;
    let (mut middle, mut last) = (Sample::default(), Sample::default());
    while Instant::now() < end {
        tokio::time::sleep(SAMPLE_EVERY).await;
        let largest =
            nodes.iter().map(|(process, data)| Sample::of(*process, data).unwrap()).reduce(Sample::max).unwrap();
        match began.elapsed() {
            passed if passed < third => {}
            passed if passed < 2 * third => middle = middle.max(largest),
            _ => last = last.max(largest),
        }
    }
    (middle, last)
}

#[tokio::test(flavor = "multi_thread")]
async fn mixed_traffic_leaves_memory_files_and_disk_bounded() {
    let asked = std::env::var("CAIRN_SOAK_SECONDS").ok().map(|seconds| seconds.parse::<u64>().unwrap());
    let lasting = Duration::from_secs(asked.unwrap_or(12));
    let cluster = TestCluster::start(3).await;
    let client = cluster.client();
    client.create_space(NewSpace::new(SPACE, DIMENSION).history_depth(HISTORY_DEPTH)).await.unwrap();

    let end = Instant::now() + lasting;
    let nodes = cluster.nodes().iter().map(|node| (node.process_id().unwrap(), node.data.clone())).collect();
    let watching = tokio::spawn(watch(nodes, end));
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        // Each through a node of its own.
        workers.spawn(work(cluster.client_of(u64::from(worker % 3) + 1), worker, end));
    }
    let (mut operations, mut left) = (0, 0);
    while let Some(done) = workers.join_next().await {
        let (done, leaves) = done.unwrap();
        operations += done;
        left += leaves;
    }
    let (middle, last) = watching.await.unwrap();

    tokio::time::sleep(TTL).await;
    assert_eq!(client.space(SPACE).count().await.unwrap().count, left, "nothing lost, nothing left over");
    cluster.wait_until_equal().await;
    println!(
        "{operations} operations in {lasting:?}; largest node in the middle third {middle:?}, in the last {last:?}"
    );
    assert!(last.open_files <= 1_000, "{last:?}");
    assert!(last.resident_bytes <= 1 << 30, "{last:?}");
    if asked.is_some() {
        // What grows with time would have grown by half from the middle of the run to its end.
        assert!(last.open_files <= middle.open_files + 50, "{middle:?} {last:?}");
        assert!(last.resident_bytes <= middle.resident_bytes * 5 / 4 + (32 << 20), "{middle:?} {last:?}");
        assert!(last.disk_bytes <= middle.disk_bytes * 5 / 4 + (256 << 20), "{middle:?} {last:?}");
    }
}
