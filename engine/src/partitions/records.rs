//! Partitions made from records: opened and coded on all cores, added in the order of their keys.
//!
//! ```text
//!   records by the first byte of their ids ──▶ core 1: parts 0, 2, 4 ... ┐
//!                                          ──▶ core 2: parts 1, 3, 5 ... ┴──in order──▶ partition
//! ```

use std::ops::Range;
use std::sync::mpsc::sync_channel;

use cairn_index::{MemoryKey, Partition, PreparedVector, VectorPreparer};
use cairn_proto::storage::{MemoryRecord, SpaceCountersRecord};

use super::checkpoint::Counters;
use super::{cores, index_error};
use crate::apply::vector_from_row;
use crate::error::{Error, Result};
use crate::filters::RecordFields;
use crate::spaces::{EMBEDDING_ID, SpaceInfo};
use crate::store::keys::{Key, Kind, LookupId, prefix_of_space};
use crate::store::rocks::View;
use crate::store::{Rows, decode};

/// Fewer memories are not worth a thread.
const MANY: u64 = 2_000;
/// Parts of the ids, by their first byte; ids are as good as random.
const PARTS: usize = 256;

/// A memory that is ready to be added.
struct Ready {
    memory: LookupId,
    record: MemoryRecord,
    vector: Option<PreparedVector>,
}

/// Adds all memories of a space. Counts them as they come.
pub(super) fn add_all(
    partition: &mut Partition,
    view: &View<'_>,
    space: &SpaceInfo,
    counters: &Counters,
) -> Result<()> {
    let counted: SpaceCountersRecord = view.get_message(&Key::SpaceCounters(space.reference))?.unwrap_or_default();
    Counters::add(&counters.made, 1);
    let (tenant, number, memories) = (space.reference.tenant, space.reference.space, counted.memories);
    let is_large = memories >= MANY;
    if is_large {
        tracing::info!(tenant, space = number, memories, "an index is made from the records");
    }
    let threads = if is_large { cores() } else { 1 };
    let preparer = partition.preparer();
    let mut done = 0;
    let mut take = |ready: Vec<Ready>| {
        let quarter = |done: u64| done * 4 / memories.max(1);
        let before = quarter(done);
        done += ready.len() as u64;
        Counters::add(&counters.made_memories, ready.len() as u64);
        add(partition, ready)?;
        if is_large && quarter(done) > before {
            tracing::info!(tenant, space = number, done, memories, "memories are in the index");
        }
        Ok::<_, Error>(())
    };
    if threads == 1 {
        // A cursor for each part would cost a small space more than its memories.
        let parts = if is_large { 1 } else { PARTS };
        return (0..PARTS)
            .step_by(parts)
            .try_for_each(|part| take(read_parts(view, space, &preparer, part..part + parts)?));
    }
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..threads)
            .map(|first| {
                let (give, taken) = sync_channel(2);
                let preparer = preparer.clone();
                scope.spawn(move || {
                    for part in (first..PARTS).step_by(threads) {
                        // Whoever takes them has met an error and stopped.
                        if give.send(read_parts(view, space, &preparer, part..part + 1)).is_err() {
                            return;
                        }
                    }
                });
                taken
            })
            .collect();
        (0..PARTS).try_for_each(|part| {
            let ready = readers[part % threads].recv();
            take(ready.map_err(|_| Error::internal("a thread that read records has failed"))??)
        })
    })
}

/// Adds those of these memories that are there.
pub(super) fn add_some(partition: &mut Partition, view: &View<'_>, space: &SpaceInfo, ids: &[LookupId]) -> Result<()> {
    let preparer = partition.preparer();
    let read = |ids: &[LookupId]| -> Result<Vec<Ready>> {
        let mut ready = Vec::new();
        for memory in ids {
            let Some(record) =
                view.get_message::<MemoryRecord>(&Key::Memory { space: space.reference, memory: *memory })?
            else {
                continue;
            };
            let row_key = Key::Vector { space: space.reference, embedding: EMBEDDING_ID, memory: *memory };
            let row = if has_vector(space, &record) { Some(view.get(&row_key)?.ok_or_else(missing)?) } else { None };
            let vector = row.map(|row| prepare(&preparer, &row)).transpose()?;
            ready.push(Ready { memory: *memory, record, vector });
        }
        Ok(ready)
    };
    let share = ids.len().div_ceil(cores()).max(MANY as usize / 4);
    if ids.len() <= share {
        return add(partition, read(ids)?);
    }
    let read = &read;
    let parts: Vec<Result<Vec<Ready>>> = std::thread::scope(|scope| {
        let parts: Vec<_> = ids.chunks(share).map(|part| scope.spawn(move || read(part))).collect();
        let failed = || Err(Error::internal("a thread that read records has failed"));
        parts.into_iter().map(|part| part.join().unwrap_or_else(|_| failed())).collect()
    });
    parts.into_iter().try_for_each(|part| add(partition, part?))
}

fn add(partition: &mut Partition, ready: Vec<Ready>) -> Result<()> {
    for Ready { memory, record, vector } in ready {
        let (key, fields) = (MemoryKey(memory), RecordFields(&record));
        partition.upsert_prepared(key, record.id.as_bytes(), &fields, vector.as_ref()).map_err(index_error)?;
    }
    Ok(())
}

/// The memories of some parts. Records and vectors are in the same order, so one pass over both does.
fn read_parts(
    view: &View<'_>,
    space: &SpaceInfo,
    preparer: &VectorPreparer,
    parts: Range<usize>,
) -> Result<Vec<Ready>> {
    let group = view.sealer().group();
    let reference = space.reference;
    let id_of = |first: usize| -> LookupId {
        let mut id = [0; 16];
        id[0] = first as u8;
        id
    };
    let memory_key = |first| Key::Memory { space: reference, memory: id_of(first) }.encode(group);
    let vector_key =
        |first| Key::Vector { space: reference, embedding: EMBEDDING_ID, memory: id_of(first) }.encode(group);
    let is_last = parts.end == PARTS;
    let end_of = |kind, next| if is_last { prefix_of_space(group, kind, reference).prefix_end() } else { next };
    let records_end = end_of(Kind::Memory, memory_key(parts.end));
    let vectors_end = end_of(Kind::Vector, vector_key(parts.end));
    let mut records = view.cursor(&memory_key(parts.start), &records_end, false);
    let mut vectors = view.cursor(&vector_key(parts.start), &vectors_end, false);
    let mut ready = Vec::new();
    while let Some((key_bytes, value)) = records.item()? {
        let (_, key) = Key::decode(key_bytes)?;
        let Key::Memory { memory, .. } = key else { break };
        let record: MemoryRecord = decode(&key, &view.sealer().open_row(&key, value)?)?;
        let mut vector = None;
        if has_vector(space, &record) {
            let row_key = Key::Vector { space: reference, embedding: EMBEDDING_ID, memory };
            let (vector_key, value) = vectors.item()?.ok_or_else(missing)?;
            if vector_key != row_key.encode(group).as_ref() {
                return Err(missing());
            }
            vector = Some(prepare(preparer, &view.sealer().open_row(&row_key, value)?)?);
            vectors.advance();
        }
        ready.push(Ready { memory, record, vector });
        records.advance();
    }
    Ok(ready)
}

fn has_vector(space: &SpaceInfo, record: &MemoryRecord) -> bool {
    !record.vectors.is_empty() && space.searchable
}

fn missing() -> Error {
    Error::corruption("a memory's vector row is missing")
}

fn prepare(preparer: &VectorPreparer, row: &[u8]) -> Result<PreparedVector> {
    let values = vector_from_row(row).ok_or_else(|| Error::corruption("a vector row has a bad length"))?;
    preparer.prepare(&values).map_err(index_error)
}
