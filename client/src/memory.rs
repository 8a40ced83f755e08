//! [`Memory`], its [`Scope`] and its vectors.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::proto;
use crate::value::{from_proto_entries, to_proto_entries};
use crate::{Timestamp, Value};

/// What an agent remembers: text, its vector, and the facts to find it by.
///
/// ```
/// use cairn_client::Memory;
///
/// let memory = Memory::new("Prefers oat milk").kind("preference").user("ada").metadata("topic", "coffee");
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Memory {
    /// 1 to 255 bytes, unique in its space. Empty on a write: the server makes a UUIDv7.
    pub id: String,
    /// Whose memory this is.
    pub scope: Scope,
    /// What sort of memory: a word of the caller's choice, such as `fact`.
    pub kind: String,
    /// The text, at most 1 MiB.
    pub content: String,
    /// Free structured data, at most 64 KiB encoded.
    pub metadata: BTreeMap<String, Value>,
    /// One per embedding of the space at most. On reads only where asked for.
    pub vectors: Vec<Vector>,
    /// 0 to 1.
    pub importance: Option<f32>,
    /// When it was made; unset on a write: the time at which the write is accepted.
    pub created_at: Option<Timestamp>,
    /// When it was last written; ignored on writes.
    pub updated_at: Option<Timestamp>,
    /// When it ends; neither this nor a distance on a write: the space's default applies.
    pub expires: Option<Expiry>,
    /// Starts at 1 and grows by 1 with each change; ignored on writes.
    pub version: u64,
    /// SHA-256 of the content, 32 bytes; ignored on writes.
    pub content_hash: Vec<u8>,
}

/// When a memory ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// At this time.
    At(Timestamp),
    /// This long after the write is accepted; only on writes.
    After(Duration),
}

/// A dense vector of a memory or a query.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Vector {
    /// The embedding of the space that it belongs to; may be empty where the space has exactly one.
    pub embedding: String,
    /// Finite values, as many as the embedding's dimension.
    pub values: Vec<f32>,
}

impl<T: Into<Vec<f32>>> From<T> for Vector {
    fn from(values: T) -> Self {
        Self { embedding: String::new(), values: values.into() }
    }
}

impl Memory {
    /// A memory of this text.
    pub fn new(content: impl Into<String>) -> Self {
        Self { content: content.into(), ..Self::default() }
    }

    /// Sets the id.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = id.into();
        self
    }

    /// Sets what sort of memory it is.
    #[must_use]
    pub fn kind(mut self, kind: impl Into<String>) -> Self {
        self.kind = kind.into();
        self
    }

    /// Sets the whole scope.
    #[must_use]
    pub fn scope(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    /// Sets the user that it belongs to.
    #[must_use]
    pub fn user(mut self, user_id: impl Into<String>) -> Self {
        self.scope.user_id = Some(user_id.into());
        self
    }

    /// Sets the agent that it belongs to.
    #[must_use]
    pub fn agent(mut self, agent_id: impl Into<String>) -> Self {
        self.scope.agent_id = Some(agent_id.into());
        self
    }

    /// Sets the session that it belongs to.
    #[must_use]
    pub fn session(mut self, session_id: impl Into<String>) -> Self {
        self.scope.session_id = Some(session_id.into());
        self
    }

    /// Sets the namespace that it lies in, a path such as `team/notes`.
    #[must_use]
    pub fn namespace(mut self, path: impl Into<String>) -> Self {
        self.scope.namespace = Some(path.into());
        self
    }

    /// Adds an entry to the metadata, or replaces it.
    #[must_use]
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// Adds a vector: plain values for a space with one embedding, or a [`Vector`] that names its embedding.
    #[must_use]
    pub fn vector(mut self, vector: impl Into<Vector>) -> Self {
        self.vectors.push(vector.into());
        self
    }

    /// Sets how important it is, 0 to 1.
    #[must_use]
    pub fn importance(mut self, importance: f32) -> Self {
        self.importance = Some(importance);
        self
    }

    /// Sets when it was made, for imports.
    #[must_use]
    pub fn created_at(mut self, time: impl Into<Timestamp>) -> Self {
        self.created_at = Some(time.into());
        self
    }

    /// Lets it end at a time.
    #[must_use]
    pub fn expires_at(mut self, time: impl Into<Timestamp>) -> Self {
        self.expires = Some(Expiry::At(time.into()));
        self
    }

    /// Lets it end some time after the write.
    #[must_use]
    pub fn ttl(mut self, distance: Duration) -> Self {
        self.expires = Some(Expiry::After(distance));
        self
    }
}

impl From<&str> for Memory {
    fn from(content: &str) -> Self {
        Self::new(content)
    }
}

impl From<String> for Memory {
    fn from(content: String) -> Self {
        Self::new(content)
    }
}

/// To whom memories belong. On a memory: the values it carries. On a call: each value that is set must be equal;
/// `namespace` also takes in every namespace below it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scope {
    /// The agent.
    pub agent_id: Option<String>,
    /// The user.
    pub user_id: Option<String>,
    /// The session.
    pub session_id: Option<String>,
    /// A path of segments with `/` between them.
    pub namespace: Option<String>,
}

impl Scope {
    /// No value set: on a call, everybody's memories.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the agent.
    #[must_use]
    pub fn agent(mut self, id: impl Into<String>) -> Self {
        self.agent_id = Some(id.into());
        self
    }

    /// Sets the user.
    #[must_use]
    pub fn user(mut self, id: impl Into<String>) -> Self {
        self.user_id = Some(id.into());
        self
    }

    /// Sets the session.
    #[must_use]
    pub fn session(mut self, id: impl Into<String>) -> Self {
        self.session_id = Some(id.into());
        self
    }

    /// Sets the namespace.
    #[must_use]
    pub fn namespace(mut self, path: impl Into<String>) -> Self {
        self.namespace = Some(path.into());
        self
    }

    /// Whether no value is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The wire form; none where no value is set.
    pub(crate) fn into_proto(self) -> Option<proto::Scope> {
        (!self.is_empty()).then(|| self.into())
    }
}

impl From<Scope> for proto::Scope {
    fn from(scope: Scope) -> Self {
        Self {
            agent_id: scope.agent_id,
            user_id: scope.user_id,
            session_id: scope.session_id,
            namespace: scope.namespace,
        }
    }
}

impl From<proto::Scope> for Scope {
    fn from(scope: proto::Scope) -> Self {
        Self {
            agent_id: scope.agent_id,
            user_id: scope.user_id,
            session_id: scope.session_id,
            namespace: scope.namespace,
        }
    }
}

impl From<Vector> for proto::Vector {
    fn from(vector: Vector) -> Self {
        let dense = proto::DenseVector { values: vector.values };
        Self { embedding: vector.embedding, data: Some(proto::vector::Data::Dense(dense)) }
    }
}

impl From<Memory> for proto::Memory {
    /// Fields that are output only are left out.
    fn from(memory: Memory) -> Self {
        use proto::memory::Expiry as Wire;
        Self {
            id: memory.id,
            scope: memory.scope.into_proto(),
            kind: memory.kind,
            content: memory.content,
            metadata: to_proto_entries(memory.metadata),
            vectors: memory.vectors.into_iter().map(Into::into).collect(),
            importance: memory.importance,
            created_at: memory.created_at.map(Into::into),
            updated_at: None,
            version: 0,
            content_hash: Vec::new(),
            expiry: memory.expires.map(|expiry| match expiry {
                Expiry::At(time) => Wire::ExpiresAt(time.into()),
                Expiry::After(distance) => Wire::Ttl(duration(distance)),
            }),
        }
    }
}

impl From<proto::Memory> for Memory {
    /// Vectors that are not dense are left out: this version of the SDK cannot say them.
    fn from(memory: proto::Memory) -> Self {
        use proto::memory::Expiry as Wire;
        Self {
            id: memory.id,
            scope: memory.scope.map(Into::into).unwrap_or_default(),
            kind: memory.kind,
            content: memory.content,
            metadata: from_proto_entries(memory.metadata),
            vectors: memory.vectors.into_iter().filter_map(dense).collect(),
            importance: memory.importance,
            created_at: memory.created_at.map(Into::into),
            updated_at: memory.updated_at.map(Into::into),
            version: memory.version,
            content_hash: memory.content_hash,
            expires: memory.expiry.map(|expiry| match expiry {
                Wire::ExpiresAt(time) => Expiry::At(time.into()),
                Wire::Ttl(distance) => Expiry::After(distance.try_into().unwrap_or_default()),
            }),
        }
    }
}

fn dense(vector: proto::Vector) -> Option<Vector> {
    match vector.data {
        Some(proto::vector::Data::Dense(dense)) => Some(Vector { embedding: vector.embedding, values: dense.values }),
        _ => None,
    }
}

/// A duration in wire form; one beyond the range becomes its end.
pub(crate) fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: duration.subsec_nanos() as i32,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::value::tests::any_value;

    fn any_expiry() -> impl Strategy<Value = Expiry> {
        prop_oneof![
            any::<i64>().prop_map(|micros| Expiry::At(Timestamp::from_micros(micros))),
            (0..10_000_000_u64, 0..1_000_000_000_u32)
                .prop_map(|(seconds, nanos)| Expiry::After(Duration::new(seconds, nanos))),
        ]
    }

    fn any_scope() -> impl Strategy<Value = Scope> {
        let text = || prop::option::of("[a-z/]{1,6}");
        (text(), text(), text(), text()).prop_map(|(agent_id, user_id, session_id, namespace)| Scope {
            agent_id,
            user_id,
            session_id,
            namespace,
        })
    }

    fn any_memory() -> impl Strategy<Value = Memory> {
        let texts = (".{0,8}", "[a-z]{0,8}", ".{0,32}");
        let metadata = prop::collection::btree_map("[a-z]{1,4}", any_value(), 0..4);
        let vectors = prop::collection::vec(
            ("[a-z]{0,4}", prop::collection::vec(-1.0_f32..1.0, 0..8))
                .prop_map(|(embedding, values)| Vector { embedding, values }),
            0..3,
        );
        let times = (prop::option::of(any::<i64>()), prop::option::of(any_expiry()));
        let importance = prop::option::of(0.0_f32..=1.0);
        (texts, any_scope(), metadata, vectors, times, importance).prop_map(
            |((id, kind, content), scope, metadata, vectors, (created_at, expires), importance)| Memory {
                id,
                kind,
                content,
                scope,
                metadata,
                vectors,
                importance,
                created_at: created_at.map(Timestamp::from_micros),
                expires,
                ..Memory::default()
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn every_memory_survives_the_wire(memory in any_memory()) {
            let bytes = proto::Memory::from(memory.clone()).encode_to_vec();
            let back = Memory::from(proto::Memory::decode(bytes.as_slice()).unwrap());
            prop_assert_eq!(back, memory);
        }
    }

    #[test]
    fn what_the_server_sets_is_read_and_never_sent() {
        let wire = proto::Memory {
            version: 7,
            content_hash: vec![1; 32],
            updated_at: Some(Timestamp::from_micros(5).into()),
            ..Default::default()
        };
        let memory = Memory::from(wire);
        assert_eq!((memory.version, memory.updated_at), (7, Some(Timestamp::from_micros(5))));
        let sent = proto::Memory::from(memory);
        assert_eq!((sent.version, sent.updated_at, sent.content_hash), (0, None, Vec::new()));
    }

    #[test]
    fn sparse_vectors_of_a_newer_server_are_left_out() {
        let sparse = proto::Vector {
            embedding: "s".to_owned(),
            data: Some(proto::vector::Data::Sparse(proto::SparseVector::default())),
        };
        let memory = Memory::from(proto::Memory { vectors: vec![sparse], ..Default::default() });
        assert_eq!(memory.vectors, []);
    }
}
