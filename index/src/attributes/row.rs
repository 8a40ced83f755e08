//! A memory's indexed values in a few bytes.
//!
//! | bytes | content |
//! |---|---|
//! | 1 | the field: 0 to 8 built in, then the schema's fields in order |
//! | 1 | the kind of value |
//! | 0, 1, 8, or 4 + n | nothing, a boolean, a number or time in little-endian order, a string's length and bytes |
//!
//! repeated for each value. A field's values are in ascending order, each once. A value that its field's type does not take
//! in (a map, a string where numbers are indexed) is only known to exist.

use zeroize::Zeroize;

use super::matches::Truth;
use crate::filter::{Field, FieldSource, Filter, Number, ScalarRef};
use crate::schema::{FieldType, Schema};

/// The fields that every partition indexes, in the order of their numbers.
const BUILT_IN: [Field; 9] = [
    Field::AgentId,
    Field::UserId,
    Field::SessionId,
    Field::Namespace,
    Field::Kind,
    Field::CreatedAt,
    Field::UpdatedAt,
    Field::ExpiresAt,
    Field::Importance,
];

/// A memory's indexed values. Overwritten when dropped.
#[derive(Default, Clone)]
pub(crate) struct Row(Box<[u8]>);

/// An indexed value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Value<'a> {
    /// Of another type than the field's.
    Other,
    /// A boolean.
    Bool(bool),
    /// A number, or a time in microseconds.
    Number(Number),
    /// A string.
    Text(&'a str),
}

/// How many fields a schema indexes in all.
pub(super) fn field_count(schema: &Schema) -> usize {
    BUILT_IN.len() + schema.fields().len()
}

/// All indexed fields with their types, in the order of their numbers.
pub(super) fn fields(schema: &Schema) -> impl Iterator<Item = (Field, FieldType)> {
    let built_in =
        BUILT_IN.into_iter().filter_map(|field| schema.type_of(&field).map(|field_type| (field, field_type)));
    let named = schema.fields().iter().map(|(path, field_type)| (Field::Metadata(path.clone()), *field_type));
    built_in.chain(named)
}

/// The number of an indexed field.
pub(super) fn field_number(schema: &Schema, field: &Field) -> Option<usize> {
    match field {
        Field::Metadata(path) => {
            let position = schema.fields().binary_search_by(|(known, _)| known.as_str().cmp(path)).ok()?;
            Some(BUILT_IN.len() + position)
        }
        built_in => BUILT_IN.iter().position(|known| known == built_in),
    }
}

impl Row {
    /// Reads the indexed fields of a document.
    pub(super) fn read<S: FieldSource + ?Sized>(schema: &Schema, source: &S) -> Self {
        let mut bytes = Vec::new();
        for (number, (field, field_type)) in fields(schema).enumerate() {
            let start = bytes.len();
            let mut values = 0;
            source.any_value(&field, &mut |value| {
                write(&mut bytes, number as u8, Value::of(value, field_type));
                values += 1;
                false
            });
            if values > 1 {
                sort_values(&mut bytes, start);
            }
        }
        let row = Self(bytes.as_slice().into());
        bytes.zeroize();
        row
    }

    /// Takes bytes as [`Self::as_bytes`] gives them; `None` where they are not such, or do not go with the schema.
    pub(crate) fn from_bytes(bytes: &[u8], schema: &Schema) -> Option<Self> {
        let types: Vec<FieldType> = fields(schema).map(|(_, field_type)| field_type).collect();
        let mut written = RowWriter::default();
        let mut before = None;
        for (number, value) in values(bytes) {
            let is_of_type = match (types.get(number)?, value) {
                (_, Value::Other) | (FieldType::Keyword, Value::Text(_)) | (FieldType::Bool, Value::Bool(_)) => true,
                (FieldType::Datetime, Value::Number(value)) => matches!(value, Number::Integer(_)),
                (FieldType::Integer | FieldType::Float, Value::Number(Number::Integer(_))) => true,
                (FieldType::Integer | FieldType::Float, Value::Number(Number::Double(value))) => {
                    Number::from_double(value) == Some(Number::Double(value))
                }
                _ => false,
            };
            if !is_of_type || before.is_some_and(|before| before >= (number, value)) {
                return None;
            }
            before = Some((number, value));
            written.push(number, value);
        }
        // What was read must be all there is.
        (written.0 == bytes).then(|| written.into_row())
    }

    /// The values as bytes; see above.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// All values with their fields' numbers.
    pub(super) fn values(&self) -> impl Iterator<Item = (usize, Value<'_>)> {
        values(&self.0)
    }

    /// Whether the memory matches a filter, as far as indexed fields tell.
    pub(super) fn test(&self, schema: &Schema, filter: &Filter) -> Truth {
        Truth::of(filter, schema, &|condition| condition.matches(&RowSource { row: self, schema }))
    }

    /// Bytes on the heap, with what the allocator adds.
    pub(super) fn bytes(&self) -> u64 {
        if self.0.is_empty() { 0 } else { self.0.len() as u64 + 16 }
    }

    /// Bytes that the values take.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// A row that is made value by value, in order.
#[derive(Default)]
pub(super) struct RowWriter(Vec<u8>);

impl RowWriter {
    pub(super) fn push(&mut self, field: usize, value: Value<'_>) {
        write(&mut self.0, field as u8, value);
    }

    pub(super) fn into_row(mut self) -> Row {
        Row(std::mem::take(&mut self.0).into())
    }
}

impl Drop for RowWriter {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// A row as a document, whose fields are the indexed ones.
struct RowSource<'a> {
    row: &'a Row,
    schema: &'a Schema,
}

impl FieldSource for RowSource<'_> {
    fn any_value(&self, field: &Field, test: &mut dyn FnMut(ScalarRef<'_>) -> bool) -> bool {
        let Some(wanted) = field_number(self.schema, field) else { return false };
        let is_time = self.schema.type_of(field) == Some(FieldType::Datetime);
        let mut of_field = self.row.values().filter(|(number, _)| *number == wanted);
        of_field.any(|(_, value)| {
            test(match value {
                Value::Other => ScalarRef::Map,
                Value::Bool(value) => ScalarRef::Bool(value),
                Value::Number(Number::Integer(value)) if is_time => ScalarRef::Timestamp(value),
                Value::Number(Number::Integer(value)) => ScalarRef::Integer(value),
                Value::Number(Number::Double(value)) => ScalarRef::Double(value),
                Value::Text(value) => ScalarRef::String(value),
            })
        })
    }
}

impl<'a> Value<'a> {
    /// The value as its field's type takes it in.
    fn of(value: ScalarRef<'a>, field_type: FieldType) -> Self {
        match (field_type, value) {
            (FieldType::Keyword, ScalarRef::String(text)) => Self::Text(text),
            (FieldType::Bool, ScalarRef::Bool(value)) => Self::Bool(value),
            (FieldType::Datetime, ScalarRef::Timestamp(micros)) => Self::Number(Number::Integer(micros)),
            (FieldType::Integer | FieldType::Float, value) => value.number().map_or(Self::Other, Self::Number),
            _ => Self::Other,
        }
    }
}

const KIND_OTHER: u8 = 0;
const KIND_BOOL: u8 = 1;
const KIND_INTEGER: u8 = 2;
const KIND_DOUBLE: u8 = 3;
const KIND_TEXT: u8 = 4;

fn write(bytes: &mut Vec<u8>, field: u8, value: Value<'_>) {
    bytes.push(field);
    match value {
        Value::Other => bytes.push(KIND_OTHER),
        Value::Bool(value) => bytes.extend([KIND_BOOL, u8::from(value)]),
        Value::Number(Number::Integer(value)) => {
            bytes.push(KIND_INTEGER);
            bytes.extend(value.to_le_bytes());
        }
        Value::Number(Number::Double(value)) => {
            bytes.push(KIND_DOUBLE);
            bytes.extend(value.to_le_bytes());
        }
        Value::Text(text) => {
            bytes.push(KIND_TEXT);
            bytes.extend((text.len() as u32).to_le_bytes());
            bytes.extend(text.as_bytes());
        }
    }
}

/// Brings the values from `start` on, all of one field, into order and leaves each of them once.
fn sort_values(bytes: &mut Vec<u8>, start: usize) {
    let mut copy = bytes[start..].to_vec();
    {
        let mut sorted: Vec<_> = values(&copy).collect();
        sorted.sort_unstable();
        sorted.dedup();
        bytes.truncate(start);
        for (field, value) in sorted {
            write(bytes, field as u8, value);
        }
    }
    copy.zeroize();
}

/// Reads values as [`write`] wrote them; stops where the bytes end.
fn values(mut bytes: &[u8]) -> impl Iterator<Item = (usize, Value<'_>)> {
    std::iter::from_fn(move || {
        let [field, kind, rest @ ..] = bytes else { return None };
        let (value, rest) = match *kind {
            KIND_BOOL => (Value::Bool(*rest.first()? != 0), rest.get(1..)?),
            KIND_INTEGER => {
                let (number, rest) = rest.split_first_chunk()?;
                (Value::Number(Number::Integer(i64::from_le_bytes(*number))), rest)
            }
            KIND_DOUBLE => {
                let (number, rest) = rest.split_first_chunk()?;
                (Value::Number(Number::Double(f64::from_le_bytes(*number))), rest)
            }
            KIND_TEXT => {
                let (length, rest) = rest.split_first_chunk()?;
                let (text, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
                (Value::Text(std::str::from_utf8(text).ok()?), rest)
            }
            _ => (Value::Other, rest),
        };
        bytes = rest;
        Some((usize::from(*field), value))
    })
}
