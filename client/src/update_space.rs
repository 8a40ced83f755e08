//! [`UpdateSpace`]: changes of a space's settings and indexed fields.

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use cairn_proto::v1::space_service_client::SpaceServiceClient;
use futures::future::BoxFuture;

use crate::FieldType;
use crate::call::{Core, method};
use crate::client::{call_builder, request_id_or_new, write_builder};
use crate::endpoints::CallKind;
use crate::error::{Error, Result};
use crate::memory::duration;
use crate::proto;
use crate::results::SpaceUpdated;

call_builder! {
    /// A change of a space; say what changes, then await it. What is not said stays as it is.
    UpdateSpace(proto::UpdateSpaceRequest) -> SpaceUpdated
}
write_builder!(UpdateSpace);

impl UpdateSpace {
    pub(crate) fn new(core: Arc<Core>, name: String) -> Self {
        let space = Some(proto::Space { name, ..Default::default() });
        Self { core, request: proto::UpdateSpaceRequest { space, ..Default::default() }, deadline: None }
    }

    /// Fails with `Conflict` where the space has another version.
    pub fn expected_version(mut self, version: u64) -> Self {
        self.request.expected_version = version;
        self
    }

    /// How long memories live that do not say, from now on; none: for ever.
    pub fn default_ttl(mut self, distance: Option<Duration>) -> Self {
        self.space("default_ttl").default_ttl = distance.map(duration);
        self
    }

    /// A write whose content is already there in the same scope changes nothing. Memories that are there already are
    /// looked at in the background; see `building` of the space.
    pub fn dedup_by_content(mut self, dedup: bool) -> Self {
        self.space("dedup_by_content").dedup_by_content = dedup;
        self
    }

    /// How many earlier versions of a memory are kept, at most 1,000.
    pub fn history_depth(mut self, depth: u32) -> Self {
        self.space("history_depth").history_depth = depth;
        self
    }

    /// The metadata fields with an index, all of them, as dotted paths without the leading `metadata.`. A new one is
    /// built in the background; see `building` of the space. Filters are correct meanwhile.
    pub fn fields<T: Into<String>>(mut self, fields: impl IntoIterator<Item = (T, FieldType)>) -> Self {
        let field = |(path, kind): (T, FieldType)| proto::IndexedField { path: path.into(), r#type: kind.into() };
        self.space("fields").fields = fields.into_iter().map(field).collect();
        self
    }

    /// Which embedder of the server turns text into vectors for an embedding, such as `default`; empty: none.
    pub fn embedder(mut self, embedding: &str, embedder: impl Into<String>) -> Self {
        self.embedding(embedding, "embedder").embedder = embedder.into();
        self
    }

    /// A label for the model that makes the vectors of an embedding.
    pub fn model(mut self, embedding: &str, model: impl Into<String>) -> Self {
        self.embedding(embedding, "model").model = model.into();
        self
    }

    /// The space of the request, for the field that the mask names from now on.
    fn space(&mut self, path: &str) -> &mut proto::Space {
        let paths = &mut self.request.update_mask.get_or_insert_default().paths;
        if !paths.iter().any(|known| known == path) {
            paths.push(path.to_owned());
        }
        self.request.space.get_or_insert_default()
    }

    fn embedding(&mut self, name: &str, part: &str) -> &mut proto::Embedding {
        let embeddings = &mut self.space(&format!("embeddings.{name}.{part}")).embeddings;
        let position = embeddings.iter().position(|embedding| embedding.name == name).unwrap_or_else(|| {
            embeddings.push(proto::Embedding { name: name.to_owned(), ..Default::default() });
            embeddings.len() - 1
        });
        &mut embeddings[position]
    }

    async fn send(mut self) -> Result<SpaceUpdated> {
        request_id_or_new(&mut self.request.request_id);
        let send = method!(SpaceServiceClient, update_space);
        let answer = self.core.call(CallKind::Write, self.deadline, self.request, send).await?;
        let space = answer.space.ok_or_else(|| Error::malformed("the space"))?;
        Ok(SpaceUpdated { space, position: answer.position.into() })
    }
}
