//! Every test of a filter, by what it finds: in lists, counts and searches alike.

use serde_json::{Value, json};

use crate::expect::answered;
use crate::face::Face;

pub(crate) async fn run(face: &Face) {
    let space = format!("{}-filters", face.name());
    make(face, &space).await;
    for (filter, ids) in cases() {
        let found: Vec<Value> = ids.iter().map(|id| json!({"id": id})).collect();
        let list = json!({"space": space, "filter": filter, "order_by": "created_at"});
        answered(face, "MemoryService.ListMemories", list, &json!({"memories": found})).await;
        let count = json!({"space": space, "filter": filter});
        answered(face, "MemoryService.CountMemories", count, &json!({"count": ids.len()})).await;
        // The older, the nearer: hits come in the order of the list.
        let near = json!({"vectors": [{"dense": {"values": [0, 0]}}]});
        let search = json!({"space": space, "vectors": near, "filter": filter});
        let hits: Vec<Value> = ids.iter().map(|id| json!({"memory": {"id": id}})).collect();
        answered(face, "MemoryService.SearchMemories", search, &json!({"hits": hits})).await;
    }
    let filter = condition("metadata.n", "gte", json!({"integer_value": 2}));
    let delete = json!({"space": space, "selection": {"filter": filter}});
    answered(face, "MemoryService.DeleteMemories", delete, &json!({"deleted_count": 2})).await;
    answered(face, "SpaceService.DeleteSpace", json!({"name": space}), &json!({"deleted_count": 2})).await;
}

async fn make(face: &Face, space: &str) {
    let embedding = json!({"dense": {"dimension": 2, "metric": "METRIC_L2"}});
    let fields = json!([{"path": "n", "type": "FIELD_TYPE_INTEGER"}, {"path": "tags", "type": "FIELD_TYPE_KEYWORD"}]);
    let wanted = json!({"name": space, "embeddings": [embedding], "fields": fields});
    answered(face, "SpaceService.CreateSpace", json!({"space": wanted}), &json!({"position": "*"})).await;
    let memory = |id: &str, year: u32, more: Value| {
        let vector = json!({"dense": {"values": [year - 2020, 0]}});
        let created_at = format!("{year}-01-01T00:00:00Z");
        let mut memory = json!({"id": id, "content": id, "created_at": created_at, "vectors": [vector]});
        memory.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        memory
    };
    let tags = |words: &[&str]| {
        let values: Vec<Value> = words.iter().map(|word| json!({"string_value": word})).collect();
        json!({"list_value": {"values": values}})
    };
    let n = |number: u32| json!({"integer_value": number});
    let metadata = |number: u32, words: &[&str]| json!({"n": n(number), "tags": tags(words)});
    // `word` has no index: it is read from the records.
    let memories = json!([
        memory("a", 2020, json!({"kind": "fact", "importance": 0.25, "metadata": metadata(1, &["red", "blue"])})),
        memory("b", 2021, json!({"kind": "fact", "importance": 0.75, "metadata": metadata(2, &["blue"])})),
        memory("c", 2022, json!({"kind": "plan", "metadata": metadata(3, &[]), "scope": {"user_id": "ada"}})),
        memory("d", 2023, json!({"metadata": {"word": {"string_value": "teapot"}}})),
    ]);
    let request = json!({"space": space, "memories": memories});
    answered(face, "MemoryService.AddMemories", request, &json!({"position": "*"})).await;
}

fn condition(field: &str, test: &str, value: Value) -> Value {
    let mut condition = json!({"field": field});
    condition[test] = value;
    json!({"where": condition})
}

/// Filters, and the memories that match, the oldest first.
fn cases() -> Vec<(Value, &'static [&'static str])> {
    let text = |word: &str| json!({"string_value": word});
    let n = |number: u32| json!({"integer_value": number});
    let list = |values: &[Value]| json!({"values": values});
    let fact = || condition("kind", "eq", text("fact"));
    let blue = || condition("metadata.tags", "eq", text("blue"));
    let time = |year: u32| json!({"timestamp_value": format!("{year}-01-01T00:00:00Z")});
    vec![
        (fact(), &["a", "b"]),
        (blue(), &["a", "b"]),
        (condition("kind", "ne", text("fact")), &["c", "d"]),
        (condition("kind", "in", list(&[text("plan"), text("none")])), &["c"]),
        (condition("metadata.n", "in", list(&[n(1), n(3)])), &["a", "c"]),
        (condition("kind", "nin", list(&[text("plan")])), &["a", "b", "d"]),
        (condition("metadata.n", "gt", n(1)), &["b", "c"]),
        (condition("metadata.n", "gte", n(2)), &["b", "c"]),
        (condition("metadata.n", "lt", n(2)), &["a"]),
        (condition("metadata.n", "lte", n(2)), &["a", "b"]),
        (condition("importance", "gt", json!({"double_value": 0.5})), &["b"]),
        (condition("created_at", "gte", time(2022)), &["c", "d"]),
        (condition("created_at", "lt", time(2021)), &["a"]),
        (condition("metadata.word", "contains", json!("apo")), &["d"]),
        (condition("metadata.word", "prefix", json!("tea")), &["d"]),
        (condition("metadata.tags", "prefix", json!("re")), &["a"]),
        (condition("kind", "prefix", json!("pl")), &["c"]),
        (condition("kind", "exists", json!(true)), &["a", "b", "c"]),
        (condition("metadata.word", "exists", json!(false)), &["a", "b", "c"]),
        (condition("scope.user_id", "exists", json!(true)), &["c"]),
        (json!({"not": fact()}), &["c", "d"]),
        (json!({"all": {"filters": [fact(), condition("metadata.n", "gt", n(1))]}}), &["b"]),
        (json!({"any": {"filters": [blue(), condition("kind", "eq", text("plan"))]}}), &["a", "b", "c"]),
        (json!({"not": {"any": {"filters": [blue(), condition("kind", "exists", json!(false))]}}}), &["c"]),
    ]
}
