//! ListMemories: in order of time, page by page.

use cairn_index::Filter;
use cairn_proto::v1;
use prost::Message;

use crate::apply::is_expired;
use crate::error::{Error, Result};
use crate::filters::{self, RecordFields};
use crate::reads::page::Pages;
use crate::reads::{Reader, page_size, position, record, wire_memory};
use crate::requests::limits::CALL_BYTES_MAX;
use crate::requests::memory::check_scope;
use crate::requests::path::{FieldPath, Violations};
use crate::spaces::SpaceInfo;
use crate::store::keys::{Key, Kind, prefix_of_space};
use crate::store::rocks::View;

/// Rows that one call looks at; a page ends there, with a token, however few of them match.
const SCAN_ROWS_MAX: usize = 100_000;

/// An ordering: the rows to walk, and which way.
fn ordering(order_by: &str) -> Result<(Kind, bool)> {
    match order_by {
        "" | "created_at desc" => Ok((Kind::ByCreated, true)),
        "created_at" => Ok((Kind::ByCreated, false)),
        "updated_at desc" => Ok((Kind::ByUpdated, true)),
        "updated_at" => Ok((Kind::ByUpdated, false)),
        _ => Err(Error::invalid(
            "order_by",
            "must be `created_at desc`, `created_at`, `updated_at desc` or `updated_at`",
        )),
    }
}

impl Reader<'_> {
    /// Reads a page of memories.
    pub(crate) fn list_memories(&self, request: &v1::ListMemoriesRequest) -> Result<v1::ListMemoriesResponse> {
        let size = page_size(request.page_size)?;
        let (kind, backwards) = ordering(&request.order_by)?;
        check_request_scope(request.scope.as_ref())?;
        let view = self.store.view();
        let space = self.space(&view, &request.space)?;
        let filter = filters::selection("", request.scope.as_ref(), request.filter.as_ref(), &space.schema)?;
        let arguments =
            v1::ListMemoriesRequest { page_size: 0, page_token: String::new(), consistency: None, ..request.clone() };
        let pages = Pages::new(view.sealer(), self.tenant, "ListMemories", &arguments);
        let cursor = pages.cursor(&request.page_token)?;
        let mut page = Page { size, bytes: 0, memories: Vec::new(), include_vectors: request.include_vectors };
        let more = self.fill(&view, &space, (kind, backwards), &cursor, &filter, &mut page)?;
        Ok(v1::ListMemoriesResponse {
            memories: page.memories,
            next_page_token: more.map(|last| pages.token(&last)).transpose()?.unwrap_or_default(),
            position: position(&view)?,
        })
    }

    /// Fills a page; returns the key of its last row where there may be more behind it.
    fn fill(
        &self,
        view: &View<'_>,
        space: &SpaceInfo,
        (kind, backwards): (Kind, bool),
        cursor: &[u8],
        filter: &Filter,
        page: &mut Page,
    ) -> Result<Option<Vec<u8>>> {
        let prefix = prefix_of_space(view.sealer().group(), kind, space.reference);
        let (mut start, mut end) = (prefix, prefix.prefix_end());
        if !cursor.is_empty() {
            let (group, key) = Key::decode(cursor)?;
            let behind = key.encode(group);
            if backwards {
                end = behind;
            } else {
                start = behind.successor();
            }
        }
        let mut rows = view.cursor(&start, &end, backwards);
        let mut last = Vec::new();
        for _ in 0..SCAN_ROWS_MAX {
            let Some((key_bytes, _)) = rows.item()? else { return Ok(None) };
            let (Key::ByCreated { memory, .. } | Key::ByUpdated { memory, .. }) = Key::decode(key_bytes)?.1 else {
                return Err(Error::corruption("a row of another kind among the orderings"));
            };
            let found = record(view, space, memory)?
                .ok_or_else(|| Error::corruption("an ordering names a memory that is not there"))?;
            if !is_expired(&found, self.time_micros) && filter.matches(&RecordFields(&found)) {
                if page.memories.len() == page.size {
                    return Ok(Some(last));
                }
                let wire = wire_memory(view, space, memory, found, page.include_vectors)?;
                let bytes = wire.encoded_len();
                if !page.memories.is_empty() && page.bytes + bytes > CALL_BYTES_MAX {
                    return Ok(Some(last));
                }
                page.bytes += bytes;
                page.memories.push(wire);
            }
            last = key_bytes.to_vec();
            rows.advance();
        }
        Ok(Some(last))
    }
}

/// A page as it fills.
struct Page {
    size: usize,
    bytes: usize,
    memories: Vec<v1::Memory>,
    include_vectors: bool,
}

/// Checks the scope that a read asks for.
pub(super) fn check_request_scope(scope: Option<&v1::Scope>) -> Result<()> {
    let mut violations = Violations::default();
    if let Some(scope) = scope {
        check_scope(scope, &FieldPath::root("scope"), &mut violations);
    }
    violations.into_result()
}
