//! Sealing and opening of records and frames, and lookup ids: what every write and read pays. What came of it:
//! `docs/decisions/0002`.

#![allow(missing_docs, reason = "a bench has no public items but those that criterion's macros make")]
#![allow(clippy::expect_used, clippy::print_stdout, reason = "a bench that cannot be set up says so and ends")]

use std::hint::black_box;

use cairn_engine::crypto::{Aad, ClusterId, FileKey, FrameSealer, TenantId};
use cairn_engine::keyring::{Keyring, RootKey};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// A storage key as long as a record's.
const PLACE: Aad<'static> = Aad { format: 1, family: "records", key: &[7; 34] };
const LENS: [usize; 5] = [64, 512, 2 << 10, 64 << 10, 1 << 20];

fn keyring() -> Keyring {
    let mut root = [0; 32];
    getrandom::fill(&mut root).expect("random bytes");
    let directory = tempfile::tempdir().expect("a directory");
    Keyring::create(&directory.path().join("keyring"), &RootKey::from_bytes(&root), ClusterId([1; 16]))
        .expect("a keyring")
}

fn random_bytes(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    getrandom::fill(&mut bytes).expect("random bytes");
    bytes
}

fn text(len: usize) -> Vec<u8> {
    let words = [
        "the ", "user ", "prefers ", "an ", "aisle ", "seat ", "and ", "a ", "quiet ", "room ", "near ", "the ",
        "river ", "after ", "morning ", "flights ",
    ];
    let mut bytes = Vec::with_capacity(len + 16);
    for choice in random_bytes(len) {
        if bytes.len() >= len {
            break;
        }
        bytes.extend_from_slice(words[usize::from(choice % 16)].as_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn records(criterion: &mut Criterion) {
    let keyring = keyring();
    let keys = keyring.system();
    let mut out = Vec::new();
    for (name, make) in [("random", random_bytes as fn(usize) -> Vec<u8>), ("text", text)] {
        let mut group = criterion.benchmark_group(format!("record/{name}"));
        for len in LENS {
            let plain = make(len);
            group.throughput(Throughput::Bytes(len as u64));
            group.bench_with_input(BenchmarkId::new("seal", len), &plain, |b, plain| {
                b.iter(|| {
                    out.clear();
                    keys.seal_into(&PLACE, black_box(plain), &mut out).expect("seals");
                });
            });
            let sealed = keys.seal(&PLACE, &plain).expect("seals");
            group.bench_with_input(BenchmarkId::new("open", len), &sealed, |b, sealed| {
                b.iter(|| keys.open(&PLACE, black_box(sealed)).expect("opens"));
            });
        }
        group.finish();
    }
}

fn frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame");
    let mut sealer = FrameSealer::new(FileKey::generate().expect("a key"), ClusterId([1; 16]), 1);
    let mut out = Vec::new();
    for len in LENS {
        let plain = random_bytes(len);
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_with_input(BenchmarkId::new("seal", len), &plain, |b, plain| {
            b.iter(|| {
                out.clear();
                let frame_no = sealer.next_frame_no();
                sealer.seal_into(frame_no, 1, black_box(plain), &mut out).expect("seals");
            });
        });
        let frame_no = sealer.next_frame_no();
        let sealed = sealer.seal(frame_no, 1, &plain).expect("seals");
        group.bench_with_input(BenchmarkId::new("open", len), &sealed, |b, sealed| {
            b.iter(|| sealer.open(frame_no, 1, black_box(sealed)).expect("opens"));
        });
    }
    group.finish();
}

fn keys(criterion: &mut Criterion) {
    let keyring = keyring();
    let keys = keyring.system();
    let mut group = criterion.benchmark_group("keys");
    group.bench_function("lookup id of a 36-byte memory id", |b| {
        b.iter(|| keys.lookup_id(1, black_box(b"0198c1f2-7a3b-7c4d-8e5f-000000000000")));
    });
    group.bench_function("keys of a tenant", |b| b.iter(|| keyring.tenant(black_box(TenantId::SYSTEM)).expect("keys")));
    group.bench_function("nonce from the system", |b| {
        b.iter(|| {
            let mut nonce = [0; 24];
            getrandom::fill(black_box(&mut nonce)).expect("random bytes");
        });
    });
    group.finish();
}

criterion_group!(benches, records, frames, keys);
criterion_main!(benches);
