//! [`Query`]: what a search is to be near to.

use crate::Vector;
use crate::proto;

/// What a search is to be near to.
#[derive(Debug, Clone, PartialEq)]
pub enum Query {
    /// A text, which the space's embedder turns into a vector.
    Text(String),
    /// A vector of the caller's own.
    Vector(Vector),
}

impl Query {
    /// A text, which the space's embedder turns into a vector.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// Plain values for a space with one embedding, or a [`Vector`] that names its embedding.
    pub fn vector(vector: impl Into<Vector>) -> Self {
        Self::Vector(vector.into())
    }
}

impl From<&str> for Query {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<String> for Query {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Vector> for Query {
    fn from(vector: Vector) -> Self {
        Self::Vector(vector)
    }
}

impl From<Query> for proto::search_memories_request::Query {
    fn from(query: Query) -> Self {
        match query {
            Query::Text(text) => Self::Text(text),
            Query::Vector(vector) => Self::Vectors(proto::QueryVectors { vectors: vec![vector.into()] }),
        }
    }
}
