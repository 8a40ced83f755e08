//! openraft's own suite for storage, over the real engine and the real log.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use cairn_engine::Options;
use cairn_engine::crypto::ClusterId;
use cairn_engine::keyring::{Keyring, RootKey};
use futures::FutureExt as _;
use openraft::StorageError;
use openraft::storage::{RaftSnapshotBuilder, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;

use super::{Generations, Shared, SnapshotBuilder, StateMachine};
use crate::config::Limits;
use crate::log_store::LogStore;
use crate::snapshot::{SnapshotData, SnapshotStore};
use crate::types::{Entry, EntryPayload, GROUP, LeaderId, LogCommand, LogId, TypeConfig};
use crate::wal::{SealContext, WalOptions};

/// Makes stores below one directory, under one keyring.
pub(super) struct Builder {
    dir: TempDir,
    keyring: Arc<Keyring>,
}

impl Builder {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root_key = RootKey::from_bytes(&[7; 32]);
        let keyring = Keyring::create(&dir.path().join("keyring"), &root_key, ClusterId([1; 16])).unwrap();
        Self { dir, keyring: Arc::new(keyring) }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A directory for a store, with a log in it.
    pub(super) fn place(&self) -> (TempDir, LogStore) {
        // Below one directory, since a snapshot moves from one store to another by a rename.
        let dir = tempfile::tempdir_in(self.dir.path()).unwrap();
        let seal = SealContext { keyring: Arc::clone(&self.keyring), node_id: 1, group: GROUP };
        let options = WalOptions { segment_bytes: 64 << 10, ..WalOptions::default() };
        let (log, _) = LogStore::open(&dir.path().join("wal"), options, seal, 1 << 20).unwrap();
        (dir, log)
    }

    pub(super) fn generations(&self, group_dir: &Path, first_start: bool) -> Generations {
        let mut options = Options::new(group_dir);
        options.block_cache_bytes = 1 << 20;
        Generations::open(group_dir, &options, Arc::clone(&self.keyring), first_start, None).unwrap()
    }
}

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        let (dir, log) = self.place();
        let generations = self.generations(&dir.path().join("group-0"), true);
        let snapshots = SnapshotStore::open(dir.path().join("group-0").join("snapshots")).unwrap();
        let shared = Shared::new(Arc::new(generations), snapshots, Limits::default());
        Ok((dir, log, StateMachine::new(Arc::new(shared)).unwrap()))
    }
}

/// The machine as openraft sees it that runs on tokio; it could run on others.
pub(super) fn driven(
    machine: &mut StateMachine,
) -> &mut impl RaftStateMachine<TypeConfig, SnapshotData = SnapshotData, SnapshotBuilder = SnapshotBuilder> {
    machine
}

/// As [`driven`], for a builder of snapshots.
pub(super) fn taking(
    builder: &mut SnapshotBuilder,
) -> &mut impl RaftSnapshotBuilder<TypeConfig, SnapshotData = SnapshotData> {
    builder
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_of_openraft_passes() {
    Suite::test_all(Builder::new()).await.unwrap();
}

/// An entry that cannot be read would be skipped here and applied elsewhere: the node must stop instead.
#[tokio::test]
async fn an_entry_that_is_no_command_stops_the_node() {
    let builder = Builder::new();
    let (_dir, _log, mut machine) = builder.build().await.unwrap();
    let entry = Entry {
        log_id: LogId::new(LeaderId { term: 1, node_id: 1 }, 0),
        payload: EntryPayload::Normal(LogCommand(Bytes::from_static(b"\xff\xff"))),
    };
    let applied = driven(&mut machine).apply(futures::stream::iter([Ok((entry, None))])).await;
    assert!(applied.is_err());
    let reason = machine.shared.fatal().borrow().clone().unwrap();
    assert!(reason.contains("could not be applied"), "{reason}");
    assert_eq!(driven(&mut machine).applied_state().await.unwrap().0, None);
}

/// All of a node's tasks may share one thread: it must not stand still while RocksDB does.
#[tokio::test(flavor = "current_thread")]
async fn what_holds_up_the_state_holds_up_no_async_worker() {
    let store = Builder::new();
    let (_dir, _log, mut machine) = store.build().await.unwrap();
    let generations = Arc::clone(&machine.shared.generations);
    let (held, is_held) = std::sync::mpsc::channel();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let holder = std::thread::spawn(move || {
        let _held = generations.withhold();
        held.send(()).unwrap();
        // Where the worker itself waits for it, the worker cannot say when to let go.
        let _ = released.recv_timeout(std::time::Duration::from_secs(2));
    });
    is_held.recv().unwrap();
    let entry = Entry { log_id: LogId::new(LeaderId { term: 1, node_id: 1 }, 0), payload: EntryPayload::Blank };
    let mut applying = Box::pin(driven(&mut machine).apply(futures::stream::iter([Ok((entry, None))])));
    assert!((&mut applying).now_or_never().is_none(), "the worker has waited for the state");
    release.send(()).unwrap();
    applying.await.unwrap();
    holder.join().unwrap();
}

/// Makes taking snapshots impossible until the returned path is removed.
fn obstruct_snapshots(dir: &TempDir) -> std::path::PathBuf {
    let snapshots = dir.path().join("group-0").join("snapshots");
    std::fs::remove_dir_all(&snapshots).unwrap();
    std::fs::write(&snapshots, "in the way").unwrap();
    snapshots
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_cannot_be_taken_does_not_stop_the_node() {
    let store = Builder::new();
    let (dir, _log, mut machine) = store.build().await.unwrap();
    let mut builder = driven(&mut machine).get_snapshot_builder().await;
    let first = taking(&mut builder).build_snapshot().await.unwrap().snapshot;
    obstruct_snapshots(&dir);
    let second = taking(&mut builder).build_snapshot().await.unwrap().snapshot;
    assert!(Arc::ptr_eq(&first, &second), "the one that there is stays");
    assert_eq!(*machine.shared.fatal().borrow(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_snapshot_is_tried_again_until_it_can_be_taken() {
    let store = Builder::new();
    let (dir, _log, mut machine) = store.build().await.unwrap();
    let obstacle = obstruct_snapshots(&dir);
    let mut builder = driven(&mut machine).get_snapshot_builder().await;
    let building = tokio::spawn(async move { taking(&mut builder).build_snapshot().await });
    tokio::time::sleep(super::RETRY_INTERVAL * 5).await;
    assert!(!building.is_finished());
    std::fs::remove_file(&obstacle).unwrap();
    std::fs::create_dir(&obstacle).unwrap();
    building.await.unwrap().unwrap();
    assert_eq!(*machine.shared.fatal().borrow(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_builder_ends_with_its_state_machine() {
    let store = Builder::new();
    let (dir, _log, mut machine) = store.build().await.unwrap();
    obstruct_snapshots(&dir);
    let mut builder = driven(&mut machine).get_snapshot_builder().await;
    let building = tokio::spawn(async move { taking(&mut builder).build_snapshot().await });
    drop(machine);
    assert!(building.await.unwrap().is_err());
}
