//! Every limit and everything that is not there: the same code, reason and field whatever the call travels over.

use serde_json::{Value, json};

use crate::expect::{answered, refusal_fault, refused};
use crate::face::Face;

/// An RPC, its request, and the field that is refused.
type Case = (&'static str, Value, &'static str);

const ADD: &str = "MemoryService.AddMemories";
const UPDATE: &str = "MemoryService.UpdateMemory";
const SEARCH: &str = "MemoryService.SearchMemories";
const LIST: &str = "MemoryService.ListMemories";
const DELETE: &str = "MemoryService.DeleteMemories";
const CREATE_SPACE: &str = "SpaceService.CreateSpace";
const UPDATE_SPACE: &str = "SpaceService.UpdateSpace";
const SET_ALIAS: &str = "SpaceService.SetAlias";

pub(crate) async fn run(face: &Face) {
    let space = format!("{}-limits", face.name());
    let wanted = json!({"name": space, "embeddings": [{"dense": {"dimension": 4}}]});
    answered(face, CREATE_SPACE, json!({"space": wanted}), &json!({"position": "*"})).await;
    let kept = json!({"id": "kept", "content": "stays as it is"});
    answered(face, ADD, json!({"space": space, "memories": [kept]}), &json!({"position": "*"})).await;

    let cases = [memories(&space), calls(&space), updates(&space), reads(&space), filters(&space), spaces(&space)];
    let mut faults = Vec::new();
    for (rpc, request, field) in cases.into_iter().flatten() {
        let fault = refusal_fault(face, rpc, request, "INVALID_ARGUMENT", "INVALID_ARGUMENT", field).await;
        faults.extend(fault);
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    state(face, &space).await;
    embedders(face, &space).await;
    imports(face, &space).await;
    missing(face).await;
    tokens(face, &space).await;

    let kept = json!({"memories": [{"id": "kept", "content": "stays as it is", "version": 1}]});
    answered(face, "MemoryService.GetMemories", json!({"space": space, "ids": ["kept"]}), &kept).await;
    answered(face, "SpaceService.DeleteSpace", json!({"name": space}), &json!({"deleted_count": 1})).await;
}

fn long(bytes: usize) -> String {
    "x".repeat(bytes)
}

fn dense(values: &Value) -> Value {
    json!({"dense": {"values": values}})
}

fn nested(levels: usize) -> Value {
    (0..levels).fold(json!({"bool_value": true}), |inner, _| json!({"map_value": {"entries": {"a": inner}}}))
}

/// What a memory may not be.
fn memories(space: &str) -> Vec<Case> {
    let cases = [
        (json!({"id": long(256)}), "memories[0].id"),
        (json!({"kind": long(256)}), "memories[0].kind"),
        (json!({"content": long((1 << 20) + 1)}), "memories[0].content"),
        (json!({"importance": 1.5}), "memories[0].importance"),
        (json!({"importance": "NaN"}), "memories[0].importance"),
        (json!({"ttl": "-1s"}), "memories[0].ttl"),
        (json!({"scope": {"agent_id": long(256)}}), "memories[0].scope.agent_id"),
        (json!({"scope": {"user_id": ""}}), "memories[0].scope.user_id"),
        (json!({"scope": {"session_id": long(256)}}), "memories[0].scope.session_id"),
        (json!({"scope": {"namespace": "a//b"}}), "memories[0].scope.namespace"),
        (json!({"metadata": {"a": {"string_value": long(65 << 10)}}}), "memories[0].metadata"),
        (json!({"metadata": {"a": {"double_value": "Infinity"}}}), "memories[0].metadata.a"),
        (json!({"metadata": {"a.b": {"bool_value": true}}}), "memories[0].metadata.a.b"),
        (json!({"metadata": {"a": nested(16)}}), ""),
        (json!({"vectors": [dense(&json!([1]))]}), "memories[0].vectors[0].dense.values"),
        (json!({"vectors": [dense(&json!([0, 0, 0, 0]))]}), "memories[0].vectors[0].dense.values"),
        (json!({"vectors": [dense(&json!(["NaN", 0, 0, 1]))]}), "memories[0].vectors[0].dense.values"),
        (json!({"vectors": [dense(&json!([1, 0, 0, 1])), dense(&json!([1, 0, 0, 1]))]}), "memories[0].vectors"),
        (
            json!({"vectors": [{"embedding": "other", "dense": {"values": [1, 0, 0, 1]}}]}),
            "memories[0].vectors[0].embedding",
        ),
    ];
    cases.into_iter().map(|(memory, field)| (ADD, json!({"space": space, "memories": [memory]}), field)).collect()
}

/// What a call that writes may not be.
fn calls(space: &str) -> Vec<Case> {
    let one = json!([{"content": "x"}]);
    let many: Vec<_> = (0..1_001).map(|_| json!({"content": "x"})).collect();
    let large: Vec<_> = (0..4).map(|_| json!({"content": long(900 << 10)})).collect();
    let ids: Vec<_> = (0..1_001).map(|number| number.to_string()).collect();
    vec![
        (ADD, json!({"space": space, "memories": []}), "memories"),
        (ADD, json!({"space": space, "memories": many}), "memories"),
        (ADD, json!({"space": space, "memories": large}), "memories"),
        (ADD, json!({"space": space, "memories": [{"id": "a"}, {"id": "a"}]}), "memories[1].id"),
        (ADD, json!({"space": long(64), "memories": one}), "space"),
        (ADD, json!({"space": space, "memories": one, "request_id": long(65)}), "request_id"),
        (ADD, json!({"space": space, "memories": one, "actor": long(256)}), "actor"),
        (ADD, json!({"space": space, "memories": one, "reason": long(1_025)}), "reason"),
        (DELETE, json!({"space": space}), "target"),
        (DELETE, json!({"space": space, "ids": {"ids": []}}), "ids.ids"),
        (DELETE, json!({"space": space, "ids": {"ids": ids}}), "ids.ids"),
        (DELETE, json!({"space": space, "selection": {}}), "selection"),
        (DELETE, json!({"space": space, "selection": {"scope": {}}}), "selection"),
        (DELETE, json!({"space": space, "selection": {"all": true, "scope": {"user_id": "a"}}}), "selection.all"),
    ]
}

/// What an update may not be.
fn updates(space: &str) -> Vec<Case> {
    let update = |memory: Value, mask: &str| json!({"space": space, "memory": memory, "update_mask": mask});
    vec![
        (UPDATE, update(json!({"id": "kept"}), ""), "update_mask"),
        (UPDATE, update(json!({"id": "kept"}), "colour"), "update_mask.paths[0]"),
        (UPDATE, update(json!({"id": "kept"}), "version"), "update_mask.paths[0]"),
        (UPDATE, update(json!({"id": "kept", "importance": 7}), "importance"), "memory.importance"),
        (UPDATE, update(json!({"id": "kept", "kind": long(256)}), "kind"), "memory.kind"),
        (
            UPDATE,
            update(json!({"id": "kept", "metadata": {"a": {"string_value": long(65 << 10)}}}), "metadata.a"),
            "memory.metadata",
        ),
    ]
}

/// What a read may not be.
fn reads(space: &str) -> Vec<Case> {
    let near = |values: Value| json!({"vectors": [dense(&values)]});
    let ids: Vec<_> = (0..1_001).map(|number| number.to_string()).collect();
    vec![
        ("MemoryService.GetMemories", json!({"space": space, "ids": []}), "ids"),
        ("MemoryService.GetMemories", json!({"space": space, "ids": ids}), "ids"),
        (LIST, json!({"space": space, "page_size": 1_001}), "page_size"),
        (LIST, json!({"space": space, "page_size": -1}), "page_size"),
        (LIST, json!({"space": space, "order_by": "beauty"}), "order_by"),
        (LIST, json!({"space": space, "page_token": "abc"}), "page_token"),
        (SEARCH, json!({"space": space}), "query"),
        (SEARCH, json!({"space": space, "text": " "}), "text"),
        (SEARCH, json!({"space": space, "vectors": near(json!([1, 0])) }), "vectors.vectors[0].dense.values"),
        (SEARCH, json!({"space": space, "vectors": near(json!([0, 0, 0, 0])) }), "vectors.vectors[0].dense.values"),
        (
            SEARCH,
            json!({"space": space, "vectors": near(json!(["-Infinity", 0, 0, 0])) }),
            "vectors.vectors[0].dense.values",
        ),
        (SEARCH, json!({"space": space, "vectors": near(json!([1, 0, 0, 0])), "limit": 1_001}), "limit"),
        (SEARCH, json!({"space": space, "vectors": near(json!([1, 0, 0, 0])), "limit": -1}), "limit"),
        (SEARCH, json!({"space": space, "vectors": near(json!([1, 0, 0, 0])), "min_score": "NaN"}), "min_score"),
        (
            SEARCH,
            json!({"space": space, "vectors": near(json!([1, 0, 0, 0])), "params": {"effort": 10_001}}),
            "params.effort",
        ),
        (LIST, json!({"space": space, "consistency": {"max_staleness": "7200s"}}), ""),
        (LIST, json!({"space": space, "consistency": {"at_least": "no position"}}), "consistency.at_least"),
        ("SpaceService.ListSpaces", json!({"page_size": 1_001}), "page_size"),
        ("MemoryService.GetMemoryHistory", json!({"space": space, "id": "kept", "page_size": -1}), "page_size"),
        ("MemoryService.ListNamespaces", json!({"space": space, "prefix": "a//b"}), "prefix"),
        ("MemoryService.ListNamespaces", json!({"space": space, "page_size": 1_001}), "page_size"),
        ("MemoryService.WatchMemories", json!({"space": space, "after": "no position"}), "after"),
    ]
}

/// What a filter may not be; the field as a delete names it, below its selection.
fn filters(space: &str) -> Vec<Case> {
    let condition = |field: &str, test: &str, value: Value| json!({"where": {"field": field, test: value}});
    let text = json!({"string_value": "x"});
    let deep = (0..17).fold(condition("kind", "eq", text.clone()), |inner, _| json!({"not": inner}));
    let wide: Vec<_> = (0..257).map(|_| condition("kind", "eq", text.clone())).collect();
    let values: Vec<_> = (0..1_001).map(|_| text.clone()).collect();
    let cases = [
        (json!({}), "selection.filter"),
        (condition("colour", "eq", text.clone()), "selection.filter.where.field"),
        (condition("metadata.", "eq", text.clone()), "selection.filter.where.field"),
        (json!({"where": {"field": "kind"}}), "selection.filter.where"),
        (condition("kind", "eq", json!({"integer_value": 3})), "selection.filter.where.eq"),
        (condition("importance", "gt", json!({"double_value": "NaN"})), "selection.filter.where.gt"),
        (condition("created_at", "prefix", json!("2026")), "selection.filter.where.prefix"),
        (condition("kind", "in", json!({"values": []})), "selection.filter.where.in"),
        (condition("kind", "in", json!({"values": values})), "selection.filter.where.in"),
        (deep, ""),
        (json!({"all": {"filters": wide}}), ""),
    ];
    let near = json!({"vectors": [dense(&json!([1, 0, 0, 0]))]});
    let mut refusals = Vec::new();
    for (filter, below) in cases {
        let field = below.strip_prefix("selection.").unwrap_or(below);
        refusals.push((LIST, json!({"space": space, "filter": filter}), field));
        refusals.push(("MemoryService.CountMemories", json!({"space": space, "filter": filter}), field));
        refusals.push((SEARCH, json!({"space": space, "vectors": near, "filter": filter}), field));
        refusals.push((DELETE, json!({"space": space, "selection": {"filter": filter}}), below));
    }
    refusals
}

/// What a space may not be.
fn spaces(space: &str) -> Vec<Case> {
    let good = |name: &str, more: Value| {
        let mut wanted = json!({"name": name, "embeddings": [{"dense": {"dimension": 4}}]});
        wanted.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        (CREATE_SPACE, json!({"space": wanted}))
    };
    let field = |path: &str| json!({"path": path, "type": "FIELD_TYPE_KEYWORD"});
    let fields: Vec<_> = (0..65).map(|number| field(&format!("f{number}"))).collect();
    let dimension = |dimension: u32| json!({"embeddings": [{"dense": {"dimension": dimension}}]});
    let cases = [
        (good("Upper", json!({})), "space.name"),
        (good(&long(64), json!({})), "space.name"),
        (good("good", json!({"embeddings": []})), "space.embeddings"),
        (good("good", dimension(0)), "space.embeddings[0].dense.dimension"),
        (good("good", dimension(4_097)), "space.embeddings[0].dense.dimension"),
        (good("good", json!({"fields": fields})), "space.fields"),
        (good("good", json!({"fields": [field("a"), field("a")]})), "space.fields[1].path"),
        (good("good", json!({"fields": [{"path": "a"}]})), "space.fields[0].type"),
        (good("good", json!({"history_depth": 1_001})), "space.history_depth"),
        (good("good", json!({"default_ttl": "-5s"})), "space.default_ttl"),
    ];
    let mut cases: Vec<Case> = cases.into_iter().map(|((rpc, request), field)| (rpc, request, field)).collect();
    let update = |more: Value, mask: &str| {
        let mut changed = json!({"name": space});
        changed.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"space": changed, "update_mask": mask})
    };
    let long_path = json!({"fields": [field(&long(256))]});
    let (rpc, request) = good("good", long_path);
    cases.push((rpc, request, "space.fields[0].path"));
    cases.push((SET_ALIAS, json!({"alias": "Upper", "space": space}), "alias"));
    cases.push((SET_ALIAS, json!({"alias": long(64), "space": space}), "alias"));
    cases.push((UPDATE_SPACE, update(json!({}), ""), "update_mask.paths"));
    cases.push((UPDATE_SPACE, update(dimension(5), "embeddings"), "update_mask.paths[0]"));
    cases.push((UPDATE_SPACE, update(json!({"history_depth": 1_001}), "history_depth"), "space.history_depth"));
    cases
}

/// What the state does not allow.
async fn state(face: &Face, space: &str) {
    let again = json!({"space": {"name": space, "embeddings": [{"dense": {"dimension": 4}}]}});
    refused(face, CREATE_SPACE, again, "ALREADY_EXISTS", "SPACE_ALREADY_EXISTS", "").await;
    let insert = json!({"space": space, "memories": [{"id": "kept"}], "write_mode": "WRITE_MODE_INSERT"});
    refused(face, ADD, insert, "ALREADY_EXISTS", "MEMORY_ALREADY_EXISTS", "").await;
    let stale =
        json!({"space": space, "memory": {"id": "kept", "kind": "fact"}, "update_mask": "kind", "expected_version": 7});
    refused(face, UPDATE, stale, "ABORTED", "VERSION_MISMATCH", "").await;
    let stale =
        json!({"space": {"name": space, "history_depth": 3}, "update_mask": "history_depth", "expected_version": 7});
    refused(face, UPDATE_SPACE, stale, "ABORTED", "VERSION_MISMATCH", "").await;
    // A memory with a vector and other content would be found by what it no longer says.
    let update = json!({"space": space, "memory": {"id": "kept", "content": "else"}, "update_mask": "content"});
    let with_vector = json!({"space": space, "memories": [{"id": "vector", "content": "x", "vectors": [dense(&json!([1, 0, 0, 0]))]}]});
    answered(face, ADD, with_vector, &json!({"position": "*"})).await;
    let mut on_vector = update;
    on_vector["memory"]["id"] = json!("vector");
    refused(face, UPDATE, on_vector, "FAILED_PRECONDITION", "VECTOR_NEEDED", "").await;
    let gone = json!({"space": space, "ids": {"ids": ["vector"]}});
    answered(face, DELETE, gone, &json!({"deleted_count": 1})).await;
    refused(face, SEARCH, json!({"space": space, "text": "words"}), "FAILED_PRECONDITION", "NO_EMBEDDER", "").await;
    let sparse = json!({"space": {"name": "sparse", "embeddings": [{"sparse": {}}]}});
    refused(face, CREATE_SPACE, sparse, "UNIMPLEMENTED", "NOT_SERVED_YET", "").await;
    let request = |content: &str| json!({"space": space, "memories": [{"id": "kept-2", "content": content}], "request_id": format!("{space}-same")});
    answered(face, ADD, request("one"), &json!({"position": "*"})).await;
    refused(face, ADD, request("two"), "INVALID_ARGUMENT", "INVALID_ARGUMENT", "request_id").await;
    let gone = json!({"space": space, "ids": {"ids": ["kept-2"]}});
    answered(face, DELETE, gone, &json!({"deleted_count": 1})).await;
}

/// An embedder that a space cannot have, at its creation and later; the server of `told` makes vectors of dimension 4.
async fn embedders(face: &Face, space: &str) {
    let wanted = |dimension: u32, embedder: &str| {
        let embedding = json!({"dense": {"dimension": dimension}, "embedder": embedder});
        json!({"space": {"name": format!("{}-told", face.name()), "embeddings": [embedding]}})
    };
    let invalid = "INVALID_ARGUMENT";
    let field = "space.embeddings[0].dense.dimension";
    refused(face, CREATE_SPACE, wanted(5, "told"), invalid, invalid, field).await;
    refused(face, CREATE_SPACE, wanted(4, "tole"), "FAILED_PRECONDITION", "UNKNOWN_EMBEDDER", "").await;
    let made = json!({"space": {"embeddings": [{"embedder": "told", "model": "m-4"}]}});
    answered(face, CREATE_SPACE, wanted(4, "told"), &made).await;
    let name = format!("{}-told", face.name());
    answered(face, "SpaceService.DeleteSpace", json!({"name": name}), &json!({"position": "*"})).await;

    let change = |name: &str, embedder: &str| {
        let space = json!({"name": name, "embeddings": [{"embedder": embedder}]});
        json!({"space": space, "update_mask": "embeddings.default.embedder"})
    };
    refused(face, UPDATE_SPACE, change(space, "tole"), "FAILED_PRECONDITION", "UNKNOWN_EMBEDDER", "").await;
    answered(face, CREATE_SPACE, wanted(5, ""), &json!({"position": "*"})).await;
    refused(face, UPDATE_SPACE, change(&name, "told"), invalid, invalid, "space.embeddings[0].embedder").await;
    answered(face, "SpaceService.DeleteSpace", json!({"name": name}), &json!({"position": "*"})).await;
}

/// Imports that are refused as a whole, and in their midst.
async fn imports(face: &Face, space: &str) {
    let stream = |space: &str, import_id: &str, memory: Value| {
        let header = json!({"space": space, "import_id": import_id});
        json!([{"header": header}, {"batch": {"offset": 0, "memories": [memory]}}])
    };
    let import = "MemoryService.ImportMemories";
    refused(face, import, stream("nowhere", "i", json!({"content": "x"})), "NOT_FOUND", "SPACE_NOT_FOUND", "").await;
    let invalid = "INVALID_ARGUMENT";
    refused(face, import, stream(space, &long(65), json!({"content": "x"})), invalid, invalid, "").await;
    let wrong = json!({"content": "x", "vectors": [dense(&json!([1]))]});
    refused(face, import, stream(space, "i", wrong), invalid, invalid, "").await;
    let count = json!({"space": space});
    answered(face, "MemoryService.CountMemories", count, &json!({"count": 1})).await;
}

/// What is not there.
async fn missing(face: &Face) {
    let near = json!({"vectors": [dense(&json!([1, 0, 0, 0]))]});
    let requests = [
        (ADD, json!({"space": "nowhere", "memories": [{"content": "x"}]})),
        (UPDATE, json!({"space": "nowhere", "memory": {"id": "a", "kind": "x"}, "update_mask": "kind"})),
        (DELETE, json!({"space": "nowhere", "ids": {"ids": ["a"]}})),
        (SEARCH, json!({"space": "nowhere", "vectors": near})),
        (LIST, json!({"space": "nowhere"})),
        ("MemoryService.GetMemories", json!({"space": "nowhere", "ids": ["a"]})),
        ("MemoryService.CountMemories", json!({"space": "nowhere"})),
        ("MemoryService.GetMemoryHistory", json!({"space": "nowhere", "id": "a"})),
        ("MemoryService.ListNamespaces", json!({"space": "nowhere"})),
        ("MemoryService.WatchMemories", json!({"space": "nowhere"})),
        ("SpaceService.GetSpace", json!({"name": "nowhere"})),
        (UPDATE_SPACE, json!({"space": {"name": "nowhere", "history_depth": 1}, "update_mask": "history_depth"})),
        ("SpaceService.DeleteSpace", json!({"name": "nowhere"})),
        (SET_ALIAS, json!({"alias": "nobody", "space": "nowhere"})),
    ];
    for (rpc, request) in requests {
        refused(face, rpc, request, "NOT_FOUND", "SPACE_NOT_FOUND", "").await;
    }
}

/// A page token belongs to the arguments that it came from.
async fn tokens(face: &Face, space: &str) {
    let more = json!({"space": space, "memories": [{"id": "page-1"}, {"id": "page-2"}]});
    answered(face, ADD, more, &json!({"position": "*"})).await;
    let page = answered(face, LIST, json!({"space": space, "page_size": 1}), &json!({"next_page_token": "*"})).await;
    let other =
        json!({"space": space, "page_size": 1, "page_token": page["next_page_token"], "scope": {"user_id": "a"}});
    refused(face, LIST, other, "INVALID_ARGUMENT", "INVALID_ARGUMENT", "page_token").await;
    let gone = json!({"space": space, "ids": {"ids": ["page-1", "page-2"]}});
    answered(face, DELETE, gone, &json!({"deleted_count": 2})).await;
}
