//! What an answer must hold.

use cairn_client::{Change, WatchEvent};
use futures::{Stream, StreamExt as _};
use serde_json::Value;

use crate::face::{Face, Refusal};

/// Calls an RPC that answers once, and insists on an answer that holds `expected`: what it does not mention may be
/// anything, `"*"` is any value but none, and a field that an answer leaves out has its default.
pub(crate) async fn answered(face: &Face, rpc: &str, request: Value, expected: &Value) -> Value {
    let mut answers = streamed(face, rpc, request, std::slice::from_ref(expected)).await;
    answers.remove(0)
}

/// As [`answered`], for an RPC that answers several times.
pub(crate) async fn streamed(face: &Face, rpc: &str, request: Value, expected: &[Value]) -> Vec<Value> {
    let asked = request.to_string();
    let answers = match face.call(rpc, request, expected.len()).await {
        Ok(answers) => answers,
        Err(refusal) => panic!("{} {rpc} {}: {refusal:?}", face.name(), short(&asked)),
    };
    assert_eq!(answers.len(), expected.len(), "{} {rpc} {}: {answers:?}", face.name(), short(&asked));
    for (answer, expected) in answers.iter().zip(expected) {
        if let Err(path) = holds(answer, expected) {
            panic!("{} {rpc} {}: at {path}: expected {expected}, found {answer}", face.name(), short(&asked));
        }
    }
    answers
}

/// The next change that a watch tells of.
pub(crate) async fn next_change(watch: &mut (impl Stream<Item = cairn_client::Result<WatchEvent>> + Unpin)) -> Change {
    loop {
        if let WatchEvent::Change(change) = watch.next().await.unwrap().unwrap() {
            return *change;
        }
    }
}

/// Calls an RPC that must refuse with this code and reason, naming this field where there is one.
pub(crate) async fn refused(face: &Face, rpc: &str, request: Value, code: &str, reason: &str, field: &str) {
    let fault = refusal_fault(face, rpc, request, code, reason, field).await;
    assert_eq!(fault, None);
}

/// What is wrong with how a call is refused; see [`refused`].
pub(crate) async fn refusal_fault(
    face: &Face,
    rpc: &str,
    request: Value,
    code: &str,
    reason: &str,
    field: &str,
) -> Option<String> {
    let asked = short(&request.to_string());
    let expected = Refusal { code: code.to_owned(), reason: reason.to_owned(), fields: vec![field.to_owned()] };
    let fault = match face.call(rpc, request, 1).await {
        Ok(answers) => format!("{answers:?}"),
        Err(found) => {
            let named = field.is_empty() || found.fields.iter().any(|found| found == field);
            if named && (&found.code, &found.reason) == (&expected.code, &expected.reason) {
                return None;
            }
            format!("{found:?}")
        }
    };
    Some(format!("{} {rpc} {asked}: expected {expected:?}, found {fault}", face.name()))
}

/// Enough of a request to know it again.
fn short(text: &str) -> String {
    text.chars().take(200).collect()
}

/// The path to the first place where `found` does not hold `expected`.
fn holds(found: &Value, expected: &Value) -> Result<(), String> {
    match (found, expected) {
        (found, Value::String(any)) if any == "*" => (!is_default(found)).then_some(()).ok_or_else(String::new),
        (Value::Object(found), Value::Object(expected)) => {
            for (name, expected) in expected {
                let found = found.get(name).unwrap_or(&Value::Null);
                holds(found, expected).map_err(|path| format!(".{name}{path}"))?;
            }
            Ok(())
        }
        (Value::Array(found), Value::Array(expected)) if found.len() == expected.len() => {
            let mut pairs = found.iter().zip(expected).enumerate();
            pairs.try_for_each(|(at, (found, expected))| holds(found, expected).map_err(|path| format!("[{at}]{path}")))
        }
        (found, expected) if is_default(found) && is_default(expected) => Ok(()),
        // Integers of 64 bits are text in JSON, and a double may be written as an integer.
        (found, expected) if number(found).is_some() && number(found) == number(expected) => Ok(()),
        (found, expected) => (found == expected).then_some(()).ok_or_else(String::new),
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

fn is_default(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(yes) => !yes,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty() || text == "0",
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}
