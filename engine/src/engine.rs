//! The engine: one group's state, its store and its partitions.

use std::path::Path;
use std::sync::Arc;

use cairn_proto::storage::command::Body;
use cairn_proto::storage::outcome::Result as OutcomeResult;
use cairn_proto::storage::{
    self, AdvanceSpaceBuild, AppliedRecord, Done, ExpireMemories, Outcome, SpaceCountersRecord,
};
use cairn_proto::v1;
use parking_lot::{Mutex, RwLock};

use crate::api::{
    AppliedState, ApplyEntry, Checkpoint, Embedded, KnownSpace, Principal, ReadPoint, WriteRequest, WriteResponse,
};
use crate::apply::{Applier, BUILD_ROWS_MAX, EXPIRE_ROWS_MAX, Hints, log_id};
use crate::crypto::TenantId;
use crate::error::{Error, ErrorKind, Result};
use crate::feed_heads::FeedHeads;
use crate::keyring::Keyring;
use crate::known_spaces::KnownSpaces;
use crate::options::Options;
use crate::partitions::{IndexChange, IndexCounts, Partitions};
use crate::position::{LogId, Position};
use crate::reads::{FeedCursor, FeedPage, Reader};
use crate::requests;
use crate::store::decode;
use crate::store::keys::{Key, Kind, SpaceRef, end_of_time, prefix_of_kind};
use crate::store::overlay::digest_from_bytes;
use crate::store::rocks::Store;
use crate::store::sealing::Sealer;

/// The newest cluster version whose commands this release applies.
pub const SUPPORTED_CLUSTER_VERSION: u32 = 1;

/// The reason of a FAILED_PRECONDITION: the space's embedder is not the one that made the vectors of the write.
pub const EMBEDDER_CHANGED: &str = "EMBEDDER_CHANGED";

/// One group's state: records in RocksDB, partitions in memory. All methods block; none needs `&mut`.
pub struct Engine {
    options: Options,
    store: Store,
    partitions: Partitions,
    known_spaces: KnownSpaces,
    /// What the one applying thread needs; its lock makes appliers take turns.
    applying: Mutex<Applying>,
    applied: RwLock<AppliedState>,
    heads: FeedHeads,
    /// Deleted spaces whose bytes are still on the disk. Forgotten by a restart: then the store gets them back in its own
    /// time.
    dropped: Mutex<Vec<SpaceRef>>,
}

/// The applied record as it was written last, and where queues begin.
struct Applying {
    state: AppliedRecord,
    hints: Hints,
}

impl Engine {
    /// Opens the store in `options.dir`, or makes it. A directory of another cluster, another program or a newer release
    /// is [`crate::ErrorKind::Refused`].
    pub fn open(options: &Options, keyring: Arc<Keyring>) -> Result<Self> {
        options.validate()?;
        let store = Store::open(options, Sealer::new(keyring, options.group))?;
        let state = store.applied()?;
        if state.cluster_version > options.supported_cluster_version {
            return Err(Error::refused(format!(
                "{} belongs to a cluster of version {}, this release goes up to {}: start a newer release",
                options.dir.display(),
                state.cluster_version,
                options.supported_cluster_version,
            )));
        }
        let partitions = Partitions::new(options, store.sealer().clone());
        partitions.clean_checkpoints(&store)?;
        Ok(Self {
            dropped: Mutex::default(),
            heads: FeedHeads::new(state.applied.as_ref().map_or(0, |applied| applied.index)),
            applied: RwLock::new(applied_state(&state)?),
            applying: Mutex::new(Applying { state, hints: Hints::default() }),
            partitions,
            known_spaces: KnownSpaces::default(),
            store,
            options: options.clone(),
        })
    }

    #[cfg(test)]
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    #[cfg(test)]
    pub(crate) fn partitions(&self) -> &Partitions {
        &self.partitions
    }

    #[cfg(test)]
    pub(crate) fn sealer(&self) -> &Sealer {
        self.store.sealer()
    }

    /// The newest cluster version whose commands this engine applies.
    #[must_use]
    pub fn supported_cluster_version(&self) -> u32 {
        self.options.supported_cluster_version
    }

    /// The keyring that the engine was opened with.
    #[must_use]
    pub fn keyring(&self) -> &Arc<Keyring> {
        self.store.sealer().keyring()
    }

    /// Checks everything about a write that needs no state, makes ids, and seals it as a command without a stamp.
    pub fn prepare(&self, principal: &Principal, request: WriteRequest) -> Result<storage::Command> {
        requests::prepare(self.store.sealer(), principal, request, None)
    }

    /// [`Self::prepare`] with vectors that were made for the texts of the request. If the space names another embedder by
    /// the time at which the command is applied, its outcome is FAILED_PRECONDITION with [`EMBEDDER_CHANGED`]: make them
    /// again.
    pub fn prepare_embedded(
        &self,
        principal: &Principal,
        request: WriteRequest,
        embedded: Embedded,
    ) -> Result<storage::Command> {
        requests::prepare(self.store.sealer(), principal, request, Some(embedded))
    }

    /// The space that a write names, as it was when it was last read or written here; `None` where that is too long ago. To
    /// be used for [`Embedded::by`] only, which is checked when the write is applied: another node may know better.
    #[must_use]
    pub fn known_space(&self, principal: &Principal, name: &str) -> Option<KnownSpace> {
        let space = self.known_spaces.latest(principal.tenant.0, name)?;
        Some(KnownSpace { id: space.reference.space, embeddings: space.definition().embeddings.clone() })
    }

    /// The command that makes a tenant with new keys. A tenant that is there already, or was once, is ALREADY_EXISTS.
    pub fn prepare_create_tenant(&self, tenant: TenantId, name: &str) -> Result<storage::Command> {
        requests::prepare_create_tenant(self.store.sealer(), tenant, name)
    }

    /// The command that removes what has expired at `now_micros`; `None` where nothing has. For the leader, from time to
    /// time, and again while its outcome says `unfinished`.
    pub fn prepare_expiry(&self, now_micros: i64) -> Result<Option<storage::Command>> {
        let group = self.options.group;
        let due = |kind: Kind| {
            let start = prefix_of_kind(group, kind);
            let rows = self.store.cursor(&start, &end_of_time(group, kind, now_micros));
            rows.item().map(|row| row.is_some())
        };
        let expire = Body::ExpireMemories(ExpireMemories { rows_max: EXPIRE_ROWS_MAX });
        Ok((due(Kind::Expiry)? || due(Kind::RequestExpiry)?).then(|| requests::system_command(expire)))
    }

    /// The command that does a step of what changes of spaces have left to do; `None` where nothing is left. For the
    /// leader, from time to time, and again while its outcome says `unfinished`.
    pub fn prepare_build(&self) -> Result<Option<storage::Command>> {
        let prefix = prefix_of_kind(self.options.group, Kind::Build);
        let rows = self.store.cursor(&prefix, &prefix.prefix_end());
        let Some((key, _)) = rows.item()? else { return Ok(None) };
        let (_, Key::Build(space)) = Key::decode(key)? else { return Ok(None) };
        let advance = AdvanceSpaceBuild { space_id: space.space, rows_max: BUILD_ROWS_MAX };
        let command = requests::system_command(Body::AdvanceSpaceBuild(advance));
        Ok(Some(storage::Command { tenant_id: space.tenant, ..command }))
    }

    /// Whether there is something to do for [`advance_upkeep`](Self::advance_upkeep).
    #[must_use]
    pub fn has_upkeep(&self) -> bool {
        self.partitions.has_refills() || self.has_to_give_back().unwrap_or(false)
    }

    /// Does some of what nobody waits for: indexes of fields that have changed are filled, with up to `rows_max` memories,
    /// and the disk gets back what deleted spaces and values that are gone took. For every replica, from time to time, and
    /// again at once while it returns that there is more to do. Blocks for as long as that takes.
    pub fn advance_upkeep(&self, rows_max: usize) -> Result<bool> {
        if self.partitions.advance_refill(&self.store, rows_max)? {
            return Ok(true);
        }
        let dropped = self.dropped.lock().pop();
        if let Some(space) = dropped {
            self.store.reclaim(space)?;
        } else if self.store.is_collection_due()? {
            self.store.collect()?;
        }
        self.has_to_give_back()
    }

    /// Whether there are bytes that the disk is to get back.
    fn has_to_give_back(&self) -> Result<bool> {
        Ok(!self.dropped.lock().is_empty() || self.store.is_collection_due()?)
    }

    /// Applies committed entries, in order: one atomic write for all of them. Entries at or below the applied index are
    /// skipped, with an empty `Done` as their outcome. A failed command is an outcome; an `Err` means that the node must
    /// stop ([`Error::is_deterministic`] is false).
    pub fn apply(&self, entries: &[ApplyEntry]) -> Result<Vec<storage::Outcome>> {
        let mut applying = self.applying.lock();
        let (state, hints) = (applying.state.clone(), applying.hints.clone());
        let mut applier = Applier::new(&self.store, &self.known_spaces, &self.options, state, hints)?;
        let mut last = applying.state.applied.map(|position| position.index);
        let before = last;
        let mut outcomes = Vec::with_capacity(entries.len());
        for entry in entries {
            if last.is_some_and(|last| entry.log_id.index <= last) {
                outcomes.push(Outcome { result: Some(OutcomeResult::Done(Done {})), replayed: true });
                continue;
            }
            last = Some(entry.log_id.index);
            outcomes.push(applier.apply(entry).map_err(must_stop)?);
        }
        if last == before {
            return Ok(outcomes);
        }
        let applied = applier.into_applied().map_err(must_stop)?;
        let state = applied_state(&applied.state)?;
        let index = state.log_id.map_or(0, |id| id.index);
        let is_drop = |(space, change): &(SpaceRef, IndexChange)| matches!(change, IndexChange::Drop).then_some(*space);
        let dropped: Vec<_> = applied.changes.iter().filter_map(is_drop).collect();
        if applied.spaces_changed {
            self.known_spaces.forget(index);
        }
        self.partitions.publish(index, applied.changes, || self.store.write(applied.batch)).map_err(must_stop)?;
        self.dropped.lock().extend(dropped);
        *applying = Applying { state: applied.state, hints: applied.hints };
        self.heads.raise(applied.fed);
        *self.applied.write() = state;
        Ok(outcomes)
    }

    /// Begins a round of the indexes in memory: gives up those that no search has used in the last `idle_rounds` rounds, and
    /// lets those be made again that had found too little memory. For the caller to call from time to time; the engine has
    /// no clock. Returns how many were given up; the next search of such a space makes its index again.
    pub fn begin_index_round(&self, idle_rounds: u64) -> usize {
        self.partitions.begin_round(idle_rounds)
    }

    /// The indexes in memory, and what has been done for them.
    #[must_use]
    pub fn index_counts(&self) -> IndexCounts {
        self.partitions.counts()
    }

    /// Writes checkpoints of the large indexes that have changed since their last one, which otherwise happens in the background. Returns how many
    /// were written; why one was not is logged. Blocks for as long as that takes.
    pub fn checkpoint_indexes(&self) -> usize {
        self.partitions.checkpoint_all()
    }

    /// What has been applied and can be read.
    #[must_use]
    pub fn applied(&self) -> AppliedState {
        self.applied.read().clone()
    }

    /// The last entry that would still be applied after a crash of the machine; the log must keep all that follow it.
    pub fn durable_applied(&self) -> Result<Option<LogId>> {
        Ok(self.store.durable_applied()?.applied.as_ref().map(log_id))
    }

    /// Makes everything that is applied durable, and ends what goes on in the background. Nothing can be applied afterwards.
    pub fn close(&self) -> Result<()> {
        let flushed = self.store.flush();
        self.store.end_background_work();
        flushed
    }

    /// Makes everything that is applied durable.
    pub fn flush(&self) -> Result<()> {
        self.store.flush()
    }

    /// Makes a consistent copy in a directory that must not be there yet; on the same file system it costs little.
    pub fn checkpoint(&self, dir: &Path) -> Result<Checkpoint> {
        let (applied, files) = self.store.checkpoint(dir, &self.options)?;
        Ok(Checkpoint { applied: applied_state(&applied)?, files })
    }

    /// An outcome as the answer to the client; a failure as the error that it stands for.
    pub fn respond(&self, outcome: &storage::Outcome, position: Position) -> Result<WriteResponse> {
        requests::respond(outcome, position)
    }

    /// A reader for a caller, once the read point is applied.
    fn reader(&self, principal: &Principal, at: &ReadPoint) -> Result<Reader<'_>> {
        let applied = self.applied.read().log_id.map_or(0, |id| id.index);
        if applied < at.index {
            let message = format!("log index {} is not applied here yet, only {applied}", at.index);
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        self.store.sealer().tenant_of_caller(principal.tenant)?;
        Ok(Reader {
            store: &self.store,
            partitions: &self.partitions,
            known: &self.known_spaces,
            tenant: principal.tenant.0,
            time_micros: at.time_micros,
        })
    }

    /// See `MemoryService.GetMemories`.
    pub fn get_memories(
        &self,
        principal: &Principal,
        request: &v1::GetMemoriesRequest,
        at: &ReadPoint,
    ) -> Result<v1::GetMemoriesResponse> {
        self.reader(principal, at)?.get_memories(request)
    }

    /// See `MemoryService.ListMemories`.
    pub fn list_memories(
        &self,
        principal: &Principal,
        request: &v1::ListMemoriesRequest,
        at: &ReadPoint,
    ) -> Result<v1::ListMemoriesResponse> {
        self.reader(principal, at)?.list_memories(request)
    }

    /// See `MemoryService.SearchMemories`. The query must be a vector: the caller has turned text into one.
    pub fn search_memories(
        &self,
        principal: &Principal,
        request: &v1::SearchMemoriesRequest,
        at: &ReadPoint,
    ) -> Result<v1::SearchMemoriesResponse> {
        self.reader(principal, at)?.search_memories(request)
    }

    /// See `MemoryService.CountMemories`.
    pub fn count_memories(
        &self,
        principal: &Principal,
        request: &v1::CountMemoriesRequest,
        at: &ReadPoint,
    ) -> Result<v1::CountMemoriesResponse> {
        self.reader(principal, at)?.count_memories(request)
    }

    /// See `MemoryService.GetMemoryHistory`.
    pub fn get_memory_history(
        &self,
        principal: &Principal,
        request: &v1::GetMemoryHistoryRequest,
        at: &ReadPoint,
    ) -> Result<v1::GetMemoryHistoryResponse> {
        self.reader(principal, at)?.get_memory_history(request)
    }

    /// See `MemoryService.ListNamespaces`.
    pub fn list_namespaces(
        &self,
        principal: &Principal,
        request: &v1::ListNamespacesRequest,
        at: &ReadPoint,
    ) -> Result<v1::ListNamespacesResponse> {
        self.reader(principal, at)?.list_namespaces(request)
    }

    /// See `SpaceService.GetSpace`.
    pub fn get_space(
        &self,
        principal: &Principal,
        request: &v1::GetSpaceRequest,
        at: &ReadPoint,
    ) -> Result<v1::GetSpaceResponse> {
        self.reader(principal, at)?.get_space(request)
    }

    /// See `SpaceService.ListSpaces`.
    pub fn list_spaces(
        &self,
        principal: &Principal,
        request: &v1::ListSpacesRequest,
        at: &ReadPoint,
    ) -> Result<v1::ListSpacesResponse> {
        self.reader(principal, at)?.list_spaces(request)
    }

    /// Begins to follow the changes of a space, for `MemoryService.WatchMemories`. A position that is no longer kept is
    /// OUT_OF_RANGE; one that is not applied here yet is UNAVAILABLE.
    pub fn open_feed(
        &self,
        principal: &Principal,
        request: &v1::WatchMemoriesRequest,
        at: &ReadPoint,
    ) -> Result<FeedCursor> {
        self.reader(principal, at)?.open_feed(request, at.index)
    }

    /// The next changes behind a cursor, none where there are none. NOT_FOUND where the space is gone, OUT_OF_RANGE where the
    /// cursor was left behind.
    pub fn read_feed(&self, principal: &Principal, cursor: &FeedCursor, at: &ReadPoint) -> Result<FeedPage> {
        self.reader(principal, at)?.read_feed(cursor)
    }

    /// Moves a cursor on to what is applied, where nothing has happened in its space; `false` where something has, so
    /// that the feed must be read. Never touches the disk, so that many can wait for their spaces.
    pub fn skip_feed(&self, cursor: &mut FeedCursor) -> bool {
        // In this order: whatever happens behind the index that is read first is found by the next call.
        let applied = self.applied.read().log_id.map_or(0, |id| id.index);
        let quiet = !cursor.is_within_command() && self.heads.of(cursor.space) <= cursor.index;
        if quiet {
            cursor.index = cursor.index.max(applied);
        }
        quiet
    }

    /// How many memories all spaces hold together, expired ones that are not removed yet included.
    pub fn memories(&self) -> Result<u64> {
        let view = self.store.view();
        let prefix = prefix_of_kind(self.options.group, Kind::SpaceCounters);
        let mut rows = view.cursor(&prefix, &prefix.prefix_end(), false);
        let mut memories = 0;
        while let Some((key, value)) = rows.item()? {
            let (_, key) = Key::decode(key)?;
            // A tenant whose keys were destroyed has nothing left that could be counted.
            if let Ok(plain) = view.sealer().open_row(&key, value) {
                memories += decode::<SpaceCountersRecord>(&key, &plain)?.memories;
            }
            rows.advance();
        }
        Ok(memories)
    }
}

fn applied_state(record: &AppliedRecord) -> Result<AppliedState> {
    let membership = record.membership_position.as_ref().map(|at| (log_id(at), record.membership.clone()));
    Ok(AppliedState {
        log_id: record.applied.as_ref().map(log_id),
        membership,
        stamp_micros: record.stamp_micros,
        digest: digest_from_bytes(&record.digest)?.to_le_bytes(),
        cluster_version: record.cluster_version,
        retired_node_ids: record.retired_node_ids.clone(),
    })
}

/// An error that stops the node, whatever it was: what could be an outcome has become one.
fn must_stop(error: Error) -> Error {
    if error.is_deterministic() {
        Error::internal(format!("apply failed outside of a command: {error}")).with_source(error)
    } else {
        error
    }
}
