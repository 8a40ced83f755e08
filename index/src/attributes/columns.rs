//! One index per field, and the evaluation of filters over them.

use std::borrow::Cow;
use std::ops::Bound;

use roaring::RoaringBitmap;

use super::keywords::Keywords;
use super::matches::{Matches, Slots, union, without};
use super::numbers::Numbers;
use super::row::{Row, RowWriter, Value, field_count, field_number, fields};
use crate::filter::{Condition, Filter, Number, Scalar, Test};
use crate::schema::{FieldType, Schema};

/// The indexes of all fields, in the order of their numbers.
pub(super) struct Columns(Vec<Column>);

struct Column {
    values: Values,
    /// Slots with a value of another type than the field's.
    others: RoaringBitmap,
}

enum Values {
    Text(Keywords),
    Number(Numbers),
    Bool { yes: RoaringBitmap, no: RoaringBitmap },
}

impl Columns {
    pub(super) fn new(schema: &Schema) -> Self {
        let mut columns = Vec::with_capacity(field_count(schema));
        for (_, field_type) in fields(schema) {
            let values = match field_type {
                FieldType::Keyword => Values::Text(Keywords::default()),
                FieldType::Bool => Values::Bool { yes: RoaringBitmap::new(), no: RoaringBitmap::new() },
                FieldType::Integer | FieldType::Float | FieldType::Datetime => Values::Number(Numbers::default()),
            };
            columns.push(Column { values, others: RoaringBitmap::new() });
        }
        Self(columns)
    }

    /// Gives a slot without values those of a row.
    pub(super) fn insert(&mut self, slot: u32, row: &Row) {
        let mut values = row.values().peekable();
        while let Some((number, _)) = values.peek().copied() {
            let column = &mut self.0[number];
            let mut of_field = std::iter::from_fn(|| values.next_if(|(field, _)| *field == number))
                .map(|(_, value)| value)
                .inspect(|value| {
                    if *value == Value::Other {
                        column.others.insert(slot);
                    }
                });
            match &mut column.values {
                Values::Text(texts) => texts.insert(slot, of_field.filter_map(Value::text)),
                Values::Number(numbers) => numbers.insert(slot, of_field.filter_map(Value::number)),
                Values::Bool { yes, no } => of_field.by_ref().for_each(|value| match value {
                    Value::Bool(true) => drop(yes.insert(slot)),
                    Value::Bool(false) => drop(no.insert(slot)),
                    _ => {}
                }),
            }
        }
    }

    /// The values of a slot as they were inserted.
    pub(super) fn row_of(&self, slot: u32) -> Row {
        let mut row = RowWriter::default();
        for (number, column) in self.0.iter().enumerate() {
            // In the order in which a row has them: `Value`'s own.
            if column.others.contains(slot) {
                row.push(number, Value::Other);
            }
            match &column.values {
                Values::Text(texts) => texts.of(slot).for_each(|text| row.push(number, Value::Text(text))),
                Values::Number(numbers) => numbers.of(slot).for_each(|value| row.push(number, Value::Number(value))),
                Values::Bool { yes, no } => {
                    for (values, value) in [(no, false), (yes, true)] {
                        if values.contains(slot) {
                            row.push(number, Value::Bool(value));
                        }
                    }
                }
            }
        }
        row.into_row()
    }

    /// Takes all values of a slot away.
    pub(super) fn remove(&mut self, slot: u32) {
        for column in &mut self.0 {
            column.others.remove(slot);
            match &mut column.values {
                Values::Text(texts) => texts.remove(slot),
                Values::Number(numbers) => numbers.remove(slot),
                Values::Bool { yes, no } => {
                    yes.remove(slot);
                    no.remove(slot);
                }
            }
        }
    }

    /// Which of the live slots match.
    pub(super) fn evaluate<'a>(&'a self, schema: &Schema, filter: &Filter, live: &'a RoaringBitmap) -> Matches<'a> {
        match filter {
            Filter::All(filters) => {
                let mut result = Matches::exactly(Cow::Borrowed(live));
                for filter in filters {
                    result = result.and(self.evaluate(schema, filter, live), live);
                    if result.is_nothing() {
                        break;
                    }
                }
                result
            }
            Filter::Any(filters) => {
                let each = filters.iter().map(|filter| self.evaluate(schema, filter, live));
                each.reduce(|a, b| a.or(b, live)).unwrap_or_else(|| Matches::exactly(Cow::default()))
            }
            Filter::Not(inner) => self.evaluate(schema, inner, live).not(live),
            Filter::Where(condition) => self.condition(schema, condition, live),
        }
    }

    fn condition<'a>(&'a self, schema: &Schema, condition: &Condition, live: &'a RoaringBitmap) -> Matches<'a> {
        match field_number(schema, &condition.field).and_then(|number| self.0.get(number)) {
            Some(column) => Matches::exactly(column.test(&condition.test, live)),
            None => Matches::unknown(live),
        }
    }

    /// Bytes held, estimated.
    pub(super) fn bytes(&self) -> u64 {
        self.0.iter().map(Column::bytes).sum()
    }
}

impl Column {
    fn test<'a>(&'a self, test: &Test, live: &'a RoaringBitmap) -> Slots<'a> {
        match test {
            Test::Eq(operand) => self.equal(operand, live),
            Test::Ne(operand) => without(live, &self.equal(operand, live)),
            Test::In(operands) => self.equal_any(operands, live),
            Test::Nin(operands) => without(live, &self.equal_any(operands, live)),
            Test::Gt(operand) => self.range(Side::Above(operand, false), live),
            Test::Gte(operand) => self.range(Side::Above(operand, true), live),
            Test::Lt(operand) => self.range(Side::Below(operand, false), live),
            Test::Lte(operand) => self.range(Side::Below(operand, true), live),
            Test::Contains(part) => self.text(|texts| texts.containing(part, live)),
            Test::Prefix(part) => self.text(|texts| texts.with_prefix(part, live)),
            Test::Within(root) => self.text(|texts| texts.within(root, live)),
            Test::Exists(true) => Cow::Owned(self.any(live)),
            Test::Exists(false) => without(live, &self.any(live)),
        }
    }

    fn equal(&self, operand: &Scalar, live: &RoaringBitmap) -> Slots<'_> {
        match (&self.values, operand) {
            (Values::Text(texts), Scalar::String(text)) => texts.equal(text),
            (Values::Bool { yes, .. }, Scalar::Bool(true)) => Cow::Borrowed(yes),
            (Values::Bool { no, .. }, Scalar::Bool(false)) => Cow::Borrowed(no),
            (Values::Number(numbers), operand) => number_of(operand).map_or_else(Cow::default, |number| {
                Cow::Owned(numbers.range((Bound::Included(number), Bound::Included(number)), live))
            }),
            _ => Cow::default(),
        }
    }

    fn equal_any(&self, operands: &[Scalar], live: &RoaringBitmap) -> Slots<'_> {
        let each = operands.iter().map(|operand| self.equal(operand, live));
        each.reduce(|all, next| union(all, next, live)).unwrap_or_default()
    }

    fn range(&self, side: Side<'_>, live: &RoaringBitmap) -> Slots<'_> {
        Cow::Owned(match (&self.values, side.operand()) {
            (Values::Text(texts), Scalar::String(text)) => texts.range(side.around(text.as_str()), live),
            (Values::Number(numbers), operand) => {
                number_of(operand).map_or_else(RoaringBitmap::new, |number| numbers.range(side.around(number), live))
            }
            _ => RoaringBitmap::new(),
        })
    }

    fn text(&self, find: impl FnOnce(&Keywords) -> RoaringBitmap) -> Slots<'_> {
        if let Values::Text(texts) = &self.values { Cow::Owned(find(texts)) } else { Cow::default() }
    }

    fn any(&self, live: &RoaringBitmap) -> RoaringBitmap {
        let of_type = match &self.values {
            Values::Text(texts) => texts.any(live),
            Values::Number(numbers) => numbers.any(live),
            Values::Bool { yes, no } => yes | no,
        };
        of_type | &self.others
    }

    fn bytes(&self) -> u64 {
        let values = match &self.values {
            Values::Text(texts) => texts.bytes(),
            Values::Number(numbers) => numbers.bytes(),
            Values::Bool { yes, no } => (yes.serialized_size() + no.serialized_size()) as u64,
        };
        values + (size_of::<Self>() + self.others.serialized_size()) as u64
    }
}

/// One side of an operand, with or without itself.
#[derive(Clone, Copy)]
enum Side<'a> {
    Above(&'a Scalar, bool),
    Below(&'a Scalar, bool),
}

impl<'a> Side<'a> {
    fn operand(self) -> &'a Scalar {
        match self {
            Self::Above(operand, _) | Self::Below(operand, _) => operand,
        }
    }

    fn around<T>(self, value: T) -> (Bound<T>, Bound<T>) {
        match self {
            Self::Above(_, true) => (Bound::Included(value), Bound::Unbounded),
            Self::Above(_, false) => (Bound::Excluded(value), Bound::Unbounded),
            Self::Below(_, true) => (Bound::Unbounded, Bound::Included(value)),
            Self::Below(_, false) => (Bound::Unbounded, Bound::Excluded(value)),
        }
    }
}

/// The operand as a number or a time; a column holds only one of both, and operands are checked to be of its type.
fn number_of(operand: &Scalar) -> Option<Number> {
    match operand {
        Scalar::Timestamp(micros) => Some(Number::Integer(*micros)),
        other => other.as_ref().number(),
    }
}

impl<'a> Value<'a> {
    fn text(self) -> Option<&'a str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    fn number(self) -> Option<Number> {
        if let Self::Number(number) = self { Some(number) } else { None }
    }
}
