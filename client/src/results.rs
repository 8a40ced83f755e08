//! What calls return.

use std::fmt;

use crate::error::{Error, Result};
use crate::proto;
use crate::{Memory, Timestamp};

/// A position in the log: give it to a later read as `at_least`, so that it sees everything up to there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Position(String);

impl Position {
    /// The opaque text, to store or to send elsewhere.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<T: Into<String>> From<T> for Position {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What a write did with one memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The memory is new.
    Created,
    /// The memory took the place of an earlier version.
    Replaced,
    /// The same content was there already in the same scope.
    Deduplicated,
}

/// What a write did with one memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteResult {
    /// The memory's id; of a duplicate, the id of the memory that was there.
    pub id: String,
    /// The memory's version after the write.
    pub version: u64,
    /// What was done.
    pub outcome: Outcome,
}

/// The answer to a write of memories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// One for each memory, in the order of the call.
    pub results: Vec<WriteResult>,
    /// Where in the log the write is.
    pub position: Position,
}

/// The answer to a read by ids.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The memories that are there, in the order of the call.
    pub memories: Vec<Memory>,
    /// The ids that are not there.
    pub missing_ids: Vec<String>,
    /// The position that was read.
    pub position: Position,
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// The memories, in order.
    pub memories: Vec<Memory>,
    /// Give it to the same list as `page_token` for the next page; none on the last one.
    pub next_page_token: Option<String>,
    /// The position that was read.
    pub position: Position,
}

/// One page of the list of spaces.
#[derive(Debug, Clone, PartialEq)]
pub struct SpacePage {
    /// The spaces, in order of their names.
    pub spaces: Vec<proto::Space>,
    /// Give it to the same list as `page_token` for the next page; none on the last one.
    pub next_page_token: Option<String>,
    /// The position that was read.
    pub position: Position,
}

/// A memory that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// The memory.
    pub memory: Memory,
    /// Higher is better: cosine, inner product, or negative squared Euclidean distance.
    pub score: f64,
    /// The distance in the metric's own terms.
    pub distance: f64,
    /// What the score is made of, by name.
    pub parts: Vec<(String, f64)>,
}

/// The answer to a search.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchResult {
    /// Best first; ties by id.
    pub hits: Vec<Hit>,
    /// The position that was read.
    pub position: Position,
    /// How the search was carried out, where asked for.
    pub plan: Option<proto::SearchPlan>,
}

/// The answer to a count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// The exact count.
    pub count: u64,
    /// The position that was read.
    pub position: Position,
}

/// The answer to a delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deleted {
    /// How many memories are gone, those of earlier tries of the same call included.
    pub count: u64,
    /// Where in the log the delete is.
    pub position: Position,
}

/// A space and what is in it.
#[derive(Debug, Clone, PartialEq)]
pub struct SpaceInfo {
    /// The space.
    pub space: proto::Space,
    /// What is in it, as the answering node sees it.
    pub statistics: proto::SpaceStatistics,
    /// The position that was read.
    pub position: Position,
}

/// A space that was made.
#[derive(Debug, Clone, PartialEq)]
pub struct SpaceCreated {
    /// The space as made.
    pub space: proto::Space,
    /// Where in the log it was made.
    pub position: Position,
}

/// A space that was changed.
#[derive(Debug, Clone, PartialEq)]
pub struct SpaceUpdated {
    /// The space after the change.
    pub space: proto::Space,
    /// Where in the log the change is.
    pub position: Position,
}

/// An alias that was set or removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AliasSet {
    /// The name of the space that the alias meant before, where it meant one.
    pub previous_space: Option<String>,
    /// Where in the log the change is.
    pub position: Position,
}

/// How fresh the answer of a read must be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Consistency {
    /// Every write acknowledged before the read began is seen, on any node.
    #[default]
    Linearizable,
    /// Every write up to this position is seen.
    AtLeast(Position),
    /// The state is at most this old; at most an hour.
    MaxStaleness(std::time::Duration),
}

impl Consistency {
    /// The wire form; none for the default.
    pub(crate) fn to_proto(&self) -> Option<proto::Consistency> {
        use proto::consistency::Level;
        let level = match self {
            Self::Linearizable => return None,
            Self::AtLeast(position) => Level::AtLeast(position.0.clone()),
            Self::MaxStaleness(age) => Level::MaxStaleness(crate::memory::duration(*age)),
        };
        Some(proto::Consistency { level: Some(level) })
    }
}

impl Memory {
    /// The time at which the memory ends, where it has one.
    pub fn ends_at(&self) -> Option<Timestamp> {
        match self.expires {
            Some(crate::Expiry::At(time)) => Some(time),
            _ => None,
        }
    }
}

/// The token of the next page; none where it is empty.
pub(crate) fn next_page(token: String) -> Option<String> {
    (!token.is_empty()).then_some(token)
}

pub(crate) fn memories(memories: Vec<proto::Memory>) -> Vec<Memory> {
    memories.into_iter().map(Into::into).collect()
}

impl Added {
    /// # Errors
    /// `Internal` where the answer does not have one known result for each memory.
    pub(crate) fn from_proto(answer: proto::AddMemoriesResponse, sent: usize) -> Result<Self> {
        if answer.results.len() != sent {
            return Err(Error::malformed("a result for each memory"));
        }
        let results = answer.results.into_iter().map(WriteResult::from_proto).collect::<Result<_>>()?;
        Ok(Self { results, position: answer.position.into() })
    }
}

impl WriteResult {
    pub(crate) fn from_proto(result: proto::WriteResult) -> Result<Self> {
        let outcome = match result.outcome() {
            proto::WriteOutcome::Created => Outcome::Created,
            proto::WriteOutcome::Replaced => Outcome::Replaced,
            proto::WriteOutcome::Deduplicated => Outcome::Deduplicated,
            proto::WriteOutcome::Unspecified => return Err(Error::malformed("the outcome of a write")),
        };
        Ok(Self { id: result.id, version: result.version, outcome })
    }
}

impl SearchResult {
    /// # Errors
    /// `Internal` where a hit has no memory.
    pub(crate) fn from_proto(answer: proto::SearchMemoriesResponse) -> Result<Self> {
        let hits = answer.hits.into_iter().map(Hit::from_proto).collect::<Result<_>>()?;
        Ok(Self { hits, position: answer.position.into(), plan: answer.plan })
    }
}

impl Hit {
    fn from_proto(hit: proto::SearchHit) -> Result<Self> {
        let memory = hit.memory.ok_or_else(|| Error::malformed("the memory of a hit"))?;
        let parts = hit.score_parts.into_iter().map(|part| (part.name, part.value)).collect();
        Ok(Self { memory: memory.into(), score: hit.score, distance: hit.distance, parts })
    }
}
