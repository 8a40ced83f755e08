//! A partition to bytes, some slots at a time.

use std::ops::Range;

use super::{CHECKPOINT_FORMAT, ChunkId, ChunkKind, put_u32};
use crate::metric::Metric;
use crate::originals::VectorStorage;
use crate::partition::Partition;
use crate::schema::{FieldType, Schema};

/// Slots of a memories chunk, and of a graph chunk: 2^13 slots, around a megabyte.
pub(crate) const MEMORIES_SHIFT: u32 = 13;
pub(crate) const GRAPH_SHIFT: u32 = 13;
/// A vectors chunk takes up to this many bytes.
const VECTORS_CHUNK_BYTES: usize = 4 << 20;
/// A block is written in some tenths of a millisecond at most.
const MEMORIES_BLOCK: u32 = 64;
const GRAPH_BLOCK: u32 = 1024;
const VECTORS_BLOCK_BYTES: usize = 512 << 10;
/// The rotation and the step that codes were made with; see `rotation.rs` and `codes.rs`.
pub(super) const CODE_FORMAT: u8 = 1;

/// What there is to capture, as of one moment.
#[derive(Debug, Clone)]
pub struct Capture {
    /// The head.
    pub head: Vec<u8>,
    /// The chunks, by kind and number.
    pub chunks: Vec<ChunkState>,
}

/// A chunk, and its stamp at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkState {
    /// Which chunk.
    pub id: ChunkId,
    /// Its slots; later ones of its range came after this moment.
    pub slots: Range<u32>,
    /// Changes whenever something in the chunk does.
    pub stamp: u64,
}

/// How many slots a vectors chunk covers, as a power of two.
pub(crate) fn vectors_shift(dimension: usize) -> u32 {
    (VECTORS_CHUNK_BYTES / (dimension * 5 + 16)).clamp(64, 1 << MEMORIES_SHIFT).ilog2()
}

impl Partition {
    /// The head and the list of chunks. Then give each chunk's slots to [`Self::write_block`] until none is left; the partition may
    /// be changed in between. `None` while a change of the schema is under way.
    pub fn capture(&self) -> Option<Capture> {
        if self.reindex_progress().is_some() {
            return None;
        }
        let slots = self.slots().used();
        let mut chunks = Vec::new();
        let mut add = |kind, shift: u32| {
            for (number, start) in (0..slots).step_by(1 << shift).enumerate() {
                let id = ChunkId { kind, number: number as u32 };
                chunks.push(ChunkState { id, slots: start..slots.min(start + (1 << shift)), stamp: self.stamp(id) });
            }
        };
        add(ChunkKind::Memories, MEMORIES_SHIFT);
        add(ChunkKind::Vectors, vectors_shift(self.options().dimension));
        if self.tiers().graph().is_some() {
            add(ChunkKind::Graph, GRAPH_SHIFT);
        }
        Some(Capture { head: self.head(), chunks })
    }

    /// The present stamp of a chunk.
    pub fn stamp(&self, chunk: ChunkId) -> u64 {
        match chunk.kind {
            ChunkKind::Memories => self.stamps().memories.of(chunk.number),
            ChunkKind::Vectors => self.stamps().vectors.of(chunk.number),
            ChunkKind::Graph => self.tiers().graph().map_or(0, |graph| graph.stamps().of(chunk.number)),
        }
    }

    /// How much has changed since the partition was made: writes, and vectors that were linked.
    pub fn changes(&self) -> u64 {
        self.stamps().memories.last() + self.tiers().linked()
    }

    /// Adds a block of the first of these slots to a chunk, and returns the first slot behind it. Takes some tenths of a
    /// millisecond.
    pub fn write_block(&self, kind: ChunkKind, slots: Range<u32>, into: &mut Vec<u8>) -> u32 {
        let length = match kind {
            ChunkKind::Memories => MEMORIES_BLOCK,
            ChunkKind::Vectors => (VECTORS_BLOCK_BYTES / (self.options().dimension * 5 + 16)).clamp(16, 256) as u32,
            ChunkKind::Graph => GRAPH_BLOCK,
        };
        let end = slots.end.min(slots.start.saturating_add(length));
        put_u32(into, slots.start);
        put_u32(into, end - slots.start);
        match kind {
            ChunkKind::Memories => (slots.start..end).for_each(|slot| self.write_memory(slot, into)),
            ChunkKind::Vectors => (slots.start..end).for_each(|slot| self.tiers().store().write_slot(slot, into)),
            ChunkKind::Graph => (slots.start..end).for_each(|slot| match self.tiers().graph() {
                Some(graph) => graph.write_slot(slot, into),
                None => crate::graph::write_no_node(into),
            }),
        }
        end
    }

    fn write_memory(&self, slot: u32, into: &mut Vec<u8>) {
        let Some(key) = self.key_of(slot) else {
            into.push(0);
            return;
        };
        into.push(1);
        into.extend_from_slice(&key.0);
        self.slots().id_of(slot).with_bytes(|id| {
            put_u32(into, id.len() as u32);
            into.extend_from_slice(id);
        });
        let row = self.attributes().row_of(slot);
        put_u32(into, row.len() as u32);
        into.extend_from_slice(row.as_bytes());
    }

    fn head(&self) -> Vec<u8> {
        let options = self.options();
        let mut head =
            vec![CHECKPOINT_FORMAT, metric_number(options.metric), storage_number(options.storage), CODE_FORMAT];
        put_u32(&mut head, options.dimension as u32);
        put_u32(&mut head, self.slots().used());
        let graph = self.tiers().graph();
        head.push(u8::from(graph.is_some()));
        let (random, entries) = graph.map_or((0, &[][..]), |graph| graph.entries());
        head.extend_from_slice(&random.to_le_bytes());
        put_u32(&mut head, entries.len() as u32);
        entries.iter().for_each(|slot| put_u32(&mut head, *slot));
        write_schema(&options.schema, &mut head);
        head
    }
}

pub(super) fn metric_number(metric: Metric) -> u8 {
    match metric {
        Metric::Cosine => 1,
        Metric::Dot => 2,
        Metric::L2 => 3,
    }
}

pub(super) fn storage_number(storage: VectorStorage) -> u8 {
    match storage {
        VectorStorage::MemoryF32 => 1,
        VectorStorage::MemoryF16 => 2,
        VectorStorage::Elsewhere => 3,
    }
}

/// The schema as it stands at the end of a head.
pub(super) fn write_schema(schema: &Schema, into: &mut Vec<u8>) {
    put_u32(into, schema.fields().len() as u32);
    for (path, field_type) in schema.fields() {
        into.push(match field_type {
            FieldType::Keyword => 1,
            FieldType::Integer => 2,
            FieldType::Float => 3,
            FieldType::Bool => 4,
            FieldType::Datetime => 5,
        });
        put_u32(into, path.len() as u32);
        into.extend_from_slice(path.as_bytes());
    }
}
