//! Many small spaces on one node, over gRPC: made, filled, searched, let go when nobody searches, and searched again, all with
//! little memory and few files.
//!
//! `CAIRN_SPACES` says how many; without it there are 1,000, and 10,000 is what is promised.

#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use cairn_client::{Client, Memory, NewSpace, Query};
use cairn_tests::{Sample, TestCluster};
use tokio::task::JoinSet;

const DIMENSION: u32 = 32;
/// Calls under way at a time.
const WORKERS: usize = 64;
/// What a space may take, its share of caches and of the log's latest entries included.
const RESIDENT_BYTES_A_SPACE: u64 = 16 << 10;
/// What a node takes with few spaces, with its caches and write buffers full.
const RESIDENT_BYTES: u64 = 256 << 20;
/// However many spaces there are.
const OPEN_FILES: u64 = 300;
const PATIENCE: Duration = Duration::from_secs(120);

/// Indexes leave as early as the configuration lets them.
const SETTINGS: &str = "storage: { index_idle: 10s, write_buffer: 16MiB, block_cache: 32MiB }\n";

fn name(number: u32) -> String {
    format!("space-{number}")
}

fn vector(number: u32) -> Vec<f32> {
    let mixed = |place: u32| (number.wrapping_mul(0x9e37_79b9) ^ place).wrapping_mul(0xc2b2_ae35);
    (0..DIMENSION).map(|place| (mixed(place + 1) >> 16) as f32 - 32_768.0).collect()
}

async fn make(client: Client, number: u32) {
    client.create_space(NewSpace::new(name(number), DIMENSION)).await.unwrap();
    let memory = Memory::new(format!("the only one of {number}")).id("only").vector(vector(number));
    client.space(name(number)).add(memory).await.unwrap();
}

async fn search(client: Client, number: u32) {
    let found = client.space(name(number)).search(Query::vector(vector(number))).limit(2).await.unwrap();
    assert_eq!(found.hits.len(), 1, "{}", name(number));
    assert_eq!(found.hits[0].memory.content, format!("the only one of {number}"));
}

/// Does `work` with every space, some at a time.
async fn for_all<F, Fut>(cluster: &TestCluster, spaces: u32, work: F)
where
    F: Fn(Client, u32) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let next = Arc::new(AtomicU32::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..WORKERS {
        let (client, next, work) = (cluster.client(), next.clone(), work.clone());
        workers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= spaces {
                    return;
                }
                work(client.clone(), number).await;
            }
        });
    }
    while let Some(done) = workers.join_next().await {
        done.unwrap();
    }
}

/// Memory that the indexes of these spaces take.
async fn index_bytes(client: &Client, spaces: impl Iterator<Item = u32>) -> u64 {
    let mut bytes = 0;
    for number in spaces {
        bytes += client.space(name(number)).info().await.unwrap().statistics.index_bytes;
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_spaces_take_little_and_leave_the_memory() {
    let spaces = std::env::var("CAIRN_SPACES").map_or(1_000, |spaces| spaces.parse().unwrap());
    let cluster = TestCluster::start_with(1, SETTINGS).await;
    let client = cluster.client();
    let sample = || {
        let node = cluster.node(1);
        Sample::of(node.process_id().unwrap(), &node.data).unwrap()
    };
    let began = Instant::now();
    let mut told = vec![("at the start", sample(), Duration::ZERO)];
    for_all(&cluster, spaces, make).await;
    told.push(("made", sample(), began.elapsed()));
    for_all(&cluster, spaces, search).await;
    told.push(("searched", sample(), began.elapsed()));

    // Whatever was searched long enough ago is let go, all of it in the end.
    let some = || (0..spaces).step_by((spaces as usize / 20).max(1));
    let idle = Instant::now();
    while index_bytes(&client, some()).await > 0 {
        assert!(idle.elapsed() < PATIENCE, "indexes of spaces that nobody searches stay in memory");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    told.push(("let go", sample(), began.elapsed()));
    for_all(&cluster, spaces, search).await;
    told.push(("searched again", sample(), began.elapsed()));
    assert!(index_bytes(&client, spaces - 1..spaces).await > 0, "it was searched a moment ago");

    for (when, sample, since) in &told {
        println!("{spaces} spaces, {when} after {:.1} s: {sample:?}", since.as_secs_f64());
        assert!(sample.open_files <= OPEN_FILES, "{when}: {sample:?}");
        let resident_max = RESIDENT_BYTES + u64::from(spaces) * RESIDENT_BYTES_A_SPACE;
        assert!(sample.resident_bytes <= resident_max, "{when}: {sample:?}, more than {resident_max}");
    }
}
