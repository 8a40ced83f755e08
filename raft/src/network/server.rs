//! The calls that this node answers.
//!
//! The server runs before the node has a cluster, so that peers can ask whether it has one; until then it answers only
//! `Hello` and, once it has keys, `FetchKeyring`.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cairn_proto::peer::peer_service_server::{PeerService, PeerServiceServer};
use cairn_proto::peer::{
    AppendRequest, AppendResponse, ChangeMembersRequest, ChangeMembersResponse, ClockRefused, DrainRequest,
    DrainResponse, FetchKeyringRequest, FetchKeyringResponse, HeartbeatRequest, HeartbeatResponse, HelloRequest,
    HelloResponse, KnownNode, NotLeader, OfferSnapshotRequest, OfferSnapshotResponse, Overloaded, PeerHeader,
    PreVoteRequest, PreVoteResponse, ProposeRequest, ProposeResponse, Proposed, ReadIndexPoint, ReadIndexRequest,
    ReadIndexResponse, ReportStateRequest, ReportStateResponse, SendSnapshotRequest, SendSnapshotResponse,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse, propose_response, read_index_response,
    send_snapshot_request,
};
use cairn_proto::storage;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::type_config::alias::SnapshotOf;
use parking_lot::Mutex;
use prost::Message;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use super::messages::{
    append_from_proto, appended_to_proto, heartbeat_from_proto, pre_vote_request_from_proto,
    pre_vote_response_to_proto, required_vote, transfer_leader_from_proto, transfer_leader_response_to_proto,
    vote_request_from_proto, vote_response_to_proto,
};
use super::{MESSAGE_BYTES_MAX, Membership, WINDOW_BYTES};
use crate::error::Refusal;
use crate::identity::{Identity, Sighting, incarnation_of};
use crate::node::{Core, members, own_state_now};
use crate::snapshot::ReceiveError;
use crate::types::{GROUP, TypeConfig, vote_to_proto};

/// How long a change of the members may take, whoever asks.
const CHANGE_TIME_MAX: Duration = Duration::from_secs(60);

/// How long connections may take to wind down once the node stops.
const WIND_DOWN: Duration = Duration::from_millis(500);

/// Answers peers.
#[derive(Clone)]
pub(crate) struct PeerServer {
    pub(crate) identity: Arc<Identity>,
    /// Set once the node has joined a cluster.
    pub(crate) membership: Arc<OnceLock<Membership>>,
    /// Set once replication runs.
    pub(crate) core: Arc<OnceLock<Arc<Core>>>,
    /// The nodes of the configuration, which may have the keys before there are members.
    pub(crate) founders: Arc<BTreeSet<u64>>,
    pub(crate) stop: CancellationToken,
}

/// Serves until `server.stop`.
pub(crate) async fn serve(server: PeerServer, listener: tokio::net::TcpListener) {
    let stop = server.stop.clone();
    let service = PeerServiceServer::new(server)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    // The builder's own settings of TCP hold only for listeners that it opens itself. Without this one an answer would wait for
    // the peer to acknowledge the one before, which it does 40 ms later.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let serving = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
    let winding_down = async {
        stop.cancelled().await;
        tokio::time::sleep(WIND_DOWN).await;
    };
    tokio::select! {
        served = serving => {
            if let Err(error) = served {
                tracing::error!(%error, "the peer server has ended");
            }
        }
        // Peers keep their streams open for as long as they live; they notice that this node has gone.
        () = winding_down => {}
    }
}

impl PeerServer {
    /// The running node, if the call is meant for it.
    async fn core(&self, header: Option<&PeerHeader>) -> Result<&Arc<Core>, Status> {
        let core = self.core.get().ok_or_else(|| Status::unavailable("this node is starting"))?;
        self.check(header).await?;
        Ok(core)
    }

    /// Whether a node was a member once and is none any more, as far as this node knows.
    fn is_removed(&self, node_id: u64) -> bool {
        self.core.get().is_some_and(|core| core.shared.is_retired(node_id))
    }

    /// Whether a node may have the keys: a member or, while the cluster is being made, one of those that make it.
    fn admit(&self, node_id: u64) -> Result<(), Status> {
        if self.is_removed(node_id) {
            return Err(Status::permission_denied(removed(node_id)));
        }
        let membership =
            self.core.get().map(|core| Arc::clone(&core.raft.metrics().borrow_watched().membership_config));
        let member = match membership.filter(|membership| membership.nodes().next().is_some()) {
            Some(membership) => membership.get_node(&node_id).is_some(),
            None => self.founders.contains(&node_id),
        };
        if member {
            return Ok(());
        }
        Err(Status::not_found(format!(
            "node {node_id} is no member of the cluster yet: add it with `cairn node add {node_id}`"
        )))
    }

    /// The next message of a call that may take long, as a snapshot does from a sender that keeps to its rate: a node that has
    /// stopped would have its directory for all that time.
    async fn next_of<T>(&self, messages: &mut Streaming<T>) -> Result<Option<T>, Status> {
        let next = self.stop.run_until_cancelled(messages.message()).await;
        next.unwrap_or_else(|| Err(Status::unavailable("this node stops")))
    }

    async fn check(&self, header: Option<&PeerHeader>) -> Result<(), Status> {
        let header = header.ok_or_else(|| Status::invalid_argument("the field `header` is missing"))?;
        let own = self.membership.get().ok_or_else(|| Status::unavailable("this node has no cluster yet"))?;
        if header.cluster_id[..] != own.cluster_id.0 {
            return Err(Status::failed_precondition("the call comes from another cluster"));
        }
        if header.group != GROUP {
            return Err(Status::failed_precondition("the call names a group that does not exist"));
        }
        if header.to_node_id != self.identity.node_id() {
            return Err(Status::failed_precondition(format!(
                "the call is meant for node {}, but this is node {}",
                header.to_node_id,
                self.identity.node_id()
            )));
        }
        if self.is_removed(header.from_node_id) {
            return Err(Status::permission_denied(removed(header.from_node_id)));
        }
        self.sight(header.from_node_id, &header.from_incarnation).await
    }

    /// Refuses a node that is known with another data directory, and remembers one that is new.
    async fn sight(&self, node_id: u64, incarnation: &[u8]) -> Result<(), Status> {
        let incarnation = incarnation_of(incarnation)
            .ok_or_else(|| Status::invalid_argument("the incarnation has a wrong length"))?;
        let refused = || Status::failed_precondition(id_in_use(node_id));
        if self.identity.is_known(node_id, incarnation) {
            return Ok(());
        }
        let identity = Arc::clone(&self.identity);
        let sighted = tokio::task::spawn_blocking(move || identity.sight(node_id, incarnation)).await;
        match sighted.map_err(|error| Status::internal(error.to_string()))? {
            Ok(Sighting::Fine) => Ok(()),
            Ok(Sighting::OtherDirectory) => Err(refused()),
            Err(error) => Err(Status::internal(error.to_string())),
        }
    }
}

fn removed(node_id: u64) -> String {
    format!("node {node_id} was removed from the cluster")
}

fn id_in_use(node_id: u64) -> String {
    format!("node id {node_id} is known here with another data directory")
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("replication has stopped: {error}"))
}

#[tonic::async_trait]
impl PeerService for PeerServer {
    async fn hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloResponse>, Status> {
        let request = request.into_inner();
        let incarnation = incarnation_of(&request.incarnation);
        let known_otherwise =
            incarnation.is_none_or(|it| self.identity.compare(request.node_id, it) == Sighting::OtherDirectory);
        let cluster_id = self.membership.get().map(|own| Bytes::copy_from_slice(&own.cluster_id.0));
        Ok(Response::new(HelloResponse {
            node_id: self.identity.node_id(),
            cluster_id: cluster_id.unwrap_or_default(),
            id_in_use: known_otherwise,
            removed: self.is_removed(request.node_id),
        }))
    }

    async fn fetch_keyring(
        &self,
        request: Request<FetchKeyringRequest>,
    ) -> Result<Response<FetchKeyringResponse>, Status> {
        let request = request.into_inner();
        let own = self.membership.get().ok_or_else(|| Status::unavailable("this node has no cluster yet"))?;
        self.admit(request.node_id)?;
        if request.opened {
            self.sight(request.node_id, &request.incarnation).await?;
        } else if incarnation_of(&request.incarnation)
            .is_none_or(|it| self.identity.compare(request.node_id, it) == Sighting::OtherDirectory)
        {
            return Err(Status::failed_precondition(id_in_use(request.node_id)));
        }
        let keyring = own.keyring.export().map_err(|error| Status::internal(error.to_string()))?;
        let known = self.identity.seen().into_iter();
        Ok(Response::new(FetchKeyringResponse {
            cluster_id: Bytes::copy_from_slice(&own.cluster_id.0),
            keyring: keyring.into(),
            known_nodes: known
                .map(|(node_id, incarnation)| KnownNode { node_id, incarnation: Bytes::copy_from_slice(&incarnation) })
                .collect(),
        }))
    }

    async fn vote(&self, request: Request<VoteRequest>) -> Result<Response<VoteResponse>, Status> {
        let request = request.into_inner();
        let core = self.core(request.header.as_ref()).await?;
        let answer = core.raft.vote(vote_request_from_proto(&request)?).await.map_err(stopped)?;
        Ok(Response::new(vote_response_to_proto(&answer)))
    }

    async fn pre_vote(&self, request: Request<PreVoteRequest>) -> Result<Response<PreVoteResponse>, Status> {
        let request = request.into_inner();
        let core = self.core(request.header.as_ref()).await?;
        let answer = core.raft.pre_vote(pre_vote_request_from_proto(&request)?).await.map_err(stopped)?;
        Ok(Response::new(pre_vote_response_to_proto(&answer)))
    }

    type AppendStream = BoxStream<'static, Result<AppendResponse, Status>>;

    async fn append(&self, request: Request<Streaming<AppendRequest>>) -> Result<Response<Self::AppendStream>, Status> {
        let core = self.core.get().ok_or_else(|| Status::unavailable("this node is starting"))?;
        let refusal = Arc::new(Mutex::new(None));
        // openraft reads the requests on a task of its own. It must end with the node even if the peer stays silent, and
        // with the connection even if the request in hand waits for room: each new connection would leave one behind.
        let ended = self.stop.child_token();
        let ending = ended.clone().drop_guard();
        let requests = checked_appends(self.clone(), request.into_inner(), Arc::clone(&refusal));
        let answers = core.raft.stream_append(requests.take_until(ended.cancelled_owned()).boxed());
        let answers = answers.map(move |answer| {
            let _ending = &ending;
            match answer {
                Ok(appended) => Ok(appended_to_proto(&appended)),
                Err(fatal) => Err(stopped(fatal)),
            }
        });
        // Says why the requests ended, where it was not the peer who ended them.
        let last_word = futures::stream::once(async move { refusal.lock().take() });
        let answers = answers.chain(last_word.filter_map(|refusal| async move { refusal.map(Err) }));
        Ok(Response::new(answers.take_until(self.stop.clone().cancelled_owned()).boxed()))
    }

    async fn heartbeat(&self, request: Request<HeartbeatRequest>) -> Result<Response<HeartbeatResponse>, Status> {
        let request = request.into_inner();
        let core = self.core(request.header.as_ref()).await?;
        let append = heartbeat_from_proto(&request)?;
        let prev = append.prev_log_id;
        let answer = core.raft.append_entries(append).await.map_err(stopped)?;
        let result = appended_to_proto(&answer.into_stream_result(prev, prev));
        Ok(Response::new(HeartbeatResponse { result: Some(result) }))
    }

    async fn offer_snapshot(
        &self,
        request: Request<OfferSnapshotRequest>,
    ) -> Result<Response<OfferSnapshotResponse>, Status> {
        let request = request.into_inner();
        let core = self.core(request.header.as_ref()).await?;
        let vote = required_vote(request.vote.as_ref())?;
        if vote < core.raft.metrics().borrow_watched().vote {
            return Err(Status::failed_precondition("a newer leader is known here"));
        }
        let manifest = request.manifest.ok_or_else(|| Status::invalid_argument("the field `manifest` is missing"))?;
        let receiver = Arc::clone(&core.receiver);
        let received_bytes = blocking(move || receiver.lock().offer(vote, &manifest)).await?;
        Ok(Response::new(OfferSnapshotResponse { received_bytes }))
    }

    async fn send_snapshot(
        &self,
        request: Request<Streaming<SendSnapshotRequest>>,
    ) -> Result<Response<SendSnapshotResponse>, Status> {
        let mut parts = request.into_inner();
        let first = self.next_of(&mut parts).await?.and_then(|message| message.part);
        let Some(send_snapshot_request::Part::Start(start)) = first else {
            return Err(Status::invalid_argument("a snapshot begins with its manifest"));
        };
        let core = self.core(start.header.as_ref()).await?;
        let vote = required_vote(start.vote.as_ref())?;
        let manifest = start.manifest.ok_or_else(|| Status::invalid_argument("the field `manifest` is missing"))?;
        let receiver = Arc::clone(&core.receiver);
        let stream = blocking(move || receiver.lock().begin(vote, &manifest)).await?;
        while let Some(message) = self.next_of(&mut parts).await? {
            let Some(send_snapshot_request::Part::Chunk(chunk)) = message.part else {
                return Err(Status::invalid_argument("a snapshot continues with pieces of its files"));
            };
            let (receiver, bytes) = (Arc::clone(&core.receiver), chunk.data.len() as u64);
            blocking(move || receiver.lock().write(stream, &chunk)).await?;
            core.shared.snapshots.traffic().count_received(bytes);
        }
        let (receiver, keyring, staged) = (Arc::clone(&core.receiver), Arc::clone(&core.keyring), start.keyring);
        let snapshot = blocking(move || {
            let snapshot = receiver.lock().finish(stream)?;
            // Keys before the data that they open: the log entries that carried them are skipped.
            keyring.merge(&staged).map_err(|error| ReceiveError::Invalid(error.to_string()))?;
            Ok(snapshot)
        })
        .await?;
        let meta = snapshot.meta().clone();
        let installed = core.raft.install_full_snapshot(vote, SnapshotOf::<TypeConfig, _> { meta, snapshot }).await;
        let vote = installed.map_err(stopped)?.vote;
        Ok(Response::new(SendSnapshotResponse { vote: Some(vote_to_proto(&vote)) }))
    }

    async fn read_index(&self, request: Request<ReadIndexRequest>) -> Result<Response<ReadIndexResponse>, Status> {
        let core = self.core(request.into_inner().header.as_ref()).await?;
        let leader_id = core.leader_id();
        let outcome = if leader_id == Some(core.node_id()) {
            let point = core.reads.point().await.map_err(|error| Status::unavailable(error.to_string()))?;
            let point = ReadIndexPoint { index: point.index, time_micros: point.time_micros };
            read_index_response::Outcome::Point(point)
        } else {
            read_index_response::Outcome::NotLeader(NotLeader { leader_id: leader_id.unwrap_or(0) })
        };
        Ok(Response::new(ReadIndexResponse { outcome: Some(outcome) }))
    }

    async fn propose(&self, request: Request<ProposeRequest>) -> Result<Response<ProposeResponse>, Status> {
        let request = request.into_inner();
        let core = self.core(request.header.as_ref()).await?;
        let command = storage::Command::decode(request.command)
            .map_err(|error| Status::invalid_argument(format!("not a command: {error}")))?;
        let outcome = match core.proposals.propose_here(command).await {
            Ok(applied) => propose_response::Outcome::Applied(Proposed {
                index: applied.position.index,
                outcome: applied.outcome.encode_to_vec().into(),
            }),
            Err(Refusal::NotLeader { leader_id }) => {
                propose_response::Outcome::NotLeader(NotLeader { leader_id: leader_id.unwrap_or(0) })
            }
            Err(Refusal::Overloaded { retry_after }) => propose_response::Outcome::Overloaded(Overloaded {
                retry_after: prost_types::Duration::try_from(retry_after).ok(),
            }),
            Err(refusal @ Refusal::TooLarge { .. }) => return Err(Status::invalid_argument(refusal.to_string())),
            Err(Refusal::Clock(reason)) => propose_response::Outcome::ClockRefused(ClockRefused { reason }),
            Err(refusal @ (Refusal::Unknown(_) | Refusal::Stopped(_))) => {
                return Err(Status::unavailable(refusal.to_string()));
            }
        };
        Ok(Response::new(ProposeResponse { outcome: Some(outcome) }))
    }

    async fn transfer_leader(
        &self,
        request: Request<TransferLeaderRequest>,
    ) -> Result<Response<TransferLeaderResponse>, Status> {
        let request = request.into_inner();
        let core = self.core(request.header.as_ref()).await?;
        let transfer = transfer_leader_from_proto(&request)?;
        let answer = core.raft.handle_transfer_leader(transfer).await.map_err(stopped)?;
        Ok(Response::new(transfer_leader_response_to_proto(&answer)))
    }

    async fn report_state(
        &self,
        request: Request<ReportStateRequest>,
    ) -> Result<Response<ReportStateResponse>, Status> {
        let request = request.into_inner();
        let core = self.core(request.header.as_ref()).await?;
        if let (Some(header), Some(state)) = (request.header, request.state) {
            core.states.hear(header.from_node_id, state);
        }
        Ok(Response::new(ReportStateResponse { state: core.states.own(), leader_id: core.leader_id().unwrap_or(0) }))
    }

    async fn change_members(
        &self,
        request: Request<ChangeMembersRequest>,
    ) -> Result<Response<ChangeMembersResponse>, Status> {
        let request = request.into_inner();
        let core = self.core(request.header.as_ref()).await?;
        let change = request.change.ok_or_else(|| Status::invalid_argument("the field `change` is missing"))?;
        // The caller gives up at its own deadline, and this call with it. Older releases do not say when that is.
        let timeout = request.timeout.and_then(|timeout| Duration::try_from(timeout).ok()).unwrap_or(CHANGE_TIME_MAX);
        let until = Instant::now() + timeout.min(CHANGE_TIME_MAX);
        Ok(Response::new(members::to_response(members::change_here(core, &members::from_proto(change), until).await)))
    }

    async fn drain(&self, request: Request<DrainRequest>) -> Result<Response<DrainResponse>, Status> {
        let request = request.into_inner();
        let core = self.core(request.header.as_ref()).await?;
        let timeout = request.timeout.and_then(|timeout| Duration::try_from(timeout).ok()).unwrap_or_default();
        let drained = members::drain_here(core, request.drain, timeout).await;
        let refusal = drained.err().map(|error| error.to_string()).unwrap_or_default();
        Ok(Response::new(DrainResponse { state: Some(own_state_now(core)), refusal }))
    }
}

/// The requests of an append stream, up to the first that is not acceptable.
fn checked_appends(
    server: PeerServer,
    incoming: Streaming<AppendRequest>,
    refusal: Arc<Mutex<Option<Status>>>,
) -> impl Stream<Item = openraft::raft::AppendEntriesRequest<TypeConfig>> + Send + 'static {
    futures::stream::unfold((server, incoming, refusal), |(server, mut incoming, refusal)| async move {
        let checked = match incoming.message().await {
            Ok(None) => return None,
            Err(status) => Err(status),
            Ok(Some(request)) => match server.core(request.header.as_ref()).await {
                Ok(core) => append_from_proto(request).map(|append| (append, Arc::clone(core))),
                Err(status) => Err(status),
            },
        };
        match checked {
            Ok((mut append, core)) => {
                core.append_room.admit(&mut append).await;
                Some((append, (server, incoming, refusal)))
            }
            Err(status) => {
                *refusal.lock() = Some(status);
                None
            }
        }
    })
}

/// Runs file work of a snapshot where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ReceiveError> + Send + 'static,
) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|error| Status::internal(error.to_string()))?;
    done.map_err(|error| match error {
        ReceiveError::Invalid(reason) => Status::aborted(reason),
        ReceiveError::Io { .. } => Status::internal(error.to_string()),
    })
}
