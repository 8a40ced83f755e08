//! Text into vectors on the way in: for memories that come without one, and for queries by text.

use std::sync::Arc;

use cairn_engine::ReadPoint;
use cairn_proto::v1;
use prost::Message as _;

use super::{Call, REQUEST_BYTES_MAX, Service};
use crate::embed::Embedder;
use crate::error::Problem;
use crate::telemetry::definitions;

/// How texts of a space become vectors.
struct Target {
    embedder: Arc<dyn Embedder>,
    embedding: String,
    dimension: usize,
}

impl Service {
    /// Gives each memory that has content and no vector the vector of its content, where the space has an embedder.
    ///
    /// # Errors
    /// The space does not exist or names an embedder that this node does not have; the vectors make the request too large.
    pub(super) async fn embed_memories(
        &self,
        call: &Call,
        mut request: v1::AddMemoriesRequest,
    ) -> Result<v1::AddMemoriesRequest, Problem> {
        if !request.memories.iter().any(wants_vector) {
            return Ok(request);
        }
        let point = self.read_point(call, None).await?;
        let Some(target) = self.target(call, &request.space, point).await? else { return Ok(request) };
        let count = request.memories.iter().filter(|memory| wants_vector(memory)).count();
        self.count_embedded(&target, count);
        self.prepares.run(call.deadline, move || {
            let wanting: Vec<&mut v1::Memory> = request.memories.iter_mut().filter(|memory| wants_vector(memory)).collect();
            let texts: Vec<&str> = wanting.iter().map(|memory| memory.content.as_str()).collect();
            let vectors = target.embedder.embed(&texts, target.dimension)?;
            for (memory, values) in wanting.into_iter().zip(vectors) {
                memory.vectors.push(dense(&target.embedding, values));
            }
            let bytes = request.encoded_len();
            if bytes > REQUEST_BYTES_MAX {
                let limit = format!(
                    "{bytes} bytes with the vectors that the server made; at most {REQUEST_BYTES_MAX}: send fewer a call"
                );
                return Err(Problem::invalid("memories", limit));
            }
            Ok(request)
        })
        .await
    }

    /// Replaces a query by text by the vector of that text.
    ///
    /// # Errors
    /// FAILED_PRECONDITION where the space has no embedder.
    pub(super) async fn embed_query(
        &self,
        call: &Call,
        mut request: v1::SearchMemoriesRequest,
        point: ReadPoint,
    ) -> Result<v1::SearchMemoriesRequest, Problem> {
        use v1::search_memories_request::Query;

        let text = match request.query.take() {
            Some(Query::Text(text)) => text,
            vectors => {
                request.query = vectors;
                return Ok(request);
            }
        };
        if text.trim().is_empty() {
            return Err(Problem::invalid("text", "must not be empty"));
        }
        let Some(target) = self.target(call, &request.space, point).await? else {
            return Err(Problem::no_embedder(&request.space, "", ""));
        };
        self.count_embedded(&target, 1);
        self.prepares
            .run(call.deadline, move || {
                let vectors = target.embedder.embed(&[text.as_str()], target.dimension)?;
                let vectors = vectors.into_iter().map(|values| dense(&target.embedding, values)).collect();
                request.query = Some(Query::Vectors(v1::QueryVectors { vectors }));
                Ok(request)
            })
            .await
    }

    /// The embedder of a space; `None` where it has none.
    async fn target(&self, call: &Call, space: &str, point: ReadPoint) -> Result<Option<Target>, Problem> {
        let request = v1::GetSpaceRequest { name: space.to_owned(), consistency: None };
        let response = self
            .read_at(call, point, move |engine, principal, point| engine.get_space(principal, &request, point))
            .await
            .map_err(|problem| problem.rename_field("name", "space"))?;
        let found = response.space.unwrap_or_default();
        let dense = found.embeddings.into_iter().find_map(|embedding| match embedding.kind {
            Some(v1::embedding::Kind::Dense(dense)) => Some((embedding.name, embedding.embedder, dense.dimension)),
            _ => None,
        });
        let Some((embedding, name, dimension)) = dense.filter(|(_, name, _)| !name.is_empty()) else { return Ok(None) };
        match self.embedders.get(&name) {
            Some(embedder) => Ok(Some(Target { embedder, embedding, dimension: dimension as usize })),
            None => {
                let known: Vec<_> = self.embedders.names().collect();
                Err(Problem::no_embedder(space, &name, &known.join(", ")))
            }
        }
    }

    fn count_embedded(&self, target: &Target, texts: usize) {
        self.monitor.metrics().add(definitions::EMBEDDED_TEXTS, &[target.embedder.name()], texts as u64);
    }
}

/// A memory without content stays without a vector, which is legal.
fn wants_vector(memory: &v1::Memory) -> bool {
    memory.vectors.is_empty() && !memory.content.is_empty()
}

fn dense(embedding: &str, values: Vec<f32>) -> v1::Vector {
    let data = v1::vector::Data::Dense(v1::DenseVector { values });
    v1::Vector { embedding: embedding.to_owned(), data: Some(data) }
}
