//! DeleteMemories: by id at once, by selection in steps of a bounded number of rows.
//!
//! A delete by selection looks at records in the order of their keys, never at the index. Each of its commands is
//! atomic; between two of them, reads see some of the memories gone.

use cairn_proto::storage::outcome::Result as OutcomeResult;
use cairn_proto::storage::{DeleteMemories, DeleteOutcome, MemoryRecord, Outcome};
use cairn_proto::v1;

use crate::apply::memories::{Stored, is_expired};
use crate::apply::requests::Progress;
use crate::apply::{Applier, history};
use crate::error::Result;
use crate::filters::{self, RecordFields};
use crate::spaces::{self, SpaceInfo};
use crate::store::decode;
use crate::store::keys::{Key, Kind, LookupId, SpaceRef, prefix_of_space};

/// Bytes of records that one command looks at; a command ends early behind the row that exceeds them.
const SCAN_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What one step of a delete by selection found.
struct Step {
    found: Vec<(LookupId, Stored)>,
    last: Option<LookupId>,
    complete: bool,
}

fn outcome(deleted_count: u64, unfinished: bool) -> Outcome {
    let outcome = DeleteOutcome { deleted_count, unfinished };
    Outcome { result: Some(OutcomeResult::DeleteMemories(outcome)), replayed: false }
}

impl Applier<'_> {
    /// Deletes by ids, or does one step of a delete by selection.
    pub(super) fn delete_memories(
        &mut self,
        tenant: u64,
        delete: &DeleteMemories,
        progress: &mut Progress,
    ) -> Result<Outcome> {
        if progress.space_id != 0 {
            let space = spaces::find(&self.overlay, SpaceRef { tenant, space: progress.space_id })?;
            return match space {
                Some(space) => self.delete_selection(&space, delete, progress),
                // The space went meanwhile, and with it all that was left to delete.
                None => Ok(outcome(progress.deleted_count, false)),
            };
        }
        let space = self.resolve_space(tenant, &delete.space)?;
        if delete.ids.is_empty() {
            self.delete_selection(&space, delete, progress)
        } else {
            self.delete_ids(&space, &delete.ids)
        }
    }

    fn delete_ids(&mut self, space: &SpaceInfo, ids: &[String]) -> Result<Outcome> {
        let mut deleted_count = 0;
        for id in ids {
            let memory = space.memory_id(self.overlay.sealer(), id)?;
            let Some(old) = self.stored(space, memory)? else { continue };
            if !is_expired(&old.record, self.stamp_micros()) {
                self.remove_memory(space, memory, &old, v1::ChangeType::Deleted)?;
                deleted_count += 1;
            }
        }
        Ok(outcome(deleted_count, false))
    }

    fn delete_selection(
        &mut self,
        space: &SpaceInfo,
        delete: &DeleteMemories,
        progress: &mut Progress,
    ) -> Result<Outcome> {
        let filter = filters::selection("selection.", delete.scope.as_ref(), delete.filter.as_ref(), &space.schema)?;
        let now = self.stamp_micros();
        let step = self.next_step(space, &progress.cursor, &|record| {
            !is_expired(record, now) && filter.matches(&RecordFields(record))
        })?;
        for (memory, old) in &step.found {
            self.remove_memory(space, *memory, old, v1::ChangeType::Deleted)?;
        }
        progress.deleted_count += step.found.len() as u64;
        progress.space_id = space.reference.space;
        if let Some(last) = step.last {
            progress.cursor = last.to_vec();
        }
        Ok(outcome(progress.deleted_count, !step.complete))
    }

    fn next_step(&self, space: &SpaceInfo, cursor: &[u8], selects: &dyn Fn(&MemoryRecord) -> bool) -> Result<Step> {
        let group = self.overlay.sealer().group();
        let prefix = prefix_of_space(group, Kind::Memory, space.reference);
        let start = match LookupId::try_from(cursor) {
            Ok(memory) => Key::Memory { space: space.reference, memory }.encode(group).successor(),
            Err(_) => prefix,
        };
        let rows_max = self.limits.delete_scan_rows_max;
        let mut step = Step { found: Vec::new(), last: None, complete: true };
        let (mut rows, mut bytes) = (0, 0);
        self.overlay.scan(&start, &prefix.prefix_end(), &mut |key, open| {
            let Key::Memory { memory, .. } = *key else { return Ok(true) };
            if rows >= rows_max || bytes >= SCAN_BYTES_MAX {
                step.complete = false;
                return Ok(false);
            }
            let plain = open()?;
            rows += 1;
            bytes += plain.len();
            step.last = Some(memory);
            let record: MemoryRecord = decode(key, &plain)?;
            if selects(&record) {
                rows += history::rows(&record);
                step.found.push((memory, Stored { plain, record }));
            }
            Ok(true)
        })?;
        Ok(step)
    }
}
