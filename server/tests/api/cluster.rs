//! Three nodes in this process, and what a client of all of them sees while one of them stops.

use std::collections::BTreeMap;
use std::future::IntoFuture as _;
use std::time::Duration;

use cairn_client::{Client, Memory, WatchEvent};
use cairn_server::config::{Config, PeerEntry};
use cairn_server::{Handle, Listeners, run_on};
use futures::StreamExt;
use futures::future::join_all;

use crate::support::{configuration, write_root_key};

/// Long enough for any step on a loaded machine; a test that gets there has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Nodes with fixed addresses, so that they can be stopped and started again.
pub(crate) struct TestCluster {
    configs: BTreeMap<u64, Config>,
    nodes: BTreeMap<u64, Handle>,
    _directory: tempfile::TempDir,
}

impl TestCluster {
    /// Three nodes that have elected a leader.
    pub(crate) async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        write_root_key(&directory.path().join("root.key"));
        let mut bound = Vec::new();
        for id in 1..=3 {
            let mut config = configuration(directory.path());
            config.node.id = id;
            config.node.data_dir = directory.path().join(format!("node-{id}"));
            let listeners = Listeners::bind(&config).unwrap();
            let addresses = listeners.addresses().unwrap();
            (config.listen.grpc, config.listen.peer) = (addresses.grpc, addresses.peer);
            config.listen.http = addresses.http;
            bound.push((config, listeners));
        }
        let peer = |(config, _): &(Config, Listeners)| PeerEntry {
            id: config.node.id,
            peer_address: config.listen.peer.to_string(),
            client_address: config.listen.grpc.to_string(),
        };
        let peers: Vec<_> = bound.iter().map(peer).collect();
        let starts = bound.into_iter().map(|(mut config, listeners)| {
            config.cluster.peers.clone_from(&peers);
            async move { (config.clone(), run_on(config, listeners).await.unwrap()) }
        });
        let mut cluster = Self { configs: BTreeMap::new(), nodes: BTreeMap::new(), _directory: directory };
        for (config, handle) in join_all(starts).await {
            assert!(handle.wait_ready(PATIENCE).await, "node {} became ready", config.node.id);
            cluster.nodes.insert(config.node.id, handle);
            cluster.configs.insert(config.node.id, config);
        }
        cluster
    }

    fn endpoint(&self, id: u64) -> String {
        format!("http://{}", self.configs[&id].listen.grpc)
    }

    /// A client that knows these nodes only.
    pub(crate) fn client_of(&self, ids: &[u64]) -> Client {
        let endpoints = ids.iter().map(|id| self.endpoint(*id));
        Client::builder().endpoints(endpoints).deadline(PATIENCE).build().unwrap()
    }

    /// A client that knows all nodes.
    pub(crate) fn client(&self) -> Client {
        self.client_of(&[1, 2, 3])
    }

    pub(crate) fn leader(&self) -> u64 {
        let leader = |handle: &Handle| handle.node().status().leader_id;
        self.nodes.values().find_map(leader).expect("a leader is known")
    }

    pub(crate) async fn stop(&mut self, id: u64) {
        self.nodes.remove(&id).unwrap().stop().await;
    }

    pub(crate) async fn start_again(&mut self, id: u64) {
        let config = self.configs[&id].clone();
        let handle = run_on(config.clone(), Listeners::bind(&config).unwrap()).await.unwrap();
        assert!(handle.wait_ready(PATIENCE).await, "node {id} became ready again");
        self.nodes.insert(id, handle);
    }
}

fn id_of(event: &WatchEvent) -> Option<&str> {
    match event {
        WatchEvent::Change(change) => Some(&change.id),
        WatchEvent::Progress(_) => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_begun_at_one_node_goes_on_at_any_other() {
    let cluster = TestCluster::start().await;
    let client = cluster.client();
    client.create_space(cairn_client::NewSpace::new("notes", 2)).await.unwrap();
    let space = client.space("notes");
    let begin = space.info().await.unwrap().position;
    let mut position = begin.clone();
    for (number, node) in [1, 2, 3, 1].into_iter().enumerate() {
        let ids = [format!("{number}-a"), format!("{number}-b")];
        space.add_all(ids.iter().map(|id| Memory::new("text").id(id))).await.unwrap();
        // Each node goes on where the one before was left, in the midst of what one write did.
        let here = cluster.client_of(&[node]).space("notes");
        let mut events = here.watch().after(position).stream();
        let expected = if number == 0 { &ids[..1] } else { &[format!("{}-b", number - 1), ids[0].clone()][..] };
        let mut last = None;
        for id in expected {
            let event = loop {
                let event = events.next().await.unwrap().unwrap();
                if id_of(&event).is_some() {
                    break event;
                }
            };
            assert_eq!(id_of(&event), Some(id.as_str()), "node {node}");
            last = Some(event.position().clone());
        }
        position = last.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_survives_the_stop_of_each_node_in_turn() {
    let mut cluster = TestCluster::start().await;
    let client = cluster.client();
    client.create_space(cairn_client::NewSpace::new("notes", 2)).await.unwrap();
    let space = client.space("notes");
    let mut events = space.watch().stream();
    assert!(id_of(&events.next().await.unwrap().unwrap()).is_none(), "first the position");
    let mut expected = Vec::new();
    for round in 0..4 {
        let stopped = if round == 0 { cluster.leader() } else { round };
        cluster.stop(stopped).await;
        for number in 0..5 {
            let id = format!("{round}-{number}");
            space.add(Memory::new("text").id(&id)).await.unwrap();
            expected.push(id);
        }
        cluster.start_again(stopped).await;
    }
    let mut told = Vec::new();
    while told.len() < expected.len() {
        let next = tokio::time::timeout(PATIENCE, events.next()).await.expect("the watch goes on");
        told.extend(id_of(&next.unwrap().unwrap()).map(str::to_owned));
    }
    assert_eq!(told, expected, "each once, in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_survives_the_stop_of_each_node_in_turn() {
    let mut cluster = TestCluster::start().await;
    let client = cluster.client();
    client.create_space(cairn_client::NewSpace::new("notes", 2)).await.unwrap();
    let space = client.space("notes");
    let count = 8_000_u64;
    // More than one batch is on its way whenever a node stops.
    let memories = futures::stream::iter((0..count).map(|number| Memory::new("text").id(number.to_string())));
    let mut progress = space.import("all").insert_only().stream(memories);
    let mut acknowledged = 0;
    for round in 0..3 {
        let next = tokio::time::timeout(PATIENCE, progress.next()).await.expect("the import goes on");
        let next = next.unwrap().unwrap();
        assert!(next.acknowledged > acknowledged);
        acknowledged = next.acknowledged;
        let stopped = if round == 0 { cluster.leader() } else { round };
        cluster.stop(stopped).await;
        cluster.start_again(stopped).await;
    }
    while let Some(next) = progress.next().await {
        acknowledged = next.unwrap().acknowledged;
    }
    // Were a batch applied twice, an insert would have failed.
    assert_eq!((acknowledged, space.count().await.unwrap().count), (count, count));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_a_space_counts_on_every_node() {
    let mut cluster = TestCluster::start().await;
    let client = cluster.client();
    client.create_space(cairn_client::NewSpace::new("notes", 2)).await.unwrap();
    let space = client.space("notes");
    let ranked = |id: i64| Memory::new(format!("text {id}")).id(id.to_string()).metadata("rank", id % 10);
    space.add_all((0..500).map(ranked)).await.unwrap();
    let below = || cairn_client::field("metadata.rank").lt(3);
    for node in [1, 2, 3] {
        // Each node has the space in memory when its fields change.
        assert_eq!(cluster.client_of(&[node]).space("notes").count().filter(below()).await.unwrap().count, 150);
    }
    client.set_alias("live", "notes").await.unwrap();
    let update =
        client.update_space("live").fields([("rank", cairn_client::FieldType::Integer)]).dedup_by_content(true);
    let updated = update.await.unwrap();
    assert_eq!((updated.space.name.as_str(), updated.space.version), ("notes", 3));
    for node in [1, 2, 3] {
        let here = cluster.client_of(&[node]);
        let live = here.space("live");
        assert_eq!(live.count().filter(below()).await.unwrap().count, 150, "node {node}, while it may be building");
        let began = std::time::Instant::now();
        while !live.info().await.unwrap().space.building.is_empty() {
            assert!(began.elapsed() < PATIENCE, "node {node} builds for ever");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(live.count().filter(below()).await.unwrap().count, 150, "node {node}");
    }
    // A leader that comes later knows it too, and so does a node that starts again.
    let leader = cluster.leader();
    cluster.stop(leader).await;
    let twin = client.space("live").add(Memory::new("text 7").id("twin")).await.unwrap();
    assert_eq!(twin.results[0].outcome, cairn_client::Outcome::Deduplicated);
    cluster.start_again(leader).await;
    let again = cluster.client_of(&[leader]);
    assert_eq!(again.space("live").count().filter(below()).await.unwrap().count, 150);
    assert_eq!(again.remove_alias("live").await.unwrap().previous_space.as_deref(), Some("notes"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_by_filter_tells_its_exact_total_over_failovers_and_when_it_is_repeated() {
    // More than one command deletes.
    const OLD: u64 = 12_000;
    let mut cluster = TestCluster::start().await;
    let client = cluster.client();
    client.create_space(cairn_client::NewSpace::new("notes", 2)).await.unwrap();
    let space = client.space("notes");
    let memory = |number: u64| {
        let kind = if number.is_multiple_of(13) { "kept" } else { "old" };
        Memory::new("text").id(number.to_string()).kind(kind)
    };
    let total = OLD + OLD / 12;
    let imported = space.import("all").stream(futures::stream::iter((0..total).map(memory)));
    assert!(imported.all(|batch| std::future::ready(batch.is_ok())).await);
    let kept = space.count().filter(cairn_client::field("kind").eq("kept")).await.unwrap().count;

    let old = cairn_client::field("kind").eq("old");
    let delete = space.delete_matching(cairn_client::Scope::new(), Some(old)).request_id("once");
    let deleting = tokio::spawn(delete.clone().into_future());
    let watched = cluster.nodes.values().next().unwrap().node().clone();
    let stored = || watched.engine().memories().unwrap();
    let began = std::time::Instant::now();
    // The leader goes in the midst of it, and another one right behind.
    while stored() == total {
        assert!(began.elapsed() < PATIENCE, "nothing is deleted");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(watched);
    for _ in 0..2 {
        let leader = cluster.leader();
        cluster.stop(leader).await;
        cluster.start_again(leader).await;
    }
    assert_eq!(deleting.await.unwrap().unwrap().count, total - kept);
    assert_eq!(delete.await.unwrap().count, total - kept, "repeated, it tells the same");
    assert_eq!(space.count().await.unwrap().count, kept);
}
