//! [`NewSpace`]: what a space is to be like.

use std::time::Duration;

use crate::memory::duration;
use crate::proto::{self, FieldType, Metric};

/// What a space is to be like; its vectors cannot change later.
///
/// ```
/// use cairn_client::{FieldType, Metric, NewSpace};
///
/// let space = NewSpace::new("notes", 384).metric(Metric::Cosine).embedder("hash").field("topic", FieldType::Keyword);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct NewSpace {
    space: proto::Space,
    embedding: proto::Embedding,
    dense: proto::DenseEmbedding,
}

impl NewSpace {
    /// A space with one dense embedding of this dimension, 1 to 4,096, compared by cosine.
    pub fn new(name: impl Into<String>, dimension: u32) -> Self {
        Self {
            space: proto::Space { name: name.into(), ..Default::default() },
            embedding: proto::Embedding::default(),
            dense: proto::DenseEmbedding { dimension, ..Default::default() },
        }
    }

    /// How vectors are compared.
    #[must_use]
    pub fn metric(mut self, metric: Metric) -> Self {
        self.dense.set_metric(metric);
        self
    }

    /// Which embedder of the server turns text into vectors, such as `hash`; without one, callers bring vectors.
    #[must_use]
    pub fn embedder(mut self, embedder: impl Into<String>) -> Self {
        self.embedding.embedder = embedder.into();
        self
    }

    /// A label for the model that makes the vectors.
    #[must_use]
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.embedding.model = model.into();
        self
    }

    /// A name for the embedding; `default` where it is not said.
    #[must_use]
    pub fn embedding_name(mut self, name: impl Into<String>) -> Self {
        self.embedding.name = name.into();
        self
    }

    /// Adds a metadata field with an index: a dotted path without the leading `metadata.`; at most 64.
    #[must_use]
    pub fn field(mut self, path: impl Into<String>, kind: FieldType) -> Self {
        self.space.fields.push(proto::IndexedField { path: path.into(), r#type: kind.into() });
        self
    }

    /// How long memories live that do not say.
    #[must_use]
    pub fn default_ttl(mut self, distance: Duration) -> Self {
        self.space.default_ttl = Some(duration(distance));
        self
    }

    /// A write whose content is already there in the same scope changes nothing.
    #[must_use]
    pub fn dedup_by_content(mut self, dedup: bool) -> Self {
        self.space.dedup_by_content = dedup;
        self
    }

    /// How many earlier versions of a memory are kept, at most 1,000.
    #[must_use]
    pub fn history_depth(mut self, depth: u32) -> Self {
        self.space.history_depth = depth;
        self
    }
}

impl From<NewSpace> for proto::Space {
    fn from(new: NewSpace) -> Self {
        let kind = Some(proto::embedding::Kind::Dense(new.dense));
        let embedding = proto::Embedding { kind, ..new.embedding };
        proto::Space { embeddings: vec![embedding], ..new.space }
    }
}
