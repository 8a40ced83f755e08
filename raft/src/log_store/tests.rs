//! openraft's own storage suite, over a store that stays open and over one that is closed and opened again between any
//! two calls; and what the suite does not ask: caps in bytes, and the order of votes and entries.

use std::io::Cursor;
use std::path::PathBuf;

use futures::StreamExt;
use openraft::StorageError;
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt;
use openraft::type_config::alias::SnapshotOf;
use tempfile::TempDir;
use tokio::sync::Mutex;

use super::*;
use crate::types::{EntryPayload, LeaderId, LogCommand, SnapshotMeta, StoredMembership, TypeConfig};
use crate::wal::tests::seal_context;

/// Small segments and no cache, so that the suite rolls segments and reads from the disk.
fn options() -> WalOptions {
    WalOptions { segment_bytes: 4096, cache_bytes_max: 0, ..WalOptions::default() }
}

/// As little of a state machine as the suite takes.
#[derive(Debug, Clone, Default)]
struct Machine {
    applied: Option<LogId>,
    membership: StoredMembership,
    snapshot: Option<SnapshotMeta>,
}

/// Builds snapshots of a [`Machine`] and leaves the last in it.
struct Builder(Arc<Mutex<Machine>>);

#[derive(Debug, Clone, Default)]
struct SharedMachine(Arc<Mutex<Machine>>);

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = Cursor<Vec<u8>>;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<TypeConfig, Self::SnapshotData>, io::Error> {
        let mut machine = self.0.lock().await;
        let meta = SnapshotMeta { last_log_id: machine.applied, last_membership: machine.membership.clone() };
        machine.snapshot = Some(meta.clone());
        Ok(SnapshotOf::<TypeConfig, _> { meta, snapshot: Cursor::default() })
    }
}

impl RaftStateMachine<TypeConfig> for SharedMachine {
    type SnapshotData = Cursor<Vec<u8>>;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let machine = self.0.lock().await;
        Ok((machine.applied, machine.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut machine = self.0.lock().await;
        while let Some((entry, _)) = entries.next().await.transpose()? {
            machine.applied = Some(entry.log_id);
            if let EntryPayload::Membership(membership) = entry.payload {
                machine.membership = StoredMembership::new(Some(entry.log_id), membership);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder(Arc::clone(&self.0))
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, _: Cursor<Vec<u8>>) -> Result<(), io::Error> {
        let mut machine = self.0.lock().await;
        machine.applied = meta.last_log_id;
        machine.membership = meta.last_membership.clone();
        machine.snapshot = Some(meta.clone());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf<TypeConfig, Cursor<Vec<u8>>>>, io::Error> {
        let meta = self.0.lock().await.snapshot.clone();
        Ok(meta.map(|meta| SnapshotOf::<TypeConfig, _> { meta, snapshot: Cursor::default() }))
    }
}

struct Place {
    directory: TempDir,
    seal: SealContext,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let seal = seal_context(directory.path());
        Self { directory, seal }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("wal")
    }

    fn open(&self, batch_bytes_max: usize) -> LogStore {
        LogStore::open(&self.path(), options(), self.seal.clone(), batch_bytes_max).unwrap().0
    }
}

struct Plain;

impl StoreBuilder<TypeConfig, LogStore, SharedMachine, Place> for Plain {
    async fn build(&self) -> Result<(Place, LogStore, SharedMachine), StorageError<TypeConfig>> {
        let place = Place::new();
        let store = place.open(1 << 20);
        Ok((place, store, SharedMachine::default()))
    }
}

/// A store as openraft sees it that runs on tokio; it could run on others.
fn log(store: &mut LogStore) -> &mut impl RaftLogStorage<TypeConfig, LogReader = LogReader> {
    store
}

/// As [`log`], for a reader.
fn reading(reader: &mut LogReader) -> &mut impl RaftLogReader<TypeConfig> {
    reader
}

/// A store that is closed and opened again before every call, of its readers as well.
#[derive(Clone)]
struct Reopening {
    // Before the place, which takes the directory away when it is dropped.
    store: Arc<Mutex<Option<LogStore>>>,
    place: Arc<Place>,
}

impl Reopening {
    async fn with<T>(&self, call: impl AsyncFnOnce(&mut LogStore) -> T) -> T {
        let mut store = self.store.lock().await;
        if let Some(store) = store.take() {
            store.wal().close();
        }
        call(store.insert(self.place.open(1 << 20))).await
    }
}

impl RaftLogReader<TypeConfig> for Reopening {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let range = to_range(&range);
        self.with(async |store| reading(&mut store.reader).try_get_log_entries(range).await).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        self.with(async |store| reading(&mut store.reader).read_vote().await).await
    }
}

impl RaftLogStorage<TypeConfig> for Reopening {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        self.with(async |store| log(store).get_log_state().await).await
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.with(async |store| log(store).save_vote(vote).await).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.with(async |store| log(store).save_committed(committed).await).await
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        self.with(async |store| log(store).read_committed().await).await
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        self.with(async |store| log(store).append(entries, callback).await).await
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        self.with(async |store| log(store).truncate_after(last_log_id).await).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        self.with(async |store| log(store).purge(log_id).await).await
    }
}

struct Reopened;

impl StoreBuilder<TypeConfig, Reopening, SharedMachine> for Reopened {
    async fn build(&self) -> Result<((), Reopening, SharedMachine), StorageError<TypeConfig>> {
        let store = Reopening { store: Arc::default(), place: Arc::new(Place::new()) };
        Ok(((), store, SharedMachine::default()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_passes() {
    Suite::test_all(Plain).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_passes_when_the_store_is_reopened_between_calls() {
    Suite::test_all(Reopened).await.unwrap();
}

fn log_id(index: u64) -> LogId {
    LogId::new(LeaderId { term: 1, node_id: 1 }, index)
}

fn entry(index: u64, bytes: usize) -> Entry {
    Entry::new(log_id(index), EntryPayload::Normal(LogCommand(vec![index as u8; bytes].into())))
}

async fn append(store: &mut LogStore, entries: Vec<Entry>) {
    let (sender, receiver) = TypeConfig::oneshot();
    log(store).append(entries, IOFlushed::signal(sender)).await.unwrap();
    receiver.await.unwrap().unwrap();
}

#[tokio::test]
async fn batches_are_capped_in_bytes() {
    let place = Place::new();
    let mut store = place.open(10_000);
    append(&mut store, (1..=20).map(|index| entry(index, 1_000)).collect()).await;
    append(&mut store, vec![entry(21, 50_000), entry(22, 10)]).await;
    let mut reader = log(&mut store).get_log_reader().await;

    let batch = reading(&mut reader).limited_get_log_entries(1, 23).await.unwrap();
    assert!((8..=9).contains(&batch.len()), "{} entries of 1,000 bytes under a cap of 10,000", batch.len());
    let large = reading(&mut reader).limited_get_log_entries(21, 23).await.unwrap();
    assert_eq!(large.len(), 1, "an entry beyond the cap travels alone");
    let all: Vec<_> =
        reading(&mut reader).entries_stream(1..23).await.map(|entry| entry.unwrap().log_id.index).collect().await;
    assert_eq!(all, (1..=22).collect::<Vec<_>>(), "a stream is not capped");

    log(&mut store).purge(log_id(5)).await.unwrap();
    assert_eq!(
        reading(&mut reader).limited_get_log_entries(3, 9).await.unwrap(),
        vec![],
        "a batch never begins with a hole"
    );
    assert_eq!(reading(&mut reader).try_get_log_entries(3..9).await.unwrap().len(), 3);
}

#[tokio::test]
async fn entries_to_apply_never_begin_behind_a_hole() {
    let place = Place::new();
    let mut store = place.open(1_000);
    append(&mut store, (1..=9).map(|index| entry(index, 100)).collect()).await;
    log(&mut store).purge(log_id(5)).await.unwrap();
    let mut reader = log(&mut store).get_log_reader().await;
    let read: Vec<_> = reading(&mut reader).entries_stream(3..9).await.collect().await;
    assert!(matches!(&read[..], [Err(_)]), "entries 3 to 5 are gone, and 6 does not follow 2: {read:?}");
    let read: Vec<_> =
        reading(&mut reader).entries_stream(6..20).await.map(|entry| entry.unwrap().log_id.index).collect().await;
    assert_eq!(read, [6, 7, 8, 9]);
    let read: Vec<_> = reading(&mut reader).entries_stream(10..20).await.collect().await;
    assert!(read.is_empty());
}

#[tokio::test]
async fn the_committed_position_survives_a_restart() {
    let place = Place::new();
    let mut store = place.open(1_000);
    append(&mut store, vec![entry(0, 10), entry(1, 10)]).await;
    log(&mut store).save_committed(Some(log_id(1))).await.unwrap();
    assert_eq!(log(&mut store).read_committed().await.unwrap(), Some(log_id(1)));
    drop(store);
    assert_eq!(log(&mut place.open(1_000)).read_committed().await.unwrap(), Some(log_id(1)));
}

#[tokio::test]
async fn a_record_that_is_no_entry_is_refused_at_start() {
    let place = Place::new();
    let (wal, _) = Wal::open(&place.path(), options(), place.seal.clone()).unwrap();
    wal.append(1, vec![Bytes::from_static(b"\xff no entry")], Box::new(drop)).await.unwrap();
    wal.close();
    let opened = LogStore::open(&place.path(), options(), place.seal.clone(), 1_000);
    assert!(matches!(opened, Err(WalError::Corruption { .. })), "{opened:?}");
}

#[tokio::test]
async fn a_truncation_is_durable_when_it_returns() {
    let place = Place::new();
    let mut store = place.open(1_000);
    append(&mut store, (0..=5).map(|index| entry(index, 10)).collect()).await;
    let before = store.wal().stats().syncs;
    log(&mut store).truncate_after(Some(log_id(3))).await.unwrap();
    assert!(store.wal().stats().syncs > before, "nothing was synced");
    assert_eq!(log(&mut store).get_log_state().await.unwrap().last_log_id, Some(log_id(3)));
}
