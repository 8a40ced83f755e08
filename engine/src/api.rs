//! The words that callers of the engine speak beside the messages of `cairn.v1`.

use std::path::PathBuf;

use bytes::Bytes;
use cairn_proto::{storage, v1};
use prost::Message;

use crate::crypto::TenantId;
use crate::position::LogId;

/// Who calls: from a verified token, never from a request's body.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Principal {
    /// The tenant whose data the call is about.
    pub tenant: TenantId,
    /// The caller's name; part of what makes a request id unique.
    pub name: String,
}

impl Principal {
    /// A principal.
    pub fn new(tenant: TenantId, name: impl Into<String>) -> Self {
        Self { tenant, name: name.into() }
    }
}

/// A write as a client asked for it.
#[derive(Clone, Debug)]
pub enum WriteRequest {
    /// See `MemoryService.AddMemories`.
    AddMemories(v1::AddMemoriesRequest),
    /// See `MemoryService.UpdateMemory`.
    UpdateMemory(v1::UpdateMemoryRequest),
    /// See `MemoryService.DeleteMemories`.
    DeleteMemories(v1::DeleteMemoriesRequest),
    /// See `SpaceService.CreateSpace`.
    CreateSpace(v1::CreateSpaceRequest),
    /// See `SpaceService.UpdateSpace`.
    UpdateSpace(v1::UpdateSpaceRequest),
    /// See `SpaceService.DeleteSpace`.
    DeleteSpace(v1::DeleteSpaceRequest),
    /// See `SpaceService.SetAlias`.
    SetAlias(v1::SetAliasRequest),
}

/// What made vectors from texts. A command is not applied where its space names another embedder or model by then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbeddedBy {
    /// The space's number.
    pub space_id: u64,
    /// The embedder that the space names.
    pub embedder: String,
    /// The model that the space names.
    pub model: String,
}

impl From<EmbeddedBy> for storage::EmbeddedBy {
    fn from(by: EmbeddedBy) -> Self {
        Self { space_id: by.space_id, embedder: by.embedder, model: by.model }
    }
}

/// What must be known of a space before texts for it can become vectors; see [`crate::Engine::known_space`].
#[derive(Clone, Debug, PartialEq)]
pub struct KnownSpace {
    /// Its number.
    pub id: u64,
    /// Its embeddings.
    pub embeddings: Vec<v1::Embedding>,
}

/// Vectors that were made for a write; see [`WriteRequest::texts_to_embed`].
#[derive(Clone, Debug, PartialEq)]
pub struct Embedded {
    /// What made them; with an empty embedder: the space has none, and nothing was made.
    pub by: EmbeddedBy,
    /// One for each text, in order; `None` where there was no text.
    pub vectors: Vec<Option<v1::Vector>>,
}

impl WriteRequest {
    /// The length of the request in bytes as it came: what the work of preparing it goes by.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        match self {
            Self::AddMemories(request) => request.encoded_len(),
            Self::UpdateMemory(request) => request.encoded_len(),
            Self::DeleteMemories(request) => request.encoded_len(),
            Self::CreateSpace(request) => request.encoded_len(),
            Self::UpdateSpace(request) => request.encoded_len(),
            Self::DeleteSpace(request) => request.encoded_len(),
            Self::SetAlias(request) => request.encoded_len(),
        }
    }

    /// The space and the texts that want a vector which the caller does not bring: one for each memory of the request,
    /// `None` where none is wanted. For a caller with an embedder, who makes the vectors and gives them to
    /// [`crate::Engine::prepare_embedded`]; a space without an embedder needs none of them.
    #[must_use]
    pub fn texts_to_embed(&self) -> Option<(&str, Vec<Option<&str>>)> {
        let (space, texts): (_, Vec<_>) = match self {
            Self::AddMemories(request) => {
                let text = |memory| crate::requests::wants_vector(memory).then_some(memory.content.as_str());
                (&request.space, request.memories.iter().map(text).collect())
            }
            Self::UpdateMemory(request) => (&request.space, vec![crate::requests::text_to_embed(request)]),
            _ => return None,
        };
        texts.iter().any(Option::is_some).then_some((space, texts))
    }
}

/// What a write did, as a client is told.
#[derive(Clone, Debug, PartialEq)]
pub enum WriteResponse {
    /// See `MemoryService.AddMemories`.
    AddMemories(v1::AddMemoriesResponse),
    /// See `MemoryService.UpdateMemory`.
    UpdateMemory(v1::UpdateMemoryResponse),
    /// See `MemoryService.DeleteMemories`.
    DeleteMemories(v1::DeleteMemoriesResponse),
    /// The delete goes on: propose the same command again.
    Unfinished,
    /// See `SpaceService.CreateSpace`.
    CreateSpace(v1::CreateSpaceResponse),
    /// See `SpaceService.UpdateSpace`.
    UpdateSpace(v1::UpdateSpaceResponse),
    /// See `SpaceService.DeleteSpace`.
    DeleteSpace(v1::DeleteSpaceResponse),
    /// See `SpaceService.SetAlias`.
    SetAlias(v1::SetAliasResponse),
    /// A command of the system: a tenant, a version, an expiry, nothing.
    Done,
}

/// The state that a read is of: at least everything up to a log index, at a time of the leader's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadPoint {
    /// The engine must have applied this index. 0: whatever it has.
    pub index: u64,
    /// Memories that expire at or before this time are not seen; microseconds since 1970.
    pub time_micros: i64,
}

/// One committed entry of the log.
#[derive(Clone, Debug)]
pub struct ApplyEntry {
    /// Where it stands.
    pub log_id: LogId,
    /// What it says.
    pub body: EntryBody,
}

/// What an entry says.
#[derive(Clone, Debug)]
pub enum EntryBody {
    /// Nothing: a leader's first entry of its term.
    Blank,
    /// A membership.
    Membership {
        /// All of it, in the raft layer's own encoding.
        encoded: Bytes,
        /// Its nodes. One that a later membership lacks is retired: see [`AppliedState::retired_node_ids`].
        node_ids: Vec<u64>,
    },
    /// A mutation.
    Command(storage::Command),
}

/// What has been applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppliedState {
    /// The last entry; `None`: none yet.
    pub log_id: Option<LogId>,
    /// The last membership and where it was written.
    pub membership: Option<(LogId, Bytes)>,
    /// The last stamp, microseconds since 1970.
    pub stamp_micros: i64,
    /// Sum over all logical rows: equal on all members that have applied the same entries.
    pub digest: [u8; 16],
    /// The replicated cluster version.
    pub cluster_version: u32,
    /// The nodes that were members once and are no more, ascending.
    pub retired_node_ids: Vec<u64>,
}

/// A consistent copy of the store in a directory of its own, which [`crate::Engine::open`] opens.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// What the copy has applied, read from inside the copy.
    pub applied: AppliedState,
    /// Its files, relative to its directory, with their sizes in bytes; sorted by name.
    pub files: Vec<(PathBuf, u64)>,
}
