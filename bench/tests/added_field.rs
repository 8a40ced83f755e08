//! What becomes of a message when one release knows a field that the other does not, as in every rolling upgrade.
//!
//! Protobuf reads such messages both ways. Codecs that derive their format from the order of fields (bincode, postcard)
//! fail, or read something else without an error. This is why Cairn's log and store are protobuf; see
//! `docs/decisions/0003`. That Cairn's own messages keep to it is tested in `proto/tests/added_field.rs`.

use prost::Message;
use serde::{Deserialize, Serialize};

/// A record of one release.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
struct Before {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(uint64, tag = "2")]
    version: u64,
    #[prost(string, tag = "4")]
    content: String,
}

/// The same record in the next release, which has added a field.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
struct After {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(uint64, tag = "2")]
    version: u64,
    #[prost(uint64, tag = "3")]
    importance: u64,
    #[prost(string, tag = "4")]
    content: String,
}

fn before() -> Before {
    Before { id: "m-1".to_owned(), version: 7, content: "tea".to_owned() }
}

fn after() -> After {
    After { id: "m-1".to_owned(), version: 7, importance: 3, content: "tea".to_owned() }
}

#[test]
fn protobuf_reads_both_ways() {
    let read_by_old = Before::decode(after().encode_to_vec().as_slice()).expect("an old member reads a new record");
    assert_eq!(read_by_old, before());
    let read_by_new = After::decode(before().encode_to_vec().as_slice()).expect("a new member reads an old record");
    assert_eq!(read_by_new, After { importance: 0, ..after() });
}

/// What an old member makes of the new record: the added field is taken for the length of the content, and there is no
/// error.
fn misread() -> Before {
    Before { content: "\u{3}te".to_owned(), ..before() }
}

#[test]
fn bincode_reads_a_new_record_wrongly_and_an_old_one_not_at_all() {
    let config = bincode::config::standard();
    let new = bincode::encode_to_vec(after(), config).expect("encodes");
    let (read_by_old, _): (Before, usize) = bincode::decode_from_slice(&new, config).expect("no error is raised");
    assert_eq!(read_by_old, misread());
    let old = bincode::encode_to_vec(before(), config).expect("encodes");
    let read_by_new: Result<(After, usize), _> = bincode::decode_from_slice(&old, config);
    assert!(read_by_new.is_err());
}

#[test]
fn postcard_reads_a_new_record_wrongly_and_an_old_one_not_at_all() {
    let new = postcard::to_stdvec(&after()).expect("encodes");
    assert_eq!(postcard::from_bytes::<Before>(&new).expect("no error is raised"), misread());
    let old = postcard::to_stdvec(&before()).expect("encodes");
    assert!(postcard::from_bytes::<After>(&old).is_err());
}
