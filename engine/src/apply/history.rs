//! Earlier versions of memories: as many as their space keeps, written when a newer version takes their place.
//!
//! ```text
//!   memory v5 {history_from: 3, history_digest}      history v3, history v4      a space that keeps two
//! ```
//!
//! The history of a memory holds all versions from `history_from` to the one before the present one. It goes with the
//! memory, so that nothing of what was deleted, or is over, is left. Because the record knows which rows there are and what
//! they add to the digest, they go without being read.

use cairn_proto::storage::{MemoryRecord, RevisionRecord};
use cairn_proto::v1;
use prost::Message;

use crate::apply::Applier;
use crate::apply::memories::Stored;
use crate::error::Result;
use crate::spaces::SpaceInfo;
use crate::store::keys::{Key, LookupId};
use crate::store::overlay::digest_from_bytes;
use crate::store::{Rows, decode};

/// What led to a version.
pub(crate) fn change_of(record: &MemoryRecord) -> v1::ChangeType {
    if record.version == 1 { v1::ChangeType::Created } else { v1::ChangeType::Updated }
}

/// How many rows the history of a memory has.
pub(super) fn rows(record: &MemoryRecord) -> u64 {
    if record.history_from == 0 { 0 } else { record.version.saturating_sub(record.history_from) }
}

impl Applier<'_> {
    /// Puts the version that `record` takes the place of into the history, and drops what is beyond the space's depth.
    pub(super) fn keep_revision(
        &mut self,
        space: &SpaceInfo,
        memory: LookupId,
        old: &Stored,
        record: &mut MemoryRecord,
    ) -> Result<()> {
        let depth = u64::from(space.definition().history_depth);
        if depth == 0 {
            self.drop_history(space, memory, &old.record)?;
            (record.history_from, record.history_digest) = (0, bytes::Bytes::new());
            return Ok(());
        }
        let mut digest = digest_from_bytes(&old.record.history_digest)?;
        let first = record.version.saturating_sub(depth).max(1);
        let reference = space.reference;
        if old.record.history_from != 0 {
            for version in old.record.history_from..first.min(old.record.version) {
                let key = Key::History { space: reference, memory, version };
                let row = self.overlay.get(&key)?;
                digest = digest.wrapping_sub(row.as_deref().map_or(0, |row| self.overlay.part_of_digest(&key, row)));
                self.overlay.delete(key, row.as_deref());
            }
        }
        let key = Key::History { space: reference, memory, version: old.record.version };
        let row = revision(&old.record).encode_to_vec();
        digest = digest.wrapping_add(self.overlay.part_of_digest(&key, &row));
        self.overlay.put_packed(key, None, row, old.record.packed_content.len());
        record.history_from = match old.record.history_from {
            0 => old.record.version,
            from => from.max(first),
        };
        record.history_digest = digest.to_le_bytes().to_vec().into();
        Ok(())
    }

    /// Removes the whole history of a memory.
    pub(super) fn drop_history(&mut self, space: &SpaceInfo, memory: LookupId, old: &MemoryRecord) -> Result<()> {
        if old.history_from == 0 {
            return Ok(());
        }
        let reference = space.reference;
        let versions = old.history_from..old.version;
        let keys = versions.map(|version| Key::History { space: reference, memory, version });
        self.overlay.delete_unread(reference, keys, digest_from_bytes(&old.history_digest)?);
        Ok(())
    }

    /// The memory as it was in a version, where that is still the present one or in the history.
    pub(super) fn version_of(&self, space: &SpaceInfo, memory: LookupId, version: u64) -> Result<Option<MemoryRecord>> {
        let Some(now) = self.stored(space, memory)? else { return Ok(None) };
        if now.record.version == version {
            return Ok(Some(now.record));
        }
        let key = Key::History { space: space.reference, memory, version };
        let row = self.overlay.get(&key)?;
        let revision: Option<RevisionRecord> = row.map(|row| decode(&key, &row)).transpose()?;
        Ok(revision.and_then(|revision| revision.memory))
    }
}

fn revision(old: &MemoryRecord) -> RevisionRecord {
    let memory =
        MemoryRecord { vectors: Vec::new(), history_from: 0, history_digest: bytes::Bytes::new(), ..old.clone() };
    RevisionRecord { memory: Some(memory), change: change_of(old) as i32, changed_at_micros: old.updated_at_micros }
}
