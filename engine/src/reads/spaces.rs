//! GetSpace, ListSpaces, ListNamespaces.

use std::collections::BTreeMap;

use cairn_index::filter::is_within;
use cairn_proto::storage::{NamespaceRecord, SpaceBuildRecord, SpaceCountersRecord, SpaceRecord};
use cairn_proto::v1;

use crate::error::Result;
use crate::reads::page::Pages;
use crate::reads::{Reader, expired_memories, open_message, page_size, position, record};
use crate::requests::check_space_name;
use crate::requests::memory::check_namespace;
use crate::requests::path::{FieldPath, Violations};
use crate::spaces::{resolve, wire_space};
use crate::store::Rows;
use crate::store::keys::{Key, Kind, prefix_of_space, prefix_of_tenant};

impl Reader<'_> {
    /// Reads a space and what is in it.
    pub(crate) fn get_space(&self, request: &v1::GetSpaceRequest) -> Result<v1::GetSpaceResponse> {
        check_space_name("name", &request.name)?;
        let view = self.store.view();
        let space = resolve(&view, view.sealer(), self.tenant, &request.name)?;
        let counters: SpaceCountersRecord = view.get_message(&Key::SpaceCounters(space.reference))?.unwrap_or_default();
        let index = self.partitions.status(space.reference);
        let building = index.building.into_iter();
        let mut wire = space.to_wire();
        wire.building = building.map(|(path, done, total)| v1::FieldProgress { path, done, total }).collect();
        if let Some(build) = view.get_message::<SpaceBuildRecord>(&Key::Build(space.reference))? {
            let path = "dedup_by_content".to_string();
            wire.building.push(v1::FieldProgress { path, done: build.done, total: build.total.max(build.done) });
        }
        Ok(v1::GetSpaceResponse {
            space: Some(wire),
            statistics: Some(v1::SpaceStatistics {
                memories: counters.memories,
                vectors: counters.vectors,
                index_bytes: index.bytes,
                index_tier: index.tier.to_string(),
            }),
            position: position(&view)?,
        })
    }

    /// Reads a page of spaces, in order of their names.
    pub(crate) fn list_spaces(&self, request: &v1::ListSpacesRequest) -> Result<v1::ListSpacesResponse> {
        let size = page_size(request.page_size)?;
        let view = self.store.view();
        let pages = Pages::new(view.sealer(), self.tenant, "ListSpaces", &v1::ListSpacesRequest::default());
        let cursor = pages.cursor(&request.page_token)?;
        let prefix = prefix_of_tenant(view.sealer().group(), Kind::Space, self.tenant);
        let mut rows = view.cursor(&prefix, &prefix.prefix_end(), false);
        let mut by_name = BTreeMap::new();
        while let Some((key, value)) = rows.item()? {
            let space = wire_space(&open_message::<SpaceRecord>(&view, key, value)?);
            if request.page_token.is_empty() || space.name.as_bytes() > cursor.as_slice() {
                by_name.insert(space.name.clone(), space);
            }
            rows.advance();
        }
        let more = by_name.len() > size;
        let spaces: Vec<_> = by_name.into_values().take(size).collect();
        let last = spaces.last().filter(|_| more).map(|space| space.name.as_bytes());
        let next_page_token = last.map(|last| pages.token(last)).transpose()?.unwrap_or_default();
        Ok(v1::ListSpacesResponse { spaces, next_page_token, position: position(&view)? })
    }

    /// Reads a page of the namespaces in use, in order of their paths.
    pub(crate) fn list_namespaces(&self, request: &v1::ListNamespacesRequest) -> Result<v1::ListNamespacesResponse> {
        let size = page_size(request.page_size)?;
        let mut violations = Violations::default();
        if !request.prefix.is_empty() {
            check_namespace(&request.prefix, &FieldPath::root("prefix"), &mut violations);
        }
        violations.into_result()?;
        let view = self.store.view();
        let space = self.space(&view, &request.space)?;
        let arguments =
            v1::ListNamespacesRequest { page_size: 0, page_token: String::new(), consistency: None, ..request.clone() };
        let pages = Pages::new(view.sealer(), self.tenant, "ListNamespaces", &arguments);
        let cursor = pages.cursor(&request.page_token)?;
        let prefix = prefix_of_space(view.sealer().group(), Kind::Namespace, space.reference);
        let mut rows = view.cursor(&prefix, &prefix.prefix_end(), false);
        let mut counts = BTreeMap::new();
        while let Some((key, value)) = rows.item()? {
            let namespace: NamespaceRecord = open_message(&view, key, value)?;
            let wanted = request.prefix.is_empty() || is_within(&namespace.path, &request.prefix);
            if wanted && (request.page_token.is_empty() || namespace.path.as_bytes() > cursor.as_slice()) {
                counts.insert(namespace.path, namespace.memories);
            }
            rows.advance();
        }
        for memory in expired_memories(&view, space.reference, self.time_micros)? {
            let record = record(&view, &space, memory)?;
            let path = record.and_then(|record| record.scope).and_then(|scope| scope.namespace);
            if let Some(count) = path.and_then(|path| counts.get_mut(&path)) {
                *count = count.saturating_sub(1);
            }
        }
        counts.retain(|_, count| *count > 0);
        let more = counts.len() > size;
        let namespaces: Vec<_> =
            counts.into_iter().take(size).map(|(path, memory_count)| v1::Namespace { path, memory_count }).collect();
        let last = namespaces.last().filter(|_| more).map(|last| last.path.as_bytes());
        let next_page_token = last.map(|last| pages.token(last)).transpose()?.unwrap_or_default();
        Ok(v1::ListNamespacesResponse { namespaces, next_page_token, position: position(&view)? })
    }
}
