//! Both ways between openraft's requests and `cairn.peer.v1`.

use cairn_proto::peer::{
    AppendRequest, AppendResponse, HeartbeatRequest, Matched, PeerHeader, PreVoteRequest, PreVoteResponse,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse, append_response,
    transfer_leader_response,
};
use cairn_proto::storage::LogVote;
use openraft::raft::{StreamAppendError, TransferLeaderError};
use tonic::Status;

use crate::types::{
    Entry, LogId, TypeConfig, Vote, entry_from_proto, entry_to_proto, log_id_from_proto, log_id_to_proto,
    vote_from_proto, vote_to_proto,
};

pub(super) type RaftAppend = openraft::raft::AppendEntriesRequest<TypeConfig>;
pub(super) type RaftAppended = openraft::raft::StreamAppendResult<TypeConfig>;
pub(super) type RaftVoteRequest = openraft::raft::VoteRequest<TypeConfig>;
pub(super) type RaftVoteResponse = openraft::raft::VoteResponse<TypeConfig>;
type RaftTransfer = openraft::raft::TransferLeaderRequest<TypeConfig>;
type RaftTransferred = openraft::raft::TransferLeaderResponse<TypeConfig>;

/// A vote that must be there.
pub(super) fn required_vote(vote: Option<&LogVote>) -> Result<Vote, Status> {
    vote.map(vote_from_proto).ok_or_else(|| Status::invalid_argument("the field `vote` is missing"))
}

fn optional_log_id(log_id: Option<&cairn_proto::storage::LogId>) -> Option<LogId> {
    log_id.map(log_id_from_proto)
}

pub(super) fn append_to_proto(header: PeerHeader, request: &RaftAppend) -> AppendRequest {
    AppendRequest {
        header: Some(header),
        vote: Some(vote_to_proto(&request.vote)),
        prev_log_id: request.prev_log_id.as_ref().map(log_id_to_proto),
        entries: request.entries.iter().map(entry_to_proto).collect(),
        leader_commit: request.leader_commit.as_ref().map(log_id_to_proto),
    }
}

pub(super) fn append_from_proto(request: AppendRequest) -> Result<RaftAppend, Status> {
    let entries = request.entries.into_iter().map(entry_from_proto).collect::<Result<Vec<Entry>, _>>();
    let entries = entries.map_err(|error| Status::invalid_argument(error.to_string()))?;
    let mut before = optional_log_id(request.prev_log_id.as_ref());
    // openraft asserts that entries follow each other; a peer must not be able to trip that.
    for entry in &entries {
        let expected = before.map_or(0, |before| before.index.saturating_add(1));
        if entry.log_id.index != expected {
            return Err(Status::invalid_argument("the entries do not follow each other"));
        }
        before = Some(entry.log_id);
    }
    Ok(RaftAppend {
        vote: required_vote(request.vote.as_ref())?,
        prev_log_id: optional_log_id(request.prev_log_id.as_ref()),
        entries,
        leader_commit: optional_log_id(request.leader_commit.as_ref()),
    })
}

pub(super) fn heartbeat_to_proto(header: PeerHeader, request: &RaftAppend) -> HeartbeatRequest {
    HeartbeatRequest {
        header: Some(header),
        vote: Some(vote_to_proto(&request.vote)),
        prev_log_id: request.prev_log_id.as_ref().map(log_id_to_proto),
        leader_commit: request.leader_commit.as_ref().map(log_id_to_proto),
    }
}

pub(super) fn heartbeat_from_proto(request: &HeartbeatRequest) -> Result<RaftAppend, Status> {
    Ok(RaftAppend {
        vote: required_vote(request.vote.as_ref())?,
        prev_log_id: optional_log_id(request.prev_log_id.as_ref()),
        entries: Vec::new(),
        leader_commit: optional_log_id(request.leader_commit.as_ref()),
    })
}

pub(super) fn appended_to_proto(result: &RaftAppended) -> AppendResponse {
    let outcome = match result {
        Ok(matched) => append_response::Outcome::Matched(Matched { log_id: matched.as_ref().map(log_id_to_proto) }),
        Err(StreamAppendError::Conflict(log_id)) => append_response::Outcome::Conflict(log_id_to_proto(log_id)),
        Err(StreamAppendError::HigherVote(vote)) => append_response::Outcome::HigherVote(vote_to_proto(vote)),
    };
    AppendResponse { outcome: Some(outcome) }
}

pub(super) fn appended_from_proto(response: &AppendResponse) -> Result<RaftAppended, Status> {
    match &response.outcome {
        Some(append_response::Outcome::Matched(matched)) => Ok(Ok(optional_log_id(matched.log_id.as_ref()))),
        Some(append_response::Outcome::Conflict(log_id)) => {
            Ok(Err(StreamAppendError::Conflict(log_id_from_proto(log_id))))
        }
        Some(append_response::Outcome::HigherVote(vote)) => {
            Ok(Err(StreamAppendError::HigherVote(vote_from_proto(vote))))
        }
        None => Err(Status::internal("the peer answered an append without an outcome")),
    }
}

pub(super) fn vote_request_to_proto(header: PeerHeader, request: &RaftVoteRequest) -> VoteRequest {
    VoteRequest {
        header: Some(header),
        vote: Some(vote_to_proto(&request.vote)),
        last_log_id: request.last_log_id.as_ref().map(log_id_to_proto),
        leadership_transfer: request.leadership_transfer,
    }
}

pub(super) fn vote_request_from_proto(request: &VoteRequest) -> Result<RaftVoteRequest, Status> {
    let mut vote =
        RaftVoteRequest::new(required_vote(request.vote.as_ref())?, optional_log_id(request.last_log_id.as_ref()));
    vote.leadership_transfer = request.leadership_transfer;
    Ok(vote)
}

pub(super) fn vote_response_to_proto(response: &RaftVoteResponse) -> VoteResponse {
    VoteResponse {
        vote: Some(vote_to_proto(&response.vote)),
        vote_granted: response.vote_granted,
        last_log_id: response.last_log_id.as_ref().map(log_id_to_proto),
    }
}

pub(super) fn vote_response_from_proto(response: &VoteResponse) -> Result<RaftVoteResponse, Status> {
    Ok(RaftVoteResponse {
        vote: required_vote(response.vote.as_ref())?,
        vote_granted: response.vote_granted,
        last_log_id: optional_log_id(response.last_log_id.as_ref()),
    })
}

pub(super) fn pre_vote_request_to_proto(header: PeerHeader, request: &RaftVoteRequest) -> PreVoteRequest {
    PreVoteRequest {
        header: Some(header),
        vote: Some(vote_to_proto(&request.vote)),
        last_log_id: request.last_log_id.as_ref().map(log_id_to_proto),
    }
}

pub(super) fn pre_vote_request_from_proto(request: &PreVoteRequest) -> Result<RaftVoteRequest, Status> {
    Ok(RaftVoteRequest::new(required_vote(request.vote.as_ref())?, optional_log_id(request.last_log_id.as_ref())))
}

pub(super) fn pre_vote_response_to_proto(response: &RaftVoteResponse) -> PreVoteResponse {
    PreVoteResponse {
        vote: Some(vote_to_proto(&response.vote)),
        vote_granted: response.vote_granted,
        last_log_id: response.last_log_id.as_ref().map(log_id_to_proto),
    }
}

pub(super) fn pre_vote_response_from_proto(response: &PreVoteResponse) -> Result<RaftVoteResponse, Status> {
    Ok(RaftVoteResponse {
        vote: required_vote(response.vote.as_ref())?,
        vote_granted: response.vote_granted,
        last_log_id: optional_log_id(response.last_log_id.as_ref()),
    })
}

pub(super) fn transfer_leader_to_proto(header: PeerHeader, request: &RaftTransfer) -> TransferLeaderRequest {
    TransferLeaderRequest {
        header: Some(header),
        from_leader: Some(vote_to_proto(request.from_leader())),
        to_node_id: *request.to_node_id(),
        last_log_id: request.last_log_id().map(log_id_to_proto),
    }
}

pub(crate) fn transfer_leader_from_proto(request: &TransferLeaderRequest) -> Result<RaftTransfer, Status> {
    Ok(RaftTransfer::new(
        required_vote(request.from_leader.as_ref())?,
        request.to_node_id,
        optional_log_id(request.last_log_id.as_ref()),
    ))
}

pub(crate) fn transfer_leader_response_to_proto(response: &RaftTransferred) -> TransferLeaderResponse {
    let refusal = match response {
        Ok(()) => None,
        Err(TransferLeaderError::VoteChanged { actual, .. }) => {
            Some(transfer_leader_response::Refusal::VoteChanged(vote_to_proto(actual)))
        }
        Err(TransferLeaderError::LogNotFlushed { actual, .. }) => {
            let matched = Matched { log_id: actual.as_ref().map(log_id_to_proto) };
            Some(transfer_leader_response::Refusal::NotSynced(matched))
        }
    };
    TransferLeaderResponse { refusal }
}

pub(super) fn transfer_leader_response_from_proto(
    request: &RaftTransfer,
    response: &TransferLeaderResponse,
) -> RaftTransferred {
    match &response.refusal {
        None => Ok(()),
        Some(transfer_leader_response::Refusal::VoteChanged(vote)) => {
            Err(TransferLeaderError::VoteChanged { expected: *request.from_leader(), actual: vote_from_proto(vote) })
        }
        Some(transfer_leader_response::Refusal::NotSynced(matched)) => Err(TransferLeaderError::LogNotFlushed {
            expected: request.last_log_id().copied(),
            actual: optional_log_id(matched.log_id.as_ref()),
        }),
    }
}
