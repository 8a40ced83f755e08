//! One memory written or removed, with all rows that hang on it: its vector, the history, the orderings, expiry, content
//! and namespace rows, the space's numbers, the feed, and the index.

use cairn_proto::storage::{FeedChange, MemoryRecord, NamespaceRecord, VectorReference};
use cairn_proto::v1;
use cairn_proto::v1::memory::Expiry;
use cairn_proto::v1::vector::Data;
use prost::Message;
use sha2::{Digest, Sha256};

use crate::apply::Applier;
use crate::apply::history::change_of;
use crate::content::{has_content, take_content};
use crate::error::{Error, Result};
use crate::partitions::IndexChange;
use crate::requests::path::{FieldPath, Violations};
use crate::spaces::{EMBEDDING_ID, SpaceInfo};
use crate::store::keys::{Key, LookupDomain, LookupId};
use crate::store::{Rows, decode};
use crate::time::timestamp_of_micros;

/// A memory that is there.
pub(super) struct Stored {
    pub(super) plain: Vec<u8>,
    pub(super) record: MemoryRecord,
}

/// What becomes of a memory's vector with a write.
pub(super) enum NewVector {
    /// It stays as it is.
    Keep,
    /// It is this one from now on.
    Set(Vec<f32>),
    /// There is none any more.
    None,
}

/// Who writes, and why.
pub(super) struct Author<'a> {
    /// As the caller's token said.
    pub(super) principal: &'a str,
    /// As the request says.
    pub(super) actor: &'a str,
    pub(super) reason: &'a str,
}

impl Author<'_> {
    /// Notes in a record who wrote it.
    pub(super) fn sign(&self, record: &mut MemoryRecord) {
        record.principal = self.principal.to_string();
        record.actor = self.actor.to_string();
        record.reason = self.reason.to_string();
    }
}

/// Whether a memory's time is over.
pub(crate) fn is_expired(record: &MemoryRecord, time_micros: i64) -> bool {
    record.expires_at_micros.is_some_and(|expires_at| expires_at <= time_micros)
}

/// The bytes of a vector row.
pub(crate) fn vector_to_row(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The values of a vector row; `None` where the length does not fit.
pub(crate) fn vector_from_row(row: &[u8]) -> Option<Vec<f32>> {
    let (values, rest) = row.as_chunks::<4>();
    rest.is_empty().then(|| values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

/// The values of a vector as it came.
pub(super) fn dense_values(vector: &v1::Vector) -> Option<Vec<f32>> {
    match &vector.data {
        Some(Data::Dense(dense)) => Some(dense.values.clone()),
        _ => None,
    }
}

/// A record as clients see it, without vectors.
pub(crate) fn wire_record(mut record: MemoryRecord) -> Result<v1::Memory> {
    Ok(v1::Memory {
        content: take_content(&mut record)?,
        id: record.id,
        scope: record.scope,
        kind: record.kind,
        metadata: record.metadata,
        vectors: Vec::new(),
        importance: record.importance,
        created_at: Some(timestamp_of_micros(record.created_at_micros)),
        updated_at: Some(timestamp_of_micros(record.updated_at_micros)),
        expiry: record.expires_at_micros.map(|micros| Expiry::ExpiresAt(timestamp_of_micros(micros))),
        version: record.version,
        content_hash: record.content_hash.to_vec(),
    })
}

/// Checks all vectors against the space's embedding. `name` gives the path of each memory.
pub(super) fn check_vectors(
    space: &SpaceInfo,
    memories: &[v1::Memory],
    name: impl Fn(usize) -> FieldPath<'static>,
) -> Result<()> {
    let mut violations = Violations::default();
    for (position, memory) in memories.iter().enumerate() {
        let path = name(position);
        for (position, vector) in memory.vectors.iter().enumerate() {
            let path = path.field("vectors").at(position);
            let Some(Data::Dense(dense)) = &vector.data else {
                violations.add(&path, "must be a dense vector");
                continue;
            };
            if let Err((field, what)) = space.check_vector(&vector.embedding, &dense.values, &path) {
                violations.add(&field, what);
            }
        }
    }
    violations.into_result()
}

impl Applier<'_> {
    /// Reads a memory.
    pub(super) fn stored(&self, space: &SpaceInfo, memory: LookupId) -> Result<Option<Stored>> {
        let key = Key::Memory { space: space.reference, memory };
        let Some(plain) = self.overlay.get(&key)? else { return Ok(None) };
        let record = decode(&key, &plain)?;
        Ok(Some(Stored { plain, record }))
    }

    /// The row that finds a memory by its scope and content.
    pub(super) fn content_key(&self, space: &SpaceInfo, record: &MemoryRecord) -> Result<Key> {
        let scope = record.scope.as_ref().map(Message::encode_to_vec).unwrap_or_default();
        let number = space.reference.space.to_be_bytes();
        let parts: [&[u8]; 3] = [&number, &scope, &record.content_hash];
        let content = self.overlay.sealer().lookup_id(space.reference.tenant, LookupDomain::Content, &parts)?;
        Ok(Key::Content { space: space.reference, content })
    }

    /// Writes a memory in the place of `old`: as its next version, or, where its version is 1, as a new one where the time
    /// of `old` was over. Its record's references to vectors and to the history are set here.
    pub(super) fn write_memory(
        &mut self,
        space: &SpaceInfo,
        memory: LookupId,
        old: Option<&Stored>,
        mut record: MemoryRecord,
        vector: NewVector,
    ) -> Result<()> {
        let reference = space.reference;
        if let Some(old) = old {
            if record.version > 1 {
                self.keep_revision(space, memory, old, &mut record)?;
            } else {
                self.drop_history(space, memory, &old.record)?;
            }
        }
        let had_vector = old.is_some_and(|old| !old.record.vectors.is_empty());
        let vector = self.write_vector(space, memory, old, &mut record, vector)?;
        let has_vector = !record.vectors.is_empty();
        if let Some(old) = old.filter(|old| is_expired(&old.record, self.stamp_micros())) {
            // Its time was over and nobody had removed it yet: those who watch see its end all the same.
            self.note_change(space, v1::ChangeType::Expired, &old.record, None);
        }
        let was = old.filter(|old| !is_expired(&old.record, self.stamp_micros())).map(|old| &old.record.scope);
        let previous_scope = was.filter(|was| **was != record.scope).cloned().flatten();
        self.overlay.count(reference, i64::from(old.is_none()), i64::from(has_vector) - i64::from(had_vector));
        if let Some(old) = old {
            self.remove_side_rows(space, memory, &old.record, Some(&record))?;
        }
        self.put_side_rows(space, memory, &record)?;
        let key = Key::Memory { space: reference, memory };
        let old_plain = old.map(|old| old.plain.as_slice());
        self.overlay.put_packed(key, old_plain, record.encode_to_vec(), record.packed_content.len());
        self.note_change(space, change_of(&record), &record, previous_scope);
        self.pending.push((reference, IndexChange::Upsert { memory, record: Box::new(record), vector }));
        Ok(())
    }

    /// Writes the vector's row and the record's reference to it. Returns the vector for the index; a space without an
    /// index over its vectors still has one over its attributes.
    fn write_vector(
        &mut self,
        space: &SpaceInfo,
        memory: LookupId,
        old: Option<&Stored>,
        record: &mut MemoryRecord,
        vector: NewVector,
    ) -> Result<Option<Vec<f32>>> {
        let key = Key::Vector { space: space.reference, embedding: EMBEDDING_ID, memory };
        let before = old.map_or(&[][..], |old| &old.record.vectors);
        record.vectors.clear();
        match vector {
            NewVector::Keep => {
                record.vectors.extend_from_slice(before);
                if before.is_empty() || !space.searchable {
                    return Ok(None);
                }
                let row = self.overlay.get(&key)?;
                let values = row.as_deref().and_then(vector_from_row);
                let missing = || Error::corruption("a memory's vector row is missing or has a bad length");
                values.ok_or_else(missing).map(Some)
            }
            NewVector::Set(values) => {
                let row = vector_to_row(&values);
                let digest = Sha256::digest(&row)[..16].to_vec().into();
                record.vectors.push(VectorReference { embedding_id: u32::from(EMBEDDING_ID), digest });
                let bytes = row.len();
                self.overlay.put_packed(key, None, row, bytes);
                Ok(Some(values).filter(|_| space.searchable))
            }
            NewVector::None => {
                if !before.is_empty() {
                    self.overlay.delete(key, None);
                }
                Ok(None)
            }
        }
    }

    /// Removes a memory with everything that hangs on it.
    pub(super) fn remove_memory(
        &mut self,
        space: &SpaceInfo,
        memory: LookupId,
        old: &Stored,
        change: v1::ChangeType,
    ) -> Result<()> {
        let reference = space.reference;
        self.overlay.delete(Key::Memory { space: reference, memory }, Some(&old.plain));
        for vector in &old.record.vectors {
            let embedding = vector.embedding_id as u16;
            self.overlay.delete(Key::Vector { space: reference, embedding, memory }, None);
        }
        self.drop_history(space, memory, &old.record)?;
        self.remove_side_rows(space, memory, &old.record, None)?;
        self.overlay.count(reference, -1, -i64::from(!old.record.vectors.is_empty()));
        self.note_change(space, change, &old.record, None);
        self.pending.push((reference, IndexChange::Remove { memory }));
        Ok(())
    }

    fn note_change(
        &mut self,
        space: &SpaceInfo,
        change: v1::ChangeType,
        record: &MemoryRecord,
        previous_scope: Option<v1::Scope>,
    ) {
        self.feed.entry(space.reference).or_default().push(FeedChange {
            r#type: change as i32,
            id: record.id.clone(),
            version: record.version,
            scope: record.scope.clone(),
            previous_scope,
        });
    }

    /// Removes the rows that find `old`; those that `new` would put again may stay.
    fn remove_side_rows(
        &mut self,
        space: &SpaceInfo,
        memory: LookupId,
        old: &MemoryRecord,
        new: Option<&MemoryRecord>,
    ) -> Result<()> {
        let reference = space.reference;
        if new.is_none_or(|new| new.created_at_micros != old.created_at_micros) {
            let time_micros = old.created_at_micros;
            self.overlay.delete(Key::ByCreated { space: reference, time_micros, memory }, None);
        }
        if new.is_none_or(|new| new.updated_at_micros != old.updated_at_micros) {
            let time_micros = old.updated_at_micros;
            self.overlay.delete(Key::ByUpdated { space: reference, time_micros, memory }, None);
        }
        if let Some(time_micros) = old.expires_at_micros {
            self.overlay.delete(Key::Expiry { time_micros, space: reference, memory }, None);
        }
        if space.definition().dedup_by_content && has_content(old) {
            let key = self.content_key(space, old)?;
            if self.overlay.get(&key)?.as_deref() == Some(memory.as_slice()) {
                self.overlay.delete(key, None);
            }
        }
        self.count_namespace(space, old, -1)
    }

    fn put_side_rows(&mut self, space: &SpaceInfo, memory: LookupId, record: &MemoryRecord) -> Result<()> {
        let reference = space.reference;
        let created = Key::ByCreated { space: reference, time_micros: record.created_at_micros, memory };
        self.overlay.put(created, None, Vec::new());
        let updated = Key::ByUpdated { space: reference, time_micros: record.updated_at_micros, memory };
        self.overlay.put(updated, None, Vec::new());
        if let Some(time_micros) = record.expires_at_micros {
            self.overlay.put(Key::Expiry { time_micros, space: reference, memory }, None, Vec::new());
        }
        if space.definition().dedup_by_content && has_content(record) {
            let key = self.content_key(space, record)?;
            self.overlay.put(key, None, memory.to_vec());
        }
        self.count_namespace(space, record, 1)
    }

    fn count_namespace(&mut self, space: &SpaceInfo, record: &MemoryRecord, by: i64) -> Result<()> {
        let Some(path) = record.scope.as_ref().and_then(|scope| scope.namespace.as_ref()) else { return Ok(()) };
        let key = Key::Namespace { space: space.reference, path: space.namespace_id(self.overlay.sealer(), path)? };
        let old: NamespaceRecord = self.overlay.get_message(&key)?.unwrap_or_default();
        let memories = old.memories.saturating_add_signed(by);
        if memories == 0 {
            self.overlay.delete(key, None);
        } else {
            self.overlay.put_message(key, None, &NamespaceRecord { path: path.clone(), memories });
        }
        Ok(())
    }
}
