//! Where things stand: groups, log ids, and the opaque positions that clients get.
//!
//! ```text
//! position token: base64url without padding of
//! [version u8 = 1][group u16 BE][index u64 BE][crc32 u32 BE of the bytes before]
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::error::{Error, Result};

const POSITION_VERSION: u8 = 1;
const POSITION_LEN: usize = 15;

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
        let mut bytes = Vec::with_capacity(POSITION_LEN);
        bytes.push(POSITION_VERSION);
        bytes.extend_from_slice(&self.group.0.to_be_bytes());
        bytes.extend_from_slice(&self.index.to_be_bytes());
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads what [`encode`](Self::encode) made. `field` is named in the INVALID_ARGUMENT of anything else.
    pub fn decode(field: &str, token: &str) -> Result<Self> {
        let bytes: [u8; POSITION_LEN] = URL_SAFE_NO_PAD
            .decode(token)
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| Error::invalid(field, "is not a position that this server returned"))?;
        let [version, g0, g1, i0, i1, i2, i3, i4, i5, i6, i7, c0, c1, c2, c3] = bytes;
        let crc = u32::from_be_bytes([c0, c1, c2, c3]);
        if version != POSITION_VERSION || crc != crc32fast::hash(&bytes[..POSITION_LEN - 4]) {
            return Err(Error::invalid(field, "is not a position that this server returned"));
        }
        Ok(Self {
            group: GroupId(u16::from_be_bytes([g0, g1])),
            index: u64::from_be_bytes([i0, i1, i2, i3, i4, i5, i6, i7]),
        })
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
