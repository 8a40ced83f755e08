//! Sharing of syncs, backpressure, reading, segments that come and go, and the real disk.

use std::os::unix::fs::PermissionsExt;

use futures::FutureExt;

use super::disk::Keep;
use super::model::Model;
use super::*;

#[test]
fn whoever_waits_for_a_sync_shares_the_next() {
    let bench = Bench::new();
    let wal = Arc::new(bench.open());
    append(&wal, 1, entries_from(1, 1, 10)).unwrap().wait().unwrap();
    let before = wal.stats().syncs;

    let gate = bench.disk.gate.lock();
    let first = append(&wal, 2, entries_from(2, 1, 10)).unwrap();
    while wal.stats().entries < 2 {
        std::thread::yield_now();
    }
    // The thread now hangs in the first append's sync, and these queue behind it.
    let next_index = Arc::new(Mutex::new(3));
    let threads: Vec<_> = (0..64)
        .map(|_| {
            let (wal, next_index) = (Arc::clone(&wal), Arc::clone(&next_index));
            std::thread::spawn(move || {
                let mut next_index = next_index.lock();
                let ack = append(&wal, *next_index, entries_from(*next_index, 1, 10)).unwrap();
                *next_index += 1;
                ack
            })
        })
        .collect();
    let acks: Vec<Ack> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert!(!first.has_come() && acks.iter().all(|ack| !ack.has_come()), "acknowledged before the sync");
    drop(gate);
    first.wait().unwrap();
    acks.into_iter().for_each(|ack| ack.wait().unwrap());
    // 65 small entries fill one segment and a little more, and a segment that is full is synced once more.
    let syncs = wal.stats().syncs - before;
    assert!((2..=3).contains(&syncs), "65 appends took {syncs} syncs");
}

#[test]
fn a_vote_waits_for_the_entries_before_it_and_shares_their_sync() {
    let bench = Bench::new();
    let wal = bench.open();
    let before = wal.stats().syncs;
    let gate = bench.disk.gate.lock();
    let first = append(&wal, 1, entries_from(1, 1, 10)).unwrap();
    while wal.stats().entries < 1 {
        std::thread::yield_now();
    }
    let entries = append(&wal, 2, entries_from(2, 1, 10)).unwrap();
    let vote = save_vote(&wal, "term 2").unwrap();
    drop(gate);
    first.wait().unwrap();
    vote.wait().unwrap();
    assert!(entries.has_come(), "the entries came first");
    assert_eq!(wal.stats().syncs - before, 2);
}

#[test]
fn a_truncation_is_acknowledged_when_it_is_durable() {
    let bench = Bench::new();
    let wal = bench.open();
    append(&wal, 1, entries_from(1, 3, 10)).unwrap().wait().unwrap();
    let gate = bench.disk.gate.lock();
    let (done, ack) = Ack::new();
    wal.truncate_after(Some(1), done).unwrap();
    assert!(!ack.has_come(), "acknowledged before the sync");
    drop(gate);
    ack.wait().unwrap();
    let after = bench.on(bench.disk.after_power_cut(Keep::Nothing));
    assert_eq!(after.try_open().unwrap().1.summary.last_index(), Some(1));
    // What removes nothing is acknowledged as well.
    for last_index in [Some(1), Some(u64::MAX)] {
        let (done, ack) = Ack::new();
        wal.truncate_after(last_index, done).unwrap();
        ack.wait().unwrap();
    }
}

#[test]
fn a_full_queue_makes_appends_wait() {
    let mut bench = Bench::new();
    bench.options.queue_bytes_max = 4096;
    let wal = bench.open();
    let gate = bench.disk.gate.lock();
    let first = append(&wal, 1, entries_from(1, 1, 3000)).unwrap();
    let (done, second) = Ack::new();
    let mut waiting = Box::pin(wal.append(2, entries_from(2, 1, 3000), done));
    assert!(waiting.as_mut().now_or_never().is_none(), "there is no room for both");
    assert_eq!(wal.read(0..10, usize::MAX).len(), 1, "what waits for room is not in the log yet");
    let vote = save_vote(&wal, "term 2").unwrap();
    drop(gate);
    block_on(waiting).unwrap();
    for ack in [first, second, vote] {
        ack.wait().unwrap();
    }
    assert_eq!(wal.stats().queue_bytes_free, 4096);
    // What is larger than the whole queue passes too, alone.
    append(&wal, 3, entries_from(3, 4, 3000)).unwrap().wait().unwrap();
}

#[test]
fn an_append_that_waits_when_the_log_closes_is_told() {
    let mut bench = Bench::new();
    bench.options.queue_bytes_max = 4096;
    let wal = bench.open();
    let gate = bench.disk.gate.lock();
    let first = append(&wal, 1, entries_from(1, 1, 3000)).unwrap();
    let (done, second) = Ack::new();
    let mut waiting = Box::pin(wal.append(2, entries_from(2, 1, 3000), done));
    assert!(waiting.as_mut().now_or_never().is_none());
    drop(gate);
    wal.close();
    first.wait().unwrap();
    // Its turn may have come just before the close; then it was refused by the closed log.
    assert!(matches!(block_on(waiting), Err(WalError::Stopped)));
    assert!(second.wait().is_err());
}

#[test]
fn an_entry_beyond_the_limit_is_refused_and_one_beyond_the_segment_is_not() {
    let mut bench = Bench::new();
    bench.options.entry_bytes_max = 50_000;
    let wal = bench.open();
    let too_large = append(&wal, 1, entries_from(1, 1, 50_001));
    assert!(matches!(too_large.map(drop), Err(WalError::EntryTooLarge { bytes: 50_001, limit: 50_000 })));
    append(&wal, 1, entries_from(1, 3, 50_000)).unwrap().wait().unwrap();
    let expected = Model::of(&wal).unwrap();
    drop(wal);
    assert_eq!(Model::of(&bench.open()).unwrap(), expected);
}

#[test]
fn purged_segments_are_removed_and_their_state_is_not() {
    let bench = Bench::new();
    let wal = bench.open();
    save_vote(&wal, "term 7").unwrap();
    for index in 1..=40 {
        append(&wal, index, entries_from(index, 1, 900)).unwrap().wait().unwrap();
    }
    wal.save_committed(Bytes::from_static(b"40")).unwrap();
    assert!(bench.segments().len() >= 10);
    wal.purge_to(38, Bytes::from_static(b"log id 38")).unwrap();
    append(&wal, 41, entries_from(41, 1, 900)).unwrap().wait().unwrap();
    save_vote(&wal, "term 8").unwrap().wait().unwrap();
    assert!(bench.segments().len() <= 2, "{:?}", bench.segments());
    assert_eq!(wal.stats().segments_removed, wal.stats().segments_created + 1 - bench.segments().len() as u64);

    let expected = Model::of(&wal).unwrap();
    assert_eq!(expected.entries.keys().copied().collect::<Vec<_>>(), [39, 40, 41]);
    let after = bench.on(bench.disk.after_power_cut(Keep::Nothing));
    assert_eq!(Model::of(&after.open()).unwrap(), expected);
}

#[test]
fn a_reading_stands_whatever_happens_before_it_is_loaded() {
    let bench = Bench::new();
    let wal = bench.open();
    for index in 1..=12 {
        append(&wal, index, entries_from(index, 1, 900)).unwrap().wait().unwrap();
    }
    let reading = wal.read(1..13, usize::MAX);
    assert!(!reading.is_cached() && reading.first_index() == 1);
    wal.truncate_after(Some(5), Box::new(drop)).unwrap();
    wal.purge_to(4, Bytes::new()).unwrap();
    append(&wal, 6, vec![entry(6, 1, 900)]).unwrap().wait().unwrap();
    assert_eq!(reading.load().unwrap(), entries_from(1, 12, 900));
}

#[test]
fn opening_again_and_again_loses_nothing_and_reuses_no_file() {
    let bench = Bench::new();
    let mut seen = Vec::new();
    for index in 1..=6 {
        let (wal, recovered) = bench.try_open().unwrap();
        assert_eq!(recovered.created, index == 1);
        assert_eq!(recovered.summary.last_index(), (index > 1).then(|| index - 1));
        assert_eq!(recovered.cut, None, "a clean stop leaves nothing to cut");
        append(&wal, index, entries_from(index, 1, 40)).unwrap().wait().unwrap();
        wal.close();
        let newest = bench.segments().pop().unwrap();
        assert!(!seen.contains(&newest));
        seen.push(newest);
    }
    assert_eq!(Model::of(&bench.open()).unwrap().entries.len(), 6);
}

#[test]
fn options_out_of_range_are_refused() {
    let mut bench = Bench::new();
    bench.options.segment_bytes = 100;
    let error = bench.try_open().map(drop).unwrap_err();
    assert!(matches!(error, WalError::Option { name: "segment_bytes", .. }), "{error}");
}

#[test]
fn the_real_disk_works_too() {
    let directory = tempfile::tempdir().unwrap();
    let seal = seal_context(directory.path());
    let path = directory.path().join("wal").join("group-0");
    let options = WalOptions { segment_bytes: 64 << 10, cache_bytes_max: 0, ..WalOptions::default() };
    let mut expected = Model::default();
    for round in 0..3 {
        let (wal, _) = Wal::open(&path, options.clone(), seal.clone()).unwrap();
        assert_eq!(Model::of(&wal).unwrap(), expected);
        let first = round * 50 + 1;
        append(&wal, first, entries_from(first, 50, 3000)).unwrap().wait().unwrap();
        wal.purge_to(first + 10, Bytes::from_static(b"id")).unwrap();
        save_vote(&wal, "term 1").unwrap().wait().unwrap();
        expected = Model::of(&wal).unwrap();
    }
    for file in std::fs::read_dir(&path).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", file.path());
    }
}

#[test]
fn what_a_log_keeps_is_let_go_when_nothing_is_written_any_more() {
    let bench = Bench::new();
    let kept = Arc::new(());
    let environment = Environment {
        file_system: Arc::new(bench.disk.clone()),
        kept: Some(Arc::clone(&kept) as Arc<dyn Any + Send + Sync>),
        ..Environment::default()
    };
    let (wal, _) = Wal::open_in(Path::new(DIRECTORY), bench.options.clone(), bench.seal.clone(), environment).unwrap();
    append(&wal, 1, entries_from(1, 1, 10)).unwrap().wait().unwrap();
    assert_eq!(Arc::strong_count(&kept), 2);
    wal.close();
    assert_eq!(Arc::strong_count(&kept), 1);
}
