//! The network between simulated nodes: every message takes a while, and may get lost, or its sender be told at once that
//! nobody is there.
//!
//! What a tonic connection promises is kept: requests and answers of an append stream arrive in their order, and what is
//! lost ends the stream. Snapshots go through the real receiver, piece by piece.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cairn_proto::peer::SnapshotChunk;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use openraft::async_runtime::{AsyncRuntime, Instant};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::SnapshotOf;
use openraft::{AnyError, RPCTypes};
use parking_lot::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::SimConfig;
use super::node::SimNode;
use super::runtime::{Executor, SimInstant, SimRuntime, sleep};
use super::world::World;
use crate::snapshot::SnapshotData;
use crate::types::{PeerNode, Vote};

type RpcResult<T> = Result<T, RPCError<SimConfig>>;
type Append = AppendEntriesRequest<SimConfig>;
type Appended = StreamAppendResult<SimConfig>;

/// How long an answer to an append may take.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// What becomes of the messages from one node to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    Open,
    /// The sender is told.
    Cut,
    /// The sender is not told.
    Silent,
}

/// The weather between the nodes.
#[derive(Debug)]
pub(super) struct Network {
    links: BTreeMap<(u64, u64), Link>,
    delay_max: Duration,
    /// Of a thousand messages.
    lost: u64,
}

/// A message did not arrive.
#[derive(Debug, Clone, Copy)]
pub(super) enum Lost {
    Unreachable,
    InTime,
}

impl Network {
    pub(super) fn new() -> Self {
        Self { links: BTreeMap::new(), delay_max: Duration::from_millis(2), lost: 0 }
    }

    pub(super) fn set(&mut self, from: u64, to: u64, link: Link) {
        self.links.insert((from, to), link);
    }

    pub(super) fn isolate(&mut self, node: u64, others: &[u64], link: Link) {
        for &other in others.iter().filter(|&&other| other != node) {
            self.set(node, other, link);
            self.set(other, node, link);
        }
    }

    pub(super) fn slow_down(&mut self, delay_max: Duration, lost: u64) {
        (self.delay_max, self.lost) = (delay_max, lost);
    }

    pub(super) fn mend(&mut self) {
        *self = Self::new();
    }

    fn link(&self, from: u64, to: u64) -> Link {
        self.links.get(&(from, to)).copied().unwrap_or(Link::Open)
    }
}

/// A message on its way.
async fn travel(world: &World, from: u64, to: u64) -> Result<(), Lost> {
    let (delay, lost) = {
        let network = world.network.lock();
        let delay = world.executor.between(Duration::from_micros(50), network.delay_max);
        (delay, world.executor.below(1000) < network.lost)
    };
    sleep(delay).await;
    let link = world.network.lock().link(from, to);
    match link {
        Link::Open if !lost => Ok(()),
        Link::Cut => Err(Lost::Unreachable),
        _ => std::future::pending().await,
    }
}

/// Asks another node, which answers on a task of its own.
pub(super) async fn call<T: Send + 'static>(
    world: Arc<World>,
    from: u64,
    to: u64,
    time: Duration,
    what: &'static str,
    answer: impl FnOnce(Arc<SimNode>) -> BoxFuture<'static, T> + Send + 'static,
) -> Result<T, Lost> {
    let asked = async move {
        travel(&world, from, to).await?;
        let node = world.node(to).ok_or(Lost::Unreachable)?;
        world.executor.trace(&format_args!("{from} -> {to} {what}"));
        let answered = world.executor.spawn_on(node.host, answer(node)).await.map_err(|_| Lost::Unreachable)?;
        travel(&world, to, from).await?;
        Ok(answered)
    };
    SimRuntime::timeout(time, asked).await.unwrap_or(Err(Lost::InTime))
}

/// Makes the networks of one node.
pub(super) struct Factory {
    pub(super) world: Arc<World>,
    pub(super) node_id: u64,
}

impl RaftNetworkFactory<SimConfig> for Factory {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, _: &PeerNode) -> Peer {
        Peer { world: Arc::clone(&self.world), own: self.node_id, target, streams: true }
    }

    async fn new_heartbeat_client(&mut self, target: u64, _: &PeerNode) -> Peer {
        Peer { world: Arc::clone(&self.world), own: self.node_id, target, streams: false }
    }
}

/// One peer, seen by openraft.
pub(super) struct Peer {
    world: Arc<World>,
    own: u64,
    target: u64,
    streams: bool,
}

impl Peer {
    fn error(&self, action: RPCTypes, timeout: Duration, lost: Lost) -> RPCError<SimConfig> {
        match lost {
            Lost::Unreachable => RPCError::Unreachable(Unreachable::new(&AnyError::error("the peer is not there"))),
            Lost::InTime => RPCError::Timeout(Timeout { action, id: self.own, target: self.target, timeout }),
        }
    }

    async fn ask<T: Send + 'static>(
        &self,
        action: RPCTypes,
        time: Duration,
        what: &'static str,
        answer: impl FnOnce(Arc<SimNode>) -> BoxFuture<'static, Option<T>> + Send + 'static,
    ) -> RpcResult<T> {
        let asked = call(Arc::clone(&self.world), self.own, self.target, time, what, answer).await;
        let answered = asked.map_err(|lost| self.error(action, time, lost))?;
        answered.ok_or_else(|| self.error(action, time, Lost::Unreachable))
    }
}

/// Both ends of an append stream.
struct Stream {
    world: Arc<World>,
    own: u64,
    target: u64,
    answers: UnboundedReceiver<Appended>,
    /// When the requests left that are not answered yet.
    sent: Arc<Mutex<VecDeque<SimInstant>>>,
}

impl Stream {
    /// The next answer; `None` when the peer has ended the stream.
    async fn next(&mut self) -> Result<Option<Appended>, Lost> {
        let answer = loop {
            match SimRuntime::timeout(ANSWER_MAX, self.answers.recv()).await {
                Ok(answer) => break answer,
                Err(_) if self.sent.lock().front().is_some_and(|sent| sent.elapsed() >= ANSWER_MAX) => {
                    return Err(Lost::InTime);
                }
                Err(_) => {}
            }
        };
        let Some(answer) = answer else { return Ok(None) };
        let arriving = travel(&self.world, self.target, self.own);
        SimRuntime::timeout(ANSWER_MAX, arriving).await.unwrap_or(Err(Lost::InTime))?;
        self.sent.lock().pop_front();
        Ok(Some(answer))
    }
}

enum Event {
    Answer(RpcResult<Appended>),
    /// The peer has ended the stream.
    End,
}

impl RaftNetworkV2<SimConfig> for Peer {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: Append,
        option: RPCOption,
    ) -> RpcResult<AppendEntriesResponse<SimConfig>> {
        let answer = move |node: Arc<SimNode>| async move { node.raft.append_entries(request).await.ok() }.boxed();
        self.ask(RPCTypes::AppendEntries, option.hard_ttl(), "append", answer).await
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, RpcResult<openraft::base::BoxStream<'s, RpcResult<Appended>>>>
    where
        S: futures::Stream<Item = Append> + Send + Unpin + 'static,
    {
        if !self.streams {
            return openraft::network::stream_append_sequential(self, input, option);
        }
        async move {
            let events =
                self.open(input).await.map_err(|lost| self.error(RPCTypes::AppendEntries, ANSWER_MAX, lost))?;
            // Only a success may be followed by another answer.
            let answers = futures::stream::unfold(Some(events), |events| async move {
                let mut events = events?;
                match events.next().await? {
                    Event::Answer(answer @ Ok(Ok(_))) => Some((answer, Some(events))),
                    Event::Answer(answer) => Some((answer, None)),
                    Event::End => None,
                }
            });
            Ok(answers.boxed() as _)
        }
        .boxed()
    }

    async fn vote(&mut self, request: VoteRequest<SimConfig>, option: RPCOption) -> RpcResult<VoteResponse<SimConfig>> {
        let answer = move |node: Arc<SimNode>| async move { node.raft.vote(request).await.ok() }.boxed();
        self.ask(RPCTypes::Vote, option.hard_ttl(), "vote", answer).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<SimConfig>,
        option: RPCOption,
    ) -> RpcResult<VoteResponse<SimConfig>> {
        let answer = move |node: Arc<SimNode>| async move { node.raft.pre_vote(request).await.ok() }.boxed();
        self.ask(RPCTypes::Vote, option.hard_ttl(), "pre-vote", answer).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<SimConfig, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<SimConfig>, StreamingError<SimConfig>> {
        let sending = self.send_snapshot(vote, snapshot.snapshot);
        match SimRuntime::select2(Box::pin(sending), Box::pin(cancel)).await {
            openraft::async_runtime::Select2::First(sent) => sent.map_err(StreamingError::from),
            openraft::async_runtime::Select2::Second(closed) => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<SimConfig>,
        option: RPCOption,
    ) -> RpcResult<TransferLeaderResponse<SimConfig>> {
        let answer =
            move |node: Arc<SimNode>| async move { node.raft.handle_transfer_leader(request).await.ok() }.boxed();
        self.ask(RPCTypes::TransferLeader, option.hard_ttl(), "transfer", answer).await
    }
}

impl Peer {
    /// Opens an append stream: what leaves it, requests being sent while it is polled.
    async fn open<S>(&self, mut input: S) -> Result<futures::stream::BoxStream<'_, Event>, Lost>
    where
        S: futures::Stream<Item = Append> + Send + Unpin + 'static,
    {
        // As in the real client: openraft waits out its backoff where it makes the first request.
        let Some(first) = input.next().await else { return Ok(futures::stream::empty().boxed()) };
        let (to_peer, mut requests) = unbounded_channel::<Append>();
        let (from_peer, answers) = unbounded_channel::<Appended>();
        let (world, own, target) = (Arc::clone(&self.world), self.own, self.target);
        let opened = call(Arc::clone(&world), own, target, ANSWER_MAX, "open", move |node| {
            let requests = futures::stream::poll_fn(move |context| requests.poll_recv(context));
            let mut results = Box::pin(node.raft.stream_append(requests));
            let serving = async move {
                while let Some(Ok(answer)) = results.next().await {
                    if from_peer.send(answer).is_err() {
                        return;
                    }
                }
            };
            SimRuntime::spawn(serving);
            std::future::ready(()).boxed()
        });
        opened.await?;
        let sent = Arc::new(Mutex::new(VecDeque::new()));
        let stream = Stream { world: Arc::clone(&world), own, target, answers, sent: Arc::clone(&sent) };
        let sending = async move {
            let mut input = futures::stream::iter([first]).chain(input);
            while let Some(request) = input.next().await {
                sent.lock().push_back(SimInstant::now());
                let (count, before) = (request.entries.len(), request.prev_log_id.map(|id| id.index));
                if travel(&world, own, target).await.is_err() {
                    break;
                }
                world.executor.trace(&format_args!("{own} -> {target} {count} entries after {before:?}"));
                if to_peer.send(request).is_err() {
                    break;
                }
            }
        };
        let sending = futures::stream::once(sending).filter_map(|()| std::future::ready(None));
        let this = self;
        let answers = futures::stream::unfold(Some(stream), move |stream| async move {
            let mut stream = stream?;
            match stream.next().await {
                Ok(Some(answer)) => Some((Event::Answer(Ok(answer)), Some(stream))),
                Ok(None) => Some((Event::End, None)),
                Err(lost) => {
                    let error = this.error(RPCTypes::AppendEntries, ANSWER_MAX, lost);
                    Some((Event::Answer(Err(error)), None))
                }
            }
        });
        Ok(futures::stream::select(sending, answers).boxed())
    }

    /// Sends a snapshot to the real receiver of the peer, as the real sender does, in small pieces.
    async fn send_snapshot(&self, vote: Vote, snapshot: SnapshotData) -> RpcResult<SnapshotResponse<SimConfig>> {
        const PIECE_BYTES: usize = 16 << 10;
        let time = Duration::from_secs(1);
        let failed = |error: &dyn fmt::Display| RPCError::Network(NetworkError::from_string(error));
        let action = RPCTypes::InstallSnapshot;
        let own = self.world.node(self.own).ok_or_else(|| failed(&"this node is gone"))?;
        let transfer = own.shared.snapshots.begin_transfer(&snapshot, self.target);
        let keyring = own.keyring.export().map_err(|error| failed(&error))?;
        let manifest = snapshot.manifest().map_err(|error| failed(&error))?.clone();
        let offered = manifest.clone();
        let offer = move |node: Arc<SimNode>| {
            let received = node.receiver.lock().offer(vote, &offered);
            let stream = received.and_then(|received| Ok((node.receiver.lock().begin(vote, &offered)?, received)));
            std::future::ready(stream.ok()).boxed()
        };
        let (stream, received) = self.ask(action, time, "offer of a snapshot", offer).await?;
        for (file, begun) in (0_u32..).zip(received) {
            let name = snapshot.path().join(&manifest.files[file as usize].name);
            let content = std::fs::read(name).map_err(|error| failed(&error))?;
            let rest = content.get(begun as usize..).unwrap_or_default();
            for (number, piece) in (0_u64..).zip(rest.chunks(PIECE_BYTES)) {
                let data = Bytes::copy_from_slice(piece);
                let offset = begun + number * PIECE_BYTES as u64;
                let chunk = SnapshotChunk { file, offset, crc32: crc32fast::hash(&data), data };
                let write = move |node: Arc<SimNode>| {
                    std::future::ready(node.receiver.lock().write(stream, &chunk).ok()).boxed()
                };
                self.ask(action, time, "piece of a snapshot", write).await?;
            }
        }
        let install = move |node: Arc<SimNode>| {
            async move {
                let snapshot = node.receiver.lock().finish(stream).ok()?;
                node.keyring.merge(&keyring).ok()?;
                let meta = snapshot.meta().clone();
                node.raft.install_full_snapshot(vote, SnapshotOf::<SimConfig, _> { meta, snapshot }).await.ok()
            }
            .boxed()
        };
        let answer = self.ask(action, time * 10, "end of a snapshot", install).await?;
        transfer.arrived();
        Ok(answer)
    }
}

/// Asks a voter whether it still follows the leader of `vote`.
pub(super) async fn still_follows(world: Arc<World>, own: u64, peer: u64, vote: Vote, time: Duration) -> bool {
    let request = Append { vote, prev_log_id: None, entries: Vec::new(), leader_commit: None };
    let answer = move |node: Arc<SimNode>| async move { node.raft.append_entries(request).await.ok() }.boxed();
    let answer = call(world, own, peer, time, "confirmation", answer).await;
    matches!(answer, Ok(Some(AppendEntriesResponse::Success | AppendEntriesResponse::PartialSuccess(_))))
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor").finish_non_exhaustive()
    }
}
