//! GetMemoryHistory: the versions of a memory, the newest first.

use cairn_proto::storage::{MemoryRecord, RevisionRecord};
use cairn_proto::v1;
use prost::Message;

use crate::apply::{change_of, is_expired, wire_record};
use crate::error::{Error, Result};
use crate::reads::page::Pages;
use crate::reads::{Reader, page_size, position, record};
use crate::requests::limits::{CALL_BYTES_MAX, WORD_BYTES_MAX};
use crate::requests::path::{FieldPath, Violations};
use crate::store::Rows;
use crate::store::keys::Key;
use crate::time::timestamp_of_micros;

impl Reader<'_> {
    /// Reads a page of the versions of a memory.
    pub(crate) fn get_memory_history(
        &self,
        request: &v1::GetMemoryHistoryRequest,
    ) -> Result<v1::GetMemoryHistoryResponse> {
        let size = page_size(request.page_size)?;
        let mut violations = Violations::default();
        violations.check_bytes(&FieldPath::root("id"), &request.id, 1, WORD_BYTES_MAX);
        violations.into_result()?;
        let view = self.store.view();
        let space = self.space(&view, &request.space)?;
        let arguments = v1::GetMemoryHistoryRequest {
            page_size: 0,
            page_token: String::new(),
            consistency: None,
            ..request.clone()
        };
        let pages = Pages::new(view.sealer(), self.tenant, "GetMemoryHistory", &arguments);
        let cursor = pages.cursor(&request.page_token)?;
        let memory = space.memory_id(view.sealer(), &request.id)?;
        let present = record(&view, &space, memory)?.filter(|found| !is_expired(found, self.time_micros));
        let present = present.ok_or_else(|| Error::not_found("memory", &request.id))?;

        // A depth that became smaller counts at once; the rows beyond it go with the next write.
        let depth = u64::from(space.definition().history_depth);
        let first = match (present.history_from, depth) {
            (0, _) | (_, 0) => present.version,
            (from, depth) => from.max(present.version.saturating_sub(depth)),
        };
        let end = <[u8; 8]>::try_from(cursor.as_slice()).map_or(u64::MAX, u64::from_be_bytes);
        let mut revisions: Vec<v1::Revision> = Vec::new();
        let mut bytes = 0;
        let mut last = None;
        for version in (first..=present.version).rev().filter(|version| *version < end) {
            let revision = if version == present.version {
                wire_revision(present.clone())?
            } else {
                let key = Key::History { space: space.reference, memory, version };
                let row: Option<RevisionRecord> = view.get_message(&key)?;
                let missing = || Error::corruption("a version of a memory's history is missing");
                wire_revision(row.and_then(|row| row.memory).ok_or_else(missing)?)?
            };
            bytes += revision.encoded_len();
            if revisions.len() == size || (!revisions.is_empty() && bytes > CALL_BYTES_MAX) {
                last = Some(version + 1);
                break;
            }
            revisions.push(revision);
        }
        Ok(v1::GetMemoryHistoryResponse {
            revisions,
            next_page_token: last.map(|last| pages.token(&last.to_be_bytes())).transpose()?.unwrap_or_default(),
            position: position(&view)?,
        })
    }
}

/// A version as clients see it. What led to it, when, by whom and why stands in the record itself.
fn wire_revision(mut record: MemoryRecord) -> Result<v1::Revision> {
    Ok(v1::Revision {
        change: change_of(&record) as i32,
        changed_at: Some(timestamp_of_micros(record.updated_at_micros)),
        actor: std::mem::take(&mut record.actor),
        reason: std::mem::take(&mut record.reason),
        principal: std::mem::take(&mut record.principal),
        memory: Some(wire_record(record)?),
    })
}
