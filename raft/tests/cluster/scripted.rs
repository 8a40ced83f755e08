//! Followers that do what a test tells them: they grant every vote, take every entry, and hold their answers back on
//! demand, as a link does that carries only one way. One that lacks the log takes a snapshot, and tells how it came.

use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cairn_proto::peer::append_response::Outcome;
use cairn_proto::peer::peer_service_server::{PeerService, PeerServiceServer};
use cairn_proto::peer::{
    AppendRequest, AppendResponse, ChangeMembersRequest, ChangeMembersResponse, DrainRequest, DrainResponse,
    FetchKeyringRequest, FetchKeyringResponse, HeartbeatRequest, HeartbeatResponse, HelloRequest, HelloResponse,
    Matched, OfferSnapshotRequest, OfferSnapshotResponse, PreVoteRequest, PreVoteResponse, ProposeRequest,
    ProposeResponse, ReadIndexRequest, ReadIndexResponse, ReportStateRequest, ReportStateResponse, SendSnapshotRequest,
    SendSnapshotResponse, SnapshotManifest, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
    send_snapshot_request::Part,
};
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::{Semaphore, watch};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};

use crate::support::{Cluster, PATIENCE};

/// What a follower has been sent, counted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Received {
    /// Appends with entries.
    pub(crate) entries: u64,
    /// Appends without any, on the stream of entries.
    pub(crate) commits: u64,
    /// The appends among both that are answered.
    pub(crate) answered: u64,
    /// The last entry that it was told is committed.
    pub(crate) committed: u64,
    /// Calls on the lane of heartbeats.
    pub(crate) heartbeats: u64,
    /// Those among them that ask for a read whether this follower still follows.
    pub(crate) confirmations: u64,
    /// Demands to campaign.
    pub(crate) transfers: u64,
    /// Pieces of snapshots.
    pub(crate) pieces: u64,
}

/// A snapshot that a follower has taken, and how it came.
#[derive(Debug, Clone, Default)]
pub(crate) struct Taken {
    pub(crate) manifest: SnapshotManifest,
    /// What the follower said that it holds of each file.
    pub(crate) held_bytes: Vec<u64>,
    /// Number of the file, offset and bytes of each piece.
    pub(crate) pieces: Vec<(u32, u64, u64)>,
    /// How long it was from the answer to the offer to the last piece.
    pub(crate) took: Duration,
    /// The calls on the lane of heartbeats in that time.
    pub(crate) heartbeats: u64,
}

/// A follower by the book of a test. Dropped, it is gone.
pub(crate) struct Follower {
    script: Arc<Script>,
    serving: tokio::task::JoinHandle<()>,
}

struct Script {
    node_id: u64,
    held: watch::Sender<bool>,
    /// The answers to appends that may leave although answers are held.
    let_through: Semaphore,
    received: watch::Sender<Received>,
    /// Whether it contradicts every entry, until it has taken a snapshot.
    lacks_log: watch::Sender<bool>,
    offered: Mutex<Option<Offered>>,
    taken: watch::Sender<Option<Taken>>,
}

/// What was offered last, and what there had been until then.
struct Offered {
    manifest: SnapshotManifest,
    held_bytes: Vec<u64>,
    at: Instant,
    heartbeats: u64,
}

impl Follower {
    /// Takes the place of a node that `cluster` names and never starts.
    pub(crate) fn serve(cluster: &Cluster, node_id: u64) -> Self {
        Self::serve_as(cluster, node_id, false)
    }

    /// As [`Follower::serve`]; only a snapshot helps this one, of which it says that it holds half of each file.
    pub(crate) fn serve_without_log(cluster: &Cluster, node_id: u64) -> Self {
        Self::serve_as(cluster, node_id, true)
    }

    fn serve_as(cluster: &Cluster, node_id: u64, lacks_log: bool) -> Self {
        let listener = TcpListener::bind(cluster.peer_address(node_id)).unwrap();
        let script = Arc::new(Script {
            node_id,
            held: watch::Sender::new(false),
            let_through: Semaphore::new(0),
            received: watch::Sender::default(),
            lacks_log: watch::Sender::new(lacks_log),
            offered: Mutex::default(),
            taken: watch::Sender::default(),
        });
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let service = PeerServiceServer::new(Scripted(Arc::clone(&script)));
        let serving = tonic::transport::Server::builder().add_service(service);
        let serving = serving.serve_with_incoming(TcpListenerStream::new(listener));
        Self { script, serving: tokio::spawn(async move { serving.await.unwrap() }) }
    }

    /// From now on requests arrive here, and no answer leaves.
    pub(crate) fn hold_answers(&self) {
        self.script.held.send_replace(true);
    }

    /// Lets all answers leave, those held back first.
    pub(crate) fn release_answers(&self) {
        self.script.held.send_replace(false);
    }

    /// Lets the oldest answer to an append leave that is held back.
    pub(crate) fn let_one_through(&self) {
        self.script.let_through.add_permits(1);
    }

    /// Waits until what was received satisfies `enough`.
    pub(crate) async fn received(&self, enough: impl FnMut(&Received) -> bool) -> Received {
        let mut received = self.script.received.subscribe();
        let waiting = tokio::time::timeout(PATIENCE, received.wait_for(enough));
        *waiting.await.expect("the follower waits in vain").unwrap()
    }

    /// Waits until it has answered all that it was sent, and was told that `committed` is.
    pub(crate) async fn has_answered_up_to(&self, committed: u64) {
        let is_answered = |received: &Received| received.answered == received.entries + received.commits;
        self.received(|received| received.committed >= committed && is_answered(received)).await;
    }

    /// The snapshot, if it has come.
    pub(crate) fn taken(&self) -> Option<Taken> {
        self.script.taken.borrow().clone()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Script {
    fn note(&self, change: impl FnOnce(&mut Received)) {
        self.received.send_modify(change);
    }

    /// Waits until an answer may leave.
    async fn unheld(&self) {
        let mut held = self.held.subscribe();
        held.wait_for(|held| !held).await.unwrap();
    }

    /// Until it has the log, if it lacks it.
    async fn has_log(&self) {
        let mut lacks_log = self.lacks_log.subscribe();
        lacks_log.wait_for(|lacks| !lacks).await.unwrap();
    }

    async fn answer_append(&self, request: AppendRequest) -> AppendResponse {
        let committed = request.leader_commit.map_or(0, |log_id| log_id.index);
        self.note(|received| {
            if request.entries.is_empty() {
                received.commits += 1;
            } else {
                received.entries += 1;
            }
            received.committed = received.committed.max(committed);
        });
        tokio::select! {
            () = self.unheld() => {}
            permit = self.let_through.acquire() => permit.unwrap().forget(),
        }
        let outcome = self.outcome_of(request).await;
        self.note(|received| received.answered += 1);
        AppendResponse { outcome: Some(outcome) }
    }

    async fn outcome_of(&self, request: AppendRequest) -> Outcome {
        let last = request.entries.last().map(|entry| entry.log_id.unwrap());
        let is_lacking = *self.lacks_log.borrow();
        if let (true, Some(prev_log_id)) = (is_lacking, request.prev_log_id) {
            return Outcome::Conflict(prev_log_id);
        }
        // The beginning of the log would fit, and is not taken.
        self.has_log().await;
        Outcome::Matched(Matched { log_id: last.or(request.prev_log_id) })
    }

    fn answer_offer(&self, manifest: SnapshotManifest) -> OfferSnapshotResponse {
        let held_bytes: Vec<u64> = manifest.files.iter().map(|file| file.size / 2).collect();
        let received_bytes = held_bytes.clone();
        let heartbeats = self.received.borrow().heartbeats;
        *self.offered.lock().unwrap() = Some(Offered { manifest, held_bytes, at: Instant::now(), heartbeats });
        OfferSnapshotResponse { received_bytes }
    }

    async fn take_snapshot(&self, mut parts: Streaming<SendSnapshotRequest>) -> Result<SendSnapshotResponse, Status> {
        let (mut vote, mut pieces, mut last_at) = (None, Vec::new(), Instant::now());
        while let Some(request) = parts.message().await? {
            match request.part.unwrap() {
                Part::Start(start) => vote = start.vote,
                Part::Chunk(chunk) => {
                    assert_eq!(crc32fast::hash(&chunk.data), chunk.crc32);
                    last_at = Instant::now();
                    pieces.push((chunk.file, chunk.offset, chunk.data.len() as u64));
                    self.note(|received| received.pieces += 1);
                }
            }
        }
        let Offered { manifest, held_bytes, at, heartbeats } = self.offered.lock().unwrap().take().unwrap();
        let heartbeats = self.received.borrow().heartbeats - heartbeats;
        self.taken.send_replace(Some(Taken { manifest, held_bytes, pieces, took: last_at - at, heartbeats }));
        self.lacks_log.send_replace(false);
        Ok(SendSnapshotResponse { vote })
    }
}

struct Scripted(Arc<Script>);

fn not_scripted<T>() -> Result<Response<T>, Status> {
    Err(Status::unavailable("not in the script"))
}

#[tonic::async_trait]
impl PeerService for Scripted {
    async fn hello(&self, _: Request<HelloRequest>) -> Result<Response<HelloResponse>, Status> {
        Ok(Response::new(HelloResponse { node_id: self.0.node_id, ..Default::default() }))
    }

    async fn vote(&self, request: Request<VoteRequest>) -> Result<Response<VoteResponse>, Status> {
        let vote = request.into_inner().vote;
        Ok(Response::new(VoteResponse { vote, vote_granted: true, last_log_id: None }))
    }

    async fn pre_vote(&self, request: Request<PreVoteRequest>) -> Result<Response<PreVoteResponse>, Status> {
        let vote = request.into_inner().vote;
        Ok(Response::new(PreVoteResponse { vote, vote_granted: true, last_log_id: None }))
    }

    type AppendStream = BoxStream<'static, Result<AppendResponse, Status>>;

    async fn append(&self, request: Request<Streaming<AppendRequest>>) -> Result<Response<Self::AppendStream>, Status> {
        // Requests are read while answers are held: each is noted when it arrives.
        let script = Arc::clone(&self.0);
        let answers = request.into_inner().map(move |request| {
            let script = Arc::clone(&script);
            tokio::spawn(async move { Ok(script.answer_append(request?).await) })
        });
        let answers = answers.buffered(64).map(|answered| answered.unwrap());
        Ok(Response::new(answers.boxed()))
    }

    async fn heartbeat(&self, request: Request<HeartbeatRequest>) -> Result<Response<HeartbeatResponse>, Status> {
        // A heartbeat of openraft's names the entry that this follower is known to have.
        let prev_log_id = request.into_inner().prev_log_id;
        self.0.note(|received| {
            received.heartbeats += 1;
            received.confirmations += u64::from(prev_log_id.is_none());
        });
        self.0.unheld().await;
        let matched = Matched { log_id: prev_log_id };
        let result = AppendResponse { outcome: Some(Outcome::Matched(matched)) };
        Ok(Response::new(HeartbeatResponse { result: Some(result) }))
    }

    async fn report_state(
        &self,
        request: Request<ReportStateRequest>,
    ) -> Result<Response<ReportStateResponse>, Status> {
        // As well off as who asks.
        Ok(Response::new(ReportStateResponse { state: request.into_inner().state, leader_id: 0 }))
    }

    async fn fetch_keyring(&self, _: Request<FetchKeyringRequest>) -> Result<Response<FetchKeyringResponse>, Status> {
        not_scripted()
    }

    async fn offer_snapshot(
        &self,
        request: Request<OfferSnapshotRequest>,
    ) -> Result<Response<OfferSnapshotResponse>, Status> {
        Ok(Response::new(self.0.answer_offer(request.into_inner().manifest.unwrap())))
    }

    async fn send_snapshot(
        &self,
        request: Request<Streaming<SendSnapshotRequest>>,
    ) -> Result<Response<SendSnapshotResponse>, Status> {
        self.0.take_snapshot(request.into_inner()).await.map(Response::new)
    }

    async fn read_index(&self, _: Request<ReadIndexRequest>) -> Result<Response<ReadIndexResponse>, Status> {
        not_scripted()
    }

    async fn propose(&self, _: Request<ProposeRequest>) -> Result<Response<ProposeResponse>, Status> {
        not_scripted()
    }

    async fn transfer_leader(
        &self,
        _: Request<TransferLeaderRequest>,
    ) -> Result<Response<TransferLeaderResponse>, Status> {
        self.0.note(|received| received.transfers += 1);
        not_scripted()
    }

    async fn change_members(
        &self,
        _: Request<ChangeMembersRequest>,
    ) -> Result<Response<ChangeMembersResponse>, Status> {
        not_scripted()
    }

    async fn drain(&self, _: Request<DrainRequest>) -> Result<Response<DrainResponse>, Status> {
        not_scripted()
    }
}
