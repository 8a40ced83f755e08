//! Rolling upgrades: a member reads what a newer or an older release wrote, for the messages of the log and the store.

use std::collections::BTreeMap;

use cairn_proto::storage::{
    AddMemories, Command, MemoryRecord, Mutation, RequestKey, SealedMutation, command, mutation,
};
use cairn_proto::v1::{DenseVector, Memory, Scope, Value, Vector, value, vector};
use prost::Message;

/// A field that no release has yet, in each wire type of protobuf: number 1,000, then its content.
const UNKNOWN_FIELDS: [&[u8]; 4] = [
    &[0xc0, 0x3e, 0x96, 0x01],
    &[0xc1, 0x3e, 1, 2, 3, 4, 5, 6, 7, 8],
    &[0xc2, 0x3e, 3, b'n', b'e', b'w'],
    &[0xc5, 0x3e, 1, 2, 3, 4],
];

/// The bytes as a newer release would write them: with a field that this one does not know, before or behind the rest.
fn written_by_newer(message: &impl Message) -> Vec<Vec<u8>> {
    let bytes = message.encode_to_vec();
    UNKNOWN_FIELDS.iter().flat_map(|field| [[*field, &bytes].concat(), [&bytes, *field].concat()]).collect()
}

fn memory() -> Memory {
    let dense = DenseVector { values: vec![0.6, -0.8] };
    Memory {
        id: "m-1".to_owned(),
        scope: Some(Scope { user_id: Some("u-1".to_owned()), ..Scope::default() }),
        content: "prefers tea".to_owned(),
        metadata: BTreeMap::from([("turn".to_owned(), Value { kind: Some(value::Kind::IntegerValue(-7)) })]),
        vectors: vec![Vector { embedding: "e".to_owned(), data: Some(vector::Data::Dense(dense)) }],
        importance: Some(0.5),
        version: 3,
        ..Memory::default()
    }
}

fn mutation() -> Mutation {
    Mutation {
        request: Some(RequestKey { request_id: "r-1".to_owned(), ..RequestKey::default() }),
        operation: Some(mutation::Operation::AddMemories(AddMemories {
            space: "default".to_owned(),
            memories: vec![memory()],
            ..AddMemories::default()
        })),
    }
}

fn command() -> Command {
    let sealed = SealedMutation { key_id: 1, payload: vec![1, 2, 3].into() };
    Command { cluster_version: 1, stamp_micros: 99, tenant_id: 1, body: Some(command::Body::Sealed(sealed)) }
}

fn record() -> MemoryRecord {
    let memory = memory();
    MemoryRecord {
        id: memory.id,
        scope: memory.scope,
        content: memory.content,
        metadata: memory.metadata,
        version: 3,
        ..MemoryRecord::default()
    }
}

#[test]
fn fields_of_a_newer_release_are_passed_over() {
    for bytes in written_by_newer(&command()) {
        assert_eq!(Command::decode(bytes.as_slice()).expect("decodes"), command());
    }
    for bytes in written_by_newer(&mutation()) {
        assert_eq!(Mutation::decode(bytes.as_slice()).expect("decodes"), mutation());
    }
    for bytes in written_by_newer(&record()) {
        assert_eq!(MemoryRecord::decode(bytes.as_slice()).expect("decodes"), record());
    }
    // Deep inside too: a memory with a field of its own, in a list, in a mutation.
    for bytes in written_by_newer(&memory()) {
        let mut wrapped = vec![0x12];
        wrapped.push(u8::try_from(bytes.len()).expect("a short message"));
        wrapped.extend_from_slice(&bytes);
        assert_eq!(AddMemories::decode(wrapped.as_slice()).expect("decodes").memories, [memory()]);
    }
}

#[test]
fn fields_that_an_older_release_did_not_write_have_their_defaults() {
    // A record as a release wrote it that knew id, content and version only: fields 1, 4 and 10.
    let old = b"\x0a\x03m-1\x22\x0bprefers tea\x50\x03";
    let read = MemoryRecord::decode(old.as_slice()).expect("decodes");
    let expected =
        MemoryRecord { id: "m-1".to_owned(), content: "prefers tea".to_owned(), version: 3, ..MemoryRecord::default() };
    assert_eq!(read, expected);
    assert_eq!(read.importance, None, "absent, not zero");
}

/// Why every new command and field waits for the cluster version: an old member would drop the field and diverge.
#[test]
fn an_unknown_field_is_lost_when_the_message_is_written_again() {
    for bytes in written_by_newer(&command()) {
        let again = Command::decode(bytes.as_slice()).expect("decodes").encode_to_vec();
        assert_eq!(again, command().encode_to_vec());
    }
}
