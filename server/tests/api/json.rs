//! The API as JSON over HTTP: the same calls and the same refusals as over gRPC, in the form that curl and browsers take.

use cairn_proto::v1;
use serde_json::{Value, json};
use tonic::Status;

use crate::support::{Answer, TestNode, by_vector, equals, memory, reason, space, text, violations};

const JSON: &str = "content-type: application/json";

async fn send(node: &TestNode, method: &str, path: &str, body: &Value) -> Answer {
    node.http(method, path, &[JSON], body.to_string().as_bytes()).await
}

async fn get(node: &TestNode, path: &str) -> Answer {
    node.http("GET", path, &[], b"").await
}

/// The body of an answer that must be 200.
#[track_caller]
fn done(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.header("content-type").as_deref(), Some("application/json"));
    answer.json()
}

/// The problem in an answer that must refuse with this HTTP status and reason.
#[track_caller]
fn refused(answer: &Answer, status: u16, reason: &str) -> Value {
    assert_eq!(answer.status, status, "{}", answer.body);
    assert_eq!(answer.header("content-type").as_deref(), Some("application/problem+json"));
    let problem = answer.json();
    assert_eq!(
        (problem["status"].as_u64(), problem["reason"].as_str()),
        (Some(u64::from(status)), Some(reason)),
        "{problem}"
    );
    problem
}

fn ids(memories: &Value) -> Vec<&str> {
    memories.as_array().unwrap().iter().map(|memory| memory["id"].as_str().unwrap()).collect()
}

async fn add_three(node: &TestNode) {
    let memories = json!([
        {"id": "a", "content": "oat milk", "kind": "preference", "scope": {"user_id": "ada"},
         "metadata": {"topic": "coffee", "cups": 3}, "vectors": [{"dense": {"values": [1, 0, 0, 0]}}]},
        {"id": "b/1", "content": "black", "scope": {"user_id": "bob", "namespace": "x/y"},
         "metadata": {"topic": "coffee"}, "vectors": [{"dense": {"values": [0, 1, 0, 0]}}]},
        {"id": "c", "content": "tea", "metadata": {"topic": "tea"}},
    ]);
    let answer =
        send(node, "POST", "/v1/spaces/notes/memories", &json!({"memories": memories, "request_id": "r1"})).await;
    let first = done(&answer);
    let results = &first["results"];
    assert_eq!(ids(results), ["a", "b/1", "c"]);
    assert_eq!(results[0], json!({"id": "a", "version": "1", "outcome": "WRITE_OUTCOME_CREATED"}));
    let again =
        send(node, "POST", "/v1/spaces/notes/memories", &json!({"memories": memories, "requestId": "r1"})).await;
    assert_eq!(done(&again)["results"], *results, "a retry gets the first outcome");
}

#[tokio::test(flavor = "multi_thread")]
async fn memories_are_written_read_found_and_deleted() {
    let mut node = TestNode::with_notes().await;
    add_three(&node).await;

    let found = done(&get(&node, "/v1/spaces/notes/memories/b%2F1").await);
    assert_eq!(found["memory"]["metadata"]["topic"], json!({"string_value": "coffee"}));
    assert_eq!(found["memory"]["scope"], json!({"user_id": "bob", "namespace": "x/y"}));
    assert!(!found["position"].as_str().unwrap().is_empty());
    let found = done(&send(&node, "POST", "/v1/spaces/notes/memories:get", &json!({"ids": ["c", "nobody"]})).await);
    assert_eq!((ids(&found["memories"]), &found["missing_ids"]), (vec!["c"], &json!(["nobody"])));

    let page = done(&get(&node, "/v1/spaces/notes/memories?page_size=2&order_by=created_at").await);
    assert_eq!(page["memories"].as_array().unwrap().len(), 2);
    let token = page["next_page_token"].as_str().unwrap();
    let page = done(
        &get(&node, &format!("/v1/spaces/notes/memories?page_size=2&order_by=created_at&page_token={token}")).await,
    );
    assert_eq!((page["memories"].as_array().unwrap().len(), page["next_page_token"].as_str()), (1, Some("")));
    let mine = done(&get(&node, "/v1/spaces/notes/memories?scope.userId=ada&include_vectors=true").await);
    assert_eq!(mine["memories"][0]["vectors"][0]["dense"]["values"], json!([1.0, 0.0, 0.0, 0.0]));
    let filter = json!({"where": {"field": "metadata.cups", "gte": 2}});
    let listed = done(&send(&node, "POST", "/v1/spaces/notes/memories:list", &json!({"filter": filter})).await);
    assert_eq!(ids(&listed["memories"]), ["a"]);

    let query = json!({"vectors": {"vectors": [{"dense": {"values": [0, 1, 0, 0]}}]}, "limit": 1, "explain": true});
    let hits = done(&send(&node, "POST", "/v1/spaces/notes/memories:search", &query).await);
    assert_eq!((hits["hits"][0]["memory"]["id"].as_str(), hits["hits"][0]["score"].as_f64()), (Some("b/1"), Some(1.0)));
    let over_grpc =
        node.memories.search_memories(by_vector("notes", &[0.0, 1.0, 0.0, 0.0])).await.unwrap().into_inner();
    assert_eq!(over_grpc.hits[0].memory.as_ref().unwrap().id, "b/1");

    assert_eq!(done(&get(&node, "/v1/spaces/notes/memories:count?scope.user_id=ada").await)["count"], "1");
    let coffee = json!({"filter": {"where": {"field": "metadata.topic", "eq": "coffee"}}});
    assert_eq!(done(&send(&node, "POST", "/v1/spaces/notes/memories:count", &coffee).await)["count"], "2");
    let namespaces = done(&get(&node, "/v1/spaces/notes/namespaces?prefix=x").await);
    assert_eq!(namespaces["namespaces"], json!([{"path": "x/y", "memory_count": "1"}]));

    let deleted = done(&node.http("DELETE", "/v1/spaces/notes/memories/b%2F1?request_id=d", &[], b"").await);
    assert_eq!(deleted["deleted_count"], "1");
    let deleted = done(&send(&node, "POST", "/v1/spaces/notes/memories:delete", &json!({"selection": coffee})).await);
    assert_eq!(deleted["deleted_count"], "1");
    assert_eq!(node.count("notes").await, 1);
    let gone = refused(&get(&node, "/v1/spaces/notes/memories/a").await, 404, "MEMORY_NOT_FOUND");
    assert_eq!(gone["resource"], json!({"type": "memory", "name": "a"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn spaces_and_the_cluster_are_served_too() {
    let node = TestNode::start().await;
    let space = json!({"name": "notes", "embeddings": [{"dense": {"dimension": 8}, "embedder": "hash"}], "default_ttl": "3600s"});
    let made = done(&send(&node, "POST", "/v1/spaces", &json!({"space": space})).await);
    assert_eq!((made["space"]["name"].as_str(), made["space"]["default_ttl"].as_str()), (Some("notes"), Some("3600s")));
    let made = &made["space"]["embeddings"][0];
    assert_eq!(made["dense"]["metric"], "METRIC_COSINE");

    let read = done(&get(&node, "/v1/spaces/notes?consistency.max_staleness=60s").await);
    assert_eq!(
        (read["space"]["embeddings"][0].clone(), read["statistics"]["memories"].as_str()),
        (made.clone(), Some("0"))
    );
    assert_eq!(done(&get(&node, "/v1/spaces").await)["spaces"][0]["name"], "notes");
    let exists = send(
        &node,
        "POST",
        "/v1/spaces",
        &json!({"space": {"name": "notes", "embeddings": [{"dense": {"dimension": 8}}]}}),
    )
    .await;
    refused(&exists, 409, "SPACE_ALREADY_EXISTS");

    let text = json!({"memories": [{"content": "the cat sat on the mat"}]});
    done(&send(&node, "POST", "/v1/spaces/notes/memories", &text).await);
    let found = done(&send(&node, "POST", "/v1/spaces/notes/memories:search", &json!({"text": "cat"})).await);
    assert_eq!(found["hits"][0]["memory"]["content"], "the cat sat on the mat");

    let cluster = done(&get(&node, "/v1/cluster").await);
    assert_eq!(
        (cluster["node_id"].as_str(), cluster["members"][0]["role"].as_str()),
        (Some("1"), Some("MEMBER_ROLE_LEADER"))
    );
    let deleted = done(&node.http("DELETE", "/v1/spaces/notes", &[], b"").await);
    assert_eq!(deleted["deleted_count"], "1");
    refused(&get(&node, "/v1/spaces/notes").await, 404, "SPACE_NOT_FOUND");
}

/// What a refusal over gRPC says, in the form of a problem.
fn expected(status: &Status) -> (String, String, Vec<(String, String)>) {
    (reason(status), status.message().to_owned(), violations(status))
}

fn said(problem: &Value) -> (String, String, Vec<(String, String)>) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = problem["violations"].as_array().into_iter().flatten();
    let violations = list.map(|one| (text(&one["field"]), text(&one["description"]))).collect();
    (text(&problem["reason"]), text(&problem["detail"]), violations)
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_say_the_same_as_over_grpc() {
    let mut node = TestNode::with_notes().await;

    let bad = v1::AddMemoriesRequest {
        space: "notes".into(),
        memories: vec![memory("", "x", &[1.0]), memory(&"y".repeat(256), "x", &[])],
        ..Default::default()
    };
    let status = node.memories.add_memories(bad).await.unwrap_err();
    let body = json!({"memories": [{"content": "x", "vectors": [{"dense": {"values": [1]}}]}, {"id": "y".repeat(256), "content": "x"}]});
    let problem = refused(&send(&node, "POST", "/v1/spaces/notes/memories", &body).await, 400, "INVALID_ARGUMENT");
    assert_eq!(said(&problem), expected(&status));

    let filter = Some(equals("importance", text("high")));
    let status = node
        .memories
        .count_memories(v1::CountMemoriesRequest { space: "notes".into(), filter, ..Default::default() })
        .await
        .unwrap_err();
    let body = json!({"filter": {"where": {"field": "importance", "eq": "high"}}});
    let problem =
        refused(&send(&node, "POST", "/v1/spaces/notes/memories:count", &body).await, 400, "INVALID_ARGUMENT");
    assert_eq!(said(&problem), expected(&status));

    let body = json!({"space": {"name": "words", "embeddings": [{"dense": {"dimension": 8}, "embedder": "unknown"}]}});
    let problem = refused(&send(&node, "POST", "/v1/spaces", &body).await, 400, "UNKNOWN_EMBEDDER");
    assert_eq!(
        (problem["code"].as_str(), problem["metadata"]["embedder"].as_str()),
        (Some("FAILED_PRECONDITION"), Some("unknown"))
    );
    refused(&get(&node, "/v1/spaces/nowhere/memories").await, 404, "SPACE_NOT_FOUND");
    let answer = node.http("GET", "/v1/spaces/notes/memories", &["grpc-timeout: 1n"], b"").await;
    refused(&answer, 504, "DEADLINE_EXCEEDED");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_of_the_api_is_named() {
    let node = TestNode::with_notes().await;
    let add = "/v1/spaces/notes/memories";
    let field = |answer: &Answer, status: u16, name: &str| {
        let problem = refused(answer, status, "INVALID_ARGUMENT");
        assert_eq!(problem["violations"][0]["field"], name, "{problem}");
    };
    field(&send(&node, "POST", add, &json!({"memories": [{"contents": "x"}]})).await, 400, "memories[0].contents");
    field(&send(&node, "POST", add, &json!({"memories": "x"})).await, 400, "memories");
    field(&send(&node, "POST", add, &json!({"space": "other"})).await, 400, "space");
    field(&node.http("POST", add, &[JSON], b"{\"memories\": [").await, 400, "request");
    field(&node.http("POST", add, &[JSON], b"{\"actor\": \"a\", \"actor\": \"b\"}").await, 400, "request");
    field(&send(&node, "POST", &format!("{add}?actor=x"), &json!({})).await, 400, "actor");
    field(&get(&node, &format!("{add}?pagesize=1")).await, 400, "pagesize");
    field(&node.http("PUT", "/v1/aliases/x", &[JSON], b"{}").await, 400, "space");
    field(&node.http("DELETE", "/v1/spaces/notes/memories/a?selection.all=true", &[], b"").await, 400, "selection");

    refused(&node.http("POST", add, &["content-type: text/plain"], b"{}").await, 415, "UNSUPPORTED_MEDIA_TYPE");
    refused(&get(&node, "/v1/nothing").await, 404, "ROUTE_NOT_FOUND");
    let answer = node.http("PATCH", add, &[JSON], b"{}").await;
    refused(&answer, 405, "METHOD_NOT_ALLOWED");
    assert_eq!(answer.header("allow").as_deref(), Some("POST, GET, OPTIONS"));
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_have_a_limit() {
    let node = TestNode::start_with(|config| config.http.body_max = 4 << 10).await;
    let body = json!({"memories": [{"content": "x".repeat(5 << 10)}]});
    let problem = refused(&send(&node, "POST", "/v1/spaces/notes/memories", &body).await, 413, "INVALID_ARGUMENT");
    assert!(problem["detail"].as_str().unwrap().contains("4096"), "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_web_pages_are_kept_out_unless_they_are_listed() {
    let mut node =
        TestNode::start_with(|config| config.http.cors_origins = vec!["https://app.example".to_owned()]).await;
    node.create(space("notes", 4, "")).await;
    let path = "/v1/spaces/notes";
    refused(&node.http("GET", path, &["origin: https://evil.example"], b"").await, 403, "ORIGIN_NOT_ALLOWED");
    refused(&node.http("DELETE", path, &["origin: null"], b"").await, 403, "ORIGIN_NOT_ALLOWED");
    refused(&node.http("GET", path, &["host: evil.example"], b"").await, 403, "HOST_NOT_ALLOWED");

    let answer = node.http("GET", path, &["origin: https://app.example"], b"").await;
    assert_eq!(done(&answer)["space"]["name"], "notes");
    assert_eq!(answer.header("access-control-allow-origin").as_deref(), Some("https://app.example"));
    let asks = ["origin: https://app.example", "access-control-request-method: DELETE"];
    let answer = node.http("OPTIONS", path, &asks, b"").await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-methods").as_deref(), Some("GET, PATCH, DELETE, OPTIONS"));
    assert!(get(&node, path).await.header("access-control-allow-origin").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_is_served_and_the_api_can_be_turned_off() {
    let node = TestNode::start().await;
    let document = done(&get(&node, "/v1/openapi.json").await);
    assert_eq!(document["openapi"], "3.1.1");
    assert!(document["paths"]["/v1/spaces/{space}/memories:search"]["post"].is_object());

    let node = TestNode::start_with(|config| config.http.api = false).await;
    assert_eq!(get(&node, "/v1/spaces").await.status, 404);
    assert_eq!(get(&node, "/livez").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_in_the_first_lines_of_an_import_is_a_refusal() {
    let node = TestNode::with_notes().await;
    let path = "/v1/spaces/notes/memories:import?import_id=i";
    let ndjson = "content-type: application/x-ndjson";
    let body = b"{\"content\": \"one\"}\n\n{\"contents\": \"two\"}\n";
    let problem = refused(&node.http("POST", path, &[ndjson], body).await, 400, "INVALID_ARGUMENT");
    assert_eq!(problem["violations"][0]["field"], "line 3: contents");
    refused(&node.http("POST", path, &[JSON], body).await, 415, "UNSUPPORTED_MEDIA_TYPE");
    let problem =
        refused(&node.http("POST", &format!("{path}&offset=x"), &[ndjson], body).await, 400, "INVALID_ARGUMENT");
    assert_eq!(problem["violations"][0]["field"], "offset");
}

const NDJSON: &str = "content-type: application/x-ndjson";

/// The lines of an answer that must be a stream.
#[track_caller]
fn lines(answer: &Answer) -> Vec<Value> {
    assert_eq!(
        (answer.status, answer.header("content-type").as_deref()),
        (200, Some("application/x-ndjson")),
        "{}",
        answer.body
    );
    answer.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_memories_are_imported_once() {
    let mut node = TestNode::with_notes().await;
    let path = "/v1/spaces/notes/memories:import?import_id=monday";
    let body: String =
        (0..600).map(|number| json!({"id": format!("m{number}"), "content": "x"}).to_string() + "\n").collect();
    for _ in 0..2 {
        let acknowledged = lines(&node.http("POST", path, &[NDJSON], body.as_bytes()).await);
        let offsets: Vec<_> = acknowledged.iter().map(|line| line["acknowledged_offset"].as_str().unwrap()).collect();
        assert_eq!(offsets, ["500", "600"]);
        assert_eq!(
            acknowledged[1]["results"][99],
            json!({"id": "m599", "version": "1", "outcome": "WRITE_OUTCOME_CREATED"})
        );
    }
    let rest: String = body.lines().skip(500).map(|line| format!("{line}\n")).collect();
    let acknowledged = lines(&node.http("POST", &format!("{path}&offset=500"), &[NDJSON], rest.as_bytes()).await);
    assert_eq!(acknowledged[0]["results"][0]["version"], "1", "a batch that had arrived is recognized");
    assert_eq!(node.count("notes").await, 600);

    let late = body + "{\"content\": 7}";
    let told = lines(&node.http("POST", &path.replace("monday", "tuesday"), &[NDJSON], late.as_bytes()).await);
    assert_eq!(told[0]["acknowledged_offset"], "500");
    let error = &told.last().unwrap()["error"];
    assert_eq!(
        (error["status"].as_u64(), error["violations"][0]["field"].as_str()),
        (Some(400), Some("line 601: content"))
    );
    assert_eq!(told.len(), 2, "half a batch is not written: {told:?}");

    let nowhere = path.replace("notes", "nowhere");
    refused(&node.http("POST", &nowhere, &[NDJSON], b"{\"content\": \"x\"}").await, 404, "SPACE_NOT_FOUND");
    let nameless = "/v1/spaces/notes/memories:import";
    refused(&node.http("POST", nameless, &[NDJSON], b"{\"content\": \"x\"}").await, 400, "INVALID_ARGUMENT");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_followed_until_the_node_stops() {
    let mut node = TestNode::with_notes().await;
    let before = node.add("notes", vec![memory("a", "x", &[])]).await.position;
    node.add("notes", vec![memory("b", "y", &[])]).await;
    let path = format!("/v1/spaces/notes/memories:watch?include_memory=true&after={before}");
    let mut watch = node.open(&path).await;
    let change = watch.line().await;
    assert_eq!(
        (change["change"]["id"].as_str(), change["change"]["type"].as_str()),
        (Some("b"), Some("CHANGE_TYPE_CREATED"))
    );
    assert_eq!(change["change"]["memory"]["content"], "y");
    node.http("DELETE", "/v1/spaces/notes/memories/a", &[], b"").await;
    let change = watch.line().await;
    assert_eq!(
        (change["change"]["id"].as_str(), change["change"]["type"].as_str()),
        (Some("a"), Some("CHANGE_TYPE_DELETED"))
    );

    let TestNode { handle, .. } = node;
    let (_, last) = tokio::join!(handle.stop(), watch.line());
    assert_eq!(
        (last["error"]["code"].as_str(), last["error"]["reason"].as_str()),
        (Some("UNAVAILABLE"), Some("NODE_STOPPED"))
    );
    let nowhere = "/v1/spaces/nowhere/memories:watch";
    let node = TestNode::start().await;
    refused(&get(&node, nowhere).await, 404, "SPACE_NOT_FOUND");
}
