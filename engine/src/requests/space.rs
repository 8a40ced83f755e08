//! What a space in a request must be, and its defaults.

use cairn_proto::v1;
use cairn_proto::v1::embedding::Kind;

use crate::error::{Error, Result};
use crate::requests::limits::{DIMENSION_MAX, HISTORY_DEPTH_MAX, INDEXED_FIELDS_MAX, NAME_BYTES_MAX, WORD_BYTES_MAX};
use crate::requests::path::{FieldPath, Violations};
use crate::time::micros_of_positive_duration;

/// Checks the space of a CreateSpace and fills in its defaults; output-only fields are dropped.
pub(crate) fn checked_space(space: &v1::Space) -> Result<v1::Space> {
    let path = FieldPath::root("space");
    let mut violations = Violations::default();
    check_name(&space.name, &path.field("name"), &mut violations);
    let embeddings = checked_embeddings(space, &path, &mut violations)?;
    check_fields(space, &path.field("fields"), &mut violations);
    check_settings(space, &path, &mut violations);
    violations.into_result()?;
    Ok(v1::Space {
        name: space.name.clone(),
        embeddings,
        fields: space.fields.clone(),
        default_ttl: space.default_ttl,
        dedup_by_content: space.dedup_by_content,
        history_depth: space.history_depth,
        ..v1::Space::default()
    })
}

/// Notes settings that are out of their range.
pub(super) fn check_settings(space: &v1::Space, path: &FieldPath<'_>, violations: &mut Violations) {
    if space.default_ttl.as_ref().is_some_and(|ttl| micros_of_positive_duration(ttl).is_none()) {
        violations.add(&path.field("default_ttl"), "must be at least 1 microsecond and at most 10,000 years");
    }
    if space.history_depth > HISTORY_DEPTH_MAX {
        violations.add(
            &path.field("history_depth"),
            format!("is {}; at most {HISTORY_DEPTH_MAX} is allowed", space.history_depth),
        );
    }
}

/// Notes a name that is not 1 to 63 of `a-z 0-9 _ -` starting with a letter.
pub(crate) fn check_name(name: &str, path: &FieldPath<'_>, violations: &mut Violations) {
    let valid = name.len() <= NAME_BYTES_MAX
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte));
    if !valid {
        violations.add(path, format!("must be 1 to {NAME_BYTES_MAX} of `a-z 0-9 _ -`, starting with a letter"));
    }
}

fn checked_embeddings(
    space: &v1::Space,
    path: &FieldPath<'_>,
    violations: &mut Violations,
) -> Result<Vec<v1::Embedding>> {
    let path = path.field("embeddings");
    if space.embeddings.len() > 1 {
        return Err(Error::unimplemented("a space with more than one embedding"));
    }
    let Some(embedding) = space.embeddings.first() else {
        violations.add(&path, "must hold exactly one dense embedding");
        return Ok(Vec::new());
    };
    let path = path.at(0);
    let mut embedding = embedding.clone();
    if embedding.name.is_empty() {
        embedding.name = "default".to_string();
    }
    check_name(&embedding.name, &path.field("name"), violations);
    violations.check_bytes(&path.field("embedder"), &embedding.embedder, 0, NAME_BYTES_MAX);
    violations.check_bytes(&path.field("model"), &embedding.model, 0, WORD_BYTES_MAX);
    match &mut embedding.kind {
        Some(Kind::Dense(dense)) => check_dense(dense, &path.field("dense"), violations)?,
        Some(Kind::Sparse(_)) => return Err(Error::unimplemented("a sparse embedding")),
        Some(Kind::Multi(_)) => return Err(Error::unimplemented("a multi-vector embedding")),
        None => violations.add(&path, "must set one of dense, sparse, multi"),
    }
    Ok(vec![embedding])
}

fn check_dense(dense: &mut v1::DenseEmbedding, path: &FieldPath<'_>, violations: &mut Violations) -> Result<()> {
    if dense.dimension == 0 || dense.dimension as usize > DIMENSION_MAX {
        violations.add(&path.field("dimension"), format!("is {}; it must be 1 to {DIMENSION_MAX}", dense.dimension));
    }
    match v1::Metric::try_from(dense.metric) {
        Ok(v1::Metric::Unspecified) => dense.set_metric(v1::Metric::Cosine),
        Ok(_) => {}
        Err(_) => violations.add(&path.field("metric"), "is not a metric"),
    }
    match v1::IndexKind::try_from(dense.index_kind) {
        Ok(v1::IndexKind::Unspecified) => dense.set_index_kind(v1::IndexKind::Cairn),
        Ok(v1::IndexKind::Cairn | v1::IndexKind::None) => {}
        Ok(v1::IndexKind::HnswRs) if cfg!(feature = "hnsw-rs") => {}
        Ok(v1::IndexKind::HnswRs) => {
            let what = format!(
                "{}: HNSW_RS, for which cairn must be built with the feature hnsw-rs,",
                path.field("index_kind")
            );
            return Err(Error::unimplemented(&what));
        }
        Err(_) => violations.add(&path.field("index_kind"), "is not an index kind"),
    }
    match v1::RescoreStorage::try_from(dense.rescore_storage) {
        Ok(v1::RescoreStorage::Unspecified) => dense.set_rescore_storage(v1::RescoreStorage::MemoryF32),
        Ok(_) => {}
        Err(_) => violations.add(&path.field("rescore_storage"), "is not a rescore storage"),
    }
    Ok(())
}

pub(super) fn check_fields(space: &v1::Space, path: &FieldPath<'_>, violations: &mut Violations) {
    if space.fields.len() > INDEXED_FIELDS_MAX {
        violations.add(path, format!("has {} fields; at most {INDEXED_FIELDS_MAX} are allowed", space.fields.len()));
        return;
    }
    for (position, field) in space.fields.iter().enumerate() {
        let path = path.at(position);
        if field.path.len() > WORD_BYTES_MAX || field.path.split('.').any(str::is_empty) {
            violations.add(
                &path.field("path"),
                format!("must be a dotted path without empty segments; at most {WORD_BYTES_MAX} bytes"),
            );
        }
        if space.fields[..position].iter().any(|earlier| earlier.path == field.path) {
            violations.add(&path.field("path"), "is there twice");
        }
        if matches!(v1::FieldType::try_from(field.r#type), Err(_) | Ok(v1::FieldType::Unspecified)) {
            violations.add(&path.field("type"), "must be one of KEYWORD, INTEGER, FLOAT, BOOL, DATETIME");
        }
    }
}
