//! The calls that openraft makes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cairn_engine::keyring::Keyring;
use cairn_proto::peer::peer_service_client::PeerServiceClient;
use cairn_proto::peer::{AppendRequest, AppendResponse};
use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt};
use openraft::base::BoxFuture;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{AppendEntriesResponse, SnapshotResponse, StreamAppendError};
use openraft::type_config::alias::SnapshotOf;
use openraft::{AnyError, RPCTypes};
use parking_lot::Mutex;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use super::messages::{
    RaftAppend, RaftAppended, RaftVoteRequest, RaftVoteResponse, append_to_proto, appended_from_proto,
    heartbeat_to_proto, pre_vote_request_to_proto, pre_vote_response_from_proto, transfer_leader_response_from_proto,
    transfer_leader_to_proto, vote_request_to_proto, vote_response_from_proto,
};
use super::{Lane, Peers, with_deadline, within};
use crate::config::{Limits, Timing};
use crate::snapshot::{Pace, SendError, SnapshotData, send};
use crate::state_machine::Shared;
use crate::types::{PeerNode, TypeConfig, Vote};

/// How often the time for an append is doubled at most.
const APPEND_DOUBLINGS_MAX: u32 = 4;

type RpcResult<T> = Result<T, RPCError<TypeConfig>>;
type AppendedStream<'s> = BoxStream<'s, RpcResult<RaftAppended>>;

/// Makes the networks that openraft speaks through.
#[derive(Clone)]
pub(crate) struct NetworkFactory {
    pub(crate) peers: Arc<Peers>,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) timing: Timing,
    pub(crate) limits: Limits,
}

impl NetworkFactory {
    fn network(&self, target: u64, node: &PeerNode, lane: Lane) -> PeerNetwork {
        let address = self.peers.address(target, Some(&node.peer_address)).unwrap_or_default();
        PeerNetwork { factory: self.clone(), target, address, lane, given_up: AtomicU32::new(0) }
    }
}

impl RaftNetworkFactory<TypeConfig> for NetworkFactory {
    type Network = PeerNetwork;

    async fn new_client(&mut self, target: u64, node: &PeerNode) -> PeerNetwork {
        self.network(target, node, Lane::Log)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &PeerNode) -> PeerNetwork {
        self.network(target, node, Lane::Heartbeat)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &PeerNode) -> PeerNetwork {
        self.network(target, node, Lane::Snapshot)
    }
}

/// One peer, seen by openraft.
pub(crate) struct PeerNetwork {
    factory: NetworkFactory,
    target: u64,
    address: String,
    lane: Lane,
    /// Appends in succession that the peer did not answer in time.
    given_up: AtomicU32,
}

impl PeerNetwork {
    fn client(&self, lane: Lane) -> RpcResult<PeerServiceClient<Channel>> {
        let client = self.factory.peers.client(self.target, &self.address, lane);
        client.map_err(|error| RPCError::Unreachable(Unreachable::new(&error)))
    }

    fn header(&self) -> cairn_proto::peer::PeerHeader {
        self.factory.peers.header(self.target)
    }

    fn rpc_error(&self, action: RPCTypes, timeout: Duration, status: &Status) -> RPCError<TypeConfig> {
        match status.code() {
            Code::DeadlineExceeded | Code::Cancelled => {
                RPCError::Timeout(Timeout { action, id: self.factory.peers.node_id(), target: self.target, timeout })
            }
            Code::Unavailable | Code::FailedPrecondition | Code::Unknown => {
                RPCError::Unreachable(Unreachable::new(&AnyError::error(status.message())))
            }
            _ => RPCError::Network(NetworkError::new(&AnyError::error(status.message()))),
        }
    }

    /// A heartbeat: one call, on the lane of its own.
    async fn heartbeat(&self, request: &RaftAppend, timeout: Duration) -> RpcResult<RaftAppended> {
        let mut client = self.client(Lane::Heartbeat)?;
        let message = with_deadline(heartbeat_to_proto(self.header(), request), timeout);
        let answer = within(timeout, client.heartbeat(message)).await;
        let answer = answer.and_then(|answer| appended_from_proto(&answer.result.unwrap_or_default()));
        answer.map_err(|status| self.rpc_error(RPCTypes::AppendEntries, timeout, &status))
    }

    /// How long the peer may take to answer an append: twice as long as the last time, where that was too short. So an entry of
    /// any size gets over a slow link in the end.
    fn append_timeout(&self) -> Duration {
        let doublings = self.given_up.load(Ordering::Relaxed).min(APPEND_DOUBLINGS_MAX);
        self.factory.timing.peer_timeout * 2_u32.pow(doublings)
    }

    /// Turns what came of an append into what openraft is told, and learns from it how long the next one may take.
    fn note<T>(&self, timeout: Duration, came: Result<T, Status>) -> RpcResult<T> {
        match &came {
            Ok(_) => self.given_up.store(0, Ordering::Relaxed),
            Err(status) if status.code() == Code::DeadlineExceeded => {
                self.given_up.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => {}
        }
        came.map_err(|status| self.rpc_error(RPCTypes::AppendEntries, timeout, &status))
    }

    async fn open_append<S>(&mut self, mut input: S) -> RpcResult<AppendedStream<'_>>
    where
        S: Stream<Item = RaftAppend> + Send + Unpin + 'static,
    {
        // openraft waits out its backoff where it makes the next request. The first one is taken before the peer is
        // called, since a peer that cannot be reached would be called again at once otherwise, without end.
        let Some(first) = input.next().await else { return Ok(futures::stream::empty().boxed()) };
        let input = futures::stream::iter([first]).chain(input);
        let timeout = self.append_timeout();
        let mut client = self.client(Lane::Log)?;
        let sent = Arc::new(Mutex::new(VecDeque::new()));
        let outgoing = outgoing(input, self.header(), Arc::clone(&sent));
        let opened = within(timeout, client.append(outgoing)).await;
        // That a stream is open says nothing of what it carries.
        let incoming = match opened {
            Ok(incoming) => incoming,
            Err(status) => return self.note(timeout, Err(status)),
        };
        let answers = Answers { incoming, sent, timeout, ended: false };
        let this = &*self;
        Ok(futures::stream::unfold(answers, move |mut answers| async move {
            let answer = answers.next().await?;
            Some((this.note(timeout, answer), answers))
        })
        .boxed())
    }
}

/// Whether a peer, asked from now on, still follows the leader whose vote this is.
pub(crate) async fn still_follows(
    mut client: PeerServiceClient<Channel>,
    header: cairn_proto::peer::PeerHeader,
    vote: Vote,
    timeout: Duration,
) -> bool {
    let request = RaftAppend { vote, prev_log_id: None, entries: Vec::new(), leader_commit: None };
    let message = with_deadline(heartbeat_to_proto(header, &request), timeout);
    let answer = within(timeout, client.heartbeat(message)).await;
    let answer = answer.and_then(|answer| appended_from_proto(&answer.result.unwrap_or_default()));
    matches!(answer, Ok(Ok(_)))
}

/// Encodes the requests and notes when each one left.
fn outgoing<S>(
    input: S,
    header: cairn_proto::peer::PeerHeader,
    sent: Arc<Mutex<VecDeque<Instant>>>,
) -> impl Stream<Item = AppendRequest> + Send + 'static
where
    S: Stream<Item = RaftAppend> + Send + Unpin + 'static,
{
    input.map(move |request| {
        sent.lock().push_back(Instant::now());
        append_to_proto(header.clone(), &request)
    })
}

/// The answers of an append stream, each due within the timeout after its request left.
struct Answers {
    incoming: Streaming<AppendResponse>,
    sent: Arc<Mutex<VecDeque<Instant>>>,
    timeout: Duration,
    ended: bool,
}

impl Answers {
    async fn next(&mut self) -> Option<Result<RaftAppended, Status>> {
        if self.ended {
            return None;
        }
        let answer = self.next_in_time().await.transpose()?;
        self.sent.lock().pop_front();
        let answer = answer.and_then(|answer| appended_from_proto(&answer));
        // Only a success may be followed by another answer.
        self.ended = !matches!(answer, Ok(Ok(_)));
        Some(answer)
    }

    async fn next_in_time(&mut self) -> Result<Option<AppendResponse>, Status> {
        loop {
            match tokio::time::timeout(self.timeout, self.incoming.message()).await {
                Ok(answer) => return answer,
                // Silence is fine as long as nothing is owed.
                Err(_) if self.is_overdue() => {
                    return Err(Status::deadline_exceeded("the peer did not answer an append in time"));
                }
                Err(_) => {}
            }
        }
    }

    fn is_overdue(&self) -> bool {
        self.sent.lock().front().is_some_and(|sent_at| sent_at.elapsed() >= self.timeout)
    }
}

impl RaftNetworkV2<TypeConfig> for PeerNetwork {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: RaftAppend,
        option: RPCOption,
    ) -> RpcResult<AppendEntriesResponse<TypeConfig>> {
        let timeout = option.hard_ttl();
        let last = request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id);
        let result = if request.entries.is_empty() {
            self.heartbeat(&request, timeout).await?
        } else {
            let mut answers = self.open_append(futures::stream::iter([request])).await?;
            let missing = || RPCError::Network(NetworkError::from_string("the peer did not answer an append"));
            answers.next().await.ok_or_else(missing)??
        };
        Ok(match result {
            Ok(matched) if matched == last => AppendEntriesResponse::Success,
            Ok(matched) => AppendEntriesResponse::PartialSuccess(matched),
            Err(StreamAppendError::Conflict(_)) => AppendEntriesResponse::Conflict,
            Err(StreamAppendError::HigherVote(vote)) => AppendEntriesResponse::HigherVote(vote),
        })
    }

    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, RpcResult<openraft::base::BoxStream<'s, RpcResult<RaftAppended>>>>
    where
        S: Stream<Item = RaftAppend> + Send + Unpin + 'static,
    {
        if self.lane != Lane::Heartbeat {
            return self.open_append(input).map(|opened| opened.map(|stream| stream as _)).boxed();
        }
        let answers = async move {
            let request = input.next().await;
            let answer = match request {
                Some(request) => Some(self.heartbeat(&request, option.hard_ttl()).await),
                None => None,
            };
            Ok(futures::stream::iter(answer).boxed() as _)
        };
        answers.boxed()
    }

    async fn vote(&mut self, request: RaftVoteRequest, option: RPCOption) -> RpcResult<RaftVoteResponse> {
        let timeout = option.hard_ttl();
        let mut client = self.client(Lane::Control)?;
        let message = with_deadline(vote_request_to_proto(self.header(), &request), timeout);
        let answer = within(timeout, client.vote(message)).await.and_then(|answer| vote_response_from_proto(&answer));
        answer.map_err(|status| self.rpc_error(RPCTypes::Vote, timeout, &status))
    }

    async fn pre_vote(&mut self, request: RaftVoteRequest, option: RPCOption) -> RpcResult<RaftVoteResponse> {
        let timeout = option.hard_ttl();
        let mut client = self.client(Lane::Control)?;
        let message = with_deadline(pre_vote_request_to_proto(self.header(), &request), timeout);
        let answer = within(timeout, client.pre_vote(message)).await;
        let answer = answer.and_then(|answer| pre_vote_response_from_proto(&answer));
        answer.map_err(|status| self.rpc_error(RPCTypes::Vote, timeout, &status))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let timeout = option.hard_ttl();
        let mut client = self.client(Lane::Snapshot).map_err(StreamingError::from)?;
        let transfer = self.factory.shared.snapshots.begin_transfer(&snapshot.snapshot, self.target);
        let keyring = self.factory.keyring.export().map(Bytes::from);
        let keyring = keyring.map_err(NetworkError::from_string)?;
        let pace = Pace {
            chunk_bytes: self.factory.limits.snapshot_chunk_bytes,
            bytes_per_second: self.factory.limits.snapshot_bytes_per_second,
            traffic: Arc::clone(self.factory.shared.snapshots.traffic()),
        };
        let sending = send(&mut client, self.header(), &vote, snapshot.snapshot, keyring, pace);
        let sent = tokio::select! {
            sent = tokio::time::timeout(timeout, sending) => sent,
            closed = cancel => return Err(StreamingError::Closed(closed)),
        };
        let late = || Status::deadline_exceeded("the snapshot was not installed in time");
        let vote = match sent.unwrap_or_else(|_| Err(SendError::Peer(late()))) {
            Ok(vote) => {
                transfer.arrived();
                vote
            }
            Err(SendError::Peer(status)) => {
                return Err(self.rpc_error(RPCTypes::InstallSnapshot, timeout, &status).into());
            }
            Err(error @ SendError::Read(_)) => return Err(NetworkError::from_string(error).into()),
        };
        Ok(SnapshotResponse::new(vote))
    }

    async fn transfer_leader(
        &mut self,
        request: openraft::raft::TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> RpcResult<openraft::raft::TransferLeaderResponse<TypeConfig>> {
        let timeout = option.hard_ttl();
        let mut client = self.client(Lane::Control)?;
        let message = with_deadline(transfer_leader_to_proto(self.header(), &request), timeout);
        let answer = within(timeout, client.transfer_leader(message)).await;
        let answer = answer.map_err(|status| self.rpc_error(RPCTypes::TransferLeader, timeout, &status))?;
        Ok(transfer_leader_response_from_proto(&request, &answer))
    }
}
