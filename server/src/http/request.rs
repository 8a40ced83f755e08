//! The JSON object of a request, from its path, its query and its body.

use prost_reflect::{Kind, MessageDescriptor};
use serde_json::{Map, Value};

use super::json;
use super::routes::{PathValues, Rule};
use crate::error::Problem;

/// Reads a query as an object of this message's fields.
///
/// # Errors
/// INVALID_ARGUMENT that names a parameter that does not exist, is given twice, or has a wrong type.
pub(super) fn query(descriptor: &MessageDescriptor, query: &str) -> Result<Map<String, Value>, Problem> {
    let mut object = Map::new();
    for (name, text) in form_urlencoded::parse(query.as_bytes()) {
        parameter(descriptor, &name, &text, &mut object)?;
    }
    Ok(object)
}

/// Puts one parameter in its place: `scope.user_id=ada` becomes `{"scope": {"user_id": "ada"}}`.
fn parameter(
    descriptor: &MessageDescriptor,
    name: &str,
    text: &str,
    object: &mut Map<String, Value>,
) -> Result<(), Problem> {
    let unknown = || Problem::invalid(name, "there is no such parameter");
    let (mut message, mut object, mut rest) = (descriptor.clone(), object, name);
    loop {
        let (head, tail) = rest.split_once('.').map_or((rest, None), |(head, tail)| (head, Some(tail)));
        let field = json::field(&message, head).ok_or_else(unknown)?;
        let Some(tail) = tail else {
            let value = value(&field.kind(), text).map_err(|problem| Problem::invalid(name, problem))?;
            return insert(object, field.name(), value, field.is_list())
                .map_err(|problem| Problem::invalid(name, problem));
        };
        match field.kind() {
            Kind::Message(inner) if !field.is_list() && !field.is_map() => message = inner,
            _ => return Err(unknown()),
        }
        let entry = object.entry(field.name()).or_insert_with(|| Value::Object(Map::new()));
        object = entry.as_object_mut().ok_or_else(|| Problem::invalid(name, "is given twice"))?;
        rest = tail;
    }
}

/// The JSON of a parameter's text. Numbers stay text, which JSON for messages allows.
fn value(kind: &Kind, text: &str) -> Result<Value, String> {
    match kind {
        Kind::Bool => match text {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => Err(format!("{text:?} is neither true nor false")),
        },
        Kind::Message(message) if !message.full_name().starts_with("google.protobuf.") => {
            json::parse(text.as_bytes()).map_err(|_| format!("must be {} as JSON", message.name()))
        }
        _ => Ok(Value::String(text.to_owned())),
    }
}

fn insert(object: &mut Map<String, Value>, name: &str, value: Value, list: bool) -> Result<(), String> {
    if list {
        let elements = object.entry(name).or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(elements) = elements {
            elements.push(value);
        }
        return Ok(());
    }
    match object.insert(name.to_owned(), value) {
        None => Ok(()),
        Some(_) => Err("is given twice".to_owned()),
    }
}

/// Adds what the path says. A body may repeat it, and must then say the same.
///
/// # Errors
/// INVALID_ARGUMENT that names a field on which path and request do not agree, or that this row does not take.
pub(super) fn complete(
    rule: &Rule,
    descriptor: &MessageDescriptor,
    values: &PathValues,
    object: &mut Map<String, Value>,
) -> Result<(), Problem> {
    let given = |object: &Map<String, Value>, name: &str| {
        let field = descriptor.get_field_by_name(name)?;
        object.get(field.name()).or_else(|| object.get(field.json_name())).filter(|value| !value.is_null()).cloned()
    };
    for name in rule.hidden {
        if given(object, name).is_some() {
            return Err(Problem::invalid(name, "is not taken here"));
        }
    }
    for name in rule.required {
        if given(object, name).is_none_or(|value| value.as_str() == Some("")) {
            return Err(Problem::invalid(name, "is required"));
        }
    }
    for (path, text) in values {
        place(descriptor, path, path, text, object)?;
    }
    Ok(())
}

fn place(
    descriptor: &MessageDescriptor,
    path: &str,
    rest: &str,
    text: &str,
    object: &mut Map<String, Value>,
) -> Result<(), Problem> {
    let (head, tail) = rest.split_once('.').map_or((rest, None), |(head, tail)| (head, Some(tail)));
    // A test holds that every path of the table exists.
    let Some(field) = descriptor.get_field_by_name(head) else { return Ok(()) };
    // One spelling, so that the same field cannot come twice.
    if field.json_name() != field.name()
        && let Some(value) = object.remove(field.json_name())
        && object.insert(field.name().to_owned(), value).is_some()
    {
        return Err(Problem::invalid(field.name(), "is given twice"));
    }
    let differs = || Problem::invalid(path, "is not what the path of the request says");
    match (tail, field.kind()) {
        (Some(tail), Kind::Message(inner)) => {
            let entry = object.entry(head).or_insert(Value::Null);
            if entry.is_null() {
                *entry = Value::Object(Map::new());
            }
            let inner_object = entry.as_object_mut().ok_or_else(|| Problem::invalid(head, "must be an object"))?;
            place(&inner, path, tail, text, inner_object)
        }
        _ => {
            let own = Value::String(text.to_owned());
            let own = if field.is_list() { Value::Array(vec![own]) } else { own };
            match object.insert(head.to_owned(), own.clone()) {
                Some(given) => {
                    let same_number = given.as_u64().is_some_and(|number| text.parse() == Ok(number));
                    if given.is_null() || given == own || same_number { Ok(()) } else { Err(differs()) }
                }
                None => Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use prost_reflect::DescriptorPool;
    use serde_json::json;

    use super::super::routes::RULES;
    use super::*;

    fn descriptor(name: &str) -> MessageDescriptor {
        let pool = DescriptorPool::decode(cairn_proto::FILE_DESCRIPTOR_SET).unwrap();
        pool.get_message_by_name(&format!("cairn.v1.{name}")).unwrap()
    }

    #[test]
    fn a_query_is_an_object() {
        let text = "page_size=10&includeVectors=true&scope.user_id=a%26b&consistency.max_staleness=2s\
                    &filter=%7B%22where%22%3A%7B%22field%22%3A%22kind%22%2C%22eq%22%3A%22fact%22%7D%7D";
        let object = query(&descriptor("ListMemoriesRequest"), text).unwrap();
        assert_eq!(
            Value::Object(object),
            json!({
                "page_size": "10", "include_vectors": true, "scope": {"user_id": "a&b"}, "consistency": {"max_staleness": "2s"},
                "filter": {"where": {"field": "kind", "eq": "fact"}},
            })
        );
        let object = query(&descriptor("GetMemoriesRequest"), "ids=a&ids=b").unwrap();
        assert_eq!(Value::Object(object), json!({"ids": ["a", "b"]}));
    }

    #[test]
    fn mistakes_in_a_query_are_named() {
        for (text, name) in [
            ("pagesize=1", "pagesize"),
            ("scope.user=1", "scope.user"),
            ("page_size.x=1", "page_size.x"),
            ("page_size=1&pageSize=2", "pageSize"),
            ("include_vectors=1", "include_vectors"),
            ("filter=kind", "filter"),
            ("scope=%7B%7D&scope.user_id=a&scope=%7B%7D", "scope"),
        ] {
            let problem = query(&descriptor("ListMemoriesRequest"), text).unwrap_err().to_string();
            assert!(problem.starts_with(&format!("{name}: ")), "{text}: {problem}");
        }
    }

    fn completed(message: &str, values: &[(&'static str, &str)], object: Value) -> Result<Value, String> {
        let Value::Object(mut object) = object else { panic!("no object") };
        let values = values.iter().map(|(path, text)| (*path, (*text).to_owned())).collect();
        complete(&RULES[0], &descriptor(message), &values, &mut object).map_err(|problem| problem.to_string())?;
        Ok(Value::Object(object))
    }

    #[test]
    fn the_path_completes_the_object_and_never_contradicts_it() {
        let path = [("space", "notes"), ("memory.id", "a")];
        let done = json!({"space": "notes", "memory": {"id": "a", "kind": "fact"}});
        for object in [
            json!({"memory": {"kind": "fact"}}),
            json!({"space": "notes", "memory": {"id": "a", "kind": "fact"}}),
            json!({"space": null, "memory": {"id": null, "kind": "fact"}}),
        ] {
            assert_eq!(completed("UpdateMemoryRequest", &path, object), Ok(done.clone()));
        }
        for (object, field) in [
            (json!({"space": "other"}), "space"),
            (json!({"memory": {"id": "b"}}), "memory.id"),
            (json!({"memory": "a"}), "memory"),
        ] {
            let problem = completed("UpdateMemoryRequest", &path, object).unwrap_err();
            assert!(problem.starts_with(&format!("{field}: ")), "{problem}");
        }
        let node = completed("PromoteMemberRequest", &[("node_id", "7")], json!({"nodeId": 7})).unwrap();
        assert_eq!(node, json!({"node_id": "7"}));
        let ids = completed("DeleteMemoriesRequest", &[("ids.ids", "a")], json!({})).unwrap();
        assert_eq!(ids, json!({"ids": {"ids": ["a"]}}));
    }
}
