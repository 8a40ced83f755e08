//! Whether a space and its embedder fit each other: said when a space is made or given another embedder, not when the first
//! text comes.

use cairn_engine::WriteRequest;
use cairn_proto::v1;

use super::{Call, Service};
use crate::embed::Embedders;
use crate::error::Problem;

impl Service {
    /// Refuses a space that its embedder cannot serve, and names the embedder's model where the request leaves it open:
    /// vectors of another model, made after a change of the configuration, must not get into the space.
    ///
    /// # Errors
    /// UNKNOWN_EMBEDDER for an embedder that this node does not have; INVALID_ARGUMENT for one that does not make vectors of
    /// the space's dimension.
    pub(super) async fn fit(&self, call: &Call, request: &mut WriteRequest) -> Result<(), Problem> {
        match request {
            WriteRequest::CreateSpace(request) => {
                request.space.as_mut().map_or(Ok(()), |space| fit_new(&self.embedders, space))
            }
            WriteRequest::UpdateSpace(request) => self.fit_change(call, request).await,
            _ => Ok(()),
        }
    }

    /// As [`Service::fit`]. The dimension of a space never changes, so what is read of it here still holds for the write.
    async fn fit_change(&self, call: &Call, request: &mut v1::UpdateSpaceRequest) -> Result<(), Problem> {
        let names = embedders_in(request);
        if names.is_empty() {
            return Ok(());
        }
        let get = v1::GetSpaceRequest {
            name: request.space.as_ref().map(|space| space.name.clone()).unwrap_or_default(),
            consistency: None,
        };
        let point = self.read_point(call, None).await?;
        let found = self
            .read_at(call, point, move |engine, principal, point| engine.get_space(principal, &get, point))
            .await
            .map_err(|problem| problem.rename_field("name", "space.name"))?;
        let space = found.space.unwrap_or_default();
        names.iter().try_for_each(|name| fit_changed(&self.embedders, &space, name, request))
    }
}

/// Checks the embeddings of a new space.
fn fit_new(embedders: &Embedders, space: &mut v1::Space) -> Result<(), Problem> {
    for (position, embedding) in space.embeddings.iter_mut().enumerate() {
        if embedding.embedder.is_empty() {
            continue;
        }
        let (model, made) = known(embedders, &space.name, &embedding.embedder)?;
        if let Some((dimension, made)) = misfit(embedding, made) {
            let what = format!("is {dimension}; embedder `{}` makes vectors of {made}", embedding.embedder);
            return Err(Problem::invalid(&format!("space.embeddings[{position}].dense.dimension"), what));
        }
        if embedding.model.is_empty() {
            embedding.model = model;
        }
    }
    Ok(())
}

/// Checks a change of the embedder of the embedding `name` of a space.
fn fit_changed(
    embedders: &Embedders,
    space: &v1::Space,
    name: &str,
    request: &mut v1::UpdateSpaceRequest,
) -> Result<(), Problem> {
    // What is not there is refused by the engine.
    let Some(own) = space.embeddings.iter().find(|embedding| embedding.name == name) else { return Ok(()) };
    let Some((position, given)) = given(request, name) else { return Ok(()) };
    if given.embedder.is_empty() {
        return Ok(());
    }
    let (model, made) = known(embedders, &space.name, &given.embedder)?;
    if let Some((dimension, made)) = misfit(own, made) {
        let embedder = &given.embedder;
        let what = format!("`{embedder}` makes vectors of dimension {made}; those of the space have {dimension}");
        return Err(Problem::invalid(&format!("space.embeddings[{position}].embedder"), what));
    }
    let path = format!("embeddings.{name}.model");
    let paths = &mut request.update_mask.get_or_insert_default().paths;
    if own.model.is_empty() && !model.is_empty() && !paths.contains(&path) {
        paths.push(path);
        if let Some(given) = request.space.as_mut().and_then(|space| space.embeddings.get_mut(position)) {
            given.model = model;
        }
    }
    Ok(())
}

/// Model and dimension of an embedder's vectors, as far as it knows them.
fn known(embedders: &Embedders, space: &str, embedder: &str) -> Result<(String, Option<usize>), Problem> {
    match embedders.get(embedder) {
        Some((embedder, _)) => Ok((embedder.model().to_owned(), embedder.dimension())),
        None => Err(Problem::no_embedder(space, embedder, &embedders.names().collect::<Vec<_>>().join(", "))),
    }
}

/// The dimension of an embedding and that of its embedder, where they differ.
fn misfit(embedding: &v1::Embedding, made: Option<usize>) -> Option<(u32, usize)> {
    match &embedding.kind {
        Some(v1::embedding::Kind::Dense(dense)) => {
            made.filter(|made| *made != dense.dimension as usize).map(|made| (dense.dimension, made))
        }
        _ => None,
    }
}

/// The embeddings whose embedder a request changes, by name.
fn embedders_in(request: &v1::UpdateSpaceRequest) -> Vec<String> {
    let paths = request.update_mask.iter().flat_map(|mask| &mask.paths);
    paths.filter_map(|path| Some(path.strip_prefix("embeddings.")?.strip_suffix(".embedder")?.to_owned())).collect()
}

/// What a request says of an embedding, and where; one that names a single embedding need not say its name.
fn given<'a>(request: &'a v1::UpdateSpaceRequest, name: &str) -> Option<(usize, &'a v1::Embedding)> {
    let embeddings = request.space.as_ref().map_or(&[][..], |space| &space.embeddings);
    let by_name = embeddings.iter().enumerate().find(|(_, embedding)| embedding.name == name);
    by_name.or(match embeddings {
        [only] if only.name.is_empty() => Some((0, only)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;
    use crate::embed::{EmbedError, Embedder};

    /// Makes vectors of three dimensions, if it is ever asked.
    struct Three;

    impl Embedder for Three {
        fn name(&self) -> &'static str {
            "three"
        }

        fn model(&self) -> &str {
            "m-3"
        }

        fn dimension(&self) -> Option<usize> {
            Some(3)
        }

        fn concurrency(&self) -> usize {
            1
        }

        fn embed(&self, _: &[&str], dimension: usize, _: Instant) -> Result<Vec<Vec<f32>>, EmbedError> {
            Err(EmbedError::Dimension { embedder: self.name(), dimension })
        }
    }

    fn embedders() -> Embedders {
        let mut embedders = Embedders::built_in();
        embedders.insert(Arc::new(Three));
        embedders
    }

    fn embedding(name: &str, embedder: &str, dimension: u32) -> v1::Embedding {
        v1::Embedding {
            name: name.to_owned(),
            embedder: embedder.to_owned(),
            kind: Some(v1::embedding::Kind::Dense(v1::DenseEmbedding { dimension, ..Default::default() })),
            ..Default::default()
        }
    }

    fn space(embeddings: Vec<v1::Embedding>) -> v1::Space {
        v1::Space { name: "notes".into(), embeddings, ..Default::default() }
    }

    #[test]
    fn a_new_space_has_the_dimension_and_the_model_of_its_embedder() {
        let mut fit = space(vec![embedding("", "three", 3), embedding("", "hash", 10), embedding("", "", 7)]);
        fit_new(&embedders(), &mut fit).unwrap();
        let models: Vec<_> = fit.embeddings.iter().map(|embedding| embedding.model.as_str()).collect();
        assert_eq!(models, ["m-3", "", ""]);
        let mut wide = space(vec![embedding("", "hash", 10), embedding("", "three", 10)]);
        let problem = fit_new(&embedders(), &mut wide).unwrap_err().to_string();
        let expected = "space.embeddings[1].dense.dimension: is 10; embedder `three` makes vectors of 3";
        assert!(problem.contains(expected), "{problem}");
        let mut lost = space(vec![embedding("", "thre", 3)]);
        let problem = fit_new(&embedders(), &mut lost).unwrap_err();
        assert_eq!(problem.reason(), "UNKNOWN_EMBEDDER");
        assert!(problem.to_string().contains("hash, three"), "{problem}");
    }

    #[test]
    fn a_changed_embedder_makes_what_the_space_holds() {
        let change = |given: v1::Embedding, paths: &[&str]| v1::UpdateSpaceRequest {
            space: Some(space(vec![given])),
            update_mask: Some(prost_types::FieldMask { paths: paths.iter().map(|path| (*path).into()).collect() }),
            ..Default::default()
        };
        let path = "embeddings.default.embedder";
        let with = |dimension| space(vec![embedding("default", "", dimension)]);
        let fit = |space: &v1::Space, request: &mut v1::UpdateSpaceRequest| {
            embedders_in(request).iter().try_for_each(|name| fit_changed(&embedders(), space, name, request))
        };

        let mut request = change(embedding("", "three", 0), &[path]);
        fit(&with(3), &mut request).unwrap();
        let paths = &request.update_mask.as_ref().unwrap().paths;
        assert_eq!(paths[1..], ["embeddings.default.model"], "the model comes with the embedder");
        assert_eq!(request.space.as_ref().unwrap().embeddings[0].model, "m-3");

        let mut request = change(embedding("default", "three", 0), &["history_depth", path]);
        let problem = fit(&with(8), &mut request).unwrap_err().to_string();
        let expected = "space.embeddings[0].embedder: `three` makes vectors of dimension 3; those of the space have 8";
        assert!(problem.contains(expected), "{problem}");
        assert_eq!(
            fit(&with(3), &mut change(embedding("", "x", 0), &[path])).unwrap_err().reason(),
            "UNKNOWN_EMBEDDER"
        );
        for other in [change(embedding("", "three", 0), &["history_depth"]), change(embedding("", "", 0), &[path])] {
            fit(&with(8), &mut other.clone()).unwrap();
        }

        let mut labelled = with(3);
        labelled.embeddings[0].model = "older".into();
        let mut request = change(embedding("", "three", 0), &[path]);
        fit(&labelled, &mut request).unwrap();
        assert_eq!(request.update_mask.unwrap().paths, [path], "vectors of another model keep their label");
    }
}
