//! What lies on disk: durability by flush, checkpoints, directories that are refused, damage that is noticed, nothing in
//! plaintext; and readers beside a writer.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use cairn_engine::crypto::ClusterId;
use cairn_engine::keyring::{Keyring, RootKey};
use cairn_engine::{ApplyEntry, Engine, EntryBody, ErrorKind, LogId, Options, WriteRequest};
use cairn_proto::v1;
use cairn_proto::v1::condition::Test;
use common::{Bed, SECOND, condition, copy_dir, files, me, memory, noise, options, query, space, text, vector};
use tempfile::TempDir;

fn filled() -> Bed {
    let mut bed = Bed::new();
    bed.create_space(space("notes", 4)).unwrap();
    for n in 0..20u8 {
        let secret = v1::Memory {
            scope: Some(v1::Scope { user_id: Some("SECRETUSER".into()), ..Default::default() }),
            metadata: [("SECRETKEY".to_string(), text("SECRETVALUE"))].into(),
            vectors: vec![vector(&[0.123_456, 0.654_321, f32::from(n), 1.0])],
            ..memory(&format!("SECRETID{n}"), "SECRETCONTENT")
        };
        bed.add("notes", vec![secret]).unwrap();
    }
    bed
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[test]
fn nothing_of_a_tenant_lies_on_disk_in_plaintext() {
    let bed = filled();
    bed.engine.flush().unwrap();
    let vector_bytes: Vec<u8> = [0.123_456_f32, 0.654_321].iter().flat_map(|v| v.to_le_bytes()).collect();
    for file in files(&bed.options.dir) {
        let bytes = std::fs::read(&file).unwrap();
        assert!(!contains(&bytes, b"SECRET"), "{}", file.display());
        assert!(!contains(&bytes, b"notes"), "{}", file.display());
        assert!(!contains(&bytes, &vector_bytes), "{}", file.display());
    }
    for entry in &bed.log {
        if let EntryBody::Command(command) = &entry.body {
            assert!(!contains(&prost::Message::encode_to_vec(command), b"SECRET"), "{:?}", entry.log_id);
        }
    }
}

#[test]
fn what_is_not_flushed_is_not_durable_and_what_is_flushed_is() {
    let mut bed = filled();
    bed.engine.flush().unwrap();
    let flushed = bed.log.len() as u64;
    bed.add("notes", vec![memory("late", "")]).unwrap();
    assert_eq!(bed.engine.durable_applied().unwrap().unwrap().index, flushed);
    let options = bed.crashed_copy(&bed.dir.path().join("copy"));
    let copy = Engine::open(&options, Arc::clone(&bed.keyring)).unwrap();
    assert_eq!(copy.applied().log_id.unwrap().index, flushed);
    assert_eq!(copy.durable_applied().unwrap().unwrap().index, flushed);
}

#[test]
fn a_checkpoint_holds_what_it_says_and_opens_as_an_engine() {
    let mut bed = filled();
    let membership = ApplyEntry {
        log_id: LogId { term: 1, node_id: 1, index: bed.log.len() as u64 + 1 },
        body: EntryBody::Membership { encoded: Bytes::from_static(b"three nodes"), node_ids: vec![1, 2, 3] },
    };
    bed.engine.apply(std::slice::from_ref(&membership)).unwrap();
    bed.log.push(membership.clone());
    let dir = bed.dir.path().join("checkpoint");
    let checkpoint = bed.engine.checkpoint(&dir).unwrap();
    assert_eq!(checkpoint.applied, bed.engine.applied());
    assert_eq!(checkpoint.applied.membership, Some((membership.log_id, Bytes::from_static(b"three nodes"))));
    assert!(checkpoint.files.iter().any(|(name, size)| name.to_string_lossy() == "CURRENT" && *size > 0));
    bed.add("notes", vec![memory("late", "")]).unwrap();
    let copy = Engine::open(&Options { dir, ..bed.options.clone() }, Arc::clone(&bed.keyring)).unwrap();
    assert_eq!(copy.applied(), checkpoint.applied);
    copy.apply(&bed.log).unwrap();
    assert_eq!(copy.applied(), bed.engine.applied());
}

/// What a copy says of itself is read from the copy: whatever is applied beside it is in both or in neither.
#[test]
fn a_checkpoint_beside_the_applying_thread_holds_what_it_says() {
    let bed = filled();
    let first = bed.log.len() as u64 + 1;
    let blank = |index| ApplyEntry { log_id: LogId { term: 1, node_id: 1, index }, body: EntryBody::Blank };
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for index in first.. {
                bed.engine.apply(&[blank(index)]).unwrap();
                if is_over.load(std::sync::atomic::Ordering::Relaxed) {
                    return;
                }
            }
        });
        for number in 0..12 {
            let dir = bed.dir.path().join(format!("checkpoint-{number}"));
            let checkpoint = bed.engine.checkpoint(&dir).unwrap();
            let copy = Engine::open(&Options { dir, ..bed.options.clone() }, Arc::clone(&bed.keyring)).unwrap();
            // Before it is judged, so that the other thread ends whatever the judgement is.
            is_over.store(number == 11 || copy.applied() != checkpoint.applied, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(copy.applied(), checkpoint.applied);
        }
    });
}

#[test]
fn a_checkpoint_that_lay_aside_hides_and_removes_what_has_expired_meanwhile() {
    let mut bed = Bed::new();
    bed.create_space(space("notes", 2)).unwrap();
    let ttl = v1::memory::Expiry::Ttl(prost_types::Duration { seconds: 60, nanos: 0 });
    let short = v1::Memory { expiry: Some(ttl), vectors: vec![vector(&[1.0, 0.0])], ..memory("short", "x") };
    let long = v1::Memory { vectors: vec![vector(&[0.0, 1.0])], ..memory("long", "y") };
    bed.add("notes", vec![short, long]).unwrap();
    let dir = bed.dir.path().join("checkpoint");
    bed.engine.checkpoint(&dir).unwrap();

    bed.options = Options { dir, ..bed.options.clone() };
    bed.engine = Engine::open(&bed.options, Arc::clone(&bed.keyring)).unwrap();
    bed.now += 59 * SECOND;
    assert_eq!(bed.count("notes", None).unwrap(), 2, "its time is not over");
    bed.now += SECOND;
    assert_eq!(bed.engine.memories().unwrap(), 2, "still stored");
    assert_eq!(bed.get("notes", &["short"]).unwrap().missing_ids, ["short"]);
    assert_eq!(bed.count("notes", None).unwrap(), 1);
    assert_eq!(bed.search(&query("notes", &[1.0, 0.0])).unwrap()[0].memory.as_ref().unwrap().id, "long");
    let command = bed.engine.prepare_expiry(bed.now).unwrap().unwrap();
    bed.apply(command);
    assert_eq!(bed.engine.memories().unwrap(), 1);
    assert_eq!(bed.engine.prepare_expiry(bed.now).unwrap(), None);
}

#[test]
fn nodes_that_were_members_once_are_remembered_as_retired() {
    let mut bed = filled();
    let mut change = |node_ids: &[u64]| {
        let membership = ApplyEntry {
            log_id: LogId { term: 1, node_id: 1, index: bed.log.len() as u64 + 1 },
            body: EntryBody::Membership { encoded: Bytes::from_static(b"members"), node_ids: node_ids.to_vec() },
        };
        bed.engine.apply(std::slice::from_ref(&membership)).unwrap();
        bed.log.push(membership);
        bed.engine.applied().retired_node_ids
    };
    assert!(change(&[1, 2, 3]).is_empty());
    assert!(change(&[3, 1, 2, 4]).is_empty());
    assert_eq!(change(&[1, 3, 4]), [2]);
    assert_eq!(change(&[3, 4, 5]), [1, 2]);
    // However it may have come back, it was gone.
    assert_eq!(change(&[1, 3, 4, 5]), [1, 2]);
    let dir = bed.dir.path().join("checkpoint");
    bed.engine.checkpoint(&dir).unwrap();
    let copy = Engine::open(&Options { dir, ..bed.options.clone() }, Arc::clone(&bed.keyring)).unwrap();
    assert_eq!(copy.applied().retired_node_ids, [1, 2]);
}

fn refusal(options: &Options, keyring: &Arc<Keyring>) -> (ErrorKind, String) {
    match Engine::open(options, Arc::clone(keyring)) {
        Ok(_) => panic!("was opened"),
        Err(error) => (error.kind().clone(), error.to_string()),
    }
}

#[test]
fn foreign_directories_are_refused_in_one_line() {
    let bed = filled();
    bed.engine.flush().unwrap();
    let busy = refusal(&bed.options, &bed.keyring);
    assert_eq!(busy.0, ErrorKind::Refused);
    assert!(busy.1.contains("in use by another process"), "{}", busy.1);

    let copy = bed.crashed_copy(&bed.dir.path().join("copy"));
    let elsewhere = TempDir::new().unwrap();
    let root = RootKey::from_bytes(&[7; 32]);
    let other = Keyring::create(&elsewhere.path().join("keyring"), &root, ClusterId([1; 16])).unwrap();
    let foreign = refusal(&copy, &Arc::new(other));
    assert_eq!(foreign.0, ErrorKind::Refused);
    assert!(foreign.1.contains("belongs to cluster 0909") && !foreign.1.contains('\n'), "{}", foreign.1);

    std::fs::write(elsewhere.path().join("holiday.jpg"), b"x").unwrap();
    let photos = refusal(&options(elsewhere.path()), &bed.keyring);
    assert_eq!(photos.0, ErrorKind::Refused);
    assert!(photos.1.contains("but no store"), "{}", photos.1);
}

#[test]
fn a_flipped_byte_is_refused_and_never_a_wrong_answer() {
    let bed = filled();
    let sound = bed.get("notes", &["SECRETID3"]).unwrap().memories;
    let still = bed.dir.path().join("still");
    bed.engine.checkpoint(&still).unwrap();
    let mut noticed = 0;
    for (number, file) in files(&still).iter().enumerate() {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        if ![".sst", ".blob"].iter().any(|end| name.ends_with(end)) && !name.starts_with("MANIFEST") {
            continue;
        }
        let length = std::fs::metadata(file).unwrap().len() as usize;
        for at in (0..length).step_by((length / 24).max(1)) {
            let options = Options { dir: bed.dir.path().join(format!("flip-{number}-{at}")), ..bed.options.clone() };
            copy_dir(&still, &options.dir);
            let mut bytes = std::fs::read(options.dir.join(&name)).unwrap();
            bytes[at] ^= 0x20;
            std::fs::write(options.dir.join(&name), bytes).unwrap();
            let Ok(damaged) = Engine::open(&options, Arc::clone(&bed.keyring)) else {
                noticed += 1;
                continue;
            };
            let ids = vec!["SECRETID3".to_string()];
            let request =
                v1::GetMemoriesRequest { space: "notes".into(), ids, include_vectors: true, ..Default::default() };
            let at = cairn_engine::ReadPoint { index: 0, time_micros: bed.now };
            match damaged.get_memories(&me(), &request, &at) {
                Ok(found) if damaged.applied() == bed.engine.applied() => assert_eq!(found.memories, sound),
                // An older state than the log's is brought up to date by applying the log again.
                Ok(_) => noticed += 1,
                Err(error) => {
                    assert!(matches!(error.kind(), ErrorKind::Corruption | ErrorKind::NotFound { .. }), "{error}");
                    noticed += 1;
                }
            }
        }
    }
    assert!(noticed > 0, "some flips hit what is read");
}

fn blobs(bed: &Bed) -> (usize, u64) {
    let blobs = files(&bed.options.dir).into_iter().filter(|file| file.extension().is_some_and(|end| end == "blob"));
    let sizes: Vec<u64> = blobs.map(|file| std::fs::metadata(file).unwrap().len()).collect();
    (sizes.len(), sizes.iter().sum())
}

/// Some memories stay, most are replaced all the time, so that no file is ever without anything that counts.
#[test]
fn what_is_replaced_over_and_over_takes_bounded_room() {
    const ROUNDS: u64 = 40;
    let mut bed = Bed::new();
    bed.create_space(space("notes", 4)).unwrap();
    for round in 0..ROUNDS {
        let kept = memory(&format!("kept{round}"), &noise(round, 20_000));
        let replaced = (0..40).map(|n| memory(&format!("m{n}"), &noise(round * 100 + n, 20_000)));
        bed.add("notes", replaced.chain([kept]).collect()).unwrap();
    }
    bed.engine.flush().unwrap();
    let (_, before) = blobs(&bed);
    while bed.engine.advance_upkeep(100).unwrap() {}
    // 80 memories, some of which the files must hold twice, and a file's worth of garbage.
    let (_, after) = blobs(&bed);
    assert!(after < 5 << 20, "{before} bytes before, {after} after");
    let (again, kept) = (noise((ROUNDS - 1) * 100 + 7, 20_000), noise(3, 20_000));
    let check = |engine: &Engine| {
        let ids = vec!["m7".to_string(), "kept3".to_string()];
        let request = v1::GetMemoriesRequest { space: "notes".into(), ids, ..Default::default() };
        let found = engine.get_memories(&me(), &request, &bed.at()).unwrap().memories;
        assert!(found[0].content == again && found[1].content == kept);
    };
    check(&bed.engine);
    let crashed = bed.crashed_copy(&bed.dir.path().join("copy"));
    check(&Engine::open(&crashed, Arc::clone(&bed.keyring)).unwrap());
}

#[test]
fn small_files_become_large_ones() {
    let mut bed = Bed::new();
    bed.create_space(space("notes", 4)).unwrap();
    for n in 0..70 {
        bed.add("notes", vec![memory(&format!("m{n}"), &noise(n, 2_000))]).unwrap();
        bed.engine.flush().unwrap();
    }
    let (many, _) = blobs(&bed);
    assert!(bed.engine.has_upkeep(), "{many} files");
    while bed.engine.advance_upkeep(100).unwrap() {}
    let (few, _) = blobs(&bed);
    assert!(many > 64 && few < 10, "{many} files before, {few} after");
    assert_eq!(bed.get("notes", &["m33"]).unwrap().memories[0].content, noise(33, 2_000));
}

/// One request is never seen half, and a hit is always fetched in the version that it matched.
#[test]
fn readers_beside_a_writer_see_whole_requests() {
    let mut bed = Bed::new();
    bed.create_space(space("notes", 2)).unwrap();
    let batch = |round: usize| -> Vec<v1::Memory> {
        (0..20)
            .map(|n| v1::Memory {
                kind: format!("round{round}"),
                vectors: vec![vector(&[1.0, round as f32])],
                ..memory(&format!("m{n}"), &format!("round{round}"))
            })
            .collect()
    };
    bed.add("notes", batch(0)).unwrap();
    let stop = AtomicBool::new(false);
    let commands: Vec<_> = (1..150)
        .map(|round| {
            let request =
                v1::AddMemoriesRequest { space: "notes".into(), memories: batch(round), ..Default::default() };
            let mut command = bed.engine.prepare(&me(), WriteRequest::AddMemories(request)).unwrap();
            command.stamp_micros = bed.now;
            command
        })
        .collect();
    let (engine, at) = (&bed.engine, bed.at());
    let mut index = bed.log.len() as u64;
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut checks = 0;
                while !stop.load(Ordering::Relaxed) || checks == 0 {
                    let request = v1::SearchMemoriesRequest { limit: 100, ..query("notes", &[1.0, 1.0]) };
                    let hits = engine.search_memories(&me(), &request, &at).unwrap().hits;
                    assert_eq!(hits.len(), 20);
                    let kind = hits[0].memory.as_ref().unwrap().kind.clone();
                    assert!(hits.iter().all(|hit| hit.memory.as_ref().unwrap().kind == kind));
                    let filter = Some(condition("kind", Test::Eq(text(&kind))));
                    let filtered = v1::SearchMemoriesRequest { filter, ..request };
                    for hit in engine.search_memories(&me(), &filtered, &at).unwrap().hits {
                        assert_eq!(hit.memory.unwrap().content, kind);
                    }
                    checks += 1;
                }
            });
        }
        for command in commands {
            index += 1;
            let log_id = LogId { term: 1, node_id: 1, index };
            engine.apply(&[ApplyEntry { log_id, body: EntryBody::Command(command) }]).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
}
