//! Text into vectors on the way in: for memories that come without one, and for queries by text.

use std::sync::Arc;

use cairn_engine::{Embedded, EmbeddedBy, ReadPoint, WriteRequest};
use cairn_proto::v1;

use super::{Call, Service, Workers};
use crate::embed::Embedder;
use crate::error::Problem;
use crate::telemetry::definitions;

/// How texts of a space become vectors.
struct Target {
    embedder: Arc<dyn Embedder>,
    workers: Workers,
    embedding: String,
    dimension: usize,
    by: EmbeddedBy,
}

impl Service {
    /// The model of the embedder of this name; `None` where there is no such embedder.
    pub(crate) fn model_of(&self, embedder: &str) -> Option<String> {
        self.embedders.get(embedder).map(|(embedder, _)| embedder.model().to_owned())
    }

    /// Makes vectors for the texts of a write that come without one, where the space has an embedder.
    ///
    /// # Errors
    /// The space does not exist, or names an embedder that this node does not have, or that fails.
    pub(super) async fn embed(
        &self,
        call: &Call,
        request: WriteRequest,
    ) -> Result<(WriteRequest, Option<Embedded>), Problem> {
        let Some((space, texts)) = request.texts_to_embed() else { return Ok((request, None)) };
        let (space, wanted) = (space.to_owned(), texts.iter().map(Option::is_some).collect::<Vec<_>>());
        let given = texts.into_iter().flatten().map(str::to_owned).collect();
        let point = self.read_point(call, None).await?;
        let Some(target) = self.target(call, &space, point).await? else { return Ok((request, None)) };
        let mut made = self.vectors(call, &target, given).await?.into_iter();
        let vectors = wanted.into_iter().map(|wanted| if wanted { made.next() } else { None }).collect();
        Ok((request, Some(Embedded { by: target.by, vectors })))
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
        let vectors = self.vectors(call, &target, vec![text]).await?;
        request.query = Some(Query::Vectors(v1::QueryVectors { vectors }));
        Ok(request)
    }

    /// One vector for each text, made by the target's embedder on a thread of its own.
    async fn vectors(&self, call: &Call, target: &Target, texts: Vec<String>) -> Result<Vec<v1::Vector>, Problem> {
        let metrics = self.monitor.metrics();
        metrics.add(definitions::EMBEDDED_TEXTS, &[target.embedder.name()], texts.len() as u64);
        let (embedder, dimension, until) = (Arc::clone(&target.embedder), target.dimension, call.deadline.into_std());
        let made = target.workers.run(call.deadline, move || {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            Ok(embedder.embed(&texts, dimension, until)?)
        });
        Ok(made.await?.into_iter().map(|values| dense(&target.embedding, values)).collect())
    }

    /// The embedder of a space; `None` where it has none.
    async fn target(&self, call: &Call, space: &str, point: ReadPoint) -> Result<Option<Target>, Problem> {
        let request = v1::GetSpaceRequest { name: space.to_owned(), consistency: None };
        let response = self
            .read_at(call, point, move |engine, principal, point| engine.get_space(principal, &request, point))
            .await
            .map_err(|problem| problem.rename_field("name", "space"))?;
        let found = response.space.unwrap_or_default();
        let space_id = found.id;
        let Some(own) = found.embeddings.into_iter().find(|embedding| !embedding.embedder.is_empty()) else {
            return Ok(None);
        };
        let Some(v1::embedding::Kind::Dense(dense)) = own.kind else { return Ok(None) };
        let Some((embedder, workers)) = self.embedders.get(&own.embedder) else {
            let known: Vec<_> = self.embedders.names().collect();
            return Err(Problem::no_embedder(space, &own.embedder, &known.join(", ")));
        };
        let model = embedder.model();
        if !model.is_empty() && !own.model.is_empty() && model != own.model {
            return Err(Problem::other_model(space, &own, model));
        }
        let by = EmbeddedBy { space_id, embedder: own.embedder, model: own.model };
        Ok(Some(Target { embedder, workers, embedding: own.name, dimension: dense.dimension as usize, by }))
    }
}

fn dense(embedding: &str, values: Vec<f32>) -> v1::Vector {
    let data = v1::vector::Data::Dense(v1::DenseVector { values });
    v1::Vector { embedding: embedding.to_owned(), data: Some(data) }
}
