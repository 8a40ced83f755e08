//! The only place where a command becomes state: a function of the commands and the logical state, without a clock and
//! without randomness.
//!
//! ```text
//!  entries ──▶ one command after the other ──▶ overlay ──▶ one RocksDB batch with the applied record
//!                 │ fails: its changes are undone,     └──▶ index changes, in the same critical section
//!                 ▼ the outcome says why
//!              outcomes
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `requests` | exactly-once: what became of a request, and forgetting it in time |
//! | `add`, `update`, `delete`, `expire` | commands on memories |
//! | `memories` | one memory written or removed, with all rows that hang on it |
//! | `history` | earlier versions of a memory |
//! | `spaces`, `update_space`, `alias` | commands on tenants, spaces and their names |
//! | `feed` | what changed, for watches |
//!
//! Errors: a deterministic one ([`Error::is_deterministic`]) becomes the command's outcome. Any other one is returned,
//! and the node must stop, since it would part from its peers.

mod add;
mod alias;
mod delete;
mod expire;
mod feed;
mod history;
mod memories;
mod requests;
mod spaces;
#[cfg(test)]
mod testscripts;
mod update;
mod update_space;

pub(crate) use expire::EXPIRE_ROWS_MAX;
pub(crate) use history::change_of;
pub(crate) use memories::{is_expired, vector_from_row, wire_record};
pub(crate) use update_space::BUILD_ROWS_MAX;

use std::collections::BTreeMap;
use std::sync::Arc;

use cairn_proto::storage::command::Body;
use cairn_proto::storage::mutation::Operation;
use cairn_proto::storage::outcome::Result as OutcomeResult;
use cairn_proto::storage::{self, AppliedRecord, Command, Done, FeedChange, Mutation, Outcome, SealedMutation};
use prost::Message;

use crate::api::{ApplyEntry, EntryBody};
use crate::error::{Error, Result};
use crate::known_spaces::KnownSpaces;
use crate::options::{Limits, Options};
use crate::partitions::IndexChange;
use crate::position::LogId;
use crate::spaces::{SpaceInfo, resolve};
use crate::store::keys::{Key, MetaItem, SpaceRef};
use crate::store::overlay::Overlay;
use crate::store::rocks::Store;
use crate::store::sealing::Place;

/// Where queues of rows begin, so that a look at their head does not step over what was removed. Not part of the
/// state: too low is only slower.
#[derive(Clone, Debug)]
pub(crate) struct Hints {
    /// No remembered request is forgotten before this time.
    request_expiry_from_micros: i64,
    /// The feed holds nothing before this log index.
    feed_from_index: u64,
}

impl Default for Hints {
    fn default() -> Self {
        Self { request_expiry_from_micros: i64::MIN, feed_from_index: 0 }
    }
}

/// A chunk of entries on its way into the state.
pub(crate) struct Applier<'a> {
    overlay: Overlay<'a>,
    known: &'a KnownSpaces,
    /// Whether a command of the chunk may have changed a space, so that what is known of spaces is not what holds.
    spaces_changed: bool,
    limits: &'a Limits,
    supported_cluster_version: u32,
    state: AppliedRecord,
    hints: Hints,
    /// The log index of the entry in progress.
    index: u64,
    /// Index changes of finished commands.
    changes: Vec<(SpaceRef, IndexChange)>,
    /// Index changes of the command in progress.
    pending: Vec<(SpaceRef, IndexChange)>,
    /// Feed changes of the command in progress.
    feed: BTreeMap<SpaceRef, Vec<FeedChange>>,
    /// Spaces that those who watch them have to look at, with the log index of what is new.
    fed: Vec<(SpaceRef, u64)>,
}

/// What a chunk of entries leads to.
pub(crate) struct Applied {
    pub(crate) batch: rocksdb::WriteBatch,
    pub(crate) state: AppliedRecord,
    pub(crate) hints: Hints,
    pub(crate) changes: Vec<(SpaceRef, IndexChange)>,
    pub(crate) fed: Vec<(SpaceRef, u64)>,
    /// Whether a space may have changed.
    pub(crate) spaces_changed: bool,
}

pub(crate) fn log_position(id: LogId) -> storage::LogId {
    storage::LogId { term: id.term, leader_node_id: id.node_id, index: id.index }
}

pub(crate) fn log_id(position: &storage::LogId) -> LogId {
    LogId { term: position.term, node_id: position.leader_node_id, index: position.index }
}

/// Notes who is a member from now on, and who is no more. An id that returns stays retired: what counts is that it was
/// gone once.
fn retire_nodes(state: &mut AppliedRecord, node_ids: &[u64]) {
    let mut members = node_ids.to_vec();
    members.sort_unstable();
    let before = std::mem::replace(&mut state.member_node_ids, members);
    state.retired_node_ids.extend(before.into_iter().filter(|id| !node_ids.contains(id)));
    state.retired_node_ids.sort_unstable();
    state.retired_node_ids.dedup();
}

fn done() -> Outcome {
    Outcome { result: Some(OutcomeResult::Done(Done {})), replayed: false }
}

impl<'a> Applier<'a> {
    pub(crate) fn new(
        store: &'a Store,
        known: &'a KnownSpaces,
        options: &'a Options,
        state: AppliedRecord,
        hints: Hints,
    ) -> Result<Self> {
        let digest = crate::store::overlay::digest_from_bytes(&state.digest)?;
        Ok(Self {
            overlay: Overlay::new(store, digest),
            known,
            spaces_changed: false,
            limits: &options.limits,
            supported_cluster_version: options.supported_cluster_version,
            state,
            hints,
            index: 0,
            changes: Vec::new(),
            pending: Vec::new(),
            feed: BTreeMap::new(),
            fed: Vec::new(),
        })
    }

    /// Applies one entry that is behind all earlier ones.
    pub(crate) fn apply(&mut self, entry: &ApplyEntry) -> Result<Outcome> {
        self.index = entry.log_id.index;
        let outcome = match &entry.body {
            EntryBody::Blank => done(),
            EntryBody::Membership { encoded, node_ids } => {
                self.state.membership = encoded.clone();
                self.state.membership_position = Some(log_position(entry.log_id));
                retire_nodes(&mut self.state, node_ids);
                done()
            }
            EntryBody::Command(command) => self.apply_command(command)?,
        };
        self.state.applied = Some(log_position(entry.log_id));
        Ok(outcome)
    }

    /// Everything as one write.
    pub(crate) fn into_applied(mut self) -> Result<Applied> {
        let key = Key::Meta(MetaItem::Applied);
        self.state.digest = self.overlay.digest().to_le_bytes().to_vec().into();
        self.overlay.put_message(key, None, &self.state);
        self.overlay.finish()?;
        Ok(Applied {
            batch: self.overlay.into_batch()?,
            state: self.state,
            hints: self.hints,
            changes: self.changes,
            fed: self.fed,
            spaces_changed: self.spaces_changed,
        })
    }

    /// The space of a name or alias, else NOT_FOUND.
    fn resolve_space(&self, tenant: u64, name: &str) -> Result<Arc<SpaceInfo>> {
        let from_rows = || resolve(&self.overlay, self.overlay.sealer(), tenant, name).map(Arc::new);
        if self.spaces_changed {
            return from_rows();
        }
        if let Some(space) = self.known.get(tenant, name, self.index) {
            return Ok(space);
        }
        let space = from_rows()?;
        self.known.keep(tenant, name, self.index, &space);
        Ok(space)
    }

    /// The time of the command in progress, by the leader's stamp.
    fn stamp_micros(&self) -> i64 {
        self.state.stamp_micros
    }

    fn apply_command(&mut self, command: &Command) -> Result<Outcome> {
        if command.cluster_version > self.supported_cluster_version {
            return Err(Error::internal(format!(
                "the log holds a command of cluster version {}, this release applies up to {}: start a newer release",
                command.cluster_version, self.supported_cluster_version
            )));
        }
        self.state.stamp_micros = self.state.stamp_micros.max(command.stamp_micros);
        self.forget_requests_now_and_then()?;
        let body = command.body.as_ref().ok_or_else(|| Error::corruption("a command without a body"))?;
        let state_before = self.state.clone();
        match self.run(command.tenant_id, body) {
            Ok(outcome) => {
                self.write_feed()?;
                self.overlay.finish()?;
                self.changes.append(&mut self.pending);
                self.trim_feed()?;
                self.overlay.finish()?;
                Ok(outcome)
            }
            Err(error) => {
                let failure = error.into_failure()?;
                self.overlay.undo();
                self.pending.clear();
                self.feed.clear();
                self.state = state_before;
                Ok(Outcome { result: Some(OutcomeResult::Failure(failure)), replayed: false })
            }
        }
    }

    fn run(&mut self, tenant: u64, body: &Body) -> Result<Outcome> {
        match body {
            Body::Sealed(sealed) => self.run_sealed(tenant, sealed),
            Body::CreateTenant(create) => {
                self.spaces_changed = true;
                self.create_tenant(create)
            }
            Body::SetClusterVersion(set) => {
                self.state.cluster_version = self.state.cluster_version.max(set.version);
                Ok(done())
            }
            Body::ExpireMemories(expire) => self.expire_memories(expire),
            Body::AdvanceSpaceBuild(advance) => {
                self.spaces_changed = true;
                self.advance_space_build(tenant, advance)
            }
            Body::Noop(_) => Ok(done()),
        }
    }

    fn run_sealed(&mut self, tenant: u64, sealed: &SealedMutation) -> Result<Outcome> {
        let plain = self.overlay.sealer().open(Place::Command, tenant, &sealed.payload)?;
        let mutation = Mutation::decode(plain.as_slice())
            .map_err(|e| Error::corruption("a command does not decode").with_source(e))?;
        let request = mutation.request.ok_or_else(|| Error::corruption("a command without a request key"))?;
        let operation = mutation.operation.ok_or_else(|| Error::corruption("a command without an operation"))?;
        let on_memories =
            matches!(operation, Operation::AddMemories(_) | Operation::UpdateMemory(_) | Operation::DeleteMemories(_));
        self.spaces_changed |= !on_memories;
        self.once(tenant, &request, |applier, progress| match operation {
            Operation::AddMemories(add) => applier.add_memories(tenant, add, &request.principal),
            Operation::UpdateMemory(update) => applier.update_memory(tenant, update, &request.principal, progress),
            Operation::DeleteMemories(delete) => applier.delete_memories(tenant, &delete, progress),
            Operation::CreateSpace(create) => applier.create_space(tenant, create),
            Operation::DeleteSpace(delete) => applier.delete_space(tenant, &delete),
            Operation::UpdateSpace(update) => applier.update_space(tenant, update),
            Operation::SetAlias(set) => applier.set_alias(tenant, &set),
        })
    }
}
