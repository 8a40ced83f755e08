//! The manifest: which files make up a checkpoint. See the byte map in `mod.rs`.

use std::collections::BTreeMap;

use cairn_index::checkpoint::{ChunkId, ChunkKind};

use super::KeptChunk;

const FORMAT: u8 = 1;

/// What the file `MANIFEST` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Manifest {
    /// Of what was applied behind this log index, nothing counts as known.
    pub(super) index: u64,
    pub(super) next_file: u64,
    /// By chunk; the stamps are not kept.
    pub(super) chunks: BTreeMap<ChunkId, KeptChunk>,
    pub(super) head: Vec<u8>,
}

impl Manifest {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![FORMAT];
        bytes.extend_from_slice(&self.index.to_le_bytes());
        bytes.extend_from_slice(&self.next_file.to_le_bytes());
        bytes.extend_from_slice(&(self.chunks.len() as u32).to_le_bytes());
        for (id, chunk) in &self.chunks {
            bytes.push(id.kind as u8);
            bytes.extend_from_slice(&id.number.to_le_bytes());
            bytes.extend_from_slice(&chunk.end.to_le_bytes());
            bytes.extend_from_slice(&chunk.file.to_le_bytes());
        }
        bytes.extend_from_slice(&(self.head.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&self.head);
        bytes
    }

    /// `None` where the bytes are not a manifest of this format.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (format, mut rest) = bytes.split_first()?;
        if *format != FORMAT {
            return None;
        }
        let index = u64::from_le_bytes(take(&mut rest)?);
        let next_file = u64::from_le_bytes(take(&mut rest)?);
        let count = u32::from_le_bytes(take(&mut rest)?);
        let mut chunks = BTreeMap::new();
        for _ in 0..count {
            let kind = ChunkKind::of(u8::from_le_bytes(take(&mut rest)?))?;
            let id = ChunkId { kind, number: u32::from_le_bytes(take(&mut rest)?) };
            let end = u32::from_le_bytes(take(&mut rest)?);
            chunks.insert(id, KeptChunk { stamp: 0, end, file: u64::from_le_bytes(take(&mut rest)?) });
        }
        let length = u32::from_le_bytes(take(&mut rest)?) as usize;
        (rest.len() == length).then(|| Self { index, next_file, chunks, head: rest.to_vec() })
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_read_as_it_was_written_and_only_whole() {
        let id = |kind, number| ChunkId { kind, number };
        let chunk = |end, file| KeptChunk { stamp: 0, end, file };
        let chunks = [(id(ChunkKind::Memories, 0), chunk(9, 4)), (id(ChunkKind::Graph, 3), chunk(70, 1 << 40))];
        let manifest = Manifest { index: 77, next_file: 5, chunks: chunks.into(), head: vec![1, 2, 3] };
        let bytes = manifest.encode();
        assert_eq!(Manifest::decode(&bytes), Some(manifest));
        assert!((0..bytes.len()).all(|length| Manifest::decode(&bytes[..length]).is_none()));
        assert_eq!(Manifest::decode(&[&bytes[..], &[0]].concat()), None);
        assert_eq!(Manifest::decode(&[&[2], &bytes[1..]].concat()), None);
    }
}
