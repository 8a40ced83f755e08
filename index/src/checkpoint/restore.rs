//! Bytes to a partition.

use std::collections::HashSet;

use super::capture::{CODE_FORMAT, metric_number, storage_number, write_schema};
use super::{CHECKPOINT_FORMAT, Input, RestoreError};
use crate::attributes::{Attributes, Row};
use crate::graph::RestoredGraph;
use crate::partition::{Partition, PartitionOptions};
use crate::schema::Schema;
use crate::slots::{MemoryKey, SLOTS_MAX, Slots};
use crate::tiers::Tiers;
use crate::vectors::VectorStore;

/// A partition on its way from bytes. Its parts may be filled on different threads, each with its kind's chunks in the order of
/// their numbers.
pub struct Restore {
    options: PartitionOptions,
    slots: u32,
    /// Keys, ids and indexed values.
    pub memories: RestoreMemories,
    /// Codes and vectors.
    pub vectors: RestoreVectors,
    /// The graph; `None`: there was none.
    pub graph: Option<RestoreGraph>,
}

/// The part for chunks of memories.
pub struct RestoreMemories {
    slots: Slots,
    attributes: Attributes,
    schema: Schema,
    /// Memories that were written since.
    touched: HashSet<MemoryKey>,
    /// Their slots.
    left_out: Vec<u32>,
    budget: crate::MemoryBudget,
}

/// The part for chunks of vectors.
pub struct RestoreVectors {
    store: VectorStore,
    next: u32,
    slots: u32,
}

/// The part for chunks of the graph.
pub struct RestoreGraph {
    graph: RestoredGraph,
    next: u32,
    slots: u32,
    entries: Vec<u32>,
    random: u64,
}

impl Restore {
    /// Begins with a head. `touched`: the memories that were written since the capture began; they are left out.
    ///
    /// # Errors
    /// [`RestoreError::OfAnother`] where the head is of a partition made for something else than `options`; and as for the chunks.
    pub fn begin(options: PartitionOptions, head: &[u8], touched: HashSet<MemoryKey>) -> Result<Self, RestoreError> {
        let mut input = Input::new(head);
        let found = input.u8()?;
        if found != CHECKPOINT_FORMAT {
            return Err(RestoreError::UnknownFormat { found });
        }
        let kinds = [
            (metric_number(options.metric), "metric"),
            (storage_number(options.storage), "storage"),
            (CODE_FORMAT, "code"),
        ];
        for (expected, what) in kinds {
            if input.u8()? != expected {
                return Err(RestoreError::OfAnother(what));
            }
        }
        if input.u32()? as usize != options.dimension {
            return Err(RestoreError::OfAnother("dimension"));
        }
        let slots = input.u32()?;
        if slots > SLOTS_MAX {
            return Err(RestoreError::Damaged("it has too many slots"));
        }
        let has_graph = input.flag()?;
        let random = input.u64()?;
        let count = input.u32()?;
        let entries = (0..count).map(|_| input.u32()).collect::<Result<Vec<_>, _>>()?;
        let mut schema = Vec::new();
        write_schema(&options.schema, &mut schema);
        if input.take(schema.len()).ok() != Some(&schema[..]) || !input.is_empty() {
            return Err(RestoreError::OfAnother("schema"));
        }
        let budget = options.budget.clone();
        let mut store = VectorStore::new(options.dimension, options.metric, options.storage, &budget)?;
        store.reserve_first(slots)?;
        let graph = RestoredGraph::new(&budget);
        Ok(Self {
            slots,
            memories: RestoreMemories {
                slots: Slots::with_capacity(slots),
                attributes: Attributes::new(options.schema.clone()),
                schema: options.schema.clone(),
                touched,
                left_out: Vec::new(),
                budget,
            },
            vectors: RestoreVectors { store, next: 0, slots },
            graph: has_graph.then_some(RestoreGraph { graph, next: 0, slots, entries, random }),
            options,
        })
    }

    /// The partition, once all chunks were added. The memories that were written since must be given to it now, as they are.
    /// A chunk whose stamp is 0 still is what was added.
    ///
    /// # Errors
    /// [`RestoreError::Damaged`] where chunks are missing or contradict each other.
    pub fn finish(self) -> Result<Partition, RestoreError> {
        let Self { options, slots, memories, vectors, graph } = self;
        let missing = RestoreError::Damaged("chunks are missing");
        if memories.slots.used() != slots || vectors.next != slots {
            return Err(missing);
        }
        let mut store = vectors.store;
        // What was written since has left its vector behind.
        let left = store.present() - memories.attributes.live();
        for slot in &left {
            store.remove(slot);
        }
        let graph = match graph {
            Some(graph) if graph.next != slots => return Err(missing),
            Some(graph) => Some(graph.graph.finish(&store, &graph.entries, graph.random)),
            None => None,
        };
        let tiers = Tiers::restored(store, options.kind, graph, &options.budget);
        let mut partition = Partition::restored(options, memories.slots, memories.attributes, tiers);
        // Chunks that are not what they were have another stamp than 0.
        let stamps = partition.stamps_mut();
        memories.left_out.iter().for_each(|slot| stamps.memories.mark(*slot));
        left.iter().for_each(|slot| stamps.vectors.mark(slot));
        Ok(partition)
    }
}

/// The slots of the next block.
fn block(input: &mut Input<'_>, next: u32, slots: u32) -> Result<std::ops::Range<u32>, RestoreError> {
    let (first, count) = (input.u32()?, input.u32()?);
    match first.checked_add(count) {
        Some(end) if first == next && count > 0 && end <= slots => Ok(first..end),
        _ => Err(RestoreError::Damaged("its blocks are not in order")),
    }
}

/// Reads each slot of a chunk's blocks, of which the first begins at `next`; it stays behind the last one that began.
fn read_slots(
    chunk: &[u8],
    next: &mut u32,
    slots: u32,
    mut read: impl FnMut(u32, &mut Input<'_>) -> Result<(), RestoreError>,
) -> Result<(), RestoreError> {
    let mut input = Input::new(chunk);
    while !input.is_empty() {
        let block = block(&mut input, *next, slots)?;
        *next = block.end;
        for slot in block {
            read(slot, &mut input)?;
        }
    }
    Ok(())
}

impl RestoreMemories {
    /// Adds the next chunk.
    ///
    /// # Errors
    /// [`RestoreError::Damaged`]; [`RestoreError::Index`] where there is too little memory.
    pub fn add(&mut self, chunk: &[u8]) -> Result<(), RestoreError> {
        let mut input = Input::new(chunk);
        while !input.is_empty() {
            for slot in block(&mut input, self.slots.used(), SLOTS_MAX)? {
                if !input.flag()? {
                    self.slots.push_free();
                    continue;
                }
                let key = MemoryKey(input.key()?);
                let length = input.u32()? as usize;
                let id = input.take(length)?;
                let length = input.u32()? as usize;
                let row = Row::from_bytes(input.take(length)?, &self.schema)
                    .ok_or(RestoreError::Damaged("a row of values"))?;
                if self.touched.contains(&key) {
                    self.left_out.push(slot);
                    self.slots.push_free();
                } else if self.slots.find(&key).is_some() {
                    return Err(RestoreError::Damaged("a memory is there twice"));
                } else {
                    self.slots.insert(slot, key, id);
                    self.attributes.insert(slot, row);
                }
            }
        }
        Ok(self.budget.check(self.slots.bytes() + self.attributes.bytes())?)
    }
}

impl RestoreVectors {
    /// Adds the next chunk.
    ///
    /// # Errors
    /// As for [`RestoreMemories::add`].
    pub fn add(&mut self, chunk: &[u8]) -> Result<(), RestoreError> {
        read_slots(chunk, &mut self.next, self.slots, |slot, input| self.store.read_slot(slot, input))
    }
}

impl RestoreGraph {
    /// Adds the next chunk.
    ///
    /// # Errors
    /// As for [`RestoreMemories::add`].
    pub fn add(&mut self, chunk: &[u8]) -> Result<(), RestoreError> {
        read_slots(chunk, &mut self.next, self.slots, |slot, input| self.graph.read_slot(slot, input))
    }
}
