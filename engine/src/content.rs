//! The text of a memory, from the request to the reader.
//!
//! ```text
//!   request ──pack──▶ command {packed text, its hash} ──▶ record {packed text, its hash} ──unpack──▶ reader
//! ```
//!
//! It is packed and hashed once, where it comes in: every node would have to do both again for each row otherwise, which
//! costs more than everything else about a small memory. Short texts, and those that do not shrink, stay as they are.

use cairn_proto::storage::{MemoryRecord, PackedContent};
use cairn_proto::v1;
use sha2::{Digest, Sha256};

use crate::crypto::{pack, unpack};
use crate::error::{Error, Result};
use crate::requests::limits::CONTENT_BYTES_MAX;

/// Takes the text out of a memory and packs it; leaves it there where it is not worth it.
pub(crate) fn pack_content(memory: &mut v1::Memory) -> Result<PackedContent> {
    let packed = pack(&memory.content).map_err(|e| Error::internal("a text cannot be packed").with_source(e))?;
    let Some(packed) = packed else { return Ok(PackedContent::default()) };
    let hash = hash_of(&std::mem::take(&mut memory.content));
    Ok(PackedContent { packed: packed.into(), hash })
}

/// Sets a record's text to the one of a command: the packed one, or else that of the memory itself.
pub(crate) fn set_content(record: &mut MemoryRecord, packed: PackedContent, memory: &mut v1::Memory) {
    record.content = std::mem::take(&mut memory.content);
    record.content_hash = if packed.packed.is_empty() { hash_of(&record.content) } else { packed.hash };
    record.packed_content = packed.packed;
}

/// Whether a record has a text.
pub(crate) fn has_content(record: &MemoryRecord) -> bool {
    !record.content.is_empty() || !record.packed_content.is_empty()
}

/// A record's text.
pub(crate) fn take_content(record: &mut MemoryRecord) -> Result<String> {
    if record.packed_content.is_empty() {
        return Ok(std::mem::take(&mut record.content));
    }
    unpack(&record.packed_content, CONTENT_BYTES_MAX)
        .map_err(|e| Error::corruption("the text of a memory is not what was packed").with_source(e))
}

fn hash_of(text: &str) -> bytes::Bytes {
    Sha256::digest(text.as_bytes()).to_vec().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::ErrorKind;

    fn record_with(text: &str) -> MemoryRecord {
        let mut memory = v1::Memory { content: text.to_string(), ..v1::Memory::default() };
        let packed = pack_content(&mut memory).unwrap();
        let mut record = MemoryRecord::default();
        set_content(&mut record, packed, &mut memory);
        record
    }

    #[test]
    fn a_text_comes_back_with_its_hash() {
        let texts = ["".to_string(), "tea".to_string(), "the user prefers tea to coffee; ".repeat(100)];
        for text in texts {
            let mut record = record_with(&text);
            assert_eq!(record.content_hash, Sha256::digest(text.as_bytes()).to_vec());
            assert_eq!(has_content(&record), !text.is_empty());
            assert_eq!(record.content.is_empty(), text.is_empty() || text.len() > 1000, "long ones are packed");
            assert_eq!(take_content(&mut record).unwrap(), text);
        }
    }

    #[test]
    fn any_text_comes_back() {
        proptest!(|(text in ".{0,2000}", times in 1_usize..8)| {
            let text = text.repeat(times);
            prop_assert_eq!(take_content(&mut record_with(&text)).unwrap(), text);
        });
    }

    #[test]
    fn what_nobody_packed_is_refused() {
        proptest!(|(bytes: Vec<u8>)| {
            let mut record = MemoryRecord { packed_content: bytes.into(), ..MemoryRecord::default() };
            if let Err(error) = take_content(&mut record) {
                prop_assert_eq!(error.kind(), &ErrorKind::Corruption);
            }
        });
        let mut longer = record_with(&"tea ".repeat(100));
        let mut bytes = longer.packed_content.to_vec();
        bytes[1..5].copy_from_slice(&u32::MAX.to_le_bytes());
        longer.packed_content = bytes.into();
        assert_eq!(*take_content(&mut longer).unwrap_err().kind(), ErrorKind::Corruption);
    }
}
