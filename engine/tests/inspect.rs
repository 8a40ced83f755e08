//! What `cairn inspect --rows` tells of a store, also of a damaged one.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use std::sync::Arc;

use cairn_engine::keyring::{Keyring, RootKey};
use cairn_engine::{RowText, inspect_rows};
use cairn_proto::v1;
use common::{Bed, memory, space, vector};

fn rows(bed: &Bed, keyring: &Arc<Keyring>, kinds: &[&str], limit: usize) -> Vec<RowText> {
    bed.engine.flush().unwrap();
    let kinds: Vec<String> = kinds.iter().map(|kind| (*kind).to_owned()).collect();
    let mut found = Vec::new();
    let mut each = |row: RowText| {
        found.push(row);
        found.len() < limit
    };
    let time = |micros: i64| format!("t{micros}");
    inspect_rows(&bed.options.dir, keyring, &kinds, &time, &mut each).unwrap();
    found
}

#[test]
fn rows_are_told_with_what_their_keys_stand_for() {
    let mut bed = Bed::new();
    bed.create_space(space("notes", 12)).unwrap();
    let scope = v1::Scope { user_id: Some("Ada L.".into()), namespace: Some("team/x".into()), ..Default::default() };
    let vectors = vec![vector(&[0.5; 12])];
    bed.add("notes", vec![v1::Memory { scope: Some(scope), vectors, ..memory("milk", "oat\nmilk") }]).unwrap();

    let keyring = Arc::clone(&bed.keyring);
    let all = rows(&bed, &keyring, &[], usize::MAX);
    let line = |kind: &str| {
        let row = all.iter().find(|row| row.kind == kind).unwrap_or_else(|| panic!("no {kind} in {all:?}"));
        (row.key.as_str(), row.record.as_deref().unwrap())
    };
    assert_eq!(line("space_name"), ("space_name 1/notes", "space 1"));
    assert_eq!(line("namespace"), ("namespace 1/1/team/x", "\"team/x\" 1 memories"));
    let values = ["0.5"; 8].join(", ");
    assert_eq!(line("vector"), ("vector 1/1/0/milk", format!("[{values}, .. 12 values]").as_str()));
    let (key, record) = line("memory");
    assert_eq!(key, "memory 1/1/milk");
    assert!(record.starts_with("\"oat\\nmilk\" v1 user=\"Ada L.\" namespace=team/x created=t"), "{record}");
    assert!(line("by_created").0.starts_with("by_created 1/1/t") && line("by_created").0.ends_with("/milk"));
    assert!(
        all.iter().all(|row| !row.key.contains('\n') && row.record.as_ref().is_ok_and(|text| !text.contains('\n')))
    );

    assert_eq!(rows(&bed, &keyring, &["memory", "vector"], usize::MAX).len(), 2);
    assert_eq!(rows(&bed, &keyring, &[], 3).len(), 3);
    let unknown = inspect_rows(&bed.options.dir, &keyring, &["memories".into()], &|_| String::new(), &mut |_| true);
    assert!(unknown.unwrap_err().to_string().contains("no kind of row"));
}

#[test]
fn rows_that_no_key_opens_are_told_as_such() {
    let mut bed = Bed::new();
    bed.create_space(space("notes", 2)).unwrap();
    bed.add("notes", vec![memory("milk", "oat milk")]).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let root = RootKey::from_bytes(&[8; 32]);
    let foreign = Keyring::create(&elsewhere.path().join("keyring"), &root, bed.keyring.cluster_id()).unwrap();
    let told = rows(&bed, &Arc::new(foreign), &["memory", "meta"], usize::MAX);
    assert!(told.iter().any(|row| row.kind == "memory" && row.record.is_err()), "{told:?}");
    assert!(told.iter().all(|row| row.kind == "memory" || row.record.is_ok()), "{told:?}");
    assert!(told.iter().all(|row| !format!("{row:?}").contains("oat")), "{told:?}");
}
