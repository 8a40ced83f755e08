//! Network faults for tests without privileges: a proxy on loopback for each direction of each pair of nodes.
//!
//! ```text
//!   node 1 ── connects to ──> link 1 -> 2 ── connects to ──> node 2        a link also passes back the answers
//! ```

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What a slow link passes on at a time: little, so that it is slow and not late.
const SLOW_BYTES: usize = 8 << 10;

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
    /// Takes no more bytes than these in a second, in each direction of each connection.
    Slow { bytes_per_second: u64 },
}

/// All links of a cluster. One leads the connections that a node opens to another, with their answers.
pub struct Links(BTreeMap<(u64, u64), (SocketAddr, watch::Sender<State>)>);

impl Links {
    /// Open links between the nodes with these ids at these addresses.
    ///
    /// # Errors
    ///
    /// When the machine has no port left on loopback.
    pub async fn between(nodes: &[(u64, SocketAddr)]) -> io::Result<Self> {
        let mut links = BTreeMap::new();
        for (from, _) in nodes {
            for (to, target) in nodes.iter().filter(|(to, _)| to != from) {
                let listener = TcpListener::bind("127.0.0.1:0").await?;
                let address = listener.local_addr()?;
                let state = watch::Sender::new(State::Open);
                tokio::spawn(serve(listener, *target, state.subscribe()));
                links.insert((*from, *to), (address, state));
            }
        }
        Ok(Self(links))
    }

    /// Where `from` reaches `to`.
    ///
    /// # Panics
    ///
    /// When there is no such link.
    #[must_use]
    pub fn address(&self, from: u64, to: u64) -> SocketAddr {
        self.0[&(from, to)].0
    }

    /// Cuts what `from` says to `to`; `to` may still call `from`.
    pub fn cut(&self, from: u64, to: u64) {
        self.set(State::Cut, |link| link == (from, to));
    }

    /// Has `to` hear nothing more from `from`, without anybody noticing.
    pub fn silence(&self, from: u64, to: u64) {
        self.set(State::Silent, |link| link == (from, to));
    }

    /// Cuts a node off from all others.
    pub fn cut_off(&self, node: u64) {
        self.set(State::Cut, |(from, to)| from == node || to == node);
    }

    /// Has a node, and what it says, take in only so much.
    pub fn slow_down(&self, node: u64, bytes_per_second: u64) {
        self.set(State::Slow { bytes_per_second }, |(from, to)| from == node || to == node);
    }

    /// Has everything between all nodes arrive late.
    pub fn delay(&self, time: Duration) {
        self.set(State::Late(time), |_| true);
    }

    /// Opens all links.
    pub fn mend(&self) {
        self.set(State::Open, |_| true);
    }

    /// Whether any link does not do its work.
    #[must_use]
    pub fn are_harmed(&self) -> bool {
        self.0.values().any(|(_, state)| *state.borrow() != State::Open)
    }

    fn set(&self, state: State, concerns: impl Fn((u64, u64)) -> bool) {
        for (_, (_, link)) in self.0.iter().filter(|(ends, _)| concerns(**ends)) {
            link.send_replace(state);
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

/// Passes bytes on until the link is cut, and holds them while it is silent.
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
        for piece in buffer[..length].chunks(SLOW_BYTES) {
            let now = *state.borrow();
            if now == State::Cut || to.write_all(piece).await.is_err() {
                return;
            }
            if let State::Slow { bytes_per_second } = now {
                tokio::time::sleep(Duration::from_micros(piece.len() as u64 * 1_000_000 / bytes_per_second)).await;
            }
        }
    }
}
