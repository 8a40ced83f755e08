//! The types that openraft is instantiated with, and their protobuf forms.
//!
//! ```text
//!   openraft core  <->  Entry, Vote, LogId, Membership     (this process only)
//!        |                        |  convert
//!        v                        v
//!   state machine          storage.v1.Log*  ->  WAL frames and peer messages
//! ```
//!
//! openraft promises no stable encoding of its types, so they never reach a disk or a wire; only the messages of
//! `cairn.storage.v1` do.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | the type configuration |
//! | `convert.rs` | both ways between openraft and protobuf |
//! | `reply.rs` | the way back of a command |

mod convert;
mod reply;

use std::fmt;

use bytes::Bytes;
use cairn_proto::storage;
use openraft::RaftTypeConfig;
use openraft::vote::RaftLeaderId;
use prost::Message;

pub use convert::{
    ConvertError, decode_entry, decode_membership, decode_stored_membership, decode_vote, encode_entry,
    encode_membership, encode_stored_membership, encode_vote, entry_from_proto, entry_to_proto, log_id_from_proto,
    log_id_to_proto, membership_from_proto, membership_to_proto, stored_membership_from_proto,
    stored_membership_to_proto, vote_from_proto, vote_to_proto,
};

pub use reply::Reply;

/// The one Raft group of today. Every peer message, WAL frame and position names it.
pub const GROUP: u32 = 0;

/// openraft, instantiated for Cairn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeConfig;

impl RaftTypeConfig for TypeConfig {
    type D = LogCommand;
    type R = Response;
    type NodeId = u64;
    type Node = PeerNode;
    type Term = u64;
    type LeaderId = openraft::impls::leader_id_adv::LeaderId<u64, u64>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<LogCommand, u64, PeerNode>;
    type Entry = openraft::Entry<<Self::LeaderId as RaftLeaderId>::Committed, Self::Payload>;
    type Responder<T>
        = Reply<T>
    where
        T: Send + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: Send + 'static;
    type AsyncRuntime = openraft::TokioRuntime;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

/// openraft with Cairn's types on any runtime: the real one, or the one of the simulation.
pub trait CairnTypes:
    RaftTypeConfig<
        D = LogCommand,
        R = Response,
        NodeId = u64,
        Node = PeerNode,
        Term = u64,
        LeaderId = <TypeConfig as RaftTypeConfig>::LeaderId,
        Vote = Vote,
        Payload = EntryPayload,
        Entry = Entry,
    >
{
}

impl<C> CairnTypes for C where
    C: RaftTypeConfig<
            D = LogCommand,
            R = Response,
            NodeId = u64,
            Node = PeerNode,
            Term = u64,
            LeaderId = <TypeConfig as RaftTypeConfig>::LeaderId,
            Vote = Vote,
            Payload = EntryPayload,
            Entry = Entry,
        >
{
}

/// Who proposed an entry, and where it lies in the log.
pub type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
/// Term and node of a leader.
pub type LeaderId = openraft::type_config::alias::CommittedLeaderIdOf<TypeConfig>;
/// A vote, granted or committed.
pub type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
/// A log entry.
pub type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
/// What an entry says.
pub type EntryPayload = openraft::type_config::alias::EntryPayloadOf<TypeConfig>;
/// The members of the group.
pub type Membership = openraft::Membership<u64, PeerNode>;
/// The members of the group, and the entry that brought them.
pub type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
/// What a snapshot covers.
pub type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;

/// Whether a node has a vote.
pub(crate) fn is_voter(membership: &StoredMembership, node_id: u64) -> bool {
    membership.voter_ids().any(|id| id == node_id)
}

/// The voters but one node.
pub(crate) fn voters_without(membership: &StoredMembership, node_id: u64) -> impl Iterator<Item = u64> + '_ {
    membership.voter_ids().filter(move |&id| id != node_id)
}

/// Where a member is reached; lies in the membership entry of the log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerNode {
    /// Where peers reach it: `host:port`.
    pub peer_address: String,
    /// Where clients reach it: `host:port`.
    pub client_address: String,
}

impl fmt::Display for PeerNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.peer_address)
    }
}

/// An encoded, stamped `storage.v1.Command`.
///
/// It stays encoded between the proposer and the apply thread: the log, the network and the disk pass the bytes on without
/// looking at them, so that a node never drops a field that it does not know.
#[derive(Clone, PartialEq, Eq)]
pub struct LogCommand(pub Bytes);

impl LogCommand {
    /// Encodes `command`.
    #[must_use]
    pub fn new(command: &storage::Command) -> Self {
        Self(command.encode_to_vec().into())
    }

    /// Decodes the command; its payload shares the bytes of this value.
    ///
    /// # Errors
    ///
    /// When the bytes are not a command.
    pub fn decode(&self) -> Result<storage::Command, prost::DecodeError> {
        storage::Command::decode(self.0.clone())
    }
}

/// Shows the length only: a command holds a user's data, sealed or not.
impl fmt::Debug for LogCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogCommand({} bytes)", self.0.len())
    }
}

impl fmt::Display for LogCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What applying an entry has brought about; `None` for entries that are no commands.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Response(pub Option<storage::Outcome>);
