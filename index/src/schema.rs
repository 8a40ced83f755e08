//! Which fields of a memory are indexed, and as what.
//!
//! Scope, kind, times and importance are always indexed. Metadata fields are indexed where the space's schema names them;
//! all others still filter correctly, by testing records.

use std::sync::Arc;

use crate::filter::Field;

/// The type of an indexed field's values or, where it holds lists, of their elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FieldType {
    /// Strings.
    Keyword,
    /// Numbers that are meant to be whole; compared as numbers.
    Integer,
    /// Numbers.
    Float,
    /// Booleans.
    Bool,
    /// Timestamps.
    Datetime,
}

/// The metadata fields of a space that are indexed. Paths are unique and kept in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Schema {
    fields: Arc<[(String, FieldType)]>,
}

/// Why a schema cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// Two fields have the same path.
    #[error("the field `{0}` is there twice")]
    Duplicate(String),
    /// A path is empty, or has an empty segment.
    #[error("the path `{0}` is empty or has an empty segment")]
    BadPath(String),
    /// More fields than are allowed.
    #[error("{0} fields, but at most {MAX_FIELDS} can be indexed")]
    TooMany(usize),
}

/// The most metadata fields that a schema can hold.
pub const MAX_FIELDS: usize = 64;

impl Schema {
    /// A schema of these dotted metadata paths (without the leading `metadata.`).
    pub fn new(fields: impl IntoIterator<Item = (String, FieldType)>) -> Result<Self, SchemaError> {
        let mut fields: Vec<_> = fields.into_iter().collect();
        if fields.len() > MAX_FIELDS {
            return Err(SchemaError::TooMany(fields.len()));
        }
        fields.sort_by(|a, b| a.0.cmp(&b.0));
        for (path, _) in &fields {
            if path.split('.').any(str::is_empty) {
                return Err(SchemaError::BadPath(path.clone()));
            }
        }
        if let Some(pair) = fields.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(SchemaError::Duplicate(pair[0].0.clone()));
        }
        Ok(Self { fields: fields.into() })
    }

    /// The indexed metadata paths with their types, in the order of the paths.
    pub fn fields(&self) -> &[(String, FieldType)] {
        &self.fields
    }

    /// The type of a field's values; `None` for a metadata field that is not indexed, whose values can be of any type.
    pub fn type_of(&self, field: &Field) -> Option<FieldType> {
        match field {
            Field::AgentId | Field::UserId | Field::SessionId | Field::Namespace | Field::Kind => {
                Some(FieldType::Keyword)
            }
            Field::CreatedAt | Field::UpdatedAt | Field::ExpiresAt => Some(FieldType::Datetime),
            Field::Importance => Some(FieldType::Float),
            Field::Metadata(path) => self.type_of_path(path),
        }
    }

    fn type_of_path(&self, path: &str) -> Option<FieldType> {
        let found = self.fields.binary_search_by(|(known, _)| known.as_str().cmp(path));
        found.ok().map(|position| self.fields[position].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_checked_and_found() {
        let schema = Schema::new([("b.c".into(), FieldType::Bool), ("a".into(), FieldType::Keyword)]).unwrap();
        assert_eq!(schema.type_of(&Field::Metadata("b.c".into())), Some(FieldType::Bool));
        assert_eq!(schema.type_of(&Field::Metadata("b".into())), None);
        assert_eq!(schema.type_of(&Field::Importance), Some(FieldType::Float));
        let twice = Schema::new([("a".into(), FieldType::Bool), ("a".into(), FieldType::Float)]);
        assert_eq!(twice, Err(SchemaError::Duplicate("a".into())));
        assert_eq!(Schema::new([("a..b".into(), FieldType::Bool)]), Err(SchemaError::BadPath("a..b".into())));
        let many = (0..65).map(|number| (format!("f{number}"), FieldType::Bool));
        assert_eq!(Schema::new(many), Err(SchemaError::TooMany(65)));
    }
}
