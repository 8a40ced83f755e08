//! UpdateMemory: the fields that a mask names, merged into the memory that is there.
//!
//! A vector never stands for a text that is gone: where the content changes, so does the vector, or the command fails.

use std::collections::BTreeMap;

use cairn_proto::storage::outcome::Result as OutcomeResult;
use cairn_proto::storage::{EmbeddedBy, MemoryRecord, Outcome, PackedContent, UpdateMemory, UpdateOutcome};
use cairn_proto::v1;
use cairn_proto::v1::memory::Expiry;

use crate::apply::Applier;
use crate::apply::memories::{Author, NewVector, check_vectors, dense_values, is_expired, wire_record};
use crate::apply::requests::Progress;
use crate::content::set_content;
use crate::engine::EMBEDDER_CHANGED;
use crate::error::{Error, ErrorKind, Result};
use crate::requests::mask::{self, Mask, MaskPath};
use crate::requests::memory::check_metadata;
use crate::requests::path::{FieldPath, Violations};
use crate::spaces::{self, SpaceInfo};
use crate::time::{later, micros_of_positive_duration, micros_of_timestamp};

impl Applier<'_> {
    /// Changes one memory, or nothing.
    pub(super) fn update_memory(
        &mut self,
        tenant: u64,
        update: UpdateMemory,
        principal: &str,
        progress: &mut Progress,
    ) -> Result<Outcome> {
        let space = self.resolve_space(tenant, &update.space)?;
        let broken = || Error::corruption("an update in the log does not say what it changes");
        let mask = Mask::of_command(&update.paths, update.whole).ok_or_else(broken)?;
        let wire = update.memory.ok_or_else(broken)?;
        check_vectors(&space, std::slice::from_ref(&wire), |_| FieldPath::root("memory"))?;
        let memory = space.memory_id(self.overlay.sealer(), &wire.id)?;
        let old = self.stored(&space, memory)?.filter(|old| !is_expired(&old.record, self.stamp_micros()));
        let old = old.ok_or_else(|| Error::not_found("memory", &wire.id))?;
        if update.expected_version != 0 && update.expected_version != old.record.version {
            let (expected, is) = (update.expected_version, old.record.version);
            let message = format!("memory {:?} has version {is}, not {expected}: read it again", wire.id);
            return Err(Error::new(ErrorKind::Aborted, message));
        }
        let content = update.packed_content.unwrap_or_default();
        let has_text = !wire.content.is_empty() || !content.packed.is_empty();
        let vector = new_vector(&space, &wire, has_text, &mask, update.embedded_by.as_ref())?;
        let author = Author { principal, actor: &update.actor, reason: &update.reason };
        let record = self.merged(&space, &old.record, (wire, content), &mask, &author)?;
        if let Some(twin) = self.other_holder(&space, &old.record, &record)? {
            return Err(twin);
        }
        let wire = wire_record(record.clone())?;
        self.write_memory(&space, memory, Some(&old), record, vector)?;
        progress.space_id = space.reference.space;
        let outcome = UpdateOutcome { memory: Some(wire) };
        Ok(Outcome { result: Some(OutcomeResult::UpdateMemory(outcome)), replayed: false })
    }

    /// The record with its changes. What came of a merge must be within the limits of a memory, too.
    fn merged(
        &self,
        space: &SpaceInfo,
        old: &MemoryRecord,
        (mut wire, mut content): (v1::Memory, PackedContent),
        mask: &Mask,
        author: &Author<'_>,
    ) -> Result<MemoryRecord> {
        let now = self.stamp_micros();
        let mut record = old.clone();
        for path in mask.paths() {
            match path {
                MaskPath::Content => {
                    set_content(&mut record, std::mem::take(&mut content), &mut wire);
                }
                MaskPath::CreatedAt => {
                    let time = wire.created_at.as_ref().and_then(micros_of_timestamp);
                    record.created_at_micros = time.unwrap_or(record.created_at_micros);
                }
                MaskPath::Expiry => {
                    let default = space.default_ttl_micros().filter(|_| mask.whole).map(|ttl| later(now, ttl));
                    record.expires_at_micros = expires_at(wire.expiry.as_ref(), now, default);
                }
                MaskPath::Importance => record.importance = wire.importance,
                MaskPath::Kind => record.kind = std::mem::take(&mut wire.kind),
                MaskPath::Scope => record.scope = wire.scope.take(),
                MaskPath::ScopeField(field) => {
                    let value = wire.scope.as_mut().and_then(|scope| field.of(scope).take());
                    *field.of(record.scope.get_or_insert_default()) = value;
                }
                MaskPath::Metadata(segments) => merge(&mut record.metadata, segments, &wire.metadata)?,
                MaskPath::Vectors => {}
            }
        }
        record.scope = record.scope.filter(|scope| *scope != v1::Scope::default());
        let mut violations = Violations::default();
        check_metadata(&record.metadata, &FieldPath::root("memory").field("metadata"), &mut violations);
        violations.into_result()?;
        record.version = old.version + 1;
        record.updated_at_micros = now;
        author.sign(&mut record);
        Ok(record)
    }

    /// ALREADY_EXISTS, where a change leads to the content and scope of another memory in a space that writes each content
    /// once.
    fn other_holder(&self, space: &SpaceInfo, old: &MemoryRecord, new: &MemoryRecord) -> Result<Option<Error>> {
        if old.content_hash == new.content_hash && old.scope == new.scope {
            return Ok(None);
        }
        let memory = space.memory_id(self.overlay.sealer(), &new.id)?;
        let twin = self.content_twin(space, memory, new)?;
        Ok(twin.map(|twin| {
            let message = format!("memory {:?} holds this content in this scope already", twin.id);
            let kind = ErrorKind::AlreadyExists { resource_type: "memory".into(), resource_name: twin.id };
            Error::new(kind, message)
        }))
    }

    /// What a retry of an update is told: the memory as the first call left it, as far as it is still there.
    pub(super) fn updated_again(&self, tenant: u64, space_id: u64, kept: UpdateOutcome) -> Result<UpdateOutcome> {
        let Some(left) = &kept.memory else { return Ok(kept) };
        let reference = crate::store::keys::SpaceRef { tenant, space: space_id };
        let Some(space) = spaces::find(&self.overlay, reference)? else { return Ok(kept) };
        let memory = space.memory_id(self.overlay.sealer(), &left.id)?;
        let found = self.version_of(&space, memory, left.version)?;
        let found = found.filter(|found| !is_expired(found, self.stamp_micros())).map(wire_record).transpose()?;
        // A memory that was deleted and written anew may have come to the same version at another time.
        let same = found.filter(|found| found.updated_at == left.updated_at);
        Ok(UpdateOutcome { memory: same.or(kept.memory) })
    }
}

/// What of an update's outcome is kept for retries.
pub(super) fn remembered(outcome: &UpdateOutcome) -> UpdateOutcome {
    let memory = outcome.memory.as_ref().map(|memory| v1::Memory {
        id: memory.id.clone(),
        version: memory.version,
        updated_at: memory.updated_at,
        ..v1::Memory::default()
    });
    UpdateOutcome { memory }
}

/// Merges one path: sets it where `new` has it, and removes it where `new` has not.
fn merge(
    metadata: &mut BTreeMap<String, v1::Value>,
    segments: &[String],
    new: &BTreeMap<String, v1::Value>,
) -> Result<()> {
    if segments.is_empty() {
        metadata.clone_from(new);
        return Ok(());
    }
    match mask::look_up(new, segments) {
        Ok(Some(value)) => mask::set(metadata, segments, value.clone()).map_err(|level| {
            let (outer, inner) = (segments[..level].join("."), segments.join("."));
            let message = format!(
                "metadata.{outer} is not a map, so metadata.{inner} cannot be set; name metadata.{outer} to replace it"
            );
            Error::failed_precondition("NOT_A_MAP", message)
        }),
        _ => {
            mask::remove(metadata, segments);
            Ok(())
        }
    }
}

fn expires_at(expiry: Option<&Expiry>, now: i64, default: Option<i64>) -> Option<i64> {
    match expiry {
        Some(Expiry::ExpiresAt(time)) => micros_of_timestamp(time),
        Some(Expiry::Ttl(ttl)) => micros_of_positive_duration(ttl).map(|ttl| later(now, ttl)),
        None => default,
    }
}

/// What becomes of the vector.
fn new_vector(
    space: &SpaceInfo,
    wire: &v1::Memory,
    has_text: bool,
    mask: &Mask,
    embedded_by: Option<&EmbeddedBy>,
) -> Result<NewVector> {
    let given = || wire.vectors.first().and_then(dense_values).map_or(NewVector::None, NewVector::Set);
    if mask.has(&MaskPath::Vectors) {
        return Ok(given());
    }
    if !mask.has(&MaskPath::Content) {
        return Ok(NewVector::Keep);
    }
    if embedded_by.is_some() {
        space.check_embedder(embedded_by)?;
        return Ok(given());
    }
    let embedder = space.embedder();
    if embedder.is_empty() && !mask.whole {
        let message = "the space has no embedder, so a change of `content` needs `vectors` in the mask too: the old vector \
                       must not stand for the new text";
        return Err(Error::failed_precondition("VECTOR_NEEDED", message));
    }
    if !embedder.is_empty() && has_text {
        let message = format!("the vector of the new content must come from the space's embedder {embedder:?}");
        return Err(Error::failed_precondition(EMBEDDER_CHANGED, message));
    }
    Ok(NewVector::None)
}
