//! Text into vectors on the way in: for memories that come without one, and for queries by text.

use std::sync::Arc;

use cairn_engine::{Embedded, EmbeddedBy, KnownSpace, ReadPoint, WriteRequest};
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
}

/// How sure a write must be of its space's embedder before it is proposed. What it relies on is checked again when it is
/// applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Knowledge {
    /// What this node has applied; where it knows nothing, or what it knows does not do, it asks as for `Latest`.
    Own,
    /// What holds now: costs a question to a majority.
    Latest,
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
        knowledge: Knowledge,
    ) -> Result<(WriteRequest, Option<Embedded>), Problem> {
        let Some((space, texts)) = request.texts_to_embed() else { return Ok((request, None)) };
        let (space, wanted) = (space.to_owned(), texts.iter().map(Option::is_some).collect::<Vec<_>>());
        let (by, target) = self.target_of_write(call, &space, knowledge).await?;
        let vectors = match target {
            None => vec![None; wanted.len()],
            Some(target) => {
                let given = texts.into_iter().flatten().map(str::to_owned).collect();
                let mut made = self.vectors(call, &target, given).await?.into_iter();
                wanted.into_iter().map(|wanted| if wanted { made.next() } else { None }).collect()
            }
        };
        Ok((request, Some(Embedded { by, vectors })))
    }

    /// The embedder of the space of a write, if it has one, and what the write relies on by that.
    async fn target_of_write(
        &self,
        call: &Call,
        space: &str,
        knowledge: Knowledge,
    ) -> Result<(EmbeddedBy, Option<Target>), Problem> {
        let known = match knowledge {
            Knowledge::Own => self.node.engine().known_space(&call.principal, space),
            Knowledge::Latest => None,
        };
        if let Some(known) = known
            && let Ok(target) = self.target_in(space, &known)
        {
            return Ok((made_by(&known), target));
        }
        let point = self.read_point(call, None).await?;
        let latest = self.read_space(call, space, point).await?;
        Ok((made_by(&latest), self.target_in(space, &latest)?))
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
        let space = self.read_space(call, &request.space, point).await?;
        let Some(target) = self.target_in(&request.space, &space)? else {
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

    async fn read_space(&self, call: &Call, space: &str, point: ReadPoint) -> Result<KnownSpace, Problem> {
        let request = v1::GetSpaceRequest { name: space.to_owned(), consistency: None };
        let response = self
            .read_at(call, point, move |engine, principal, point| engine.get_space(principal, &request, point))
            .await
            .map_err(|problem| problem.rename_field("name", "space"))?;
        let space = response.space.unwrap_or_default();
        Ok(KnownSpace { id: space.id, embeddings: space.embeddings })
    }

    /// The embedder of a space; `None` where it has none.
    fn target_in(&self, name: &str, space: &KnownSpace) -> Result<Option<Target>, Problem> {
        let Some(own) = space.embeddings.iter().find(|embedding| !embedding.embedder.is_empty()) else {
            return Ok(None);
        };
        let Some(v1::embedding::Kind::Dense(dense)) = &own.kind else { return Ok(None) };
        let Some((embedder, workers)) = self.embedders.get(&own.embedder) else {
            let known: Vec<_> = self.embedders.names().collect();
            return Err(Problem::no_embedder(name, &own.embedder, &known.join(", ")));
        };
        let model = embedder.model();
        if !model.is_empty() && !own.model.is_empty() && model != own.model {
            return Err(Problem::other_model(name, own, model));
        }
        Ok(Some(Target { embedder, workers, embedding: own.name.clone(), dimension: dense.dimension as usize }))
    }
}

/// What vectors of a space are made by.
fn made_by(space: &KnownSpace) -> EmbeddedBy {
    let own = space.embeddings.first().cloned().unwrap_or_default();
    EmbeddedBy { space_id: space.id, embedder: own.embedder, model: own.model }
}

fn dense(embedding: &str, values: Vec<f32>) -> v1::Vector {
    let data = v1::vector::Data::Dense(v1::DenseVector { values });
    v1::Vector { embedding: embedding.to_owned(), data: Some(data) }
}
