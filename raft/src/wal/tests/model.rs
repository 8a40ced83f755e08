//! What the log should be: a map, and nothing about files.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::disk::Keep;
use super::*;

/// The log as its contract describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Model {
    pub(super) vote: Option<Bytes>,
    pub(super) committed: Option<Bytes>,
    pub(super) purged: Option<(u64, Bytes)>,
    pub(super) entries: BTreeMap<u64, Bytes>,
}

impl Model {
    /// The index that the next entry must have; `None`: any.
    pub(super) fn next_index(&self) -> Option<u64> {
        self.entries.keys().next_back().or(self.purged.as_ref().map(|(index, _)| index)).map(|last| last + 1)
    }

    pub(super) fn append(&mut self, first_index: u64, entries: &[Bytes]) {
        self.entries.extend((first_index..).zip(entries.iter().cloned()));
    }

    pub(super) fn truncate_after(&mut self, last_index: Option<u64>) {
        self.entries.retain(|index, _| Some(*index) <= last_index);
    }

    pub(super) fn purge_to(&mut self, to: u64, id: &Bytes) {
        if self.purged.as_ref().is_none_or(|(index, _)| *index < to) {
            self.purged = Some((to, id.clone()));
            self.entries.retain(|index, _| *index > to);
        }
    }

    /// What an open log holds, read in full.
    pub(super) fn of(wal: &Wal) -> Result<Self, WalError> {
        let Summary { vote, committed, purged, first, next } = wal.summary();
        let reading = wal.read(0..u64::MAX, usize::MAX);
        let read_first = reading.first_index();
        let entries: BTreeMap<u64, Bytes> = (read_first..).zip(reading.load()?).collect();
        assert_eq!(entries.len() as u64, next - first, "the summary and the entries differ");
        if !entries.is_empty() {
            assert_eq!(first, read_first);
        }
        Ok(Self { vote, committed, purged: purged.map(|purged| (purged.index, purged.id)), entries })
    }
}

#[derive(Debug, Clone)]
enum Step {
    Append {
        count: usize,
        bytes: usize,
    },
    Vote(u8),
    Committed(u8),
    /// How many entries from the end stay off.
    TruncateEntries(u64),
    TruncateAll,
    /// How far beyond the first entry.
    Purge(u64),
    PurgeBeyond(u64),
    Read {
        skip: u64,
        bytes_max: usize,
    },
    Close,
    /// A power cut after everything was acknowledged.
    Kill(Keep),
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1usize..8, prop_oneof![Just(30usize), Just(300), Just(1500), Just(5000)])
            .prop_map(|(count, bytes)| Step::Append { count, bytes }),
        2 => any::<u8>().prop_map(Step::Vote),
        2 => any::<u8>().prop_map(Step::Committed),
        2 => (0u64..6).prop_map(Step::TruncateEntries),
        1 => Just(Step::TruncateAll),
        2 => (0u64..12).prop_map(Step::Purge),
        1 => (0u64..5).prop_map(Step::PurgeBeyond),
        3 => (0u64..30, 0usize..4000).prop_map(|(skip, bytes_max)| Step::Read { skip, bytes_max }),
        2 => Just(Step::Close),
        2 => prop_oneof![Just(Keep::Nothing), Just(Keep::Everything), any::<u64>().prop_map(Keep::Some)]
            .prop_map(Step::Kill),
    ]
}

/// A log beside its model.
struct Pair {
    bench: Bench,
    wal: Wal,
    model: Model,
    generation: u64,
}

impl Pair {
    fn step(&mut self, step: &Step) {
        match step {
            Step::Append { count, bytes } => {
                let first = self.model.next_index().unwrap_or(7);
                self.generation += 1;
                let entries: Vec<_> =
                    (first..).take(*count).map(|index| entry(index, self.generation, *bytes)).collect();
                append(&self.wal, first, entries.clone()).unwrap();
                self.model.append(first, &entries);
            }
            Step::Vote(vote) => {
                let vote = Bytes::from(vec![*vote]);
                self.wal.save_vote(vote.clone(), Box::new(drop)).unwrap();
                self.model.vote = Some(vote);
            }
            Step::Committed(committed) => {
                let committed = Bytes::from(vec![*committed]);
                self.wal.save_committed(committed.clone()).unwrap();
                self.model.committed = Some(committed);
            }
            Step::TruncateEntries(count) => {
                if let Some(last) = self.model.next_index().map(|next| next - 1) {
                    self.truncate(Some(last.saturating_sub(*count)));
                }
            }
            Step::TruncateAll => self.truncate(None),
            Step::Purge(count) => {
                if let Some(first) = self.model.entries.keys().next() {
                    self.purge(first + count);
                }
            }
            Step::PurgeBeyond(count) => self.purge(self.model.next_index().unwrap_or(0) + count),
            Step::Read { skip, bytes_max } => self.read(*skip, *bytes_max),
            Step::Close => {
                self.wal.close();
                self.wal = self.bench.open();
            }
            Step::Kill(keep) => {
                let (done, ack) = Ack::new();
                let vote = self.model.vote.clone().unwrap_or_default();
                self.model.vote = Some(vote.clone());
                self.wal.save_vote(vote, done).unwrap();
                ack.wait().unwrap();
                self.bench = self.bench.on(self.bench.disk.after_power_cut(*keep));
                self.wal = self.bench.open();
            }
        }
    }

    fn truncate(&mut self, last_index: Option<u64>) {
        self.wal.truncate_after(last_index, Box::new(drop)).unwrap();
        self.model.truncate_after(last_index);
    }

    fn purge(&mut self, to: u64) {
        let id = Bytes::from(format!("log id {to}"));
        self.wal.purge_to(to, id.clone()).unwrap();
        self.model.purge_to(to, &id);
    }

    fn read(&self, skip: u64, bytes_max: usize) {
        let Some(first) = self.model.entries.keys().next() else { return };
        let reading = self.wal.read(first + skip..u64::MAX, bytes_max);
        let expected: Vec<Bytes> = self.model.entries.range(first + skip..).map(|(_, entry)| entry.clone()).collect();
        let found = reading.load().unwrap();
        assert_eq!(found.is_empty(), expected.is_empty());
        assert_eq!(found[..], expected[..found.len()]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn the_log_is_its_model(
        steps in prop::collection::vec(steps(), 1..60), segment_bytes in 4096u64..20_000,
        cache_bytes_max in prop_oneof![Just(0usize), Just(3000), Just(1 << 20)],
    ) {
        let mut bench = Bench::new();
        bench.options.segment_bytes = segment_bytes;
        bench.options.cache_bytes_max = cache_bytes_max;
        let wal = bench.open();
        let mut pair = Pair { bench, wal, model: Model::default(), generation: 0 };
        for step in &steps {
            pair.step(step);
            prop_assert_eq!(&Model::of(&pair.wal).unwrap(), &pair.model, "after {:?}", step);
        }
        prop_assert_eq!(pair.bench.failures(), 0);
    }
}

#[test]
fn holes_and_overwriting_are_refused() {
    let bench = Bench::new();
    let wal = bench.open();
    append(&wal, 5, entries_from(5, 3, 10)).unwrap();
    for (index, expected) in [(9, 8), (7, 8), (0, 8)] {
        match append(&wal, index, entries_from(index, 1, 10)) {
            Err(WalError::OutOfOrder { expected: next, got }) => assert_eq!((next, got), (expected, index)),
            other => panic!("{:?}", other.map(drop)),
        }
    }
    wal.purge_to(20, Bytes::new()).unwrap();
    assert!(matches!(append(&wal, 20, entries_from(20, 1, 10)), Err(WalError::OutOfOrder { .. })));
    append(&wal, 21, entries_from(21, 1, 10)).unwrap().wait().unwrap();
}
