//! Clusters in this process: real engines, real logs, real sockets on loopback.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_engine::crypto::TenantId;
use cairn_engine::keyring::RootKey;
use cairn_engine::{Options, Principal, WriteRequest, WriteResponse};
use cairn_proto::v1;
use cairn_raft::wal::WalOptions;
use cairn_raft::{
    Applied, Limits, MembershipError, Node, NodeConfig, Peer, ProposeError, ReadLevel, StartError, Timing,
};
use tempfile::TempDir;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task;

use crate::disks::Trouble;

/// Long enough for any step on a loaded machine; a test that gets there has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How long the end of a test waits for nodes that can still hear of each other's last entries.
const SETTLED_WITHIN: Duration = Duration::from_secs(1);

/// The space that tests write to.
pub(crate) const SPACE: &str = "notes";

pub(crate) fn in_time() -> Instant {
    Instant::now() + PATIENCE
}

pub(crate) fn alice() -> Principal {
    Principal::new(TenantId::DEFAULT, "alice")
}

/// A cluster whose nodes can be started and stopped.
pub(crate) struct Cluster {
    dir: TempDir,
    peers: Vec<Peer>,
    /// The nodes that join later, with what they are told.
    joining: BTreeSet<u64>,
    pub(crate) root_key: RootKey,
    pub(crate) limits: Limits,
    pub(crate) timing: Timing,
    nodes: BTreeMap<u64, Arc<Node>>,
}

impl Cluster {
    /// A cluster of `size` nodes, none of them started.
    pub(crate) fn of(size: u64) -> Self {
        let peer = |id| {
            let address = format!("127.0.0.1:{}", free_port());
            Peer { id, peer_address: address, client_address: format!("client-{id}:7480") }
        };
        Self {
            dir: tempfile::tempdir().unwrap(),
            peers: (1..=size).map(peer).collect(),
            joining: BTreeSet::new(),
            root_key: RootKey::from_bytes(&[7; 32]),
            limits: Limits { log: WalOptions { segment_bytes: 1 << 20, ..WalOptions::default() }, ..Limits::default() },
            timing: Timing::default(),
            nodes: BTreeMap::new(),
        }
    }

    /// A cluster of `size` nodes that all run and agree on a leader.
    pub(crate) async fn running(size: u64) -> Self {
        let mut cluster = Self::of(size);
        cluster.start_all().await;
        cluster
    }

    pub(crate) fn data_dir(&self, id: u64) -> PathBuf {
        self.dir.path().join(format!("node-{id}"))
    }

    /// Where a node listens for its peers.
    pub(crate) fn peer_address(&self, id: u64) -> String {
        self.peers.iter().find(|peer| peer.id == id).unwrap().peer_address.clone()
    }

    pub(crate) fn ids(&self) -> Vec<u64> {
        self.peers.iter().map(|peer| peer.id).collect()
    }

    /// All nodes but one.
    pub(crate) fn others(&self, id: u64) -> Vec<u64> {
        self.ids().into_iter().filter(|other| *other != id).collect()
    }

    /// The nodes that run.
    pub(crate) fn running_ids(&self) -> Vec<u64> {
        self.nodes.keys().copied().collect()
    }

    pub(crate) fn config(&self, id: u64) -> NodeConfig {
        let peer = self.peers.iter().find(|peer| peer.id == id).unwrap();
        let mut engine = Options::new(self.data_dir(id));
        engine.block_cache_bytes = 8 << 20;
        engine.write_buffer_bytes = 4 << 20;
        NodeConfig {
            node_id: id,
            peers: self.listed(id),
            data_dir: self.data_dir(id),
            root_key: self.root_key.clone(),
            join: self.joining.contains(&id),
            listener: bind(&peer.peer_address),
            engine,
            timing: self.timing.clone(),
            limits: self.limits.clone(),
        }
    }

    /// Whom the configuration of a node names: the first members, and itself.
    fn listed(&self, id: u64) -> Vec<Peer> {
        self.peers.iter().filter(|peer| peer.id == id || !self.joining.contains(&peer.id)).cloned().collect()
    }

    /// Prepares a node that joins later: not started, and not added.
    pub(crate) fn newcomer(&mut self, id: u64) -> Peer {
        let peer = absent(id);
        self.joining.insert(id);
        self.peers.push(peer.clone());
        peer
    }

    /// Adds a new node through `through`, starts it, and gives it a vote.
    pub(crate) async fn grow(&mut self, id: u64, through: u64) {
        let peer = self.newcomer(id);
        self.node(through).add_member(peer, in_time()).await.unwrap();
        self.start(id).await;
        self.promote(id, through).await;
    }

    /// Gives a learner a vote as soon as it has caught up.
    pub(crate) async fn promote(&self, id: u64, through: u64) {
        let deadline = in_time();
        loop {
            match self.node(through).promote_member(id, deadline).await {
                Err(MembershipError::NotCaughtUp(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
                promoted => {
                    promoted.unwrap();
                    return;
                }
            }
        }
    }

    /// Starts one node; the others must be running, or be started at the same time.
    pub(crate) async fn try_start(&mut self, id: u64) -> Result<Arc<Node>, StartError> {
        let node = tokio::time::timeout(PATIENCE, Node::start(self.config(id))).await.expect("the start hangs")?;
        self.nodes.insert(id, Arc::clone(&node));
        Ok(node)
    }

    /// Takes over a node that was started otherwise.
    pub(crate) fn adopt(&mut self, node: Arc<Node>) {
        self.nodes.insert(node.node_id(), node);
    }

    pub(crate) async fn start(&mut self, id: u64) -> Arc<Node> {
        self.try_start(id).await.unwrap()
    }

    /// Starts all nodes at once and waits until they are ready.
    pub(crate) async fn start_all(&mut self) {
        self.start_all_as(Node::start).await;
    }

    /// The same, each node as `start` has it.
    pub(crate) async fn start_all_as<F>(&mut self, start: impl Fn(NodeConfig) -> F)
    where
        F: Future<Output = Result<Arc<Node>, StartError>>,
    {
        let starts = futures::future::try_join_all(self.ids().into_iter().map(|id| start(self.config(id))));
        let nodes = tokio::time::timeout(PATIENCE, starts).await.expect("the start hangs").unwrap();
        nodes.into_iter().for_each(|node| self.adopt(node));
        self.ready().await;
    }

    /// The same, each node on the disk at its place.
    pub(crate) async fn start_all_on(&mut self, disks: &[Trouble]) {
        self.start_all_as(|config| {
            let disk = &disks[config.node_id as usize - 1];
            Node::start_in(config, disk.environment())
        })
        .await;
    }

    /// Waits until all running nodes are ready.
    pub(crate) async fn ready(&self) {
        for node in self.nodes.values() {
            ready(node).await;
        }
    }

    pub(crate) fn node(&self, id: u64) -> &Arc<Node> {
        &self.nodes[&id]
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    /// The leader that a majority of the running nodes follows.
    pub(crate) async fn leader(&self) -> u64 {
        let mut leader = None;
        eventually("the nodes agree on a leader", || {
            let seen: Vec<_> = self.nodes.values().map(|node| node.status().leader_id).collect();
            leader = seen[0].filter(|id| self.nodes.contains_key(id) && seen.iter().all(|other| *other == seen[0]));
            leader.is_some()
        })
        .await;
        leader.unwrap()
    }

    /// Who leads, and in which term.
    pub(crate) async fn leadership(&self) -> (u64, u64) {
        let leader = self.leader().await;
        (leader, self.node(leader).status().term)
    }

    /// A running node that does not lead.
    pub(crate) async fn follower(&self) -> u64 {
        let leader = self.leader().await;
        *self.nodes.keys().find(|id| **id != leader).unwrap()
    }

    /// Stops a node at once and gives its directory free.
    pub(crate) async fn stop(&mut self, id: u64) {
        self.nodes[&id].stop().await;
        self.release(id).await;
    }

    /// Stops a node in order and gives its directory free.
    pub(crate) async fn shut_down(&mut self, id: u64) {
        self.nodes[&id].shutdown().await;
        self.release(id).await;
    }

    /// Forgets a node, whether it was stopped or not, and waits until its directory is free.
    pub(crate) async fn release(&mut self, id: u64) {
        release(self.nodes.remove(&id).unwrap()).await;
    }

    pub(crate) async fn stop_all(&mut self) {
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.stop(id).await;
        }
    }

    /// Waits until all running nodes have applied the same index, and returns it with their digests.
    pub(crate) async fn digests(&self) -> (u64, Vec<[u8; 16]>) {
        let mut found = (0, Vec::new());
        eventually("all nodes have applied the same index", || {
            let applied: Vec<_> = self.nodes.values().map(|node| node.engine().applied()).collect();
            let indexes: Vec<_> =
                applied.iter().map(|applied| applied.log_id.map_or(0, |log_id| log_id.index)).collect();
            found = (indexes[0], applied.iter().map(|applied| applied.digest).collect());
            indexes.iter().all(|index| *index == indexes[0])
        })
        .await;
        found
    }

    /// Waits until all running nodes have applied the same index, and insists on the same state.
    pub(crate) async fn assert_equal(&self) {
        let (index, digests) = self.digests().await;
        assert!(digests.iter().all(|digest| *digest == digests[0]), "the nodes differ at index {index}: {digests:?}");
    }

    /// Two running nodes that have applied the same index and have another digest, if there are such.
    fn difference(&self) -> Option<String> {
        let mut of_index = BTreeMap::new();
        self.nodes.iter().find_map(|(id, node)| {
            let applied = node.engine().applied();
            let index = applied.log_id.map(|log_id| log_id.index);
            let (first, digest) = *of_index.entry(index).or_insert((*id, applied.digest));
            (digest != applied.digest).then(|| format!("nodes {first} and {id} differ at index {index:?}"))
        })
    }

    fn have_applied_the_same(&self) -> bool {
        let mut indexes = self.nodes.values().map(|node| node.engine().applied().log_id.map(|log_id| log_id.index));
        let first = indexes.next();
        indexes.all(|index| Some(index) == first)
    }

    /// The [difference](Self::difference) once all have come to the same index, or time is over.
    fn settled_difference(&self) -> Option<String> {
        let until = Instant::now() + SETTLED_WITHIN;
        while !self.have_applied_the_same() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.difference()
    }

    /// Stops all nodes while their directories are there: a log that cannot be written any more ends the process. A test with a
    /// single thread stops them itself.
    fn stop_before_directories_go(&mut self) {
        let runtime = Handle::current();
        if runtime.runtime_flavor() == RuntimeFlavor::MultiThread {
            let nodes = mem::take(&mut self.nodes);
            let stopping = futures::future::join_all(nodes.values().map(|node| node.stop()));
            let stopped = task::block_in_place(|| runtime.block_on(tokio::time::timeout(PATIENCE, stopping)));
            assert!(std::thread::panicking() || stopped.is_ok(), "the nodes do not stop");
        }
    }
}

/// Whatever a test was about, it ends with nodes that do not differ. Some may be cut off, or gone.
impl Drop for Cluster {
    fn drop(&mut self) {
        let difference = if std::thread::panicking() { None } else { self.settled_difference() };
        self.stop_before_directories_go();
        assert_eq!(difference, None);
    }
}

/// A member that is not there.
pub(crate) fn absent(id: u64) -> Peer {
    let address = format!("127.0.0.1:{}", free_port());
    Peer { id, peer_address: address, client_address: format!("client-{id}:7480") }
}

/// Polls until `condition` holds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let patience = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < patience, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Lets go of a node and waits until its data directory is nobody's: its store is closed by whoever used it last.
pub(crate) async fn release(node: Arc<Node>) {
    let given_back = node.directory_given_back();
    drop(node);
    tokio::time::timeout(PATIENCE, given_back).await.expect("somebody holds on to the node's directory");
}

/// A start that was broken off may take a moment to let go of its port.
fn bind(address: &str) -> TcpListener {
    let patience = Instant::now() + PATIENCE;
    loop {
        match TcpListener::bind(address) {
            Ok(listener) => return listener,
            Err(error) => assert!(Instant::now() < patience, "{address}: {error}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until `node` takes requests.
pub(crate) async fn ready(node: &Node) {
    eventually(&format!("node {} is ready", node.node_id()), || node.is_ready()).await;
}

/// A port that no outgoing connection is given, so that a node that restarts finds it free.
fn free_port() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let seed = (std::process::id() % 1000) as u16 * 11;
    loop {
        let port = 20_000 + (seed + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

pub(crate) fn space() -> WriteRequest {
    let dense = v1::DenseEmbedding { dimension: 4, metric: v1::Metric::Cosine.into(), ..Default::default() };
    let embedding = v1::Embedding {
        name: "default".to_string(),
        kind: Some(v1::embedding::Kind::Dense(dense)),
        ..Default::default()
    };
    let space = v1::Space { name: SPACE.to_string(), embeddings: vec![embedding], ..Default::default() };
    WriteRequest::CreateSpace(v1::CreateSpaceRequest { space: Some(space), request_id: String::new() })
}

pub(crate) fn memory(id: &str, content: &str) -> WriteRequest {
    memory_of_request(id, content, "")
}

/// Not an upsert: were the request carried out twice, the second time would fail.
pub(crate) fn memory_of_request(id: &str, content: &str, request_id: &str) -> WriteRequest {
    let vector = v1::Vector {
        embedding: String::new(),
        data: Some(v1::vector::Data::Dense(v1::DenseVector { values: vec![1.0, 0.5, 0.25, 0.125] })),
    };
    let memory =
        v1::Memory { id: id.to_string(), content: content.to_string(), vectors: vec![vector], ..Default::default() };
    WriteRequest::AddMemories(v1::AddMemoriesRequest {
        space: SPACE.to_string(),
        memories: vec![memory],
        write_mode: v1::WriteMode::Insert.into(),
        request_id: request_id.to_string(),
        ..Default::default()
    })
}

/// So many bytes of text that no compression makes much fewer.
pub(crate) fn incompressible(bytes: usize) -> String {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = |_| {
        // xorshift64, Marsaglia 2003.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b' ' + (state % 95) as u8)
    };
    (0..bytes).map(next).collect()
}

/// Writes through `node` and insists on success.
pub(crate) async fn write(node: &Node, request: WriteRequest) -> Applied {
    let applied = try_write(node, request, in_time()).await.unwrap();
    let response: WriteResponse = node.engine().respond(&applied.outcome, applied.position).unwrap();
    drop(response);
    applied
}

pub(crate) async fn try_write(node: &Node, request: WriteRequest, deadline: Instant) -> Result<Applied, ProposeError> {
    let command = node.engine().prepare(&alice(), request).unwrap();
    node.propose(command, deadline).await
}

/// How many memories `node` counts at `level`.
pub(crate) async fn count(node: &Node, level: ReadLevel) -> u64 {
    let point = node.read_point(level, in_time()).await.unwrap();
    let request = v1::CountMemoriesRequest { space: SPACE.to_string(), ..Default::default() };
    node.engine().count_memories(&alice(), &request, &point).unwrap().count
}

/// Which of `ids` are missing on `node`.
pub(crate) async fn missing(node: &Node, ids: &[String]) -> Vec<String> {
    let point = node.read_point(ReadLevel::Linearizable, in_time()).await.unwrap();
    let request = v1::GetMemoriesRequest { space: SPACE.to_string(), ids: ids.to_vec(), ..Default::default() };
    node.engine().get_memories(&alice(), &request, &point).unwrap().missing_ids
}
