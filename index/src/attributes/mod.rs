//! The indexed fields of a partition's memories, and which memories match a filter.
//!
//! ```text
//!   small partition:  rows      each memory's values in a few bytes, tested one after the other
//!   larger:           columns   per field: strings -> slots, numbers and times in order, booleans as two bitmaps
//! ```
//!
//! A partition starts with rows, which cost little more than the values, and goes over to columns as it grows. Both answer
//! the same. Fields without an index are unknown here: a filter on them gives the memories that match for certain and those
//! that may ([`Matches`]), and the rest is decided by testing records.
//!
//! | file | holds |
//! |---|---|
//! | `row.rs` | a memory's values in a few bytes |
//! | `columns.rs` | one index per field, and the evaluation of filters over them |
//! | `keywords.rs`, `numbers.rs` | the index of one field |
//! | `matches.rs` | which memories match, known from both sides |
//! | `postings.rs`, `dense.rs` | sets of slots: small and kept, large and passing |

mod columns;
mod dense;
mod keywords;
mod matches;
mod numbers;
mod postings;
mod row;

use std::borrow::Cow;

use roaring::RoaringBitmap;

use crate::filter::{FieldSource, Filter};
use crate::schema::Schema;
use crate::slots::push_tight;

use columns::Columns;
pub use matches::Matches;
use matches::Truth;
pub(crate) use row::Row;

/// A partition with more memories than this goes over to columns.
const ROWS_MAX: usize = 64;

/// The indexed values of all memories of a partition.
pub(crate) struct Attributes {
    schema: Schema,
    live: RoaringBitmap,
    kept: Kept,
}

enum Kept {
    /// By slot; empty for free slots.
    Rows { rows: Vec<Row>, bytes: u64 },
    /// By field.
    Columns(Box<Columns>),
}

impl Attributes {
    pub(crate) fn new(schema: Schema) -> Self {
        Self { schema, live: RoaringBitmap::new(), kept: Kept::Rows { rows: Vec::new(), bytes: 0 } }
    }

    /// The slots in use.
    pub(crate) fn live(&self) -> &RoaringBitmap {
        &self.live
    }

    /// Reads the indexed fields of a document.
    pub(crate) fn read<S: FieldSource + ?Sized>(&self, source: &S) -> Row {
        Row::read(&self.schema, source)
    }

    /// Puts a memory's values into a free slot.
    pub(crate) fn insert(&mut self, slot: u32, row: Row) {
        self.live.insert(slot);
        if self.live.len() as usize > ROWS_MAX {
            self.change_to_columns();
        }
        match &mut self.kept {
            Kept::Columns(columns) => columns.insert(slot, &row),
            Kept::Rows { rows, bytes } => {
                while rows.len() <= slot as usize {
                    push_tight(rows, Row::default());
                }
                *bytes += row.bytes();
                rows[slot as usize] = row;
            }
        }
    }

    /// Forgets a memory's values and overwrites them. Returns whether there were any.
    pub(crate) fn remove(&mut self, slot: u32) -> bool {
        if !self.live.remove(slot) {
            return false;
        }
        match &mut self.kept {
            Kept::Columns(columns) => columns.remove(slot),
            Kept::Rows { rows, bytes } => {
                let row = std::mem::take(&mut rows[slot as usize]);
                *bytes -= row.bytes();
            }
        }
        if self.live.is_empty() {
            self.kept = Kept::Rows { rows: Vec::new(), bytes: 0 };
        }
        true
    }

    /// The values of a slot as they were inserted.
    pub(crate) fn row_of(&self, slot: u32) -> Row {
        match &self.kept {
            Kept::Columns(columns) => columns.row_of(slot),
            Kept::Rows { rows, .. } => rows.get(slot as usize).cloned().unwrap_or_default(),
        }
    }

    fn change_to_columns(&mut self) {
        let Kept::Rows { rows, .. } = &self.kept else { return };
        let mut columns = Columns::new(&self.schema);
        for (slot, row) in (0..).zip(rows) {
            columns.insert(slot, row);
        }
        self.kept = Kept::Columns(Box::new(columns));
    }

    /// The memories that match. Operands must have types that their fields can have ([`Filter::check`]).
    pub(crate) fn matches(&self, filter: &Filter) -> Matches<'_> {
        let matches = match &self.kept {
            Kept::Columns(columns) => columns.evaluate(&self.schema, filter, &self.live),
            Kept::Rows { rows, .. } => self.match_rows(rows, filter),
        };
        matches.settled(&self.live)
    }

    fn match_rows(&self, rows: &[Row], filter: &Filter) -> Matches<'_> {
        let (mut certain, mut possible) = (RoaringBitmap::new(), RoaringBitmap::new());
        for slot in &self.live {
            let truth = rows[slot as usize].test(&self.schema, filter);
            if truth != Truth::No {
                possible.insert(slot);
            }
            if truth == Truth::Yes {
                certain.insert(slot);
            }
        }
        Matches::between(Cow::Owned(certain), Cow::Owned(possible))
    }

    /// Bytes held, estimated from what is kept.
    pub(crate) fn bytes(&self) -> u64 {
        let kept = match &self.kept {
            Kept::Columns(columns) => columns.bytes(),
            Kept::Rows { rows, bytes } => (rows.capacity() * size_of::<Row>()) as u64 + bytes,
        };
        kept + self.live.serialized_size() as u64
    }
}

#[cfg(test)]
mod tests;
