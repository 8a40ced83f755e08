//! Arbitrary bytes where commands and tokens are expected: errors, never panics and never an effect.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use cairn_engine::{ApplyEntry, EntryBody, ErrorKind, LogId, Position};
use cairn_proto::storage::command::Body;
use cairn_proto::storage::{Command, Outcome, SealedMutation};
use cairn_proto::v1;
use common::{Bed, me, memory, space};
use proptest::prelude::*;

fn bed() -> Bed {
    let mut bed = Bed::new();
    bed.create_space(space("notes", 2)).unwrap();
    for n in 0..3 {
        bed.add("notes", vec![memory(&format!("m{n}"), "")]).unwrap();
    }
    bed
}

fn sealed(bed: &Bed) -> Vec<u8> {
    let commands = bed.log.iter().rev().filter_map(|entry| match &entry.body {
        EntryBody::Command(Command { body: Some(Body::Sealed(sealed)), .. }) => Some(sealed.payload.to_vec()),
        _ => None,
    });
    commands.into_iter().next().unwrap()
}

#[test]
fn a_command_that_does_not_open_stops_the_node_and_changes_nothing() {
    let bed = bed();
    let sound = sealed(&bed);
    let before = bed.engine.applied();
    let flipped = (0usize..sound.len(), 1u8..=255).prop_map(move |(at, by)| {
        let mut bytes = sound.clone();
        bytes[at] ^= by;
        bytes
    });
    proptest!(|(payload in prop_oneof![any::<Vec<u8>>(), flipped])| {
        let sealed = SealedMutation { key_id: 1, payload: payload.into() };
        let command = Command { cluster_version: 1, tenant_id: 1, body: Some(Body::Sealed(sealed)), ..Default::default() };
        let log_id = LogId { term: 1, node_id: 1, index: before.log_id.unwrap().index + 1 };
        let error = bed.engine.apply(&[ApplyEntry { log_id, body: EntryBody::Command(command) }]).unwrap_err();
        prop_assert!(!error.is_deterministic());
        prop_assert_eq!(error.kind(), &ErrorKind::Corruption);
        prop_assert_eq!(bed.engine.applied(), before.clone());
    });
}

#[test]
fn a_command_of_a_newer_cluster_stops_the_node() {
    let bed = bed();
    let command = Command { cluster_version: 99, ..Default::default() };
    let log_id = LogId { term: 1, node_id: 1, index: bed.log.len() as u64 + 1 };
    let error = bed.engine.apply(&[ApplyEntry { log_id, body: EntryBody::Command(command) }]).unwrap_err();
    assert!(!error.is_deterministic());
    assert!(error.to_string().contains("start a newer release"), "{error}");
}

#[test]
fn page_tokens_that_were_not_made_here_are_refused() {
    let bed = bed();
    let request = |page_token: String| v1::ListMemoriesRequest {
        space: "notes".into(),
        page_size: 1,
        page_token,
        ..Default::default()
    };
    let list = |token: String| bed.engine.list_memories(&me(), &request(token), &bed.at());
    let sound = list(String::new()).unwrap().next_page_token;
    let length = sound.len();
    let changed = (0..length, "[A-Za-z0-9_-]").prop_map({
        let sound = sound.clone();
        move |(at, by)| {
            let mut token = sound.clone();
            token.replace_range(at..=at, &by);
            token
        }
    });
    proptest!(|(token in prop_oneof![".{1,60}", changed])| {
        prop_assume!(token != sound);
        let error = list(token).unwrap_err();
        let is_invalid = matches!(error.kind(), ErrorKind::InvalidArgument { .. });
        prop_assert!(is_invalid, "{}", error);
    });
}

proptest! {
    #[test]
    fn outcomes_from_the_wire_are_answers_or_errors(bytes: Vec<u8>) {
        thread_local! {
            static BED: Bed = bed();
        }
        if let Ok(outcome) = <Outcome as prost::Message>::decode(bytes.as_slice()) {
            BED.with(|bed| {
                let _ = bed.engine.respond(&outcome, Position::at(1));
            });
        }
    }
}
