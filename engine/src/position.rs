//! Where things stand: groups, log ids, and the opaque positions that clients get.
//!
//! ```text
//! position token: base64url without padding of
//! [version u8 = 1][group u16 BE][index u64 BE][crc32 u32 BE of the bytes before]
//!
//! position of a change that is not the last one that its command made in its space, from a watch:
//! [version u8 = 2][group u16 BE][index u64 BE][changes u32 BE][crc32 u32 BE of the bytes before]
//! ```
//!
//! `changes` counts the changes up to and with this one. A read takes both forms, and sees the whole command.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::error::{Error, Result};

const POSITION_VERSION: u8 = 1;
const POSITION_IN_COMMAND_VERSION: u8 = 2;
const CRC_LEN: usize = 4;

/// A Raft group. Today there is only group 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u16);

/// Where an entry stands in a group's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    /// The term of the leader that wrote the entry.
    pub term: u64,
    /// That leader.
    pub node_id: u64,
    /// The index, from 0 or 1 on; ascending without holes.
    pub index: u64,
}

/// A group and a log index: what a write returns and a read may wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The group.
    pub group: GroupId,
    /// The log index.
    pub index: u64,
}

impl Position {
    /// A position in group 0.
    #[must_use]
    pub fn at(index: u64) -> Self {
        Self { group: GroupId(0), index }
    }

    /// The opaque text that clients get.
    #[must_use]
    pub fn encode(&self) -> String {
        self.encode_behind(None)
    }

    /// As [`encode`](Self::encode); where `changes` is given, the position behind so many changes of the command at the
    /// index, rather than behind all of them.
    pub(crate) fn encode_behind(&self, changes: Option<u32>) -> String {
        let mut bytes = Vec::with_capacity(19);
        bytes.push(if changes.is_some() { POSITION_IN_COMMAND_VERSION } else { POSITION_VERSION });
        bytes.extend_from_slice(&self.group.0.to_be_bytes());
        bytes.extend_from_slice(&self.index.to_be_bytes());
        if let Some(changes) = changes {
            bytes.extend_from_slice(&changes.to_be_bytes());
        }
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads what [`encode`](Self::encode) made, or a position of a watch. `field` is named in the INVALID_ARGUMENT of
    /// anything else.
    pub fn decode(field: &str, token: &str) -> Result<Self> {
        Self::decode_behind(field, token).map(|(position, _)| position)
    }

    /// As [`decode`](Self::decode), with the number of changes where the position lies within a command.
    pub(crate) fn decode_behind(field: &str, token: &str) -> Result<(Self, Option<u32>)> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok();
        let read = bytes.as_deref().and_then(Self::read);
        read.ok_or_else(|| Error::invalid(field, "is not a position that this server returned"))
    }

    fn read(bytes: &[u8]) -> Option<(Self, Option<u32>)> {
        let (body, crc) = bytes.split_at_checked(bytes.len().checked_sub(CRC_LEN)?)?;
        if u32::from_be_bytes(crc.try_into().ok()?) != crc32fast::hash(body) {
            return None;
        }
        let (&version, rest) = body.split_first()?;
        let (group, rest) = rest.split_first_chunk()?;
        let (index, rest) = rest.split_first_chunk()?;
        let position = Self { group: GroupId(u16::from_be_bytes(*group)), index: u64::from_be_bytes(*index) };
        match (version, rest) {
            (POSITION_VERSION, []) => Some((position, None)),
            (POSITION_IN_COMMAND_VERSION, changes) => {
                Some((position, Some(u32::from_be_bytes(changes.try_into().ok()?))))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn positions_survive_encoding(group: u16, index: u64) {
            let position = Position { group: GroupId(group), index };
            prop_assert_eq!(Position::decode("at_least", &position.encode()).unwrap(), position);
        }

        #[test]
        fn positions_within_a_command_survive_and_are_positions(group: u16, index: u64, changes: u32) {
            let position = Position { group: GroupId(group), index };
            let token = position.encode_behind(Some(changes));
            prop_assert_eq!(Position::decode_behind("after", &token).unwrap(), (position, Some(changes)));
            prop_assert_eq!(Position::decode("at_least", &token).unwrap(), position);
        }

        #[test]
        fn other_text_is_refused_and_never_panics(token in ".{0,40}") {
            prop_assert!(Position::decode("at_least", &token).is_err());
        }

        #[test]
        fn a_changed_character_is_noticed(index: u64, at in 0usize..20, by in 1u8..26) {
            let mut token = Position::at(index).encode().into_bytes();
            let changed = b'a' + (token[at].wrapping_add(by)) % 26;
            prop_assume!(changed != token[at]);
            token[at] = changed;
            let token = String::from_utf8(token).unwrap();
            prop_assert!(Position::decode("at_least", &token).is_err());
        }
    }
}
