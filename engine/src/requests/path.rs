//! The names of a request's fields, and what is wrong with them.

use std::fmt;

use crate::error::{Error, Result, Violation};

/// A field's path, such as `memories[17].vectors[0]`; put together only where it is needed in a message.
#[derive(Clone, Copy)]
pub(crate) struct FieldPath<'a> {
    parent: Option<&'a FieldPath<'a>>,
    name: &'a str,
    position: Option<usize>,
}

impl<'a> FieldPath<'a> {
    /// A field of the request itself.
    pub(crate) fn root(name: &'a str) -> Self {
        Self { parent: None, name, position: None }
    }

    /// A field of this field.
    pub(crate) fn field(&'a self, name: &'a str) -> Self {
        Self { parent: Some(self), name, position: None }
    }

    /// An element of this field.
    pub(crate) fn at(self, position: usize) -> Self {
        Self { position: Some(position), ..self }
    }
}

impl fmt::Display for FieldPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            write!(f, "{parent}")?;
            if !self.name.is_empty() {
                write!(f, ".")?;
            }
        }
        write!(f, "{}", self.name)?;
        self.position.map_or(Ok(()), |position| write!(f, "[{position}]"))
    }
}

/// The most violations that one answer lists.
const VIOLATIONS_MAX: usize = 20;

/// The most bytes of a path that an answer repeats.
const FIELD_BYTES_MAX: usize = 400;

/// Collects what is wrong with a request.
#[derive(Default)]
pub(crate) struct Violations {
    found: Vec<Violation>,
}

impl Violations {
    /// Notes a violation.
    pub(crate) fn add(&mut self, field: &dyn fmt::Display, description: impl Into<String>) {
        if self.found.len() < VIOLATIONS_MAX {
            let mut field = field.to_string();
            // Keys of metadata are part of a path, and may be as long as a call.
            if field.len() > FIELD_BYTES_MAX {
                field.truncate(field.floor_char_boundary(FIELD_BYTES_MAX));
                field.push('…');
            }
            self.found.push(Violation { field, description: description.into() });
        }
    }

    /// Whether no further violation would be listed, so that checking may end.
    pub(crate) fn is_full(&self) -> bool {
        self.found.len() >= VIOLATIONS_MAX
    }

    /// INVALID_ARGUMENT if anything was noted.
    pub(crate) fn into_result(self) -> Result<()> {
        if self.found.is_empty() { Ok(()) } else { Err(Error::invalid_all(self.found)) }
    }

    /// Notes a string that is longer than allowed, or empty where it must not be.
    pub(crate) fn check_bytes(&mut self, field: &FieldPath<'_>, value: &str, min: usize, max: usize) {
        if value.len() < min {
            self.add(field, format!("must not be empty; at most {max} bytes"));
        } else if value.len() > max {
            self.add(field, format!("has {} bytes; at most {max} are allowed", value.len()));
        }
    }
}
