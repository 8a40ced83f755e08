//! The connections between the nodes: a proxy for each direction of each pair, which can be cut and silenced.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What a link does with connections and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Passes them on.
    Open,
    /// Closes connections, and takes none.
    Cut,
    /// Keeps connections and passes nothing on.
    Silent,
    /// Passes them on after a while.
    Late(Duration),
}

/// All links of a cluster. One leads the connections that `from` opens to `to`, with their answers.
pub(crate) struct Links(BTreeMap<(u64, u64), (SocketAddr, watch::Sender<State>)>);

impl Links {
    /// Links between the nodes at these addresses.
    pub(crate) async fn between(nodes: Vec<(u64, SocketAddr)>) -> Self {
        let mut links = BTreeMap::new();
        for (from, _) in &nodes {
            for (to, target) in nodes.iter().filter(|(to, _)| to != from) {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let address = listener.local_addr().unwrap();
                let state = watch::Sender::new(State::Open);
                tokio::spawn(serve(listener, *target, state.subscribe()));
                links.insert((*from, *to), (address, state));
            }
        }
        Self(links)
    }

    /// Where `from` reaches `to`.
    pub(crate) fn address(&self, from: u64, to: u64) -> SocketAddr {
        self.0[&(from, to)].0
    }

    fn set(&self, from: u64, to: u64, state: State) {
        self.0[&(from, to)].1.send_replace(state);
    }

    /// Cuts what `from` says to `to`; `to` may still call `from`.
    pub(crate) fn cut(&self, from: u64, to: u64) {
        self.set(from, to, State::Cut);
    }

    /// Has `to` hear nothing more from `from`, without anybody noticing.
    pub(crate) fn silence(&self, from: u64, to: u64) {
        self.set(from, to, State::Silent);
    }

    /// Has everything between all nodes arrive late.
    pub(crate) fn delay(&self, time: Duration) {
        for (_, state) in self.0.values() {
            state.send_replace(State::Late(time));
        }
    }

    /// Cuts a node off from all others.
    pub(crate) fn isolate(&self, node: u64, nodes: u64) {
        for other in (1..=nodes).filter(|other| *other != node) {
            self.cut(node, other);
            self.cut(other, node);
        }
    }

    /// Whether any link does not do its work.
    pub(crate) fn are_harmed(&self) -> bool {
        self.0.values().any(|(_, state)| *state.borrow() != State::Open)
    }

    /// Opens all links.
    pub(crate) fn mend(&self) {
        for (_, state) in self.0.values() {
            state.send_replace(State::Open);
        }
    }
}

async fn serve(listener: TcpListener, target: SocketAddr, state: watch::Receiver<State>) {
    while let Ok((taken, _)) = listener.accept().await {
        if *state.borrow() == State::Cut {
            continue;
        }
        let state = state.clone();
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

/// Passes bytes on while the link is open, and holds them while it is silent.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut state: watch::Receiver<State>) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            _ = state.wait_for(|state| *state == State::Cut) => return,
        };
        let Ok(length @ 1..) = read else { return };
        let Ok(now) = state.wait_for(|state| *state != State::Silent).await.map(|now| *now) else { return };
        if let State::Late(time) = now {
            tokio::time::sleep(time).await;
        }
        if now == State::Cut || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
