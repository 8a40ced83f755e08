//! [`Update`]: changes to the fields of one memory.

use std::collections::BTreeMap;
use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use cairn_proto::v1::memory_service_client::MemoryServiceClient;
use futures::future::BoxFuture;

use crate::call::{Core, method};
use crate::client::{call_builder, history_builder, request_id_or_new, write_builder};
use crate::endpoints::CallKind;
use crate::error::{Error, Result};
use crate::memory::duration;
use crate::proto;
use crate::proto::memory::Expiry;
use crate::proto::value::Kind;
use crate::results::Position;
use crate::value::to_proto_entries;
use crate::{Memory, Scope, Space, Timestamp, Value, Vector};

/// The answer to an update.
#[derive(Debug, Clone, PartialEq)]
pub struct Updated {
    /// The memory after the change, without vectors. A call that was repeated under its request id after the memory was
    /// changed again or deleted may get id, version and time only.
    pub memory: Memory,
    /// Where in the log the write is.
    pub position: Position,
}

call_builder! {
    /// A change of one memory: say what becomes of which fields, then await it. All others stay.
    ///
    /// A new [`content`](Update::content) is embedded by the server where the space has an embedder; elsewhere it needs a
    /// [`vector`](Update::vector) too, or [`no_vector`](Update::no_vector), and is refused without.
    Update(proto::UpdateMemoryRequest) -> Updated
}
write_builder!(Update);
history_builder!(Update, request);

impl Update {
    pub(crate) fn new(core: Arc<Core>, space: &Space, id: String) -> Self {
        let memory = proto::Memory { id, ..Default::default() };
        let request = proto::UpdateMemoryRequest {
            space: space.name().to_owned(),
            memory: Some(memory),
            update_mask: Some(prost_types::FieldMask::default()),
            ..Default::default()
        };
        Self { core, request, deadline: None }
    }

    /// Sets the text.
    pub fn content(self, content: impl Into<String>) -> Self {
        let content = content.into();
        self.change("content", |memory| memory.content = content)
    }

    /// Sets the vector.
    pub fn vector(self, vector: impl Into<Vector>) -> Self {
        let vector = vector.into().into();
        self.change("vectors", |memory| memory.vectors = vec![vector])
    }

    /// Takes the vector away: the memory is no hit of a search by meaning any more.
    pub fn no_vector(self) -> Self {
        self.change("vectors", |memory| memory.vectors.clear())
    }

    /// Sets what sort of memory it is.
    pub fn kind(self, kind: impl Into<String>) -> Self {
        let kind = kind.into();
        self.change("kind", |memory| memory.kind = kind)
    }

    /// Sets how important it is, 0 to 1.
    pub fn importance(self, importance: f32) -> Self {
        self.change("importance", |memory| memory.importance = Some(importance))
    }

    /// Sets the whole scope: values that it does not hold are taken away.
    pub fn scope(self, scope: Scope) -> Self {
        self.change("scope", |memory| memory.scope = scope.into_proto())
    }

    /// Sets the agent that it belongs to.
    pub fn agent(self, id: impl Into<String>) -> Self {
        let id = id.into();
        self.change("scope.agent_id", |memory| memory.scope.get_or_insert_default().agent_id = Some(id))
    }

    /// Sets the user that it belongs to.
    pub fn user(self, id: impl Into<String>) -> Self {
        let id = id.into();
        self.change("scope.user_id", |memory| memory.scope.get_or_insert_default().user_id = Some(id))
    }

    /// Sets the session that it belongs to.
    pub fn session(self, id: impl Into<String>) -> Self {
        let id = id.into();
        self.change("scope.session_id", |memory| memory.scope.get_or_insert_default().session_id = Some(id))
    }

    /// Sets the namespace that it lies in.
    pub fn namespace(self, path: impl Into<String>) -> Self {
        let path = path.into();
        self.change("scope.namespace", |memory| memory.scope.get_or_insert_default().namespace = Some(path))
    }

    /// Sets one value of the metadata, by its dotted path; maps on the way are made where they are missing.
    pub fn metadata(self, path: impl AsRef<str>, value: impl Into<Value>) -> Self {
        let path = path.as_ref();
        let value = value.into().into();
        self.change(&format!("metadata.{path}"), |memory| insert(&mut memory.metadata, path, value))
    }

    /// Takes a field away, by its name in the API: `kind`, `importance`, `scope.user_id`, `metadata.a.b`.
    pub fn clear(self, field: impl AsRef<str>) -> Self {
        self.change(field.as_ref(), |_| {})
    }

    /// Puts these entries in the place of all metadata.
    pub fn replace_metadata(self, entries: BTreeMap<String, Value>) -> Self {
        self.change("metadata", |memory| memory.metadata = to_proto_entries(entries))
    }

    /// Sets when it was made.
    pub fn created_at(self, time: impl Into<Timestamp>) -> Self {
        let time = time.into();
        self.change("created_at", |memory| memory.created_at = Some(time.into()))
    }

    /// Lets it end at a time.
    pub fn expires_at(self, time: impl Into<Timestamp>) -> Self {
        let time = time.into();
        self.change("expires_at", |memory| memory.expiry = Some(Expiry::ExpiresAt(time.into())))
    }

    /// Lets it end some time after the write.
    pub fn ttl(self, distance: Duration) -> Self {
        self.change("ttl", |memory| memory.expiry = Some(Expiry::Ttl(duration(distance))))
    }

    /// Lets it stay for ever, also where the space has a default.
    pub fn never_expires(self) -> Self {
        self.change("expires_at", |memory| memory.expiry = None)
    }

    /// Fails with `Conflict` unless the memory has this version, so that nobody's change is overwritten unseen.
    pub fn expected_version(mut self, version: u64) -> Self {
        self.request.expected_version = version;
        self
    }

    fn change(mut self, path: &str, change: impl FnOnce(&mut proto::Memory)) -> Self {
        // `ttl` and `expires_at` are two ways to say one thing: the last one counts.
        let paths = &mut self.request.update_mask.get_or_insert_default().paths;
        if matches!(path, "ttl" | "expires_at") {
            paths.retain(|named| named != "ttl" && named != "expires_at");
        }
        if !paths.iter().any(|named| named == path) {
            paths.push(path.to_owned());
        }
        change(self.request.memory.get_or_insert_default());
        self
    }

    async fn send(mut self) -> Result<Updated> {
        request_id_or_new(&mut self.request.request_id);
        let send = method!(MemoryServiceClient, update_memory);
        let answer = self.core.call(CallKind::Write, self.deadline, self.request, send).await?;
        let memory = answer.memory.ok_or_else(|| Error::malformed("the memory"))?;
        Ok(Updated { memory: memory.into(), position: answer.position.into() })
    }
}

/// Puts a value at a dotted path. What stands in the way and is no map gives way: the server refuses the path if the stored
/// memory has something there.
fn insert(entries: &mut BTreeMap<String, proto::Value>, path: &str, value: proto::Value) {
    match path.split_once('.') {
        None => {
            entries.insert(path.to_owned(), value);
        }
        Some((key, rest)) => {
            let inner = entries.entry(key.to_owned()).or_default();
            if !matches!(inner.kind, Some(Kind::MapValue(_))) {
                inner.kind = Some(Kind::MapValue(proto::MapValue::default()));
            }
            if let Some(Kind::MapValue(map)) = &mut inner.kind {
                insert(&mut map.entries, rest, value);
            }
        }
    }
}
