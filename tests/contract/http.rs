//! Calls as JSON over HTTP, as a script with a socket would make them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cairn_tests::TestCluster;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::face::Refusal;

/// No call of the contract hangs.
const DEADLINE: Duration = Duration::from_secs(60);

/// The nodes, asked in turn.
pub(crate) struct Http {
    nodes: Vec<SocketAddr>,
    next: AtomicUsize,
}

/// One request.
struct Sent {
    method: &'static str,
    path: String,
    content_type: &'static str,
    body: String,
}

impl Http {
    pub(crate) fn to(cluster: &TestCluster) -> Self {
        Self { nodes: cluster.nodes().iter().map(|node| node.http).collect(), next: AtomicUsize::new(0) }
    }

    pub(crate) async fn call(&self, rpc: &str, request: Value, answers_max: usize) -> Result<Vec<Value>, Refusal> {
        let node = self.nodes[self.next.fetch_add(1, Ordering::Relaxed) % self.nodes.len()];
        let sent = route(rpc, request);
        let answer = tokio::time::timeout(DEADLINE, send(node, &sent, answers_max)).await;
        let (status, lines) = answer.unwrap_or_else(|_| panic!("{} {} hangs", sent.method, sent.path));
        let mut answers = Vec::new();
        for line in &lines {
            let mut answer: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            match answer.get_mut("error").map(Value::take) {
                _ if status != 200 => return Err(refusal(&answer)),
                Some(problem) => return Err(refusal(&problem)),
                None => answers.push(answer),
            }
        }
        Ok(answers)
    }
}

/// The status and the lines of the body; HTTP 1.0, so that they do not come in chunks.
async fn send(node: SocketAddr, sent: &Sent, lines_max: usize) -> (u16, Vec<String>) {
    let Sent { method, path, content_type, body } = sent;
    let mut stream = TcpStream::connect(node).await.unwrap();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.0\r\nhost: localhost\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // A node that refuses by the head alone need not read the body.
    let _ = stream.write_all(body.as_bytes()).await;
    let mut answer = BufReader::new(stream);
    let mut line = String::new();
    answer.read_line(&mut line).await.unwrap();
    let status: u16 = line.split(' ').nth(1).unwrap_or_else(|| panic!("{method} {path}: {line:?}")).parse().unwrap();
    let mut streamed = false;
    loop {
        line.clear();
        answer.read_line(&mut line).await.unwrap();
        streamed |= line.to_lowercase().contains("ndjson");
        if line.trim().is_empty() {
            break;
        }
    }
    let mut lines = Vec::new();
    if !streamed {
        let mut all = String::new();
        answer.read_to_string(&mut all).await.unwrap();
        return (status, vec![all]);
    }
    while lines.len() < lines_max {
        line.clear();
        if answer.read_line(&mut line).await.unwrap() == 0 {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    (status, lines)
}

fn refusal(problem: &Value) -> Refusal {
    let text = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
    let violations = problem["violations"].as_array().cloned().unwrap_or_default();
    let fields = violations.iter().map(|violation| violation["field"].as_str().unwrap_or_default().to_owned());
    Refusal { code: text("code"), reason: text("reason"), fields: fields.collect() }
}

/// Takes a field that becomes a part of the path.
fn part(request: &mut Value, pointer: &str) -> String {
    let found = request.pointer_mut(pointer).map(Value::take);
    let text = match found {
        Some(Value::String(text)) => text,
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// Leaves out what `part` has taken.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(name, value)| (name, without_nulls(value))).collect())
        }
        other => other,
    }
}

/// The fields of a request as a query: `scope.user_id=ada`, messages that are no plain nesting as JSON.
fn query(request: &Value) -> String {
    let mut pairs = Vec::new();
    let empty = Map::new();
    for (name, value) in request.as_object().unwrap_or(&empty) {
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let mut holder = json!({ "text": text });
        pairs.push(format!("{name}={}", part(&mut holder, "/text")));
    }
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

/// Where a request goes; see docs/http.md.
fn route(rpc: &str, mut request: Value) -> Sent {
    if rpc == "MemoryService.ImportMemories" {
        return import(&request);
    }
    let r = &mut request;
    let (method, path) = match rpc {
        "SpaceService.CreateSpace" => ("POST", "/spaces".to_owned()),
        "SpaceService.ListSpaces" => ("GET", "/spaces".to_owned()),
        "SpaceService.GetSpace" => ("GET", format!("/spaces/{}", part(r, "/name"))),
        "SpaceService.UpdateSpace" => ("PATCH", format!("/spaces/{}", part(r, "/space/name"))),
        "SpaceService.DeleteSpace" => ("DELETE", format!("/spaces/{}", part(r, "/name"))),
        "SpaceService.SetAlias" if r.get("space").is_some() => ("PUT", format!("/aliases/{}", part(r, "/alias"))),
        "SpaceService.SetAlias" => ("DELETE", format!("/aliases/{}", part(r, "/alias"))),
        "MemoryService.AddMemories" => ("POST", format!("/spaces/{}/memories", part(r, "/space"))),
        "MemoryService.ListMemories" => ("POST", format!("/spaces/{}/memories:list", part(r, "/space"))),
        "MemoryService.GetMemories" => ("POST", format!("/spaces/{}/memories:get", part(r, "/space"))),
        "MemoryService.SearchMemories" => ("POST", format!("/spaces/{}/memories:search", part(r, "/space"))),
        "MemoryService.CountMemories" => ("POST", format!("/spaces/{}/memories:count", part(r, "/space"))),
        "MemoryService.DeleteMemories" => ("POST", format!("/spaces/{}/memories:delete", part(r, "/space"))),
        "MemoryService.UpdateMemory" => {
            ("PATCH", format!("/spaces/{}/memories/{}", part(r, "/space"), part(r, "/memory/id")))
        }
        "MemoryService.GetMemoryHistory" => {
            ("GET", format!("/spaces/{}/memories/{}/history", part(r, "/space"), part(r, "/id")))
        }
        "MemoryService.WatchMemories" => ("GET", format!("/spaces/{}/memories:watch", part(r, "/space"))),
        "MemoryService.ListNamespaces" => ("GET", format!("/spaces/{}/namespaces", part(r, "/space"))),
        "ClusterService.GetClusterStatus" => ("GET", "/cluster".to_owned()),
        "ClusterService.TransferLeadership" => ("POST", "/cluster:transfer_leadership".to_owned()),
        "ClusterService.AddMember" => ("POST", "/cluster/members".to_owned()),
        "ClusterService.RemoveMember" => ("DELETE", format!("/cluster/members/{}", part(r, "/node_id"))),
        "ClusterService.PromoteMember" => ("POST", format!("/cluster/members/{}:promote", part(r, "/node_id"))),
        "ClusterService.DrainNode" => ("POST", format!("/cluster/members/{}:drain", part(r, "/node_id"))),
        other => panic!("{other} has no route here"),
    };
    let rest = without_nulls(request);
    let with_body = !matches!(method, "GET" | "DELETE");
    Sent {
        method,
        path: if with_body { format!("/v1{path}") } else { format!("/v1{path}{}", query(&rest)) },
        content_type: "application/json",
        body: if with_body { rest.to_string() } else { String::new() },
    }
}

/// An import is a header and batches over gRPC; here the header is the query, and the memories are lines.
fn import(request: &Value) -> Sent {
    let messages = request.as_array().unwrap();
    let mut header = messages[0]["header"].clone();
    let space = part(&mut header, "/space");
    let batches = messages.iter().filter_map(|message| message.get("batch"));
    let memories = batches.flat_map(|batch| batch["memories"].as_array().unwrap());
    Sent {
        method: "POST",
        path: format!("/v1/spaces/{space}/memories:import{}", query(&without_nulls(header))),
        content_type: "application/x-ndjson",
        body: memories.map(|memory| format!("{memory}\n")).collect(),
    }
}
