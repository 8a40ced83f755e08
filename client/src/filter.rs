//! Filters: which memories a call is about.
//!
//! ```
//! use cairn_client::field;
//!
//! let filter = field("kind").eq("fact") & field("metadata.topic").is_in(["tea", "coffee"]);
//! let either = filter | !field("importance").exists();
//! ```

use std::ops::{BitAnd, BitOr, Not};

use crate::Value;
use crate::proto;
use crate::value;

/// Which memories a call is about; the server takes at most 16 levels and 256 conditions.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    /// Every one of these holds; holds when empty.
    All(Vec<Filter>),
    /// At least one of these holds; does not hold when empty.
    Any(Vec<Filter>),
    /// This does not hold.
    Not(Box<Filter>),
    /// This test on one field holds.
    Where(Condition),
}

/// A test on one field.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// `scope.agent_id`, `scope.user_id`, `scope.session_id`, `scope.namespace`, `kind`, `created_at`, `updated_at`,
    /// `expires_at`, `importance`, or `metadata.` and a dotted path.
    pub field: String,
    /// What must hold of it.
    pub test: Test,
}

/// What must hold of a field. On a list a test holds when it holds for any element; [`Test::Ne`] and [`Test::Nin`] hold
/// when [`Test::Eq`] and [`Test::In`] hold for none.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// Equal.
    Eq(Value),
    /// Not equal, or missing.
    Ne(Value),
    /// Equal to one of these.
    In(Vec<Value>),
    /// Equal to none of these, or missing.
    Nin(Vec<Value>),
    /// Greater.
    Gt(Value),
    /// Greater or equal.
    Gte(Value),
    /// Less.
    Lt(Value),
    /// Less or equal.
    Lte(Value),
    /// A string that contains this one.
    Contains(String),
    /// A string that starts with this one.
    Prefix(String),
    /// Whether there is a value other than null.
    Exists(bool),
}

/// Begins a condition on a field; see [`Condition::field`] for the names.
pub fn field(name: impl Into<String>) -> Field {
    Field { name: name.into() }
}

/// A field, waiting for its test; made by [`field`].
#[derive(Debug, Clone)]
#[must_use = "a field is not a filter without a test"]
pub struct Field {
    name: String,
}

impl Field {
    fn test(self, test: Test) -> Filter {
        Filter::Where(Condition { field: self.name, test })
    }

    /// Equal to this value.
    pub fn eq(self, value: impl Into<Value>) -> Filter {
        self.test(Test::Eq(value.into()))
    }

    /// Not equal to this value, or missing.
    pub fn ne(self, value: impl Into<Value>) -> Filter {
        self.test(Test::Ne(value.into()))
    }

    /// Equal to one of these values; 1 to 1,000.
    pub fn is_in<V: Into<Value>>(self, values: impl IntoIterator<Item = V>) -> Filter {
        self.test(Test::In(values.into_iter().map(Into::into).collect()))
    }

    /// Equal to none of these values, or missing; 1 to 1,000.
    pub fn not_in<V: Into<Value>>(self, values: impl IntoIterator<Item = V>) -> Filter {
        self.test(Test::Nin(values.into_iter().map(Into::into).collect()))
    }

    /// Greater than this number, string or time.
    pub fn gt(self, value: impl Into<Value>) -> Filter {
        self.test(Test::Gt(value.into()))
    }

    /// Greater than or equal to this number, string or time.
    pub fn gte(self, value: impl Into<Value>) -> Filter {
        self.test(Test::Gte(value.into()))
    }

    /// Less than this number, string or time.
    pub fn lt(self, value: impl Into<Value>) -> Filter {
        self.test(Test::Lt(value.into()))
    }

    /// Less than or equal to this number, string or time.
    pub fn lte(self, value: impl Into<Value>) -> Filter {
        self.test(Test::Lte(value.into()))
    }

    /// A string that contains this one.
    pub fn contains(self, part: impl Into<String>) -> Filter {
        self.test(Test::Contains(part.into()))
    }

    /// A string that starts with this one.
    pub fn starts_with(self, prefix: impl Into<String>) -> Filter {
        self.test(Test::Prefix(prefix.into()))
    }

    /// Has a value other than null.
    pub fn exists(self) -> Filter {
        self.test(Test::Exists(true))
    }

    /// Is missing or null.
    pub fn is_missing(self) -> Filter {
        self.test(Test::Exists(false))
    }
}

impl Filter {
    /// Every one of these holds.
    pub fn all(filters: impl IntoIterator<Item = Filter>) -> Self {
        Self::All(filters.into_iter().collect())
    }

    /// At least one of these holds.
    pub fn any(filters: impl IntoIterator<Item = Filter>) -> Self {
        Self::Any(filters.into_iter().collect())
    }

    /// Both hold. Chains stay flat, since the depth of a filter is limited.
    #[must_use]
    pub fn and(self, other: Filter) -> Self {
        match self {
            Self::All(mut filters) if !filters.is_empty() => {
                filters.push(other);
                Self::All(filters)
            }
            first => Self::All(vec![first, other]),
        }
    }

    /// At least one of both holds. Chains stay flat, since the depth of a filter is limited.
    #[must_use]
    pub fn or(self, other: Filter) -> Self {
        match self {
            Self::Any(mut filters) if !filters.is_empty() => {
                filters.push(other);
                Self::Any(filters)
            }
            first => Self::Any(vec![first, other]),
        }
    }
}

impl BitAnd for Filter {
    type Output = Filter;

    fn bitand(self, other: Filter) -> Filter {
        self.and(other)
    }
}

impl BitOr for Filter {
    type Output = Filter;

    fn bitor(self, other: Filter) -> Filter {
        self.or(other)
    }
}

impl Not for Filter {
    type Output = Filter;

    fn not(self) -> Filter {
        Filter::Not(Box::new(self))
    }
}

impl From<Condition> for Filter {
    fn from(condition: Condition) -> Self {
        Self::Where(condition)
    }
}

impl From<Filter> for proto::Filter {
    fn from(filter: Filter) -> Self {
        use proto::filter::Node;
        let list = |filters: Vec<Filter>| proto::FilterList { filters: filters.into_iter().map(Into::into).collect() };
        let node = match filter {
            Filter::All(filters) => Node::All(list(filters)),
            Filter::Any(filters) => Node::Any(list(filters)),
            Filter::Not(inner) => Node::Not(Box::new((*inner).into())),
            Filter::Where(condition) => Node::Where(condition.into()),
        };
        Self { node: Some(node) }
    }
}

impl From<Condition> for proto::Condition {
    fn from(condition: Condition) -> Self {
        use proto::condition::Test as Wire;
        let test = match condition.test {
            Test::Eq(operand) => Wire::Eq(operand.into()),
            Test::Ne(operand) => Wire::Ne(operand.into()),
            Test::In(operands) => Wire::In(value::list(operands)),
            Test::Nin(operands) => Wire::Nin(value::list(operands)),
            Test::Gt(operand) => Wire::Gt(operand.into()),
            Test::Gte(operand) => Wire::Gte(operand.into()),
            Test::Lt(operand) => Wire::Lt(operand.into()),
            Test::Lte(operand) => Wire::Lte(operand.into()),
            Test::Contains(part) => Wire::Contains(part),
            Test::Prefix(prefix) => Wire::Prefix(prefix),
            Test::Exists(exists) => Wire::Exists(exists),
        };
        Self { field: condition.field, test: Some(test) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_stay_flat() {
        let three = field("a").exists() & field("b").exists() & field("c").exists();
        assert_eq!(three, Filter::all([field("a").exists(), field("b").exists(), field("c").exists()]));
        let mixed = field("a").exists() | (field("b").exists() & field("c").exists());
        assert_eq!(mixed, Filter::any([field("a").exists(), Filter::all([field("b").exists(), field("c").exists()])]));
    }

    #[test]
    fn an_empty_list_keeps_its_meaning_under_and_and_or() {
        let nothing = Filter::any([]);
        assert_eq!(nothing.clone().or(field("a").exists()), Filter::any([nothing, field("a").exists()]));
    }

    #[test]
    fn the_wire_form_names_field_and_test() {
        let wire = proto::Filter::from(!field("metadata.topic").is_in(["tea"]));
        let Some(proto::filter::Node::Not(inner)) = wire.node else { panic!("not a negation") };
        let Some(proto::filter::Node::Where(condition)) = inner.node else { panic!("not a condition") };
        assert_eq!(condition.field, "metadata.topic");
        let Some(proto::condition::Test::In(list)) = condition.test else { panic!("another test") };
        assert_eq!(list.values, [proto::Value::from(Value::from("tea"))]);
    }
}
