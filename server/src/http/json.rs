//! JSON for messages of the public API, both ways, by their descriptors.
//!
//! The mapping is protobuf's own (ProtoJSON): 64-bit integers as strings, bytes as base64, timestamps by RFC 3339,
//! durations as `1.5s`, enums by name. What goes beyond it:
//!
//! - Answers spell fields as the `.proto` files do (`user_id`), since filters, masks and refusals name them so too.
//!   Requests may also say `userId`; to say both is refused.
//! - Fields without presence are always in an answer, so that an empty list is `[]`.
//! - Where a `cairn.v1.Value` is expected, a plain string, number, boolean, null or list stands for itself. An object is
//!   always the message: `{"timestamp_value": "..."}`, `{"map_value": {"entries": {...}}}`.
//! - A field mask is a list of paths, or text with commas. Its paths are taken as they are written, since the usual
//!   mapping would turn the metadata key `myKey` into `my_key`.
//! - A name that is given twice, and a field that does not exist, are refused by their path.

use bytes::Bytes;
use prost::Message as _;
use prost_reflect::{
    DeserializeOptions, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, SerializeOptions, Value as Field,
};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::error::Problem;

const FIELD_MASK: &str = "google.protobuf.FieldMask";
const VALUE: &str = "cairn.v1.Value";
const LIST_VALUE: &str = "cairn.v1.ListValue";

const READ: DeserializeOptions = DeserializeOptions::new();
const WRITE: SerializeOptions = SerializeOptions::new().use_proto_field_name(true).skip_default_fields(false);

/// Reads a body as JSON without losing anything: a name that is given twice in one object is an error.
///
/// # Errors
/// INVALID_ARGUMENT that names `request`, and line and column.
pub(super) fn parse(text: &[u8]) -> Result<Value, Problem> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = Strict.deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
    value.map_err(|error| Problem::invalid("request", format!("is not the JSON that was expected: {error}")))
}

/// An encoded message of this type from a JSON object.
///
/// # Errors
/// INVALID_ARGUMENT that names the first field that does not exist, is given twice, or has a wrong type.
pub(super) fn encode(descriptor: &MessageDescriptor, mut value: Value) -> Result<Bytes, Problem> {
    let masks = take_masks(descriptor, &mut value)?;
    normalize(descriptor, &mut value, "")?;
    let mut message = deserialize(descriptor, value)?;
    for (field, paths) in masks {
        if let Kind::Message(mask) = field.kind() {
            let mut dynamic = DynamicMessage::new(mask);
            dynamic.set_field_by_name("paths", Field::List(paths.into_iter().map(Field::String).collect()));
            message.set_field(&field, Field::Message(dynamic));
        }
    }
    Ok(message.encode_to_vec().into())
}

fn deserialize(descriptor: &MessageDescriptor, value: Value) -> Result<DynamicMessage, Problem> {
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(value, &mut track);
    DynamicMessage::deserialize_with_options(descriptor.clone(), tracked, &READ).map_err(|error| {
        let path = track.path().to_string();
        let field = if path == "." { "request" } else { path.as_str() };
        Problem::invalid(field, error.to_string())
    })
}

/// A message as JSON text.
///
/// # Errors
/// The bytes are no such message, which only a fault of this node can make.
pub(super) fn decode(descriptor: &MessageDescriptor, message: Bytes) -> Result<Vec<u8>, Problem> {
    let fault = |what: &str| {
        tracing::error!(message = descriptor.full_name(), error = what, "a response cannot be written as JSON");
        Problem::internal("the node failed; see its log")
    };
    let message = DynamicMessage::decode(descriptor.clone(), message).map_err(|error| fault(&error.to_string()))?;
    text(&message).map_err(|error| fault(&error.to_string()))
}

/// A decoded message as JSON text.
fn text(message: &DynamicMessage) -> serde_json::Result<Vec<u8>> {
    let mut text = Vec::new();
    message.serialize_with_options(&mut serde_json::Serializer::new(&mut text), &WRITE)?;
    Ok(text)
}

/// The field that a request calls by this name: as in the `.proto` file or in camel case.
pub(super) fn field(descriptor: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    descriptor.get_field_by_name(name).or_else(|| descriptor.get_field_by_json_name(name))
}

fn unknown(descriptor: &MessageDescriptor, path: &str) -> Problem {
    let known: Vec<_> = descriptor.fields().map(|field| field.name().to_owned()).collect();
    Problem::invalid(path, format!("there is no such field; known here: {}", known.join(", ")))
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Spells all names as the `.proto` files do, and writes shorthands out. What has the wrong type stays as it is, for
/// the deserializer to refuse.
fn normalize(descriptor: &MessageDescriptor, value: &mut Value, path: &str) -> Result<(), Problem> {
    match descriptor.full_name() {
        VALUE if !value.is_object() => {
            expand(value);
            return Ok(());
        }
        LIST_VALUE if value.is_array() => expand_list(value),
        name if name.starts_with("google.protobuf.") => return Ok(()),
        _ => {}
    }
    let Value::Object(object) = value else { return Ok(()) };
    let mut named = Map::new();
    for (name, mut entry) in std::mem::take(object) {
        let path = below(path, &name);
        let Some(field) = field(descriptor, &name) else { return Err(unknown(descriptor, &path)) };
        normalize_field(&field, &mut entry, &path)?;
        if named.insert(field.name().to_owned(), entry).is_some() {
            return Err(Problem::invalid(
                &path,
                format!("is given twice: as {} and as {}", field.name(), field.json_name()),
            ));
        }
    }
    *object = named;
    Ok(())
}

fn normalize_field(field: &FieldDescriptor, value: &mut Value, path: &str) -> Result<(), Problem> {
    let Kind::Message(message) = field.kind() else { return Ok(()) };
    match value {
        Value::Object(entries) if field.is_map() => {
            let Kind::Message(message) = message.map_entry_value_field().kind() else { return Ok(()) };
            for (key, entry) in entries {
                normalize(&message, entry, &below(path, key))?;
            }
        }
        Value::Array(elements) if field.is_list() => {
            for (position, element) in elements.iter_mut().enumerate() {
                normalize(&message, element, &format!("{path}[{position}]"))?;
            }
        }
        // Null leaves a field unset, except that it is a value itself.
        Value::Null if message.full_name() != VALUE => {}
        _ if field.is_map() || field.is_list() => {}
        _ => normalize(&message, value, path)?,
    }
    Ok(())
}

/// Writes the shorthand of a `cairn.v1.Value` out. Objects are the message itself already.
fn expand(value: &mut Value) {
    let kind = match value {
        Value::Null => "null_value",
        Value::Bool(_) => "bool_value",
        Value::String(_) => "string_value",
        Value::Number(number) if is_integer(number) => "integer_value",
        Value::Number(_) => "double_value",
        Value::Array(_) => "list_value",
        Value::Object(_) => return,
    };
    let mut inner = value.take();
    match &mut inner {
        Value::Null => inner = Value::from(0),
        Value::Array(_) => expand_list(&mut inner),
        _ => {}
    }
    *value = Value::Object(Map::from_iter([(kind.to_owned(), inner)]));
}

/// Numbers above 2^63 are taken as integers too, and then refused, rather than rounded in silence.
fn is_integer(number: &Number) -> bool {
    number.is_i64() || number.is_u64()
}

fn expand_list(value: &mut Value) {
    if let Value::Array(elements) = value {
        elements.iter_mut().for_each(expand);
    }
    *value = Value::Object(Map::from_iter([("values".to_owned(), value.take())]));
}

type Masks = Vec<(FieldDescriptor, Vec<String>)>;

/// Takes the field masks out of a request. They stand at its top.
fn take_masks(descriptor: &MessageDescriptor, value: &mut Value) -> Result<Masks, Problem> {
    let Value::Object(object) = value else {
        return Err(Problem::invalid("request", "must be a JSON object"));
    };
    let is_mask =
        |field: &FieldDescriptor| matches!(field.kind(), Kind::Message(kind) if kind.full_name() == FIELD_MASK);
    let mut masks = Vec::new();
    for field in descriptor.fields().filter(is_mask) {
        let spellings = [object.remove(field.name()), object.remove(field.json_name())];
        let mut given = spellings.into_iter().flatten();
        let Some(mask) = given.next() else { continue };
        if given.next().is_some() {
            return Err(Problem::invalid(field.name(), "is given twice"));
        }
        if let Some(paths) = mask_paths(field.name(), mask)? {
            let masked = masked(descriptor);
            masks.push((field, paths.iter().map(|path| mask_path(masked.as_ref(), path)).collect()));
        }
    }
    Ok(masks)
}

fn mask_paths(name: &str, mask: Value) -> Result<Option<Vec<String>>, Problem> {
    let wrong = || Problem::invalid(name, "must be a list of paths, or text with commas between paths");
    match mask {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.split(',').filter(|path| !path.is_empty()).map(str::to_owned).collect())),
        Value::Array(paths) => {
            let paths = paths.into_iter().map(|path| path.as_str().map(str::to_owned).ok_or_else(wrong));
            paths.collect::<Result<_, _>>().map(Some)
        }
        _ => Err(wrong()),
    }
}

/// What a request's mask is about: the one message of ours beside it.
fn masked(request: &MessageDescriptor) -> Option<MessageDescriptor> {
    request.fields().find_map(|field| match field.kind() {
        Kind::Message(message) if !field.is_list() && message.full_name().starts_with("cairn.v1.") => Some(message),
        _ => None,
    })
}

/// Spells the names of fields in a path as the `.proto` files do. Keys of maps, and what is unknown, stay as written.
fn mask_path(masked: Option<&MessageDescriptor>, path: &str) -> String {
    let (mut message, mut rest, mut spelled) = (masked.cloned(), path, Vec::new());
    while let Some(found) = message.take() {
        let (name, tail) = rest.split_once('.').map_or((rest, None), |(name, tail)| (name, Some(tail)));
        let Some(field) = field(&found, name) else { break };
        spelled.push(field.name().to_owned());
        let Some(tail) = tail else { return spelled.join(".") };
        rest = tail;
        match field.kind() {
            Kind::Message(inner) if !field.is_map() && !field.is_list() => message = Some(inner),
            _ => {}
        }
    }
    spelled.push(rest.to_owned());
    spelled.join(".")
}

/// A `serde_json::Value` in which no name stands twice in one object.
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        // JSON has no other numbers.
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = elements.next_element_seed(Strict)? {
            list.push(element);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(Strict)?;
            if object.contains_key(&name) {
                return Err(A::Error::custom(format!("the name {name:?} is given twice in one object")));
            }
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use cairn_proto::v1;
    use prost_reflect::DescriptorPool;
    use serde_json::json;

    use super::*;

    fn descriptor(name: &str) -> MessageDescriptor {
        let pool = DescriptorPool::decode(cairn_proto::FILE_DESCRIPTOR_SET).unwrap();
        pool.get_message_by_name(&format!("cairn.v1.{name}")).unwrap()
    }

    fn read<M: prost::Message + Default>(name: &str, value: Value) -> M {
        M::decode(encode(&descriptor(name), value).unwrap()).unwrap()
    }

    /// The field that a refusal names, and all that it says.
    fn refusal(name: &str, value: Value) -> (String, String) {
        let status = encode(&descriptor(name), value).unwrap_err().into_status(None);
        let details = tonic_types::StatusExt::get_error_details(&status);
        let violation = details.bad_request().unwrap().field_violations[0].clone();
        (violation.field, violation.description)
    }

    fn written<M: prost::Message>(name: &str, message: &M) -> Value {
        serde_json::from_slice(&decode(&descriptor(name), message.encode_to_vec().into()).unwrap()).unwrap()
    }

    #[test]
    fn the_rules_of_proto_json_hold() {
        let memory: v1::Memory = read(
            "Memory",
            json!({
                "id": "a", "createdAt": "2026-11-20T12:00:00.5Z", "ttl": "1.5s", "version": "9007199254740993",
                "content_hash": "AAEC/w==", "importance": 0.25, "kind": null,
                "vectors": [{"dense": {"values": [0.1, 1, "2.5"]}}],
            }),
        );
        assert_eq!(memory.created_at, Some(prost_types::Timestamp { seconds: 1_795_176_000, nanos: 500_000_000 }));
        let ttl = v1::memory::Expiry::Ttl(prost_types::Duration { seconds: 1, nanos: 500_000_000 });
        assert_eq!(memory.expiry, Some(ttl));
        assert_eq!((memory.version, memory.importance), (9_007_199_254_740_993, Some(0.25)));
        assert_eq!(memory.content_hash, [0, 1, 2, 255]);
        let data = memory.vectors[0].data.clone();
        assert_eq!(data, Some(v1::vector::Data::Dense(v1::DenseVector { values: vec![0.1, 1.0, 2.5] })));

        let back = written("Memory", &memory);
        assert_eq!(back["version"], "9007199254740993");
        assert_eq!(back["created_at"], "2026-11-20T12:00:00.500Z");
        assert_eq!(back["ttl"], "1.500s");
        assert_eq!(back["content_hash"], "AAEC/w==");
        assert_eq!(back["vectors"][0]["dense"]["values"], json!([0.1, 1.0, 2.5]));
        assert_eq!(read::<v1::Memory>("Memory", back), memory);

        let request: v1::AddMemoriesRequest = read("AddMemoriesRequest", json!({"write_mode": "WRITE_MODE_INSERT"}));
        assert_eq!(request.write_mode(), v1::WriteMode::Insert);
    }

    #[test]
    fn empty_lists_and_zeros_are_in_answers_and_unset_messages_are_not() {
        assert_eq!(
            written("CountMemoriesResponse", &v1::CountMemoriesResponse::default()),
            json!({"count": "0", "position": ""})
        );
        assert_eq!(
            written("SearchMemoriesResponse", &v1::SearchMemoriesResponse::default()),
            json!({"hits": [], "position": ""})
        );
    }

    #[test]
    fn plain_values_stand_for_themselves() {
        let plain = json!({"metadata": {
            "text": "x", "whole": 9_007_199_254_740_993_i64, "part": 0.5, "yes": true, "nothing": null, "list": ["a", [1], null],
            "time": {"timestamp_value": "2026-11-20T12:00:00Z"}, "map": {"mapValue": {"entries": {"in": "y"}}},
        }});
        let complete = json!({"metadata": {
            "text": {"stringValue": "x"}, "whole": {"integerValue": "9007199254740993"}, "part": {"doubleValue": 0.5},
            "yes": {"boolValue": true}, "nothing": {"nullValue": "NULL_VALUE_UNSPECIFIED"},
            "list": {"listValue": {"values": [
                {"stringValue": "a"}, {"listValue": {"values": [{"integerValue": 1}]}}, {"nullValue": 0},
            ]}},
            "time": {"timestampValue": "2026-11-20T12:00:00Z"},
            "map": {"mapValue": {"entries": {"in": {"stringValue": "y"}}}},
        }});
        assert_eq!(read::<v1::Memory>("Memory", plain), read::<v1::Memory>("Memory", complete));

        let plain = json!({"where": {"field": "kind", "in": ["a", "b"]}});
        let complete =
            json!({"where": {"field": "kind", "in": {"values": [{"string_value": "a"}, {"string_value": "b"}]}}});
        assert_eq!(read::<v1::Filter>("Filter", plain), read::<v1::Filter>("Filter", complete));
    }

    #[test]
    fn masks_keep_the_spelling_of_metadata() {
        for mask in
            [json!("content,scope.userId,metadata.myKey"), json!(["content", "scope.user_id", "metadata.myKey"])]
        {
            let request: v1::UpdateMemoryRequest =
                read("UpdateMemoryRequest", json!({"memory": {"content": "x"}, "updateMask": mask}));
            assert_eq!(request.update_mask.unwrap().paths, ["content", "scope.user_id", "metadata.myKey"]);
        }
        let request: v1::UpdateSpaceRequest = read(
            "UpdateSpaceRequest",
            json!({"space": {}, "update_mask": ["defaultTtl", "embeddings.my_one.embedder"]}),
        );
        assert_eq!(request.update_mask.unwrap().paths, ["default_ttl", "embeddings.my_one.embedder"]);
        assert_eq!(refusal("UpdateMemoryRequest", json!({"update_mask": {"paths": []}})).0, "update_mask");
        assert_eq!(refusal("UpdateMemoryRequest", json!({"update_mask": "a", "updateMask": "b"})).0, "update_mask");
    }

    #[test]
    fn mistakes_are_named() {
        let memories = |memory: Value| json!({"memories": [{}, memory]});
        for (value, field, says) in [
            (memories(json!({"contents": "x"})), "memories[1].contents", "known here: id, scope"),
            (memories(json!({"content": 7})), "memories[1].content", "expected a string"),
            (memories(json!({"scope": {"userid": "x"}})), "memories[1].scope.userid", "no such field"),
            (
                memories(json!({"vectors": [{"dense": {"values": [1, "x"]}}]})),
                "memories[1].vectors[0].dense.values[1]",
                "float",
            ),
            (memories(json!({"created_at": "yesterday"})), "memories[1].created_at", ""),
            (memories(json!({"ttl": "3"})), "memories[1].ttl", "duration"),
            (memories(json!({"version": "-1"})), "memories[1].version", "invalid digit"),
            (memories(json!({"importance": 1e300})), "memories[1].importance", "out of range"),
            (memories(json!({"metadata": {"a": {"text": "x"}}})), "memories[1].metadata.a.text", "no such field"),
            (
                memories(json!({"metadata": {"a": 18_446_744_073_709_551_615_u64}})),
                "memories[1].metadata.a.integer_value",
                "out of range",
            ),
            (memories(json!({"metadata": []})), "memories[1].metadata", "a map"),
            (memories(json!({"ttl": "1s", "expires_at": "2026-11-20T12:00:00Z"})), "memories[1]", "oneof"),
            (memories(json!({"created_at": null, "createdAt": null})), "memories[1].created", "given twice"),
            (json!({"write_mode": "INSERT"}), "write_mode", "enum"),
            (json!({"memories": {}}), "memories", "a list"),
            (json!([]), "request", "object"),
        ] {
            let text = value.to_string();
            let (named, said) = refusal("AddMemoriesRequest", value);
            assert!(named.starts_with(field) && said.contains(says), "{text}: {named}: {said}");
        }
    }

    #[test]
    fn names_given_twice_and_broken_json_are_refused() {
        for text in [r#"{"a": 1, "a": 2}"#, "{", "", "{} {}", "nul", "[1,]"] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        let deep = "[".repeat(200) + &"]".repeat(200);
        assert!(parse(deep.as_bytes()).is_err());
        assert_eq!(parse(b" [1, -2, 0.5, true, null, \"x\"] ").unwrap(), json!([1, -2, 0.5, true, null, "x"]));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            if let Ok(value) = parse(&bytes) {
                let _ = encode(&descriptor("SearchMemoriesRequest"), value);
            }
        }
    }
}
