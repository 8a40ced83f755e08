//! Both ways between openraft's types and `cairn.storage.v1`.
//!
//! Decoding never panics: bytes may come from a damaged disk or from a peer of another version.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use cairn_proto::storage::{
    LogBlank, LogEntry, LogMember, LogMembership, LogStoredMembership, LogVote, LogVoters, log_entry,
};
use prost::Message;

use super::{Entry, EntryPayload, LeaderId, LogCommand, LogId, Membership, PeerNode, StoredMembership, Vote};

/// Why bytes or messages are not what they should be.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// They are no message of that kind.
    #[error("not a valid message: {0}")]
    Decode(#[from] prost::DecodeError),
    /// A field that must be set is not.
    #[error("the field `{0}` is missing")]
    Missing(&'static str),
    /// The members contradict each other.
    #[error("not a valid membership: {0}")]
    Membership(String),
}

/// A log id as protobuf.
#[must_use]
pub fn log_id_to_proto(log_id: &LogId) -> cairn_proto::storage::LogId {
    let leader = log_id.committed_leader_id();
    cairn_proto::storage::LogId { term: leader.term, leader_node_id: leader.node_id, index: log_id.index }
}

/// A log id from protobuf.
#[must_use]
pub fn log_id_from_proto(log_id: &cairn_proto::storage::LogId) -> LogId {
    LogId::new(LeaderId { term: log_id.term, node_id: log_id.leader_node_id }, log_id.index)
}

/// A vote as protobuf.
#[must_use]
pub fn vote_to_proto(vote: &Vote) -> LogVote {
    LogVote { term: vote.leader_id.term, node_id: vote.leader_id.node_id, committed: vote.committed }
}

/// A vote from protobuf.
#[must_use]
pub fn vote_from_proto(vote: &LogVote) -> Vote {
    if vote.committed { Vote::new_committed(vote.term, vote.node_id) } else { Vote::new(vote.term, vote.node_id) }
}

/// A vote as bytes.
#[must_use]
pub fn encode_vote(vote: &Vote) -> Vec<u8> {
    vote_to_proto(vote).encode_to_vec()
}

/// A vote from bytes.
///
/// # Errors
///
/// When the bytes are no vote.
pub fn decode_vote(bytes: &[u8]) -> Result<Vote, ConvertError> {
    Ok(vote_from_proto(&LogVote::decode(bytes)?))
}

/// A membership as protobuf.
#[must_use]
pub fn membership_to_proto(membership: &Membership) -> LogMembership {
    let voters = membership.get_joint_config().iter();
    let members = membership.nodes().map(|(&node_id, node)| LogMember {
        node_id,
        peer_address: node.peer_address.clone(),
        client_address: node.client_address.clone(),
    });
    LogMembership {
        voters: voters.map(|set| LogVoters { node_ids: set.iter().copied().collect() }).collect(),
        members: members.collect(),
    }
}

/// A membership from protobuf.
///
/// # Errors
///
/// When a voter is no member, or a set of voters is empty.
pub fn membership_from_proto(membership: &LogMembership) -> Result<Membership, ConvertError> {
    let voters: Vec<BTreeSet<u64>> =
        membership.voters.iter().map(|set| set.node_ids.iter().copied().collect()).collect();
    let members: BTreeMap<u64, PeerNode> = membership
        .members
        .iter()
        .map(|member| {
            let node =
                PeerNode { peer_address: member.peer_address.clone(), client_address: member.client_address.clone() };
            (member.node_id, node)
        })
        .collect();
    if voters.is_empty() && members.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(voters, members).map_err(|error| ConvertError::Membership(error.to_string()))
}

/// A membership as bytes.
#[must_use]
pub fn encode_membership(membership: &Membership) -> Bytes {
    membership_to_proto(membership).encode_to_vec().into()
}

/// A membership from bytes.
///
/// # Errors
///
/// When the bytes are no membership.
pub fn decode_membership(bytes: &[u8]) -> Result<Membership, ConvertError> {
    membership_from_proto(&LogMembership::decode(bytes)?)
}

/// A stored membership as protobuf.
#[must_use]
pub fn stored_membership_to_proto(stored: &StoredMembership) -> LogStoredMembership {
    LogStoredMembership {
        log_id: stored.log_id().as_ref().map(log_id_to_proto),
        membership: Some(membership_to_proto(stored.membership())),
    }
}

/// A stored membership from protobuf.
///
/// # Errors
///
/// When the membership is missing or not valid.
pub fn stored_membership_from_proto(stored: &LogStoredMembership) -> Result<StoredMembership, ConvertError> {
    let membership = stored.membership.as_ref().ok_or(ConvertError::Missing("membership"))?;
    Ok(StoredMembership::new(stored.log_id.as_ref().map(log_id_from_proto), membership_from_proto(membership)?))
}

/// A stored membership as bytes.
#[must_use]
pub fn encode_stored_membership(stored: &StoredMembership) -> Bytes {
    stored_membership_to_proto(stored).encode_to_vec().into()
}

/// A stored membership from bytes.
///
/// # Errors
///
/// When the bytes are no stored membership.
pub fn decode_stored_membership(bytes: &[u8]) -> Result<StoredMembership, ConvertError> {
    stored_membership_from_proto(&LogStoredMembership::decode(bytes)?)
}

/// An entry as protobuf; the command's bytes are shared, not copied.
#[must_use]
pub fn entry_to_proto(entry: &Entry) -> LogEntry {
    let payload = match &entry.payload {
        EntryPayload::Blank => log_entry::Payload::Blank(LogBlank {}),
        EntryPayload::Normal(command) => log_entry::Payload::Command(command.0.clone()),
        EntryPayload::Membership(membership) => log_entry::Payload::Membership(membership_to_proto(membership)),
    };
    LogEntry { log_id: Some(log_id_to_proto(&entry.log_id)), payload: Some(payload) }
}

/// An entry from protobuf.
///
/// # Errors
///
/// When the log id or the payload is missing, or the membership is not valid.
pub fn entry_from_proto(entry: LogEntry) -> Result<Entry, ConvertError> {
    let log_id = entry.log_id.as_ref().ok_or(ConvertError::Missing("log_id"))?;
    let payload = match entry.payload.ok_or(ConvertError::Missing("payload"))? {
        log_entry::Payload::Blank(LogBlank {}) => EntryPayload::Blank,
        log_entry::Payload::Command(bytes) => EntryPayload::Normal(LogCommand(bytes)),
        log_entry::Payload::Membership(membership) => EntryPayload::Membership(membership_from_proto(&membership)?),
    };
    Ok(Entry { log_id: log_id_from_proto(log_id), payload })
}

/// An entry as bytes, for a WAL frame.
#[must_use]
pub fn encode_entry(entry: &Entry) -> Vec<u8> {
    entry_to_proto(entry).encode_to_vec()
}

/// An entry from bytes; a command shares them.
///
/// # Errors
///
/// When the bytes are no entry.
pub fn decode_entry(bytes: Bytes) -> Result<Entry, ConvertError> {
    entry_from_proto(LogEntry::decode(bytes)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entries() -> impl Strategy<Value = Entry> {
        let log_id = (any::<u64>(), any::<u64>(), any::<u64>());
        let payload = prop_oneof![
            Just(EntryPayload::Blank),
            proptest::collection::vec(any::<u8>(), 0..64)
                .prop_map(|bytes| EntryPayload::Normal(LogCommand(bytes.into()))),
            memberships().prop_map(EntryPayload::Membership),
        ];
        (log_id, payload).prop_map(|((term, node_id, index), payload)| Entry {
            log_id: LogId::new(LeaderId { term, node_id }, index),
            payload,
        })
    }

    fn memberships() -> impl Strategy<Value = Membership> {
        let node = ("[a-z]{1,8}:[0-9]{1,5}", "[a-z]{0,8}")
            .prop_map(|(peer_address, client_address)| PeerNode { peer_address, client_address });
        (proptest::collection::btree_map(any::<u64>(), node, 1..6), 1..5_usize).prop_map(|(nodes, voters)| {
            let set: BTreeSet<u64> = nodes.keys().copied().take(voters).collect();
            Membership::new(vec![set], nodes).unwrap()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn entries_survive_a_round_trip(entry in entries()) {
            prop_assert_eq!(decode_entry(encode_entry(&entry).into()).unwrap(), entry);
        }

        #[test]
        fn votes_survive_a_round_trip(term: u64, node_id: u64, committed: bool) {
            let vote = if committed { Vote::new_committed(term, node_id) } else { Vote::new(term, node_id) };
            prop_assert_eq!(decode_vote(&encode_vote(&vote)).unwrap(), vote);
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..96)) {
            let _ = decode_entry(bytes.clone().into());
            let _ = decode_vote(&bytes);
            let _ = decode_stored_membership(&bytes);
        }
    }

    /// openraft promises no stable encoding of its types. These bytes are ours, and lie in logs for ever.
    #[test]
    fn the_bytes_of_an_entry_and_a_vote_stay_what_they_are() {
        let log_id = LogId::new(LeaderId { term: 3, node_id: 2 }, 7);
        let entry = Entry { log_id, payload: EntryPayload::Normal(LogCommand(Bytes::from_static(b"tea"))) };
        assert_eq!(hex::encode(encode_entry(&entry)), "0a060803100218072203746561");
        assert_eq!(hex::encode(encode_vote(&Vote::new_committed(3, 2))), "080310021801");
    }

    #[test]
    fn a_voter_that_is_no_member_is_refused() {
        let membership = LogMembership { voters: vec![LogVoters { node_ids: vec![1] }], members: Vec::new() };
        assert!(matches!(membership_from_proto(&membership), Err(ConvertError::Membership(_))));
    }

    #[test]
    fn commands_are_never_shown() {
        let entry = Entry {
            log_id: LogId::new(LeaderId { term: 1, node_id: 1 }, 1),
            payload: EntryPayload::Normal(LogCommand(Bytes::from_static(b"secret"))),
        };
        assert!(!format!("{entry:?}{entry}").contains("secret"));
    }
}
