//! Followers that do what a test tells them: they grant every vote, take every entry, and hold their answers back on
//! demand, as a link does that carries only one way.

use std::net::TcpListener;
use std::sync::Arc;

use cairn_proto::peer::append_response::Outcome;
use cairn_proto::peer::peer_service_server::{PeerService, PeerServiceServer};
use cairn_proto::peer::{
    AppendRequest, AppendResponse, ChangeMembersRequest, ChangeMembersResponse, DrainRequest, DrainResponse,
    FetchKeyringRequest, FetchKeyringResponse, HeartbeatRequest, HeartbeatResponse, HelloRequest, HelloResponse,
    Matched, OfferSnapshotRequest, OfferSnapshotResponse, PreVoteRequest, PreVoteResponse, ProposeRequest,
    ProposeResponse, ReadIndexRequest, ReadIndexResponse, ReportStateRequest, ReportStateResponse, SendSnapshotRequest,
    SendSnapshotResponse, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
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
    /// Calls on the lane of heartbeats.
    pub(crate) heartbeats: u64,
    /// Those among them that ask for a read whether this follower still follows.
    pub(crate) confirmations: u64,
    /// Demands to campaign.
    pub(crate) transfers: u64,
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
}

impl Follower {
    /// Takes the place of a node that `cluster` names and never starts.
    pub(crate) fn serve(cluster: &Cluster, node_id: u64) -> Self {
        let listener = TcpListener::bind(cluster.peer_address(node_id)).unwrap();
        let script = Arc::new(Script {
            node_id,
            held: watch::Sender::new(false),
            let_through: Semaphore::new(0),
            received: watch::Sender::default(),
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

    async fn answer_append(&self, request: AppendRequest) -> AppendResponse {
        let last = request.entries.last().map(|entry| entry.log_id.unwrap());
        self.note(|received| match last {
            Some(_) => received.entries += 1,
            None => received.commits += 1,
        });
        tokio::select! {
            () = self.unheld() => {}
            permit = self.let_through.acquire() => permit.unwrap().forget(),
        }
        let log_id = last.or(request.prev_log_id);
        AppendResponse { outcome: Some(Outcome::Matched(Matched { log_id })) }
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
        _: Request<OfferSnapshotRequest>,
    ) -> Result<Response<OfferSnapshotResponse>, Status> {
        not_scripted()
    }

    async fn send_snapshot(
        &self,
        _: Request<Streaming<SendSnapshotRequest>>,
    ) -> Result<Response<SendSnapshotResponse>, Status> {
        not_scripted()
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
