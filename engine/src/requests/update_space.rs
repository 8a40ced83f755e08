//! UpdateSpace: which fields of a space change, and what they may become.

use cairn_proto::storage::UpdateSpace;
use cairn_proto::storage::mutation::Operation;
use cairn_proto::v1;

use crate::error::{Error, Result};
use crate::requests::check_space_name;
use crate::requests::limits::{NAME_BYTES_MAX, WORD_BYTES_MAX};
use crate::requests::path::{FieldPath, Violations};
use crate::requests::space::{check_fields, check_settings};

/// Paths of one mask; there are fewer that mean anything.
const PATHS_MAX: usize = 64;

/// A field of a space that can change.
pub(crate) enum Path<'a> {
    Fields,
    DefaultTtl,
    DedupByContent,
    HistoryDepth,
    /// Of the embedding with this name.
    Embedder(&'a str),
    /// Of the embedding with this name.
    Model(&'a str),
}

impl<'a> Path<'a> {
    /// Reads a path of a mask; `None` where nothing of that name can change.
    pub(crate) fn parse(path: &'a str) -> Option<Self> {
        match path {
            "fields" => Some(Self::Fields),
            "default_ttl" => Some(Self::DefaultTtl),
            "dedup_by_content" => Some(Self::DedupByContent),
            "history_depth" => Some(Self::HistoryDepth),
            _ => match path.strip_prefix("embeddings.")?.split_once('.')? {
                (name, "embedder") => Some(Self::Embedder(name)),
                (name, "model") => Some(Self::Model(name)),
                _ => None,
            },
        }
    }
}

/// Checks everything that needs no state.
pub(super) fn update_space(request: v1::UpdateSpaceRequest) -> Result<Operation> {
    let space = request.space.unwrap_or_default();
    check_space_name("space.name", &space.name)?;
    let paths = request.update_mask.unwrap_or_default().paths;
    let mut violations = Violations::default();
    let mask = FieldPath::root("update_mask");
    let mask = mask.field("paths");
    if paths.is_empty() || paths.len() > PATHS_MAX {
        violations.add(&mask, format!("has {} paths; 1 to {PATHS_MAX} are allowed", paths.len()));
        return Err(violations.into_result().err().unwrap_or_else(|| Error::internal("a violation is none")));
    }
    let root = FieldPath::root("space");
    // What the mask does not name does not count, so it is not checked either.
    let mut named = v1::Space { name: space.name.clone(), ..v1::Space::default() };
    for (position, path) in paths.iter().enumerate() {
        match Path::parse(path) {
            Some(Path::Fields) => named.fields.clone_from(&space.fields),
            Some(Path::DefaultTtl) => named.default_ttl = space.default_ttl,
            Some(Path::DedupByContent) => named.dedup_by_content = space.dedup_by_content,
            Some(Path::HistoryDepth) => named.history_depth = space.history_depth,
            Some(Path::Embedder(name)) => {
                let embedder = found(&space, name).map(|embedding| embedding.embedder.clone()).unwrap_or_default();
                violations.check_bytes(&root.field("embeddings").field("embedder"), &embedder, 0, NAME_BYTES_MAX);
                entry(&mut named, name).embedder = embedder;
            }
            Some(Path::Model(name)) => {
                let model = found(&space, name).map(|embedding| embedding.model.clone()).unwrap_or_default();
                violations.check_bytes(&root.field("embeddings").field("model"), &model, 0, WORD_BYTES_MAX);
                entry(&mut named, name).model = model;
            }
            None => violations.add(
                &mask.at(position),
                "must be fields, default_ttl, dedup_by_content, history_depth, or embeddings.NAME.embedder or .model; \
                 what the vectors of a space are cannot change",
            ),
        }
    }
    check_fields(&named, &root.field("fields"), &mut violations);
    check_settings(&named, &root, &mut violations);
    violations.into_result()?;
    Ok(Operation::UpdateSpace(UpdateSpace { space: Some(named), paths, expected_version: request.expected_version }))
}

/// The embedding that a request gives values for. A request with one embedding need not name it.
fn found<'a>(space: &'a v1::Space, name: &str) -> Option<&'a v1::Embedding> {
    let by_name = space.embeddings.iter().find(|embedding| embedding.name == name);
    by_name.or(match space.embeddings.as_slice() {
        [only] if only.name.is_empty() => Some(only),
        _ => None,
    })
}

fn entry<'a>(space: &'a mut v1::Space, name: &str) -> &'a mut v1::Embedding {
    let position = space.embeddings.iter().position(|embedding| embedding.name == name);
    let position = position.unwrap_or_else(|| {
        space.embeddings.push(v1::Embedding { name: name.to_string(), ..v1::Embedding::default() });
        space.embeddings.len() - 1
    });
    &mut space.embeddings[position]
}
