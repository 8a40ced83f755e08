//! Files that were damaged while nobody looked: every byte flipped, every length cut off, files missing or foreign.

use super::disk::Keep;
use super::model::Model;
use super::*;

/// A log of one small segment with records of every kind, closed cleanly or killed. Returns the segment and its used
/// bytes; `models` are the states that cutting may lead to.
struct Written {
    bench: Bench,
    used_bytes: usize,
    models: Vec<Model>,
}

fn written(clean: bool) -> Written {
    let mut bench = Bench::new();
    bench.options.segment_bytes = 16 << 10;
    let wal = bench.open();
    let mut models = vec![Model::of(&wal).unwrap()];
    let calls: [&dyn Fn() -> Option<Ack>; 9] = [
        &|| Some(save_vote(&wal, "term 1").unwrap()),
        &|| Some(append(&wal, 1, entries_from(1, 1, 60)).unwrap()),
        &|| Some(append(&wal, 2, entries_from(2, 1, 300)).unwrap()),
        &|| Some(append(&wal, 3, entries_from(3, 1, 40)).unwrap()),
        &|| wal.truncate_after(Some(2), Box::new(drop)).map(|()| None).unwrap(),
        &|| Some(append(&wal, 3, vec![entry(3, 1, 50)]).unwrap()),
        &|| wal.purge_to(1, Bytes::from_static(b"log id 1")).map(|()| None).unwrap(),
        &|| Some(save_vote(&wal, "term 2").unwrap()),
        &|| Some(append(&wal, 4, entries_from(4, 1, 20)).unwrap()),
    ];
    for call in calls {
        if let Some(ack) = call() {
            ack.wait().unwrap();
        }
        models.push(Model::of(&wal).unwrap());
    }
    if clean {
        wal.close();
    } else {
        bench = bench.on(bench.disk.after_power_cut(Keep::Nothing));
    }
    let used = |bytes: &mut Vec<u8>| bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let used_bytes = bench.disk.with_file(&bench.segments()[0], used);
    assert!(used_bytes < 16 << 10);
    Written { bench, used_bytes, models }
}

/// Opens and reads in full a copy of the log whose first segment was changed; `None` when that was refused.
fn reopen(bench: &Bench, change: impl FnOnce(&mut Vec<u8>)) -> Option<Model> {
    let copy = bench.on(bench.disk.copy());
    copy.disk.with_file(&copy.segments()[0], change);
    match copy.try_open() {
        Ok((wal, _)) => Model::of(&wal).ok(),
        Err(
            WalError::Corruption { .. }
            | WalError::Foreign { .. }
            | WalError::NewerFormat { .. }
            | WalError::Key { .. }
            | WalError::Io { .. },
        ) => None,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn after_a_clean_stop_every_flipped_byte_is_refused() {
    let Written { bench, used_bytes, models } = written(true);
    let last = models.last().unwrap();
    assert_eq!(reopen(&bench, |_| {}).as_ref(), Some(last));
    // The last frame only proves the sync of those before it; nothing is lost with it.
    let mark = used_bytes.next_multiple_of(8) - frame_bytes(0);
    for at in 0..used_bytes {
        for flip in [0x01, 0x80, 0xFF] {
            match reopen(&bench, |bytes| bytes[at] ^= flip) {
                None => assert!(at < mark, "byte {at} only belongs to a mark"),
                Some(found) => {
                    assert!(at >= mark, "byte {at} flipped by {flip:#x} was not noticed");
                    assert_eq!(&found, last);
                }
            }
        }
    }
}

#[test]
fn after_a_kill_a_flipped_byte_is_refused_or_cuts_the_last_batch_off() {
    let Written { bench, used_bytes, models } = written(false);
    let mut cuts = 0;
    for at in 0..used_bytes {
        if let Some(found) = reopen(&bench, |bytes| bytes[at] ^= 0x10) {
            cuts += 1;
            assert!(models.contains(&found), "byte {at}: {found:?} never was the log's state");
        }
    }
    assert!(cuts > 0 && cuts < used_bytes / 4, "{cuts} of {used_bytes} flips cut the log");
    // A record that was being written when the process ended may have left anything behind the log.
    for at in used_bytes.next_multiple_of(8)..16 << 10 {
        let found = reopen(&bench, |bytes| bytes[at] ^= 0x10);
        assert_eq!(found.as_ref(), models.last(), "byte {at} lies behind the log");
    }
}

#[test]
fn a_file_cut_at_any_length_is_refused_or_a_shorter_log() {
    for clean in [true, false] {
        let Written { bench, used_bytes, models } = written(clean);
        for length in 0..used_bytes {
            if let Some(found) = reopen(&bench, |bytes| bytes.truncate(length)) {
                assert!(models.contains(&found), "length {length}: {found:?} never was the log's state");
            }
        }
    }
}

/// A log of several segments, all with live entries.
fn several_segments() -> (Bench, Model) {
    let bench = Bench::new();
    let wal = bench.open();
    for index in 1..=12 {
        append(&wal, index, entries_from(index, 1, 900)).unwrap().wait().unwrap();
    }
    let model = Model::of(&wal).unwrap();
    drop(wal);
    assert!(bench.segments().len() >= 3, "{:?}", bench.segments());
    (bench, model)
}

#[test]
fn every_flipped_byte_of_an_older_segment_is_refused_with_its_place() {
    let (bench, model) = several_segments();
    let path = bench.segments()[1].clone();
    let bytes = bench.disk.with_file(&path, |bytes| bytes.len());
    for at in 0..bytes {
        let copy = bench.on(bench.disk.copy());
        copy.disk.with_file(&path, |bytes| bytes[at] ^= 0x04);
        let error = copy.try_open().map(drop).unwrap_err();
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        if let WalError::Corruption { offset, .. } = error {
            assert!(offset <= at as u64 && at as u64 - offset < 1200, "{at}: {offset}");
        }
    }
    assert_eq!(Model::of(&bench.open()).unwrap(), model);
}

#[test]
fn an_older_segment_cut_at_any_length_is_refused() {
    let (bench, _) = several_segments();
    let path = bench.segments()[1].clone();
    let bytes = bench.disk.with_file(&path, |bytes| bytes.len());
    for length in 0..bytes {
        let copy = bench.on(bench.disk.copy());
        copy.disk.with_file(&path, |bytes| bytes.truncate(length));
        let error = copy.try_open().map(drop).unwrap_err();
        assert!(error.to_string().contains(path.to_str().unwrap()), "{length} of {bytes}: {error}");
    }
}

#[test]
fn a_missing_segment_is_refused() {
    let (bench, _) = several_segments();
    for missing in [0, 1] {
        let copy = bench.on(bench.disk.copy());
        let path = copy.segments()[missing].clone();
        copy.disk.remove_file(&path);
        let error = copy.try_open().map(drop).unwrap_err();
        assert!(matches!(error, WalError::Corruption { reason: "the segment is missing", .. }), "{error}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
}

#[test]
fn a_segment_in_anothers_place_is_refused() {
    let (bench, _) = several_segments();
    let (first, second) = (bench.segments()[0].clone(), bench.segments()[1].clone());
    let bytes = bench.disk.with_file(&first, |bytes| bytes.clone());
    bench.disk.with_file(&second, |old| *old = bytes);
    assert!(matches!(bench.try_open(), Err(WalError::Corruption { .. })));
}

#[test]
fn a_foreign_or_newer_log_is_refused() {
    let (mut bench, _) = several_segments();
    let first = bench.segments()[0].clone();

    bench.seal.node_id = 2;
    let error = bench.try_open().map(drop).unwrap_err();
    assert!(matches!(error, WalError::Foreign { node_id: 1, group: 0, .. }), "{error}");
    bench.seal.node_id = 1;
    bench.seal.group = 3;
    assert!(matches!(bench.try_open(), Err(WalError::Foreign { .. })));
    bench.seal.group = 0;

    let other_keys = tempfile::tempdir().unwrap();
    let right = std::mem::replace(&mut bench.seal, seal_context(other_keys.path()));
    assert!(matches!(bench.try_open(), Err(WalError::Key { .. })));
    bench.seal = right;

    bench.disk.with_file(&first, |bytes| bytes[0] = 2);
    assert!(matches!(bench.try_open(), Err(WalError::NewerFormat { version: 2, known: 1, .. })));
}

#[test]
fn an_entry_damaged_while_the_log_is_open_is_never_returned() {
    let (bench, _) = several_segments();
    let wal = bench.open();
    let path = bench.segments()[0].clone();
    bench.disk.with_file(&path, |bytes| {
        let last = bytes.len() - 20;
        bytes[last] ^= 1;
    });
    let error = wal.read(0..u64::MAX, usize::MAX).load().unwrap_err();
    assert!(matches!(error, WalError::Corruption { .. }), "{error}");
}

#[test]
fn nothing_of_an_entry_lies_open_on_the_disk() {
    let bench = Bench::new();
    let wal = bench.open();
    let secret = b"the user's secret, long enough to be found";
    append(&wal, 1, vec![Bytes::from_static(secret)]).unwrap().wait().unwrap();
    wal.save_vote(Bytes::from_static(secret), Box::new(drop)).unwrap();
    wal.close();
    for path in bench.segments() {
        bench.disk.with_file(&path, |bytes| {
            assert!(!bytes.windows(8).any(|window| secret.windows(8).any(|part| part == window)));
        });
    }
}

#[test]
fn a_log_that_must_exist_is_not_made_anew() {
    let mut bench = Bench::new();
    bench.must_exist = true;
    for _ in 0..2 {
        assert!(matches!(bench.try_open(), Err(WalError::Missing { .. })));
        assert!(bench.segments().is_empty());
    }
    bench.must_exist = false;
    drop(bench.open());
    bench.must_exist = true;
    drop(bench.open());
}
