//! Scopes and filters of requests as filters of the index, and records as the documents that these are about.

use cairn_index::{Condition, Field, FieldSource, Filter, Scalar, ScalarRef, Schema, Test};
use cairn_proto::storage::MemoryRecord;
use cairn_proto::v1;
use cairn_proto::v1::condition::Test as WireTest;
use cairn_proto::v1::filter::Node;
use cairn_proto::v1::value::Kind;

use crate::error::{Error, Result};
use crate::requests::limits::{FILTER_LEVELS_MAX, WORD_BYTES_MAX};
use crate::requests::path::FieldPath;
use crate::time::micros_of_timestamp;

/// What a request selects: scope and filter in one, checked against the schema. The fields are named below `prefix`,
/// which is empty or ends with a dot.
pub(crate) fn selection(
    prefix: &str,
    scope: Option<&v1::Scope>,
    filter: Option<&v1::Filter>,
    schema: &Schema,
) -> Result<Filter> {
    let mut parts = scope.map(scope_conditions).unwrap_or_default();
    if let Some(filter) = filter {
        let name = format!("{prefix}filter");
        let filter = convert(filter, &FieldPath::root(&name), 1)?;
        filter.check(schema).map_err(|e| {
            let field = if e.path.is_empty() { name.clone() } else { format!("{name}.{}", e.path) };
            Error::invalid(field, e.reason)
        })?;
        parts.push(filter);
    }
    Ok(Filter::All(parts))
}

/// The filter of memories whose time is over.
pub(crate) fn expired(time_micros: i64) -> Filter {
    Filter::Where(Condition { field: Field::ExpiresAt, test: Test::Lte(Scalar::Timestamp(time_micros)) })
}

/// Those of the selection whose time is not over.
pub(crate) fn alive(selection: Filter, time_micros: i64) -> Filter {
    Filter::All(vec![selection, Filter::Not(Box::new(expired(time_micros)))])
}

fn scope_conditions(scope: &v1::Scope) -> Vec<Filter> {
    let equal = |field: Field, value: &Option<String>| {
        let value = value.as_ref()?;
        Some(Filter::Where(Condition { field, test: Test::Eq(Scalar::String(value.clone())) }))
    };
    let namespace = scope
        .namespace
        .as_ref()
        .map(|path| Filter::Where(Condition { field: Field::Namespace, test: Test::Within(path.clone()) }));
    [
        equal(Field::AgentId, &scope.agent_id),
        equal(Field::UserId, &scope.user_id),
        equal(Field::SessionId, &scope.session_id),
        namespace,
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn convert(filter: &v1::Filter, path: &FieldPath<'_>, level: usize) -> Result<Filter> {
    if level > FILTER_LEVELS_MAX {
        return Err(Error::invalid(path.to_string(), format!("has more than {FILTER_LEVELS_MAX} levels")));
    }
    let list = |list: &v1::FilterList, name: &str| {
        let path = path.field(name);
        let elements = list.filters.iter().enumerate();
        elements
            .map(|(position, filter)| convert(filter, &path.field("filters").at(position), level + 1))
            .collect::<Result<_>>()
    };
    match &filter.node {
        None => Err(Error::invalid(path.to_string(), "must set one of all, any, not, where")),
        Some(Node::All(filters)) => Ok(Filter::All(list(filters, "all")?)),
        Some(Node::Any(filters)) => Ok(Filter::Any(list(filters, "any")?)),
        Some(Node::Not(inner)) => Ok(Filter::Not(Box::new(convert(inner, &path.field("not"), level + 1)?))),
        Some(Node::Where(condition)) => convert_condition(condition, &path.field("where")).map(Filter::Where),
    }
}

fn convert_condition(condition: &v1::Condition, path: &FieldPath<'_>) -> Result<Condition> {
    let field = convert_field(&condition.field, &path.field("field"))?;
    let operand = |value: &v1::Value, name: &str| convert_operand(value, &path.field(name));
    let operands = |list: &v1::ListValue, name: &str| {
        let path = path.field(name);
        let values = list.values.iter().enumerate();
        values
            .map(|(position, value)| convert_operand(value, &path.field("values").at(position)))
            .collect::<Result<_>>()
    };
    let test = match &condition.test {
        None => {
            return Err(Error::invalid(
                path.to_string(),
                "must set one of eq, ne, in, nin, gt, gte, lt, lte, contains, prefix, exists",
            ));
        }
        Some(WireTest::Eq(value)) => Test::Eq(operand(value, "eq")?),
        Some(WireTest::Ne(value)) => Test::Ne(operand(value, "ne")?),
        Some(WireTest::In(list)) => Test::In(operands(list, "in")?),
        Some(WireTest::Nin(list)) => Test::Nin(operands(list, "nin")?),
        Some(WireTest::Gt(value)) => Test::Gt(operand(value, "gt")?),
        Some(WireTest::Gte(value)) => Test::Gte(operand(value, "gte")?),
        Some(WireTest::Lt(value)) => Test::Lt(operand(value, "lt")?),
        Some(WireTest::Lte(value)) => Test::Lte(operand(value, "lte")?),
        Some(WireTest::Contains(part)) => Test::Contains(part.clone()),
        Some(WireTest::Prefix(part)) => Test::Prefix(part.clone()),
        Some(WireTest::Exists(wanted)) => Test::Exists(*wanted),
    };
    Ok(Condition { field, test })
}

fn convert_field(name: &str, path: &FieldPath<'_>) -> Result<Field> {
    let field = match name {
        "scope.agent_id" => Field::AgentId,
        "scope.user_id" => Field::UserId,
        "scope.session_id" => Field::SessionId,
        "scope.namespace" => Field::Namespace,
        "kind" => Field::Kind,
        "created_at" => Field::CreatedAt,
        "updated_at" => Field::UpdatedAt,
        "expires_at" => Field::ExpiresAt,
        "importance" => Field::Importance,
        _ => {
            let metadata = name.strip_prefix("metadata.").filter(|metadata| {
                metadata.len() <= WORD_BYTES_MAX && metadata.split('.').all(|segment| !segment.is_empty())
            });
            let metadata = metadata.ok_or_else(|| {
                Error::invalid(
                    path.to_string(),
                    "is not scope.agent_id, scope.user_id, scope.session_id, scope.namespace, kind, created_at, \
                     updated_at, expires_at, importance, or metadata. and a dotted path of at most 255 bytes",
                )
            })?;
            Field::Metadata(metadata.to_string())
        }
    };
    Ok(field)
}

fn convert_operand(value: &v1::Value, path: &FieldPath<'_>) -> Result<Scalar> {
    let invalid = |what: &str| Err(Error::invalid(path.to_string(), what));
    match &value.kind {
        Some(Kind::BoolValue(value)) => Ok(Scalar::Bool(*value)),
        Some(Kind::IntegerValue(value)) => Ok(Scalar::Integer(*value)),
        Some(Kind::DoubleValue(value)) if value.is_finite() => Ok(Scalar::Double(*value)),
        Some(Kind::DoubleValue(_)) => invalid("must be a finite number"),
        Some(Kind::StringValue(value)) => Ok(Scalar::String(value.clone())),
        Some(Kind::TimestampValue(value)) => match micros_of_timestamp(value) {
            Some(micros) => Ok(Scalar::Timestamp(micros)),
            None => invalid("must be a time in the years 1 to 9999"),
        },
        Some(Kind::NullValue(_)) => invalid("cannot be null: use exists"),
        Some(Kind::ListValue(_) | Kind::MapValue(_)) => invalid("must be a single value, not a list or a map"),
        None => invalid("must be set"),
    }
}

/// A record as a document of filters and of the index.
pub(crate) struct RecordFields<'a>(pub(crate) &'a MemoryRecord);

impl FieldSource for RecordFields<'_> {
    fn any_value(&self, field: &Field, test: &mut dyn FnMut(ScalarRef<'_>) -> bool) -> bool {
        let record = self.0;
        let scope = record.scope.as_ref();
        let mut text = |value: Option<&String>| value.is_some_and(|value| test(ScalarRef::String(value)));
        match field {
            Field::AgentId => text(scope.and_then(|scope| scope.agent_id.as_ref())),
            Field::UserId => text(scope.and_then(|scope| scope.user_id.as_ref())),
            Field::SessionId => text(scope.and_then(|scope| scope.session_id.as_ref())),
            Field::Namespace => text(scope.and_then(|scope| scope.namespace.as_ref())),
            Field::Kind => text(Some(&record.kind).filter(|kind| !kind.is_empty())),
            Field::CreatedAt => test(ScalarRef::Timestamp(record.created_at_micros)),
            Field::UpdatedAt => test(ScalarRef::Timestamp(record.updated_at_micros)),
            Field::ExpiresAt => record.expires_at_micros.is_some_and(|micros| test(ScalarRef::Timestamp(micros))),
            Field::Importance => {
                record.importance.is_some_and(|importance| test(ScalarRef::Double(f64::from(importance))))
            }
            Field::Metadata(path) => {
                let mut segments = path.split('.');
                let mut value = segments.next().and_then(|segment| record.metadata.get(segment));
                for segment in segments {
                    value = match value.and_then(|value| value.kind.as_ref()) {
                        Some(Kind::MapValue(map)) => map.entries.get(segment),
                        _ => None,
                    };
                }
                value.is_some_and(|value| any_scalar(value, test))
            }
        }
    }
}

/// Whether the test holds for the value or, in a list, for any element. Metadata is at most 16 levels deep.
fn any_scalar(value: &v1::Value, test: &mut dyn FnMut(ScalarRef<'_>) -> bool) -> bool {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => false,
        Some(Kind::BoolValue(value)) => test(ScalarRef::Bool(*value)),
        Some(Kind::IntegerValue(value)) => test(ScalarRef::Integer(*value)),
        Some(Kind::DoubleValue(value)) => test(ScalarRef::Double(*value)),
        Some(Kind::StringValue(value)) => test(ScalarRef::String(value)),
        Some(Kind::TimestampValue(value)) => {
            micros_of_timestamp(value).is_some_and(|micros| test(ScalarRef::Timestamp(micros)))
        }
        Some(Kind::ListValue(list)) => list.values.iter().any(|value| any_scalar(value, test)),
        Some(Kind::MapValue(_)) => test(ScalarRef::Map),
    }
}
