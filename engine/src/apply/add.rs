//! AddMemories: memories are created, replaced, or found to be there already.

use cairn_proto::storage::outcome::Result as OutcomeResult;
use cairn_proto::storage::{AddMemories, AddOutcome, MemoryRecord, Outcome, PackedContent};
use cairn_proto::v1;
use cairn_proto::v1::memory::Expiry;

use crate::apply::Applier;
use crate::apply::memories::{Author, NewVector, check_vectors, dense_values, is_expired};
use crate::content::{has_content, set_content};
use crate::error::{Error, Result};
use crate::requests::path::FieldPath;
use crate::spaces::SpaceInfo;
use crate::store::Rows;
use crate::store::keys::LookupId;
use crate::time::{later, micros_of_positive_duration, micros_of_timestamp};

impl Applier<'_> {
    /// Writes all memories, or none.
    pub(super) fn add_memories(&mut self, tenant: u64, add: AddMemories, principal: &str) -> Result<Outcome> {
        let space = self.resolve_space(tenant, &add.space)?;
        space.check_embedder(add.embedded_by.as_ref())?;
        check_vectors(&space, &add.memories, |position| FieldPath::root("memories").at(position))?;
        let author = Author { principal, actor: &add.actor, reason: &add.reason };
        let mut results = Vec::with_capacity(add.memories.len());
        let contents = add.packed_contents.into_iter().chain(std::iter::repeat_with(PackedContent::default));
        for (place, (memory, content)) in (0..).zip(add.memories.into_iter().zip(contents)) {
            // A microsecond apart, so that a list in order of time has the memories of one call in the order of the call.
            let written_at = later(self.stamp_micros(), place);
            let vector = memory.vectors.last().and_then(dense_values).map_or(NewVector::None, NewVector::Set);
            let mut record = self.record_of(&space, memory, content, written_at);
            author.sign(&mut record);
            results.push(self.add_memory(&space, record, vector, add.insert_only)?);
        }
        Ok(Outcome { result: Some(OutcomeResult::AddMemories(AddOutcome { results })), replayed: false })
    }

    fn add_memory(
        &mut self,
        space: &SpaceInfo,
        mut record: MemoryRecord,
        vector: NewVector,
        insert_only: bool,
    ) -> Result<v1::WriteResult> {
        let memory = space.memory_id(self.overlay.sealer(), &record.id)?;
        let old = self.stored(space, memory)?;
        let alive = old.as_ref().filter(|old| !is_expired(&old.record, self.stamp_micros()));
        if insert_only && alive.is_some() {
            return Err(Error::already_exists("memory", &record.id));
        }
        if let Some(twin) = self.content_twin(space, memory, &record)? {
            return Ok(twin);
        }
        record.version = alive.map_or(0, |old| old.record.version) + 1;
        let outcome = if alive.is_some() { v1::WriteOutcome::Replaced } else { v1::WriteOutcome::Created };
        let result = v1::WriteResult { id: record.id.clone(), version: record.version, outcome: outcome as i32 };
        self.write_memory(space, memory, old.as_ref(), record, vector)?;
        Ok(result)
    }

    /// The record of a memory that is written now, without version and vectors. `written_at` is its time among those of the
    /// same call, in microseconds since 1970.
    fn record_of(
        &self,
        space: &SpaceInfo,
        mut wire: v1::Memory,
        content: PackedContent,
        written_at: i64,
    ) -> MemoryRecord {
        let now = self.stamp_micros();
        let expires_at_micros = match &wire.expiry {
            Some(Expiry::ExpiresAt(time)) => micros_of_timestamp(time),
            Some(Expiry::Ttl(ttl)) => micros_of_positive_duration(ttl).map(|ttl| later(now, ttl)),
            None => space.default_ttl_micros().map(|ttl| later(now, ttl)),
        };
        let mut record = MemoryRecord::default();
        set_content(&mut record, content, &mut wire);
        MemoryRecord {
            id: wire.id,
            scope: wire.scope.filter(|scope| *scope != v1::Scope::default()),
            kind: wire.kind,
            metadata: wire.metadata,
            importance: wire.importance,
            created_at_micros: wire.created_at.as_ref().and_then(micros_of_timestamp).unwrap_or(written_at),
            updated_at_micros: written_at,
            expires_at_micros,
            ..record
        }
    }

    /// The other memory that holds the same content in the same scope, in a space that wants each content once. A write
    /// to the very memory that holds the content goes through, since it may change other fields.
    pub(super) fn content_twin(
        &self,
        space: &SpaceInfo,
        memory: LookupId,
        record: &MemoryRecord,
    ) -> Result<Option<v1::WriteResult>> {
        if !space.definition().dedup_by_content || !has_content(record) {
            return Ok(None);
        }
        let holder = self.overlay.get(&self.content_key(space, record)?)?;
        let holder: Option<LookupId> = holder.and_then(|row| row.try_into().ok());
        let Some(holder) = holder.filter(|holder| *holder != memory) else { return Ok(None) };
        let twin = self.stored(space, holder)?.filter(|twin| {
            !is_expired(&twin.record, self.stamp_micros())
                && twin.record.content_hash == record.content_hash
                && twin.record.scope == record.scope
        });
        Ok(twin.map(|twin| v1::WriteResult {
            id: twin.record.id,
            version: twin.record.version,
            outcome: v1::WriteOutcome::Deduplicated as i32,
        }))
    }
}
