//! What people type: durations, times, `key=value`, vectors.

use std::collections::BTreeMap;
use std::time::Duration;

use cairn_client::{Timestamp, Value};

use super::json;

/// Reads a duration: numbers with a unit, such as `500ms`, `10s`, `1h30m` or `7d`.
///
/// # Errors
/// Says what a duration looks like.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("`{text}` is not a time such as 500ms, 10s, 5m, 12h, 7d or 1h30m");
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.find(|character: char| !character.is_ascii_digit()).ok_or_else(bad)?;
        let number: u64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let letters = rest.find(|character: char| character.is_ascii_digit()).unwrap_or(rest.len());
        let unit_micros: u64 = match &rest[..letters] {
            "ms" => 1_000,
            "s" => 1_000_000,
            "m" => 60_000_000,
            "h" => 3_600_000_000,
            "d" => 86_400_000_000,
            _ => return Err(bad()),
        };
        rest = &rest[letters..];
        let part = number.checked_mul(unit_micros).map(Duration::from_micros).ok_or_else(bad)?;
        total = total.checked_add(part).ok_or_else(bad)?;
    }
    if total.is_zero() { Err(format!("`{text}` is no time at all; give more than zero")) } else { Ok(total) }
}

/// Reads a time in RFC 3339, or a date.
///
/// # Errors
/// Says what a time looks like.
pub(crate) fn parse_timestamp(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|error: cairn_client::ParseTimestampError| error.to_string())
}

/// Reads one piece of metadata. The value keeps its type where it is JSON, else it is a string.
///
/// # Errors
/// Says what is missing.
pub(crate) fn parse_meta(text: &str) -> Result<(String, Value), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("`{text}` has no `=`; write key=value"))?;
    if key.split('.').any(str::is_empty) {
        return Err(format!("`{key}` is not a key: it must not be empty, nor begin or end with a dot"));
    }
    let value = match serde_json::from_str::<serde_json::Value>(value) {
        Ok(parsed) => json::value_from_json(parsed).map_err(|error| error.to_string())?,
        Err(_) => Value::String(value.to_owned()),
    };
    Ok((key.to_owned(), value))
}

/// Reads a field that is to be taken away, and gives its name in the API.
///
/// # Errors
/// Lists the fields.
pub(crate) fn parse_clear(text: &str) -> Result<String, String> {
    let name = match text {
        "text" => "content",
        "expiry" => "expires_at",
        "vector" => "vectors",
        "agent" => "scope.agent_id",
        "user" => "scope.user_id",
        "session" => "scope.session_id",
        "namespace" => "scope.namespace",
        "kind" | "importance" | "metadata" | "scope" => text,
        _ if text.strip_prefix("metadata.").is_some_and(|path| !path.split('.').any(str::is_empty)) => text,
        _ => {
            return Err(format!(
                "`{text}` is not one of text, kind, importance, expiry, vector, agent, user, session, namespace, scope, \
                 metadata, metadata.KEY"
            ));
        }
    };
    Ok(name.to_owned())
}

/// Puts a value under a dotted path into nested maps.
///
/// # Errors
/// Says which part of the path holds a value that is not a map.
pub(crate) fn insert_at(metadata: &mut BTreeMap<String, Value>, path: &str, value: Value) -> Result<(), String> {
    let mut map = metadata;
    let mut keys = path.split('.').peekable();
    while let Some(key) = keys.next() {
        if keys.peek().is_none() {
            map.insert(key.to_owned(), value);
            return Ok(());
        }
        let entry = map.entry(key.to_owned()).or_insert_with(|| Value::Map(BTreeMap::new()));
        let Value::Map(inner) = entry else {
            return Err(format!("metadata `{path}`: `{key}` holds a value already, not a map"));
        };
        map = inner;
    }
    Ok(())
}

/// Reads a vector: a JSON list, or numbers between commas or blanks.
///
/// # Errors
/// Says which part is not a number.
pub(crate) fn parse_vector(text: &str) -> Result<Vec<f32>, String> {
    let text = text.trim();
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let parts = inner.split(|character: char| character == ',' || character.is_whitespace());
    let values: Vec<f32> = parts
        .filter(|part| !part.is_empty())
        .map(|part| part.parse::<f32>().map_err(|_| format!("vector: `{}` is not a number", shortened(part))))
        .collect::<Result<_, _>>()?;
    if values.is_empty() { Err("vector: no numbers".to_owned()) } else { Ok(values) }
}

/// The beginning of a text, to quote in a message.
pub(crate) fn shortened(text: &str) -> String {
    const LENGTH_MAX: usize = 40;
    if text.chars().count() <= LENGTH_MAX {
        return text.to_owned();
    }
    text.chars().take(LENGTH_MAX - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_add_up() {
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5_400)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(604_800)));
        for bad in ["", "5", "h", "5 m", "-1s", "1.5s", "10 sec", "99999999999999999999s", "18446744073709551615d"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        assert!(parse_duration("0s").unwrap_err().contains("more than zero"));
    }

    #[test]
    fn metadata_keeps_its_type() {
        let value = |text: &str| parse_meta(text).unwrap().1;
        assert_eq!(value("a=3"), Value::Integer(3));
        assert_eq!(value("a=3.0"), Value::Double(3.0));
        assert_eq!(value("a=true"), Value::Bool(true));
        assert_eq!(value("a=null"), Value::Null);
        assert_eq!(value("a=tea"), Value::from("tea"));
        assert_eq!(value("a=\"3\""), Value::from("3"));
        assert_eq!(value("a=[1,\"b\"]"), Value::List(vec![Value::Integer(1), Value::from("b")]));
        assert_eq!(value("a=x=y"), Value::from("x=y"));
        assert_eq!(value("a="), Value::from(""));
        assert!(parse_meta("novalue").is_err());
        assert!(parse_meta("=x").is_err());
        assert!(parse_meta("a..b=x").is_err());
    }

    #[test]
    fn fields_to_clear_have_names_in_the_api() {
        assert_eq!(parse_clear("expiry"), Ok("expires_at".to_owned()));
        assert_eq!(parse_clear("user"), Ok("scope.user_id".to_owned()));
        assert_eq!(parse_clear("metadata.a.b"), Ok("metadata.a.b".to_owned()));
        for bad in ["id", "version", "metadata.", "metadata.a..b", "scope.user_id", ""] {
            assert!(parse_clear(bad).unwrap_err().contains("is not one of"), "{bad}");
        }
    }

    #[test]
    fn dots_in_a_key_nest() {
        let mut metadata = BTreeMap::new();
        insert_at(&mut metadata, "a.b", Value::Integer(1)).unwrap();
        insert_at(&mut metadata, "a.c", Value::Integer(2)).unwrap();
        assert_eq!(Value::Map(metadata.clone()).get("a.c"), Some(&Value::Integer(2)));
        let error = insert_at(&mut metadata, "a.b.x", Value::Null).unwrap_err();
        assert!(error.contains("`b`"), "{error}");
    }

    #[test]
    fn vectors_are_read_in_both_forms() {
        assert_eq!(parse_vector("[0.5, -1e-3]"), Ok(vec![0.5, -1e-3]));
        assert_eq!(parse_vector("1,2\n3 4"), Ok(vec![1.0, 2.0, 3.0, 4.0]));
        assert_eq!(parse_vector("1,x"), Err("vector: `x` is not a number".to_owned()));
        assert!(parse_vector("[]").is_err());
    }
}
