//! openraft's own suite for storage, over a state machine whose engine is closed and opened again before every call that has
//! to do with the state.
//!
//! Snapshots end with their process by design, so the one question for them, [`RaftStateMachine::get_current_snapshot`], goes to
//! the process that the call before it was made to.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;
use tokio::sync::Mutex;

use super::tests::{Builder, driven, taking};
use super::*;
use crate::log_store::LogStore;
use crate::types::TypeConfig;

type Snapshot = SnapshotOf<TypeConfig, SnapshotData>;

/// The machine, its snapshot builder too.
#[derive(Clone)]
struct Reopening(Arc<Place>);

struct Place {
    stores: Arc<Builder>,
    group_dir: PathBuf,
    opened: AtomicU64,
    machine: Mutex<Option<StateMachine>>,
}

impl Place {
    fn open(&self) -> StateMachine {
        let opened = self.opened.fetch_add(1, Ordering::Relaxed);
        let generations = self.stores.generations(&self.group_dir, opened == 0);
        // What is left of earlier ones is removed in the background, and under the same names.
        let snapshots = SnapshotStore::open(self.group_dir.join(format!("snapshots-{opened}"))).unwrap();
        StateMachine::new(Arc::new(Shared::new(Arc::new(generations), snapshots, Limits::default()))).unwrap()
    }

    /// Closes the engine in order, and waits until its directory is nobody's.
    async fn close(machine: StateMachine) {
        let generations = Arc::clone(&machine.shared.generations);
        generations.current().close().unwrap();
        drop(machine);
        while Arc::strong_count(&generations) > 1 {
            tokio::task::yield_now().await;
        }
    }

    async fn with<T>(&self, call: impl AsyncFnOnce(&mut StateMachine) -> T) -> T {
        let mut machine = self.machine.lock().await;
        if let Some(machine) = machine.take() {
            Self::close(machine).await;
        }
        call(machine.insert(self.open())).await
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Reopening {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let build = async |machine: &mut StateMachine| {
            let mut builder = driven(machine).get_snapshot_builder().await;
            taking(&mut builder).build_snapshot().await
        };
        self.0.with(build).await
    }
}

impl RaftStateMachine<TypeConfig> for Reopening {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        self.0.with(async |machine| driven(machine).applied_state().await).await
    }

    async fn apply<S>(&mut self, entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + Send,
    {
        self.0.with(async |machine| driven(machine).apply(entries).await).await
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> Result<(), io::Error> {
        self.0.with(async |machine| driven(machine).install_snapshot(meta, snapshot).await).await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let mut machine = self.0.machine.lock().await;
        driven(machine.get_or_insert_with(|| self.0.open())).get_current_snapshot().await
    }
}

/// Makes stores below one directory.
struct Reopened(Arc<Builder>);

impl StoreBuilder<TypeConfig, LogStore, Reopening, TempDir> for Reopened {
    async fn build(&self) -> Result<(TempDir, LogStore, Reopening), StorageError<TypeConfig>> {
        let (dir, log) = self.0.place();
        let (stores, group_dir) = (Arc::clone(&self.0), dir.path().join("group-0"));
        let place = Place { stores, group_dir, opened: AtomicU64::new(0), machine: Mutex::default() };
        Ok((dir, log, Reopening(Arc::new(place))))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_of_openraft_passes_when_the_state_is_reopened_between_calls() {
    Suite::test_all(Reopened(Arc::new(Builder::new()))).await.unwrap();
}
