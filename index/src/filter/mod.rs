//! The filter tree and its plain definition: what it means for one document to match.
//!
//! [`Filter::matches`] is that definition. It serves records whose fields are not indexed and deletes by filter, and it is
//! the model against which the attribute index is tested. Its rules:
//!
//! - A test on a list holds when it holds for any element; lists in lists are taken apart.
//! - A missing or null field, and a list of nothing else, meets only `ne`, `nin` and `exists: false`.
//! - Integers and doubles compare as exact numbers: `2 == 2.0`, and 2^53 + 1 is not 2^53 as a double.
//! - Values of different types are not equal and have no order.

mod check;
mod number;

pub use check::{FilterError, MAX_CONDITIONS, MAX_DEPTH, MAX_OPERANDS};
pub(crate) use number::Number;

use std::cmp::Ordering;

/// Which memories a call is about.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    /// Every one of these holds; holds when empty.
    All(Vec<Filter>),
    /// At least one of these holds; does not hold when empty.
    Any(Vec<Filter>),
    /// This does not hold.
    Not(Box<Filter>),
    /// This test holds.
    Where(Condition),
}

/// A test on one field.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// The field.
    pub field: Field,
    /// The test.
    pub test: Test,
}

/// A field of a memory that can be filtered on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Field {
    /// `scope.agent_id`, a string.
    AgentId,
    /// `scope.user_id`, a string.
    UserId,
    /// `scope.session_id`, a string.
    SessionId,
    /// `scope.namespace`, a string.
    Namespace,
    /// `kind`, a string.
    Kind,
    /// `created_at`, a timestamp.
    CreatedAt,
    /// `updated_at`, a timestamp.
    UpdatedAt,
    /// `expires_at`, a timestamp; missing where the memory never expires.
    ExpiresAt,
    /// `importance`, a number; missing where none was given.
    Importance,
    /// `metadata.` and this dotted path.
    Metadata(String),
}

/// What is asked of a field.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// Equal.
    Eq(Scalar),
    /// Not equal, or missing.
    Ne(Scalar),
    /// Equal to one of these.
    In(Vec<Scalar>),
    /// Equal to none of these, or missing.
    Nin(Vec<Scalar>),
    /// Greater. Numbers, strings (by bytes) and timestamps have an order.
    Gt(Scalar),
    /// Greater or equal.
    Gte(Scalar),
    /// Less.
    Lt(Scalar),
    /// Less or equal.
    Lte(Scalar),
    /// A string that contains this one.
    Contains(String),
    /// A string that starts with this one.
    Prefix(String),
    /// Whether the field has a value other than null.
    Exists(bool),
    /// The namespace itself or one below it: `a/b` takes in `a/b/c`, not `a/bc`. From a request's scope.
    Within(String),
}

/// An operand of a test.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    /// A boolean.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A number; finite.
    Double(f64),
    /// A string.
    String(String),
    /// Microseconds since 1970-01-01 UTC.
    Timestamp(i64),
}

/// A value of a document's field, other than null.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ScalarRef<'a> {
    /// A boolean.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A number.
    Double(f64),
    /// A string.
    String(&'a str),
    /// Microseconds since 1970-01-01 UTC.
    Timestamp(i64),
    /// A map: it exists, but equals nothing and has no order.
    Map,
}

/// A document that can be filtered and indexed.
pub trait FieldSource {
    /// Whether `test` holds for any value of the field, stopping at the first one. Nulls are left out, lists are taken
    /// apart at every level, and a map is [`ScalarRef::Map`]. A dotted path goes through maps, not through lists.
    fn any_value(&self, field: &Field, test: &mut dyn FnMut(ScalarRef<'_>) -> bool) -> bool;
}

/// A document without any field.
impl FieldSource for () {
    fn any_value(&self, _field: &Field, _test: &mut dyn FnMut(ScalarRef<'_>) -> bool) -> bool {
        false
    }
}

/// A document given as its fields' values; fields that are named twice add up.
impl FieldSource for [(Field, Vec<Scalar>)] {
    fn any_value(&self, field: &Field, test: &mut dyn FnMut(ScalarRef<'_>) -> bool) -> bool {
        let of_field = self.iter().filter(|(name, _)| name == field);
        of_field.flat_map(|(_, values)| values).any(|value| test(value.as_ref()))
    }
}

impl Filter {
    /// The filter that every document matches.
    pub fn everything() -> Self {
        Self::All(Vec::new())
    }

    /// Whether the document matches: the definition of what a filter means.
    pub fn matches<S: FieldSource + ?Sized>(&self, source: &S) -> bool {
        match self {
            Self::All(filters) => filters.iter().all(|filter| filter.matches(source)),
            Self::Any(filters) => filters.iter().any(|filter| filter.matches(source)),
            Self::Not(filter) => !filter.matches(source),
            Self::Where(condition) => condition.matches(source),
        }
    }
}

impl Condition {
    /// Whether the document's field meets the test.
    pub fn matches<S: FieldSource + ?Sized>(&self, source: &S) -> bool {
        let any = |test: &mut dyn FnMut(ScalarRef<'_>) -> bool| source.any_value(&self.field, test);
        match &self.test {
            Test::Eq(operand) => any(&mut |value| value.equals(operand)),
            Test::Ne(operand) => !any(&mut |value| value.equals(operand)),
            Test::In(operands) => any(&mut |value| operands.iter().any(|operand| value.equals(operand))),
            Test::Nin(operands) => !any(&mut |value| operands.iter().any(|operand| value.equals(operand))),
            Test::Gt(operand) => any(&mut |value| value.order(operand).is_some_and(Ordering::is_gt)),
            Test::Gte(operand) => any(&mut |value| value.order(operand).is_some_and(Ordering::is_ge)),
            Test::Lt(operand) => any(&mut |value| value.order(operand).is_some_and(Ordering::is_lt)),
            Test::Lte(operand) => any(&mut |value| value.order(operand).is_some_and(Ordering::is_le)),
            Test::Contains(part) => any(&mut |value| value.string().is_some_and(|text| text.contains(part.as_str()))),
            Test::Prefix(part) => any(&mut |value| value.string().is_some_and(|text| text.starts_with(part.as_str()))),
            Test::Exists(wanted) => any(&mut |_| true) == *wanted,
            Test::Within(root) => any(&mut |value| value.string().is_some_and(|path| is_within(path, root))),
        }
    }
}

/// Whether a namespace path is `root` or lies below it.
pub fn is_within(path: &str, root: &str) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Scalar {
    /// The operand as a value.
    pub fn as_ref(&self) -> ScalarRef<'_> {
        match self {
            Self::Bool(value) => ScalarRef::Bool(*value),
            Self::Integer(value) => ScalarRef::Integer(*value),
            Self::Double(value) => ScalarRef::Double(*value),
            Self::String(value) => ScalarRef::String(value),
            Self::Timestamp(value) => ScalarRef::Timestamp(*value),
        }
    }
}

impl<'a> ScalarRef<'a> {
    fn equals(self, operand: &Scalar) -> bool {
        match (self, operand) {
            (Self::Bool(value), Scalar::Bool(operand)) => value == *operand,
            _ => self.order(operand) == Some(Ordering::Equal),
        }
    }

    /// How the value stands to the operand; `None` where their types differ or have no order.
    fn order(self, operand: &Scalar) -> Option<Ordering> {
        match (self, operand) {
            (Self::String(value), Scalar::String(operand)) => Some(value.cmp(operand)),
            (Self::Timestamp(value), Scalar::Timestamp(operand)) => Some(value.cmp(operand)),
            _ => Some(self.number()?.cmp(&operand.as_ref().number()?)),
        }
    }

    /// The value as a number; `None` for other types and NaN.
    pub(crate) fn number(self) -> Option<Number> {
        match self {
            Self::Integer(value) => Some(Number::from_integer(value)),
            Self::Double(value) => Number::from_double(value),
            _ => None,
        }
    }

    fn string(self) -> Option<&'a str> {
        match self {
            Self::String(value) => Some(value),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
