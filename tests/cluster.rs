//! One node and three as an operator runs them: real processes, real kills.

#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::time::{Duration, Instant};

use cairn_client::{Client, ErrorKind, Memory, NewSpace, Query, RetryPolicy};
use cairn_demo::screen::Screen;
use cairn_demo::show::Show;
use cairn_tests::{TestCluster, cairn_binary};

const DIMENSION: u32 = 8;
const SPACE: &str = "notes";
const SOON: Duration = Duration::from_secs(5);

fn vector(number: u32) -> Vec<f32> {
    (0..DIMENSION).map(|place| if place == number % DIMENSION { 1.0 } else { number as f32 / 1_000.0 }).collect()
}

fn note(number: u32) -> Memory {
    Memory::new(format!("note {number}")).id(format!("n{number}")).user("ada").vector(vector(number))
}

async fn make_space(client: &Client) {
    client.create_space(NewSpace::new(SPACE, DIMENSION)).await.unwrap();
}

async fn add(client: &Client, numbers: std::ops::Range<u32>) {
    for number in numbers {
        client.space(SPACE).add(note(number)).await.unwrap();
    }
}

async fn count(client: &Client) -> u64 {
    client.space(SPACE).count().await.unwrap().count
}

async fn ids_near(client: &Client, number: u32) -> Vec<String> {
    let found = client.space(SPACE).search(Query::vector(vector(number))).limit(5).await.unwrap();
    found.hits.into_iter().map(|hit| hit.memory.id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_node_keeps_what_it_acknowledged_through_a_kill_and_a_stop() {
    let mut cluster = TestCluster::start(1).await;
    let client = cluster.client();
    make_space(&client).await;
    add(&client, 0..50).await;
    let near = ids_near(&client, 7).await;

    cluster.kill(1).unwrap();
    cluster.start_node(1).unwrap();
    cluster.wait_until_ready().await.unwrap();
    assert_eq!(count(&client).await, 50);
    assert_eq!(ids_near(&client, 7).await, near);

    add(&client, 50..60).await;
    let status = cluster.stop(1).await.unwrap();
    assert!(status.success(), "a node that is asked to stop ends with {status}");
    cluster.start_node(1).unwrap();
    cluster.wait_until_ready().await.unwrap();
    assert_eq!(count(&client).await, 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_reads_every_acknowledged_write_at_once() {
    let cluster = TestCluster::start(3).await;
    make_space(&cluster.client()).await;
    let clients: Vec<_> = (1..=3).map(|id| cluster.client_of(id)).collect();
    for number in 0..30 {
        let writer = &clients[number as usize % 3];
        writer.space(SPACE).add(note(number)).await.unwrap();
        for reader in &clients {
            assert_eq!(count(reader).await, u64::from(number) + 1);
            let found = reader.space(SPACE).get([format!("n{number}")]).await.unwrap();
            assert_eq!(found.memories.len(), 1);
        }
    }
    cluster.wait_until_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retried_request_is_applied_once_even_on_another_node_after_the_leader_died() {
    let mut cluster = TestCluster::start(3).await;
    let client = cluster.client();
    make_space(&client).await;
    let write = |client: &Client| client.space(SPACE).add(Memory::new("once")).request_id("the-one");
    let first = write(&client).await.unwrap();
    add(&client, 1..2).await;
    // Applied twice, it would meet version 2 and fail.
    let change =
        |client: &Client| client.space(SPACE).update("n1").kind("fact").expected_version(1).request_id("the-change");
    let changed = change(&client).await.unwrap();

    let leader = client.status().await.unwrap().leader_id;
    cluster.kill(leader).unwrap();
    let again = write(&client).await.unwrap();
    assert_eq!(first.results, again.results);
    assert_eq!(count(&client).await, 2);
    assert_eq!(change(&client).await.unwrap().memory, changed.memory);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_form_one_cluster_in_any_order_of_starts() {
    let mut cluster = TestCluster::new(3);
    for id in [3, 1, 2] {
        cluster.start_node(id).unwrap();
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    cluster.wait_until_ready().await.unwrap();
    let mut names = Vec::new();
    for id in 1..=3 {
        names.push(cluster.client_of(id).status().await.unwrap().cluster_id);
    }
    assert!(names.iter().all(|name| !name.is_empty() && *name == names[0]), "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_calls_end_with_unavailable_and_the_status_is_still_there() {
    let mut cluster = TestCluster::start(3).await;
    make_space(&cluster.client()).await;
    let leader = cluster.client().status().await.unwrap().leader_id;
    for id in (1..=3).filter(|id| *id != leader) {
        cluster.kill(id).unwrap();
    }
    let endpoint = cluster.node(leader).endpoint();
    let client = Client::builder().endpoints([endpoint]).retry(RetryPolicy::none()).build().unwrap();
    // The leader steps down once it has not heard from a majority.
    tokio::time::sleep(Duration::from_secs(2)).await;

    let begun = Instant::now();
    let write = client.space(SPACE).add(note(1)).deadline(SOON).await.unwrap_err();
    assert_eq!(write.kind(), ErrorKind::Unavailable, "{write}");
    let read = client.space(SPACE).count().deadline(SOON).await.unwrap_err();
    assert_eq!(read.kind(), ErrorKind::Unavailable, "{read}");
    assert!(begun.elapsed() < 2 * SOON, "both calls end before their deadlines");
    let status = client.status().await.unwrap();
    assert_eq!(status.node_id, leader);

    for id in (1..=3).filter(|id| *id != leader) {
        cluster.start_node(id).unwrap();
    }
    cluster.wait_until_ready().await.unwrap();
    add(&cluster.client(), 1..2).await;
    assert!(count(&cluster.client()).await >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_was_away_catches_up() {
    let mut cluster = TestCluster::start(3).await;
    let client = cluster.client();
    make_space(&client).await;
    add(&client, 0..20).await;
    let leader = client.status().await.unwrap().leader_id;
    let follower = if leader == 1 { 2 } else { 1 };
    cluster.kill(follower).unwrap();
    add(&client, 20..120).await;
    cluster.start_node(follower).unwrap();
    cluster.wait_until_ready().await.unwrap();
    assert_eq!(count(&cluster.client_of(follower)).await, 120);
    cluster.wait_until_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_plays_to_its_end() {
    let directory = tempfile::tempdir().unwrap();
    Show::play(Screen::standard(), &cairn_binary(), directory.path()).await.unwrap();
}
