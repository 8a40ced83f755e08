//! What a memory in a request must be, as far as that needs no state.

use std::collections::BTreeMap;

use cairn_proto::v1;
use cairn_proto::v1::memory::Expiry;
use cairn_proto::v1::value::Kind;
use cairn_proto::v1::vector::Data;
use prost::Message;
use prost::length_delimiter_len;

use crate::error::{Error, Result};
use crate::requests::limits::{
    CONTENT_BYTES_MAX, DIMENSION_MAX, METADATA_BYTES_MAX, METADATA_LEVELS_MAX, NAME_BYTES_MAX, WORD_BYTES_MAX,
};
use crate::requests::path::{FieldPath, Violations};
use crate::time::{micros_of_positive_duration, micros_of_timestamp};

/// Checks a memory of a write. What this version does not serve is UNIMPLEMENTED at once.
pub(crate) fn check_memory(memory: &v1::Memory, path: &FieldPath<'_>, violations: &mut Violations) -> Result<()> {
    violations.check_bytes(&path.field("id"), &memory.id, 0, WORD_BYTES_MAX);
    violations.check_bytes(&path.field("kind"), &memory.kind, 0, WORD_BYTES_MAX);
    violations.check_bytes(&path.field("content"), &memory.content, 0, CONTENT_BYTES_MAX);
    if let Some(scope) = &memory.scope {
        check_scope(scope, &path.field("scope"), violations);
    }
    check_metadata(&memory.metadata, &path.field("metadata"), violations);
    if let Some(importance) = memory.importance
        && !(0.0..=1.0).contains(&importance)
    {
        violations.add(&path.field("importance"), format!("is {importance}; it must be 0 to 1"));
    }
    if memory.created_at.as_ref().is_some_and(|time| micros_of_timestamp(time).is_none()) {
        violations.add(&path.field("created_at"), "must be a time in the years 1 to 9999");
    }
    match &memory.expiry {
        Some(Expiry::ExpiresAt(time)) if micros_of_timestamp(time).is_none() => {
            violations.add(&path.field("expires_at"), "must be a time in the years 1 to 9999");
        }
        Some(Expiry::Ttl(duration)) if micros_of_positive_duration(duration).is_none() => {
            violations.add(&path.field("ttl"), "must be at least 1 microsecond and at most 10,000 years");
        }
        _ => {}
    }
    check_vectors(&memory.vectors, path, violations)
}

/// Checks the scope of a memory or of a request.
pub(crate) fn check_scope(scope: &v1::Scope, path: &FieldPath<'_>, violations: &mut Violations) {
    let ids = [("agent_id", &scope.agent_id), ("user_id", &scope.user_id), ("session_id", &scope.session_id)];
    for (name, value) in ids {
        if let Some(value) = value {
            violations.check_bytes(&path.field(name), value, 1, WORD_BYTES_MAX);
        }
    }
    if let Some(namespace) = &scope.namespace {
        check_namespace(namespace, &path.field("namespace"), violations);
    }
}

/// Notes a namespace path that is none.
pub(crate) fn check_namespace(namespace: &str, path: &FieldPath<'_>, violations: &mut Violations) {
    violations.check_bytes(path, namespace, 1, WORD_BYTES_MAX);
    if !namespace.is_empty() && namespace.split('/').any(str::is_empty) {
        violations.add(path, "must be segments with `/` between them, none of them empty");
    }
}

/// Checks metadata: keys, values, levels, bytes.
pub(crate) fn check_metadata(
    metadata: &BTreeMap<String, v1::Value>,
    path: &FieldPath<'_>,
    violations: &mut Violations,
) {
    let mut bytes = 0;
    for (key, value) in metadata {
        let path = path.field(key);
        check_metadata_key(key, &path, violations);
        check_value(value, &path, 2, violations);
        let lengths = [key.len(), value.encoded_len()];
        let entry: usize = lengths.iter().map(|length| 1 + length_delimiter_len(*length) + length).sum();
        bytes += 1 + length_delimiter_len(entry) + entry;
    }
    if bytes > METADATA_BYTES_MAX {
        violations.add(path, format!("has {bytes} bytes encoded; at most {METADATA_BYTES_MAX} are allowed"));
    }
}

fn check_metadata_key(key: &str, path: &FieldPath<'_>, violations: &mut Violations) {
    if key.is_empty() || key.contains('.') {
        violations.add(path, "keys must not be empty and must not hold a dot");
    }
}

fn check_value(value: &v1::Value, path: &FieldPath<'_>, level: usize, violations: &mut Violations) {
    if level > METADATA_LEVELS_MAX && matches!(value.kind, Some(Kind::ListValue(_) | Kind::MapValue(_))) {
        violations.add(path, format!("metadata is more than {METADATA_LEVELS_MAX} levels deep here"));
        return;
    }
    match &value.kind {
        None => violations.add(path, "must set one of its kinds"),
        Some(Kind::DoubleValue(number)) if !number.is_finite() => violations.add(path, "must be a finite number"),
        Some(Kind::TimestampValue(time)) if micros_of_timestamp(time).is_none() => {
            violations.add(path, "must be a time in the years 1 to 9999");
        }
        Some(Kind::ListValue(list)) => {
            for (position, value) in list.values.iter().enumerate() {
                check_value(value, &path.field("").at(position), level + 1, violations);
            }
        }
        Some(Kind::MapValue(map)) => {
            for (key, value) in &map.entries {
                let path = path.field(key);
                check_metadata_key(key, &path, violations);
                check_value(value, &path, level + 1, violations);
            }
        }
        Some(_) => {}
    }
}

fn check_vectors(vectors: &[v1::Vector], path: &FieldPath<'_>, violations: &mut Violations) -> Result<()> {
    if vectors.len() > 1 {
        violations.add(
            &path.field("vectors"),
            format!("has {} vectors; at most 1 is allowed, since a space has one embedding", vectors.len()),
        );
    }
    for (position, vector) in vectors.iter().enumerate() {
        check_vector(vector, &path.field("vectors").at(position), violations)?;
    }
    Ok(())
}

/// Checks one vector: dense, finite, of a possible dimension.
pub(crate) fn check_vector(vector: &v1::Vector, path: &FieldPath<'_>, violations: &mut Violations) -> Result<()> {
    violations.check_bytes(&path.field("embedding"), &vector.embedding, 0, NAME_BYTES_MAX);
    let dense = match &vector.data {
        Some(Data::Dense(dense)) => dense,
        Some(Data::Sparse(_)) => return Err(Error::unimplemented("a sparse vector")),
        Some(Data::Multi(_)) => return Err(Error::unimplemented("a multi-vector")),
        None => {
            violations.add(path, "must set one of dense, sparse, multi");
            return Ok(());
        }
    };
    let dense_path = path.field("dense");
    let values = dense_path.field("values");
    if dense.values.is_empty() || dense.values.len() > DIMENSION_MAX {
        violations.add(&values, format!("has {} values; 1 to {DIMENSION_MAX} are allowed", dense.values.len()));
    }
    if let Some(position) = dense.values.iter().position(|value| !value.is_finite()) {
        violations.add(&values, format!("value {position} is {}; all must be finite", dense.values[position]));
    }
    Ok(())
}
