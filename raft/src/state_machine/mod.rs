//! openraft's state machine over the engine.
//!
//! ```text
//!   committed entries --chunks--> apply thread --one batch--> engine
//!          |                                                    |
//!      responders <---- outcomes, progress watch <--------------+
//! ```
//!
//! An error of the engine's `apply` means that this node's state may differ from its peers': the reason is published and
//! openraft stops. What a command may do wrong is no error here but an outcome, the same on every member.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | the adapter, and the progress that readers wait for |
//! | `apply.rs` | the apply thread |
//! | `generation.rs` | engine directories and the switch between them |

mod apply;
mod generation;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use futures::{Stream, StreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::type_config::alias::SnapshotOf;
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) use apply::{ApplyThread, from_engine_log_id};
pub use generation::Generation;
pub(crate) use generation::{Generations, error_chain};

use crate::blocking::blocking;
use crate::config::Limits;
use crate::snapshot::{SnapshotData, SnapshotDir, SnapshotStore};
use crate::types::{
    CairnTypes, Entry, EntryPayload, LogId, Response, SnapshotMeta, StoredMembership, decode_membership,
};

/// How long to wait after a snapshot that could not be taken.
const RETRY_INTERVAL: Duration = if cfg!(test) { Duration::from_millis(10) } else { Duration::from_secs(10) };

/// What the rest of the node may know of the state machine.
pub(crate) struct Shared {
    pub(crate) generations: Arc<Generations>,
    pub(crate) snapshots: SnapshotStore,
    limits: Limits,
    progress: watch::Sender<Option<u64>>,
    stamp_micros: AtomicI64,
    bytes_since_snapshot: AtomicU64,
    fatal: watch::Sender<Option<String>>,
    retired: RwLock<Vec<u64>>,
}

impl Shared {
    /// The state as the engine was opened with it.
    pub(crate) fn new(generations: Arc<Generations>, snapshots: SnapshotStore, limits: Limits) -> Self {
        let applied = generations.current().applied();
        Self {
            generations,
            snapshots,
            limits,
            progress: watch::Sender::new(applied.log_id.map(|log_id| log_id.index)),
            stamp_micros: AtomicI64::new(applied.stamp_micros),
            bytes_since_snapshot: AtomicU64::new(0),
            fatal: watch::Sender::new(None),
            retired: RwLock::new(applied.retired_node_ids),
        }
    }

    /// The last applied index, to be waited for.
    pub(crate) fn progress(&self) -> watch::Receiver<Option<u64>> {
        self.progress.subscribe()
    }

    /// The last applied stamp, in microseconds since 1970.
    pub(crate) fn stamp_micros(&self) -> i64 {
        self.stamp_micros.load(Ordering::Acquire)
    }

    /// Bytes of commands that were applied since the last snapshot.
    pub(crate) fn bytes_since_snapshot(&self) -> u64 {
        self.bytes_since_snapshot.load(Ordering::Relaxed)
    }

    /// Whether a node was a member once and is none any more.
    pub(crate) fn is_retired(&self, node_id: u64) -> bool {
        self.retired.read().binary_search(&node_id).is_ok()
    }

    /// Why the node must stop; `None` while it need not.
    pub(crate) fn fatal(&self) -> watch::Receiver<Option<String>> {
        self.fatal.subscribe()
    }

    /// Says that the node must stop; the first reason stays.
    pub(crate) fn stop_because(&self, reason: &str) {
        self.fatal.send_if_modified(|current| {
            let first = current.is_none();
            if first {
                tracing::error!(reason, "this node stops, so that it does not go on with a state of its own");
                *current = Some(reason.to_string());
            }
            first
        });
    }

    /// Publishes what the engine has applied.
    fn publish(&self) {
        let applied = self.generations.current().applied();
        self.stamp_micros.fetch_max(applied.stamp_micros, Ordering::AcqRel);
        if *self.retired.read() != applied.retired_node_ids {
            *self.retired.write() = applied.retired_node_ids;
        }
        self.progress.send_replace(applied.log_id.map(|log_id| log_id.index));
    }

    fn fail(&self, what: &str, reason: &str) -> io::Error {
        let reason = format!("{what}: {reason}");
        self.stop_because(&reason);
        io::Error::other(reason)
    }
}

/// The state machine that openraft drives.
pub(crate) struct StateMachine {
    shared: Arc<Shared>,
    thread: ApplyThread,
    /// Cancelled with this value, so that no builder outlives it for long.
    closed: CancellationToken,
    _closing: DropGuard,
}

impl StateMachine {
    pub(crate) fn new(shared: Arc<Shared>) -> io::Result<Self> {
        let thread = ApplyThread::start(Arc::clone(&shared.generations))?;
        let closed = CancellationToken::new();
        let closing = closed.clone().drop_guard();
        Ok(Self { shared, thread, closed, _closing: closing })
    }

    async fn apply_chunk<C: CairnTypes>(&self, chunk: Chunk<ApplyResponder<C>>) -> io::Result<()> {
        if chunk.entries.is_empty() {
            return Ok(());
        }
        let are_commands: Vec<bool> =
            chunk.entries.iter().map(|entry| matches!(entry.payload, EntryPayload::Normal(_))).collect();
        let outcomes = self
            .thread
            .apply(chunk.entries)
            .await
            .map_err(|reason| self.shared.fail("a committed entry could not be applied", &reason))?;
        self.shared.bytes_since_snapshot.fetch_add(chunk.bytes as u64, Ordering::Relaxed);
        self.shared.publish();
        for ((outcome, is_command), responder) in outcomes.into_iter().zip(are_commands).zip(chunk.responders) {
            if let Some(responder) = responder {
                responder.send(Response(is_command.then_some(outcome)));
            }
        }
        Ok(())
    }
}

/// Entries that go to the engine in one batch.
struct Chunk<R> {
    entries: Vec<Entry>,
    responders: Vec<Option<R>>,
    bytes: usize,
}

impl<R> Default for Chunk<R> {
    fn default() -> Self {
        Self { entries: Vec::new(), responders: Vec::new(), bytes: 0 }
    }
}

impl<R> Chunk<R> {
    fn push(&mut self, (entry, responder): (Entry, Option<R>)) {
        self.bytes += command_len(&entry);
        self.entries.push(entry);
        self.responders.push(responder);
    }

    fn is_full(&self, limits: &Limits) -> bool {
        self.entries.len() >= limits.apply_entries_max || self.bytes >= limits.apply_bytes_max
    }
}

fn command_len(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(command) => command.0.len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    }
}

impl<C: CairnTypes> RaftStateMachine<C> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let applied = self.shared.generations.current().applied();
        let membership = match &applied.membership {
            None => StoredMembership::default(),
            Some((log_id, bytes)) => {
                let membership = decode_membership(bytes).map_err(io::Error::other)?;
                StoredMembership::new(Some(from_engine_log_id(log_id)), membership)
            }
        };
        Ok((applied.log_id.as_ref().map(from_engine_log_id), membership))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<C>, io::Error>> + Unpin + Send,
    {
        let mut chunk = Chunk::default();
        while let Some(entry) = entries.next().await {
            chunk.push(entry?);
            if chunk.is_full(&self.shared.limits) {
                self.apply_chunk(std::mem::take(&mut chunk)).await?;
            }
        }
        self.apply_chunk(chunk).await
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder { shared: Arc::clone(&self.shared), closed: self.closed.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> Result<(), io::Error> {
        let shared = Arc::clone(&self.shared);
        let expected = meta.last_log_id;
        let installed = blocking(move || {
            shared.generations.install(snapshot.path(), |engine| {
                let found = engine.applied().log_id.as_ref().map(from_engine_log_id);
                if found == expected {
                    Ok(())
                } else {
                    Err(format!("the snapshot was announced up to {expected:?} but holds {found:?}"))
                }
            })
        })
        .await?;
        installed.map_err(|error| self.shared.fail("a snapshot could not be installed", &error_chain(&error)))?;
        self.shared.publish();
        // openraft wants to be able to read back what it has installed.
        let built = build_snapshot(&self.shared).await;
        built.map_err(|reason| self.shared.fail("what was installed could not be read back", &reason))?;
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf<C, SnapshotData>>, io::Error> {
        Ok(self.shared.snapshots.current().map(|dir| SnapshotOf::<C, _> { meta: dir.meta().clone(), snapshot: dir }))
    }
}

/// Takes snapshots beside the running apply thread.
///
/// A failure, such as for want of space, is no reason to stop the node: nothing is lost by it but the permission to purge
/// the log. openraft takes an error for the end, so it gets none, but waits, and then gets the snapshot that there is.
pub(crate) struct SnapshotBuilder {
    shared: Arc<Shared>,
    closed: CancellationToken,
}

impl<C: CairnTypes> RaftSnapshotBuilder<C> for SnapshotBuilder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<C, SnapshotData>, io::Error> {
        let dir = loop {
            let reason = match build_snapshot(&self.shared).await {
                Ok(dir) => break dir,
                Err(reason) => reason,
            };
            tracing::warn!(reason, "a snapshot could not be taken; the log is kept until one can");
            tokio::select! {
                () = self.closed.cancelled() => return Err(io::Error::other(reason)),
                () = tokio::time::sleep(RETRY_INTERVAL) => {}
            }
            if let Some(current) = self.shared.snapshots.current() {
                break current;
            }
        };
        Ok(SnapshotOf::<C, _> { meta: dir.meta().clone(), snapshot: dir })
    }
}

async fn build_snapshot(shared: &Arc<Shared>) -> Result<Arc<SnapshotDir>, String> {
    // Counted from before the checkpoint, so that nothing is counted as covered that may not be.
    let covered = shared.bytes_since_snapshot();
    let builder = Arc::clone(shared);
    let built = blocking(move || builder.snapshots.build(&builder.generations.current())).await;
    let dir = built.map_err(|error| error.to_string())??;
    let subtract = |bytes: u64| Some(bytes.saturating_sub(covered));
    let _ = shared.bytes_since_snapshot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, subtract);
    Ok(dir)
}

#[cfg(test)]
mod reopening;
#[cfg(test)]
mod tests;
