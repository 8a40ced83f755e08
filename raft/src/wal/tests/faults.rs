//! Power cuts before every operation on the disk, syncs that fail, disks that are full.

use super::disk::Keep;
use super::model::Model;
use super::*;

/// One call, with what it makes of the model.
enum Call {
    Append(u64, Vec<Bytes>),
    Vote(&'static str),
    /// The position is the index as text.
    Committed(u64),
    Truncate(u64),
    Purge(u64),
}

/// A life in which everything happens: segments begin and go, entries are overwritten, a purge goes beyond the tail.
fn script() -> Vec<Call> {
    let again = |first: u64, count: u64| (first..first + count).map(|index| entry(index, 1, 200)).collect();
    vec![
        Call::Vote("term 1"),
        Call::Append(1, entries_from(1, 3, 100)),
        Call::Committed(2),
        Call::Append(4, entries_from(4, 4, 700)),
        Call::Vote("term 2"),
        Call::Truncate(5),
        Call::Append(6, again(6, 6)),
        Call::Committed(8),
        Call::Append(12, entries_from(12, 3, 1500)),
        Call::Purge(7),
        Call::Append(15, entries_from(15, 2, 6000)),
        Call::Vote("term 3"),
        Call::Purge(16),
        Call::Append(17, entries_from(17, 2, 50)),
        Call::Purge(30),
        Call::Append(31, entries_from(31, 2, 50)),
        Call::Committed(32),
    ]
}

/// The states that the script leads through, entry by entry, and how many calls are complete in each. Committed
/// positions are left out: they keep their own order.
fn models(script: &[Call]) -> Vec<(usize, Model)> {
    let mut model = Model::default();
    let mut models = vec![(0, model.clone())];
    for (calls, call) in script.iter().enumerate() {
        match call {
            Call::Append(first, entries) => {
                for (index, entry) in (*first..).zip(entries) {
                    model.append(index, std::slice::from_ref(entry));
                    models.push((calls, model.clone()));
                }
            }
            Call::Vote(vote) => model.vote = Some(Bytes::from_static(vote.as_bytes())),
            Call::Committed(_) => {}
            Call::Truncate(index) => model.truncate_after(Some(*index)),
            Call::Purge(index) => model.purge_to(*index, &Bytes::from(index.to_string())),
        }
        models.push((calls + 1, model.clone()));
    }
    models
}

/// Runs the script until the log stops. Returns how many calls must have survived (the last acknowledged one, and all
/// before it) and how many were made.
fn run(bench: &Bench, script: &[Call]) -> (usize, usize) {
    let Ok((wal, _)) = bench.try_open() else { return (0, 0) };
    let (mut safe, mut made) = (0, 0);
    let mut acks: Vec<(usize, Ack)> = Vec::new();
    for (number, call) in script.iter().enumerate() {
        let called = match call {
            Call::Append(first, entries) => append(&wal, *first, entries.clone()).map(Some),
            Call::Vote(vote) => save_vote(&wal, vote).map(Some),
            Call::Committed(index) => wal.save_committed(Bytes::from(index.to_string())).map(|()| None),
            Call::Truncate(index) => wal.truncate_after(Some(*index), Box::new(drop)).map(|()| None),
            Call::Purge(index) => wal.purge_to(*index, Bytes::from(index.to_string())).map(|()| None),
        };
        let Ok(ack) = called else { break };
        made = number + 1;
        acks.extend(ack.map(|ack| (made, ack)));
        // Now and then several calls share a sync.
        if number % 3 != 1 {
            for (calls, ack) in acks.drain(..) {
                if ack.wait().is_ok() {
                    safe = calls;
                }
            }
        }
    }
    for (calls, ack) in acks {
        if ack.wait().is_ok() {
            safe = calls;
        }
    }
    wal.close();
    (safe, made)
}

/// Opens what a power cut left and checks that it is a state that the calls lead through, with all that is safe.
fn check(bench: &Bench, models: &[(usize, Model)], safe: usize, made: usize, context: &str) {
    let (wal, _) = bench.try_open().unwrap_or_else(|error| panic!("{context}: {error}"));
    let mut found = Model::of(&wal).unwrap_or_else(|error| panic!("{context}: {error}"));
    if let Some(committed) = found.committed.take() {
        let committed: u64 = std::str::from_utf8(&committed).unwrap().parse().unwrap();
        assert!(Some(committed) < found.next_index(), "{context}: {committed} is committed, but not in {found:?}");
    }
    let is_prefix = models.iter().any(|(calls, model)| (safe..=made).contains(calls) && *model == found);
    assert!(is_prefix, "{context}: {safe} calls were safe, {made} made, found {found:?}");
}

#[test]
fn acknowledged_calls_survive_a_power_cut_before_any_operation() {
    let script = script();
    let models = models(&script);
    let bench = Bench::new();
    assert_eq!(run(&bench, &script).0, script.len() - 1, "without a power cut all is acknowledged");
    let operations = bench.disk.operations();
    assert!(operations > 60, "the script does too little: {operations}");

    // The thread's batches are not the same each time, so the last cuts may come after the end.
    for cut in 0..operations + 5 {
        let bench = bench.on(BadDisk::new());
        bench.disk.cut_power_at(cut);
        let (safe, made) = run(&bench, &script);
        if !bench.disk.is_cut() {
            continue;
        }
        let keeps =
            [Keep::Nothing, Keep::Everything].into_iter().chain((0..6).map(|seed| Keep::Some(seed * 977 + cut)));
        for keep in keeps {
            let after = bench.on(bench.disk.after_power_cut(keep));
            check(&after, &models, safe, made, &format!("cut before operation {cut}, keeping {keep:?}"));
        }
    }
}

#[test]
fn acknowledged_calls_survive_power_cuts_during_recovery() {
    let script = script();
    let models = models(&script);
    let bench = Bench::new();
    run(&bench, &script);
    let operations = bench.disk.operations();
    for cut in (0..operations).step_by(3) {
        let bench = bench.on(BadDisk::new());
        bench.disk.cut_power_at(cut);
        let (safe, made) = run(&bench, &script);
        let left = bench.disk.after_power_cut(Keep::Some(cut));
        for second_cut in 0..12 {
            let bench = bench.on(left.copy());
            bench.disk.cut_power_at(second_cut);
            drop(bench.try_open());
            for keep in [Keep::Nothing, Keep::Everything, Keep::Some(second_cut)] {
                let after = bench.on(bench.disk.after_power_cut(keep));
                let context = format!("cut before {cut}, then before {second_cut}, keeping {keep:?}");
                check(&after, &models, safe, made, &context);
            }
        }
    }
}

#[test]
fn a_failed_sync_ends_the_process_and_acknowledges_nothing() {
    let bench = Bench::new();
    let wal = bench.open();
    append(&wal, 1, entries_from(1, 2, 50)).unwrap().wait().unwrap();
    bench.disk.fail_syncs(true);
    let gate = bench.disk.gate.lock();
    let entries = append(&wal, 3, entries_from(3, 2, 50)).unwrap();
    let vote = save_vote(&wal, "term 9").unwrap();
    drop(gate);
    assert!(matches!(entries.wait(), Err(WalError::Stopped)));
    assert!(matches!(vote.wait(), Err(WalError::Stopped)));
    wal.close();
    assert_eq!(bench.failures(), 1);
    assert!(matches!(append(&wal, 5, entries_from(5, 1, 50)), Err(WalError::Stopped)), "no life after a failed sync");
    assert_eq!(bench.disk.syncs(), 3, "one for the first segment, one for the first append, and the one that failed");
}

/// The kernel marks pages clean when their write-back fails: the next process reads them from the cache, its sync
/// succeeds, and they are not on the disk. So they must be written anew.
#[test]
fn what_a_failed_sync_left_in_the_page_cache_is_written_anew() {
    let bench = Bench::new();
    let wal = bench.open();
    append(&wal, 1, entries_from(1, 2, 50)).unwrap().wait().unwrap();
    bench.disk.fail_syncs(true);
    assert!(append(&wal, 3, entries_from(3, 2, 50)).unwrap().wait().is_err());
    drop(wal);
    bench.disk.fail_syncs(false);

    let (wal, recovered) = bench.try_open().unwrap();
    assert_eq!(recovered.summary.next, 5, "the process sees what the page cache holds");
    let seen = Model::of(&wal).unwrap();
    let after = bench.on(bench.disk.after_power_cut(Keep::Nothing));
    assert_eq!(Model::of(&after.open()).unwrap(), seen, "what recovery reported must be durable");
}

#[test]
fn a_full_disk_is_waited_out() {
    for reserves in [true, false] {
        let mut bench = Bench::new();
        if !reserves {
            bench.disk = bench.disk.without_reservation();
        }
        let wal = bench.open();
        append(&wal, 1, entries_from(1, 4, 500)).unwrap().wait().unwrap();
        bench.disk.set_space(Some(1000));
        let mut acks: Vec<Ack> =
            (0..6).map(|batch| append(&wal, 5 + batch * 2, entries_from(5 + batch * 2, 2, 900)).unwrap()).collect();
        while !wal.stats().stalled {
            std::thread::yield_now();
        }
        let last = acks.pop().unwrap();
        assert!(!last.has_come(), "nothing is acknowledged that found no room");
        assert_eq!(wal.read(0..u64::MAX, usize::MAX).len(), 16, "all of it can be read");
        bench.disk.set_space(None);
        acks.into_iter().chain([last]).for_each(|ack| ack.wait().unwrap());
        assert!(!wal.stats().stalled);
        assert_eq!(bench.failures(), 0);

        let expected = Model::of(&wal).unwrap();
        assert_eq!(expected.entries.len(), 16);
        let after = bench.on(bench.disk.after_power_cut(Keep::Nothing));
        assert_eq!(Model::of(&after.open()).unwrap(), expected);
    }
}

#[test]
fn a_log_closed_while_the_disk_is_full_keeps_what_it_acknowledged() {
    let bench = Bench::new();
    let wal = bench.open();
    append(&wal, 1, entries_from(1, 3, 500)).unwrap().wait().unwrap();
    bench.disk.set_space(Some(0));
    let ack = append(&wal, 4, entries_from(4, 4, 2000)).unwrap();
    while !wal.stats().stalled {
        std::thread::yield_now();
    }
    wal.close();
    assert!(ack.wait().is_err());
    assert_eq!(bench.failures(), 0, "a full disk is no failure of the log");
    bench.disk.set_space(None);
    let found = Model::of(&bench.open()).unwrap();
    assert!((3..7).contains(&found.entries.len()), "{found:?}");
}
