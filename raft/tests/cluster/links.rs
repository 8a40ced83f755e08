//! The connections between nodes of this process: a proxy for each direction of each pair, which can be cut and slowed down.

use std::collections::BTreeMap;
use std::time::Duration;

use cairn_raft::{Node, NodeConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::support::{Cluster, PATIENCE};

/// What a link does with connections and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Passes them on.
    Open,
    /// Closes connections, and takes none.
    Cut,
    /// Takes no more bytes than these in a second, in each direction of each connection.
    Slow { bytes_per_second: u64 },
}

/// All links of a cluster. One leads the connections that one node opens to another, with their answers.
pub(crate) struct Links(BTreeMap<(u64, u64), (String, watch::Sender<State>)>);

impl Links {
    /// Links between all nodes of `cluster`, which are to be started by [`Links::start_all`].
    pub(crate) async fn between(cluster: &Cluster) -> Self {
        let ids = cluster.ids();
        let mut links = BTreeMap::new();
        for (from, to) in ids.iter().flat_map(|from| ids.iter().map(move |to| (*from, *to))) {
            if from == to {
                continue;
            }
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let state = watch::Sender::new(State::Open);
            tokio::spawn(serve(listener, cluster.peer_address(to), state.subscribe()));
            links.insert((from, to), (address, state));
        }
        Self(links)
    }

    /// Starts all nodes of `cluster`, which reach each other through these links, and waits until they are ready.
    pub(crate) async fn start_all(&self, cluster: &mut Cluster) {
        let starts = cluster.ids().into_iter().map(|id| Node::start(self.config(cluster, id)));
        let nodes = tokio::time::timeout(PATIENCE, futures::future::try_join_all(starts)).await.unwrap().unwrap();
        nodes.into_iter().for_each(|node| cluster.adopt(node));
        cluster.ready().await;
    }

    fn config(&self, cluster: &Cluster, id: u64) -> NodeConfig {
        let mut config = cluster.config(id);
        for peer in config.peers.iter_mut().filter(|peer| peer.id != id) {
            peer.peer_address.clone_from(&self.0[&(id, peer.id)].0);
        }
        config
    }

    /// Cuts a node off from all others.
    pub(crate) fn cut_off(&self, node: u64) {
        self.set_around(node, State::Cut);
    }

    /// Has a node, and what it says, take in only so much.
    pub(crate) fn slow_down(&self, node: u64, bytes_per_second: u64) {
        self.set_around(node, State::Slow { bytes_per_second });
    }

    /// Opens the links of a node.
    pub(crate) fn mend(&self, node: u64) {
        self.set_around(node, State::Open);
    }

    fn set_around(&self, node: u64, state: State) {
        for ((from, to), (_, link)) in &self.0 {
            if [*from, *to].contains(&node) {
                link.send_replace(state);
            }
        }
    }
}

async fn serve(listener: TcpListener, target: String, state: watch::Receiver<State>) {
    while let Ok((taken, _)) = listener.accept().await {
        if *state.borrow() == State::Cut {
            continue;
        }
        let (target, state) = (target.clone(), state.clone());
        tokio::spawn(async move {
            let Ok(opened) = TcpStream::connect(target).await else { return };
            let _ = (taken.set_nodelay(true), opened.set_nodelay(true));
            let ((from, back), (other_back, to)) = (taken.into_split(), opened.into_split());
            // When one direction ends, the other does too.
            tokio::select! {
                () = pass(from, to, state.clone()) => {}
                () = pass(other_back, back, state) => {}
            }
        });
    }
}

/// Passes bytes on until the link is cut.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut state: watch::Receiver<State>) {
    let mut buffer = vec![0; 8 << 10];
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            _ = state.wait_for(|state| *state == State::Cut) => return,
        };
        let Ok(length @ 1..) = read else { return };
        let now = *state.borrow();
        if now == State::Cut || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
        if let State::Slow { bytes_per_second } = now {
            tokio::time::sleep(Duration::from_micros(length as u64 * 1_000_000 / bytes_per_second)).await;
        }
    }
}
