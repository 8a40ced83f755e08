//! Memories, values and filters as JSON: what `-o json` prints, `cairn add --file` reads, and `--filter` takes.
//!
//! A memory printed by `cairn ls -o json` is read back as it was. JSON has no times, so a time in the metadata is
//! written as `{"$time": "2025-06-01T12:00:00Z"}`; a number with a point or an exponent is a double.

use std::collections::BTreeMap;

use cairn_client::{Condition, Expiry, Filter, Memory, Scope, Test, Timestamp, Value, Vector};
use serde_json::{Map, Number, Value as Json, json};

use super::input::parse_duration;

/// JSON that is not what it should be: where, and what should be there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}{}{problem}", if path.is_empty() { "" } else { ": " })]
pub(crate) struct JsonError {
    path: String,
    problem: String,
}

type Result<T> = std::result::Result<T, JsonError>;

/// Deeper values are refused by the server too; the limit keeps recursion bounded.
const DEPTH_MAX: usize = 64;
/// The key that marks a time.
const TIME_KEY: &str = "$time";

fn problem<T>(problem: impl Into<String>) -> Result<T> {
    Err(JsonError { path: String::new(), problem: problem.into() })
}

impl JsonError {
    /// Puts a field in front of the path.
    fn within(mut self, parent: &str) -> Self {
        self.path = match self.path.chars().next() {
            None => parent.to_owned(),
            Some('[') => format!("{parent}{}", self.path),
            Some(_) => format!("{parent}.{}", self.path),
        };
        self
    }
}

/// A metadata value as JSON.
pub(crate) fn value_to_json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(value) => json!(value),
        Value::Integer(value) => json!(value),
        Value::Double(value) => Number::from_f64(*value).map_or(Json::Null, Json::Number),
        Value::String(value) => json!(value),
        Value::Timestamp(time) => json!({ TIME_KEY: time.to_string() }),
        Value::List(values) => values.iter().map(value_to_json).collect(),
        Value::Map(entries) => entries.iter().map(|(key, value)| (key.clone(), value_to_json(value))).collect(),
    }
}

/// A metadata value from JSON.
///
/// # Errors
/// Says where a number is too large, a marked time is none, or the depth is too great.
pub(crate) fn value_from_json(json: Json) -> Result<Value> {
    value_at_depth(json, 0)
}

fn value_at_depth(json: Json, depth: usize) -> Result<Value> {
    if depth > DEPTH_MAX {
        return problem("is nested too deeply");
    }
    Ok(match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(value),
        Json::Number(number) => number_from_json(&number)?,
        Json::String(value) => Value::String(value),
        Json::Array(values) => {
            let item = |(index, value)| value_at_depth(value, depth + 1).map_err(|e| e.within(&format!("[{index}]")));
            Value::List(values.into_iter().enumerate().map(item).collect::<Result<_>>()?)
        }
        Json::Object(entries) => match marked_time(&entries)? {
            Some(time) => Value::Timestamp(time),
            None => {
                let entry = |(key, value): (String, Json)| {
                    let value = value_at_depth(value, depth + 1).map_err(|error| error.within(&key))?;
                    Ok((key, value))
                };
                Value::Map(entries.into_iter().map(entry).collect::<Result<_>>()?)
            }
        },
    })
}

fn number_from_json(number: &Number) -> Result<Value> {
    if let Some(integer) = number.as_i64() {
        return Ok(Value::Integer(integer));
    }
    match number.as_f64() {
        Some(double) if number.is_f64() => Ok(Value::Double(double)),
        _ => problem(format!("{number} does not fit into 64 bits with a sign")),
    }
}

fn marked_time(entries: &Map<String, Json>) -> Result<Option<Timestamp>> {
    match (entries.len(), entries.get(TIME_KEY)) {
        (1, Some(Json::String(text))) => time(text).map(Some).map_err(|error| error.within(TIME_KEY)),
        _ => Ok(None),
    }
}

fn time(text: &str) -> Result<Timestamp> {
    text.parse().or_else(|error: cairn_client::ParseTimestampError| problem(error.to_string()))
}

/// A memory as JSON; fields without a value are left out.
pub(crate) fn memory_to_json(memory: &Memory) -> Json {
    let mut json = Map::new();
    let mut put = |key: &str, value: Json| json.insert(key.to_owned(), value);
    put("id", json!(memory.id));
    if !memory.scope.is_empty() {
        put("scope", scope_to_json(&memory.scope));
    }
    if !memory.kind.is_empty() {
        put("kind", json!(memory.kind));
    }
    put("content", json!(memory.content));
    if !memory.metadata.is_empty() {
        put("metadata", memory.metadata.iter().map(|(key, value)| (key.clone(), value_to_json(value))).collect());
    }
    if let Some(importance) = memory.importance {
        put("importance", float_to_json(importance));
    }
    for (key, time) in
        [("created_at", memory.created_at), ("updated_at", memory.updated_at), ("expires_at", memory.ends_at())]
    {
        if let Some(time) = time {
            put(key, json!(time.to_string()));
        }
    }
    if memory.version > 0 {
        put("version", json!(memory.version));
    }
    if !memory.content_hash.is_empty() {
        put("content_hash", json!(hex::encode(&memory.content_hash)));
    }
    if !memory.vectors.is_empty() {
        put("vectors", memory.vectors.iter().map(vector_to_json).collect());
    }
    Json::Object(json)
}

fn scope_to_json(scope: &Scope) -> Json {
    let parts = [
        ("agent_id", &scope.agent_id),
        ("user_id", &scope.user_id),
        ("session_id", &scope.session_id),
        ("namespace", &scope.namespace),
    ];
    parts.into_iter().filter_map(|(key, value)| Some((key.to_owned(), json!(value.as_ref()?)))).collect()
}

fn vector_to_json(vector: &Vector) -> Json {
    let values: Json = vector.values.iter().copied().map(float_to_json).collect();
    json!({ "embedding": vector.embedding, "values": values })
}

/// A single-precision number by its own shortest digits: 0.1, not 0.10000000149011612.
fn float_to_json(value: f32) -> Json {
    value.to_string().parse::<f64>().ok().and_then(Number::from_f64).map_or(Json::Null, Json::Number)
}

/// A memory from JSON, in the form that [`memory_to_json`] prints; what only the server sets is skipped. Beside
/// `vectors`, `vector` takes the plain values, and beside `expires_at`, `ttl` takes a distance such as `30d`.
///
/// # Errors
/// Says which field is not what it should be, or not known.
pub(crate) fn memory_from_json(json: Json) -> Result<Memory> {
    let Json::Object(fields) = json else { return problem("is not a JSON object") };
    let mut memory = Memory::default();
    for (key, value) in fields {
        set_field(&mut memory, &key, value).map_err(|error| error.within(&key))?;
    }
    Ok(memory)
}

fn set_field(memory: &mut Memory, key: &str, value: Json) -> Result<()> {
    if value.is_null() {
        return Ok(());
    }
    match key {
        "id" => memory.id = string(value)?,
        "kind" => memory.kind = string(value)?,
        "content" => memory.content = string(value)?,
        "scope" => memory.scope = scope_from_json(value)?,
        "metadata" => match value_from_json(value)? {
            Value::Map(entries) => memory.metadata = entries,
            _ => return problem("is not an object"),
        },
        "importance" => memory.importance = Some(float(&value)?),
        "created_at" => memory.created_at = Some(time(&string(value)?)?),
        "expires_at" => memory.expires = Some(Expiry::At(time(&string(value)?)?)),
        "ttl" => {
            let distance = parse_duration(&string(value)?).or_else(problem)?;
            memory.expires = Some(Expiry::After(distance));
        }
        "vector" => memory.vectors.push(floats(value)?.into()),
        "vectors" => memory.vectors = list(value, vector_from_json)?,
        "updated_at" | "version" | "content_hash" => {}
        _ => return problem("is not a field of a memory"),
    }
    Ok(())
}

fn scope_from_json(json: Json) -> Result<Scope> {
    let Json::Object(fields) = json else { return problem("is not an object") };
    let mut scope = Scope::new();
    for (key, value) in fields {
        let target = match key.as_str() {
            "agent_id" => &mut scope.agent_id,
            "user_id" => &mut scope.user_id,
            "session_id" => &mut scope.session_id,
            "namespace" => &mut scope.namespace,
            _ => return problem("is not a field of a scope").map_err(|error: JsonError| error.within(&key)),
        };
        if !value.is_null() {
            *target = Some(string(value).map_err(|error| error.within(&key))?);
        }
    }
    Ok(scope)
}

fn vector_from_json(json: Json) -> Result<Vector> {
    match json {
        Json::Array(_) => Ok(floats(json)?.into()),
        Json::Object(mut fields) => {
            let embedding = fields.remove("embedding").map_or(Ok(String::new()), string);
            let embedding = embedding.map_err(|error| error.within("embedding"))?;
            let values = fields.remove("values").unwrap_or(Json::Null);
            let values = floats(values).map_err(|error| error.within("values"))?;
            Ok(Vector { embedding, values })
        }
        _ => problem("is neither a list of numbers nor an object with `values`"),
    }
}

fn string(json: Json) -> Result<String> {
    if let Json::String(text) = json { Ok(text) } else { problem("is not a string") }
}

fn float(json: &Json) -> Result<f32> {
    json.as_f64().map_or_else(|| problem("is not a number"), |number| Ok(number as f32))
}

fn floats(json: Json) -> Result<Vec<f32>> {
    list(json, |item| float(&item))
}

fn list<T>(json: Json, item: impl Fn(Json) -> Result<T>) -> Result<Vec<T>> {
    let Json::Array(items) = json else { return problem("is not a list") };
    let item = |(index, json)| item(json).map_err(|error| error.within(&format!("[{index}]")));
    items.into_iter().enumerate().map(item).collect()
}

/// A filter from JSON: `{"all": [..]}`, `{"any": [..]}`, `{"not": ..}`, or a condition such as
/// `{"field": "kind", "eq": "fact"}`, with or without `{"where": ..}` around it.
///
/// # Errors
/// Says where it is not a filter.
pub(crate) fn filter_from_json(json: Json) -> Result<Filter> {
    filter_at_depth(json, 0)
}

fn filter_at_depth(json: Json, depth: usize) -> Result<Filter> {
    if depth > DEPTH_MAX {
        return problem("is nested too deeply");
    }
    let Json::Object(mut fields) = json else { return problem("is not an object") };
    if fields.contains_key("field") {
        return condition_from_json(fields).map(Filter::Where);
    }
    let mut entries = std::mem::take(&mut fields).into_iter();
    let (Some((key, inner)), None) = (entries.next(), entries.next()) else {
        return problem("must have exactly one of all, any, not and where, or be a condition with a field");
    };
    let filter = match key.as_str() {
        "all" => list(inner, |item| filter_at_depth(item, depth + 1)).map(Filter::All),
        "any" => list(inner, |item| filter_at_depth(item, depth + 1)).map(Filter::Any),
        "not" => filter_at_depth(inner, depth + 1).map(|filter| !filter),
        "where" => match inner {
            Json::Object(fields) => condition_from_json(fields).map(Filter::Where),
            _ => problem("is not an object"),
        },
        _ => problem("is none of all, any, not, where, field"),
    };
    filter.map_err(|error| error.within(&key))
}

fn condition_from_json(mut fields: Map<String, Json>) -> Result<Condition> {
    let field = match fields.remove("field") {
        Some(name) => string(name).map_err(|error| error.within("field"))?,
        None => return problem("has no `field`"),
    };
    let mut tests = fields.into_iter();
    let (Some((key, operand)), None) = (tests.next(), tests.next()) else {
        return problem("must have exactly one test beside `field`");
    };
    let test = test_from_json(&field, &key, operand).map_err(|error| error.within(&key))?;
    Ok(Condition { field, test })
}

fn test_from_json(field: &str, key: &str, operand: Json) -> Result<Test> {
    let one = |operand| Ok(for_field(field, value_from_json(operand)?));
    let many = |operand| list(operand, one);
    Ok(match key {
        "eq" => Test::Eq(one(operand)?),
        "ne" => Test::Ne(one(operand)?),
        "in" => Test::In(many(operand)?),
        "nin" => Test::Nin(many(operand)?),
        "gt" => Test::Gt(one(operand)?),
        "gte" => Test::Gte(one(operand)?),
        "lt" => Test::Lt(one(operand)?),
        "lte" => Test::Lte(one(operand)?),
        "contains" => Test::Contains(string(operand)?),
        "prefix" => Test::Prefix(string(operand)?),
        "exists" => match operand {
            Json::Bool(exists) => Test::Exists(exists),
            _ => return problem("is not true or false"),
        },
        _ => return problem("is none of eq, ne, in, nin, gt, gte, lt, lte, contains, prefix, exists"),
    })
}

/// Fields that hold times take a string that is a time, so that nobody needs to mark it.
pub(crate) fn for_field(field: &str, value: Value) -> Value {
    match (&value, field) {
        (Value::String(text), "created_at" | "updated_at" | "expires_at") => {
            text.parse().map_or(value, Value::Timestamp)
        }
        _ => value,
    }
}

/// The metadata as one compact JSON object.
pub(crate) fn metadata_to_text(metadata: &BTreeMap<String, Value>) -> String {
    let json: Json = metadata.iter().map(|(key, value)| (key.clone(), value_to_json(value))).collect();
    json.to_string()
}

#[cfg(test)]
mod tests {
    use cairn_client::field;
    use proptest::prelude::*;

    use super::*;

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Integer),
            any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(Value::Double),
            ".{0,12}".prop_map(Value::String),
            (0..4_000_000_000_000_000_i64).prop_map(|micros| Value::Timestamp(Timestamp::from_micros(micros))),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::List),
                prop::collection::btree_map("[a-z]{1,4}", inner, 0..4).prop_map(Value::Map),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn a_printed_memory_is_read_back_as_it_was(
            texts in (".{0,8}", ".{0,8}", ".{0,40}"),
            user in prop::option::of(".{1,6}"),
            metadata in prop::collection::btree_map("[a-z]{1,4}", any_value(), 0..4),
            values in prop::collection::vec(-1.0_f32..1.0, 1..6),
            importance in prop::option::of(0.0_f32..1.0),
            expires in prop::option::of(0..4_000_000_000_000_000_i64),
        ) {
            let mut memory = Memory::new(texts.2).id(texts.0).kind(texts.1).vector(values);
            memory.scope.user_id = user;
            memory.metadata = metadata;
            memory.importance = importance;
            memory.expires = expires.map(|micros| Expiry::At(Timestamp::from_micros(micros)));
            let text = memory_to_json(&memory).to_string();
            let back = memory_from_json(serde_json::from_str(&text).unwrap()).unwrap();
            prop_assert_eq!(back, memory);
        }
    }

    fn message(json: Json) -> String {
        memory_from_json(json).unwrap_err().to_string()
    }

    #[test]
    fn errors_name_the_field() {
        assert_eq!(message(json!({"vector": [1, "x"]})), "vector[1]: is not a number");
        assert_eq!(message(json!({"scope": {"user": "a"}})), "scope.user: is not a field of a scope");
        assert_eq!(message(json!({"text": "a"})), "text: is not a field of a memory");
        assert_eq!(message(json!({"created_at": "soon"})).split(':').next(), Some("created_at"));
        assert_eq!(message(json!([])), "is not a JSON object");
        let large = message(json!({"metadata": {"a": {"b": [1, u64::MAX]}}}));
        assert!(large.starts_with("metadata.a.b[1]: "), "{large}");
    }

    #[test]
    fn what_only_the_server_sets_is_skipped() {
        let printed = json!({"id": "a", "content": "x", "version": 3, "updated_at": "2025-01-01T00:00:00Z"});
        assert_eq!(memory_from_json(printed), Ok(Memory::new("x").id("a")));
    }

    #[test]
    fn filters_are_read() {
        let json = json!({"all": [
            {"field": "kind", "eq": "fact"},
            {"not": {"where": {"field": "metadata.topic", "in": ["a", "b"]}}},
            {"field": "created_at", "gte": "2025-01-01"},
        ]});
        let time: Timestamp = "2025-01-01".parse().unwrap();
        let expected =
            field("kind").eq("fact") & !field("metadata.topic").is_in(["a", "b"]) & field("created_at").gte(time);
        assert_eq!(filter_from_json(json), Ok(expected));
    }

    #[test]
    fn filter_errors_name_the_place() {
        let message = |json| filter_from_json(json).unwrap_err().to_string();
        let nested = json!({"all": [{"field": "kind", "eq": "x"}, {"field": "kind", "like": "x"}]});
        assert!(message(nested).starts_with("all[1].like: is none of eq"));
        assert!(message(json!({"field": "kind"})).contains("exactly one test"));
        assert!(message(json!({"all": [], "any": []})).contains("exactly one of"));
        assert!(message(json!({"field": "kind", "exists": "yes"})).contains("true or false"));
    }
}
