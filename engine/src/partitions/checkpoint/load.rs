//! Reading a checkpoint, and taking in what has happened since.

use std::collections::HashSet;

use cairn_index::checkpoint::{ChunkKind, Restore, RestoreError};
use cairn_index::{MemoryKey, Partition, PartitionOptions};
use cairn_proto::storage::{AppliedRecord, FeedRecord};

use super::keeper::Shared;
use super::manifest::Manifest;
use super::{Counters, Kept, KeptChunk, Place};
use crate::error::{Error, Result};
use crate::partitions::{index_error, records};
use crate::reads::open_message;
use crate::spaces::SpaceInfo;
use crate::store::Rows;
use crate::store::keys::{Key, Kind, LookupId, MetaItem, SpaceRef, prefix_of_kind};
use crate::store::rocks::View;

/// With more memories written since than this, and than half of those that there are, making the index anew takes no longer.
const REPLAYED_MIN: usize = 10_000;

/// A partition out of its checkpoint.
pub(in crate::partitions) struct Loaded {
    pub(in crate::partitions) partition: Partition,
    /// Without its instance.
    pub(in crate::partitions) kept: Kept,
    /// The log index of the checkpoint.
    pub(in crate::partitions) index: u64,
}

/// Why a checkpoint is of no use.
enum Unusable {
    /// There is none.
    Absent,
    /// It says nothing that could be used now.
    Stale(&'static str),
    /// Something is wrong with it.
    Damaged(Error),
    /// Nothing is: memory is short.
    OutOfMemory(Error),
}

impl From<Error> for Unusable {
    fn from(error: Error) -> Self {
        Self::Damaged(error)
    }
}

impl From<RestoreError> for Unusable {
    fn from(error: RestoreError) -> Self {
        match error {
            RestoreError::Index(error) => Self::OutOfMemory(index_error(error)),
            RestoreError::OfAnother(_) => Self::Stale("the space has changed since"),
            error => Self::Damaged(Error::corruption(error.to_string())),
        }
    }
}

impl Shared {
    /// The partition of a space out of its checkpoint and what the view says that happened since. `None`: it has to be made from
    /// the records; why is logged. An error: there is too little memory.
    pub(in crate::partitions) fn load(
        &self,
        view: &View<'_>,
        space: &SpaceInfo,
        options: PartitionOptions,
    ) -> Result<Option<Loaded>> {
        let reference = space.reference;
        let (tenant, number) = (reference.tenant, reference.space);
        match self.try_load(view, space, options) {
            Ok(loaded) => {
                Counters::add(&self.counters.loaded, 1);
                let memories = loaded.partition.len();
                tracing::info!(
                    tenant,
                    space = number,
                    memories,
                    index = loaded.index,
                    "an index is loaded from its checkpoint"
                );
                return Ok(Some(loaded));
            }
            Err(Unusable::OutOfMemory(error)) => return Err(error),
            Err(Unusable::Absent) => return Ok(None),
            Err(Unusable::Stale(why)) => {
                tracing::info!(tenant, space = number, why, "an index checkpoint is left aside");
            }
            Err(Unusable::Damaged(error)) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(tenant, space = number, %error, cause, "an index checkpoint cannot be used");
            }
        }
        Counters::add(&self.counters.unusable, 1);
        Ok(None)
    }

    fn try_load(
        &self,
        view: &View<'_>,
        space: &SpaceInfo,
        options: PartitionOptions,
    ) -> std::result::Result<Loaded, Unusable> {
        let place = Place::new(&self.dir, &self.sealer, space.reference);
        let bytes = place.read_file(&place.manifest(), None)?.ok_or(Unusable::Absent)?;
        let manifest = Manifest::decode(&bytes).ok_or_else(|| Error::corruption("the manifest does not decode"))?;
        super::save::clean(&place, &manifest);
        let touched = touched_since(view, space, manifest.index)?;
        let keys: HashSet<MemoryKey> = touched.iter().map(|memory| MemoryKey(*memory)).collect();
        let restore = Restore::begin(options, &manifest.head, keys)?;
        let mut partition = read_chunks(&place, &manifest, restore)?;
        if touched.len() > REPLAYED_MIN.max(partition.len()) {
            return Err(Unusable::Stale("too much has happened since"));
        }
        // Before anything is added, so that nothing is linked on the way: the upkeep does that, and nobody waits for it.
        partition.enable_graph_without_upkeep(self.graph_from);
        records::add_some(&mut partition, view, space, &touched).map_err(|error| {
            if super::super::is_exhausted(&error) { Unusable::OutOfMemory(error) } else { Unusable::Damaged(error) }
        })?;
        let chunks = manifest.chunks.iter().map(|(id, chunk)| (*id, KeptChunk { stamp: 0, ..*chunk })).collect();
        Ok(Loaded { partition, kept: Kept { instance: 0, chunks }, index: manifest.index })
    }
}

/// The memories of a space that were written behind a log index, each once, in order.
fn touched_since(view: &View<'_>, space: &SpaceInfo, since: u64) -> std::result::Result<Vec<LookupId>, Unusable> {
    let applied: AppliedRecord = view.get_message(&Key::Meta(MetaItem::Applied))?.unwrap_or_default();
    if applied.applied.as_ref().map_or(0, |applied| applied.index) < since {
        // After a crash the store may have to catch up with what was known before.
        return Err(Unusable::Stale("it is ahead of the store"));
    }
    if since < applied.feed_dropped_index {
        return Err(Unusable::Stale("the feed does not reach back to it"));
    }
    let group = view.sealer().group();
    let first = SpaceRef { tenant: 0, space: 0 };
    let start = Key::Feed { index: since + 1, space: first, changes: 0 }.encode(group);
    let mut rows = view.cursor(&start, &prefix_of_kind(group, Kind::Feed).prefix_end(), false);
    let mut touched = Vec::new();
    while let Some((key, value)) = rows.item()? {
        if let Key::Feed { space: of, .. } = Key::decode(key)?.1
            && of == space.reference
        {
            let record: FeedRecord = open_message(view, key, value)?;
            for change in &record.changes {
                touched.push(space.memory_id(view.sealer(), &change.id)?);
            }
        }
        rows.advance();
    }
    touched.sort_unstable();
    touched.dedup();
    Ok(touched)
}

/// Reads all chunks, vectors on one thread and the rest on another.
fn read_chunks(
    place: &Place<'_>,
    manifest: &Manifest,
    mut restore: Restore,
) -> std::result::Result<Partition, Unusable> {
    let read = |wanted: ChunkKind, add: &mut dyn FnMut(&[u8]) -> std::result::Result<(), RestoreError>| {
        for (id, chunk) in manifest.chunks.iter().filter(|(id, _)| id.kind == wanted) {
            let missing = || Error::corruption(format!("chunk {} of kind {} is missing", id.number, id.kind as u8));
            let plain = place.read_file(&place.chunk(chunk.file), Some(chunk.file))?.ok_or_else(missing)?;
            add(&plain)?;
        }
        Ok::<_, Unusable>(())
    };
    let Restore { memories, vectors, graph, .. } = &mut restore;
    std::thread::scope(|scope| {
        let others = scope.spawn(|| {
            read(ChunkKind::Memories, &mut |chunk| memories.add(chunk))?;
            match graph {
                Some(graph) => read(ChunkKind::Graph, &mut |chunk| graph.add(chunk)),
                None => Ok(()),
            }
        });
        let vectors = read(ChunkKind::Vectors, &mut |chunk| vectors.add(chunk));
        let others =
            others.join().unwrap_or_else(|_| Err(Error::internal("a thread that read chunks has failed").into()));
        vectors.and(others)
    })?;
    Ok(restore.finish()?)
}
