//! Reads: every one works on a view of the store in one state, at least as new as its read point.
//!
//! | file | holds |
//! |---|---|
//! | `memories` | get |
//! | `list` | list, in order of time |
//! | `history` | the versions of a memory |
//! | `search` | search and count, over the partition |
//! | `spaces` | spaces and namespaces |
//! | `feed` | changes behind a position |
//! | `page` | page tokens |

mod feed;
mod history;
mod list;
mod memories;
mod page;
mod search;
mod spaces;

pub use feed::{FeedCursor, FeedPage};

use std::sync::Arc;

use cairn_proto::storage::MemoryRecord;
use cairn_proto::v1;
use cairn_proto::v1::vector::Data;
use prost::Message;

use crate::apply::{vector_from_row, wire_record};
use crate::error::{Error, Result};
use crate::known_spaces::KnownSpaces;
use crate::partitions::Partitions;
use crate::position::Position;
use crate::requests::check_space_name;
use crate::requests::limits::{ANSWER_BYTES_MAX, PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX};
use crate::spaces::SpaceInfo;
use crate::store::keys::{Key, Kind, LookupId, SpaceRef, end_of_time, prefix_of_kind};
use crate::store::rocks::{Store, View};
use crate::store::{Rows, decode};

/// What a read works with.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    pub(crate) store: &'a Store,
    pub(crate) partitions: &'a Partitions,
    pub(crate) known: &'a KnownSpaces,
    pub(crate) tenant: u64,
    /// Memories that expire at or before this time are not seen.
    pub(crate) time_micros: i64,
}

impl Reader<'_> {
    /// The space of a request, in a view.
    fn space(&self, view: &View<'_>, name: &str) -> Result<Arc<SpaceInfo>> {
        let index = view.applied_index()?;
        if let Some(space) = self.known.get(self.tenant, name, index) {
            return Ok(space);
        }
        check_space_name("space", name)?;
        let space = Arc::new(crate::spaces::resolve(view, view.sealer(), self.tenant, name)?);
        self.known.keep(self.tenant, name, index, &space);
        Ok(space)
    }
}

/// The position of a view, as clients get it.
fn position(view: &View<'_>) -> Result<String> {
    Ok(Position { group: view.sealer().group(), index: view.applied_index()? }.encode())
}

/// A memory's record; `None` where it is not there.
fn record(view: &View<'_>, space: &SpaceInfo, memory: LookupId) -> Result<Option<MemoryRecord>> {
    view.get_message(&Key::Memory { space: space.reference, memory })
}

/// A record as clients see it, with its vectors where they are asked for.
fn wire_memory(
    view: &View<'_>,
    space: &SpaceInfo,
    memory: LookupId,
    record: MemoryRecord,
    include_vectors: bool,
) -> Result<v1::Memory> {
    let mut vectors = Vec::new();
    if include_vectors {
        for reference in &record.vectors {
            let embedding = reference.embedding_id as u16;
            let row = view.get(&Key::Vector { space: space.reference, embedding, memory })?;
            let values = row.as_deref().and_then(vector_from_row);
            let values =
                values.ok_or_else(|| Error::corruption("a memory's vector row is missing or has a bad length"))?;
            let data = Data::Dense(v1::DenseVector { values });
            vectors.push(v1::Vector { embedding: space.embedding.clone(), data: Some(data) });
        }
    }
    Ok(v1::Memory { vectors, ..wire_record(record)? })
}

/// The memories of a space whose time is over at the read's time but which are not removed yet. There are few: the
/// leader removes them soon.
fn expired_memories(view: &View<'_>, space: SpaceRef, time_micros: i64) -> Result<Vec<LookupId>> {
    let group = view.sealer().group();
    let start = prefix_of_kind(group, Kind::Expiry);
    let mut rows = view.cursor(&start, &end_of_time(group, Kind::Expiry, time_micros), false);
    let mut found = Vec::new();
    while let Some((key, _)) = rows.item()? {
        if let (_, Key::Expiry { space: of, memory, .. }) = Key::decode(key)?
            && of == space
        {
            found.push(memory);
        }
        rows.advance();
    }
    Ok(found)
}

/// How many bytes an answer has so far.
#[derive(Default)]
struct AnswerSize {
    bytes: usize,
}

impl AnswerSize {
    /// Counts a memory; an answer that no client should have to hold is refused.
    fn add(&mut self, memory: &v1::Memory) -> Result<()> {
        self.bytes += memory.encoded_len();
        if self.bytes > ANSWER_BYTES_MAX {
            let message =
                format!("the answer has more than {ANSWER_BYTES_MAX} bytes; ask for fewer memories at a time");
            return Err(Error::failed_precondition("ANSWER_TOO_LARGE", message));
        }
        Ok(())
    }
}

/// The number of items of a page that a request asks for.
fn page_size(asked: i32) -> Result<usize> {
    match asked {
        0 => Ok(PAGE_SIZE_DEFAULT),
        1..=PAGE_SIZE_MAX => Ok(asked as usize),
        _ => Err(Error::invalid("page_size", format!("is {asked}; 0 to {PAGE_SIZE_MAX} are allowed"))),
    }
}

/// Decodes a stored row of a view's cursor.
pub(crate) fn open_message<M: Message + Default>(view: &View<'_>, key: &[u8], value: &[u8]) -> Result<M> {
    let (_, key) = Key::decode(key)?;
    decode(&key, &view.sealer().open_row(&key, value)?)
}
