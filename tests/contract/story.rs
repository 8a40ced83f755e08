//! Every RPC where all goes well, in the order in which somebody would meet them.

use serde_json::{Value, json};

use crate::expect::{answered, streamed};
use crate::face::Face;

fn dense(values: [f32; 4]) -> Value {
    json!({"dense": {"values": values}})
}

fn nearest_to(values: [f32; 4]) -> Value {
    json!({"vectors": [dense(values)]})
}

fn topic(word: &str) -> Value {
    json!({"where": {"field": "metadata.topic", "eq": {"string_value": word}}})
}

/// The story; `nodes` is how many members the cluster has.
pub(crate) async fn run(face: &Face, nodes: u64) {
    let space = format!("{}-story", face.name());
    make_the_space(face, &space).await;
    let before = write(face, &space).await;
    read(face, &space).await;
    search(face, &space).await;
    change_and_look_back(face, &space).await;
    import(face, &space).await;
    follow(face, &space, &before).await;
    change_the_space(face, &space).await;
    text(face).await;
    delete(face, &space).await;
    see_the_cluster(face, nodes).await;
}

async fn make_the_space(face: &Face, space: &str) {
    let wanted = json!({
        "name": space, "embeddings": [{"dense": {"dimension": 4}}], "history_depth": 5,
        "fields": [{"path": "topic", "type": "FIELD_TYPE_KEYWORD"}],
    });
    let made = json!({
        "name": space, "version": 1, "id": "*", "history_depth": 5, "created_at": "*",
        "embeddings": [{"name": "default", "dense": {"dimension": 4, "metric": "METRIC_COSINE"}}],
    });
    let request = json!({"space": wanted, "request_id": format!("{space}-made")});
    let answer = json!({"space": made, "position": "*"});
    let first = answered(face, "SpaceService.CreateSpace", request.clone(), &answer).await;
    let again = answered(face, "SpaceService.CreateSpace", request, &answer).await;
    assert_eq!(first["space"], again["space"], "a retry gets the first outcome");
    let statistics = json!({"memories": 0, "vectors": 0});
    let request = json!({"name": space});
    answered(face, "SpaceService.GetSpace", request, &json!({"space": made, "statistics": statistics})).await;
    let all = answered(face, "SpaceService.ListSpaces", json!({"page_size": 1000}), &json!({"spaces": "*"})).await;
    assert!(all["spaces"].as_array().unwrap().iter().any(|found| found["name"] == space), "{all}");
}

/// Writes three memories; returns the position before them.
async fn write(face: &Face, space: &str) -> String {
    let count = answered(face, "MemoryService.CountMemories", json!({"space": space}), &json!({"position": "*"})).await;
    let memories = json!([
        {"id": "milk", "content": "oat milk", "kind": "preference", "importance": 0.5,
         "scope": {"user_id": "ada", "agent_id": "barista"}, "vectors": [dense([1.0, 0.0, 0.0, 0.0])],
         "metadata": {"topic": {"string_value": "coffee"}, "cups": {"integer_value": 3}}},
        {"id": "b/ä 1", "content": "black", "scope": {"user_id": "bob", "namespace": "team/x"},
         "metadata": {"topic": {"string_value": "coffee"}}, "vectors": [dense([0.0, 1.0, 0.0, 0.0])]},
        {"content": "tea", "created_at": "2020-02-29T12:00:00.000001Z", "ttl": "3600s"},
    ]);
    let request =
        json!({"space": space, "memories": memories, "request_id": format!("{space}-three"), "actor": "suite"});
    let made = |id: &str| json!({"id": id, "version": 1, "outcome": "WRITE_OUTCOME_CREATED"});
    let expected = json!({"results": [made("milk"), made("b/ä 1"), made("*")], "position": "*"});
    let first = answered(face, "MemoryService.AddMemories", request.clone(), &expected).await;
    let again = answered(face, "MemoryService.AddMemories", request, &expected).await;
    assert_eq!(first["results"], again["results"], "a retry gets the first outcome");

    let replaced = json!({"id": "milk", "version": 2, "outcome": "WRITE_OUTCOME_REPLACED"});
    let memory = memories[0].clone();
    let request = json!({"space": space, "memories": [memory]});
    answered(face, "MemoryService.AddMemories", request, &json!({"results": [replaced]})).await;
    count["position"].as_str().unwrap().to_owned()
}

async fn read(face: &Face, space: &str) {
    let milk = json!({
        "id": "milk", "content": "oat milk", "kind": "preference", "importance": 0.5, "version": 2, "content_hash": "*",
        "scope": {"user_id": "ada", "agent_id": "barista"}, "created_at": "*", "updated_at": "*",
        "metadata": {"topic": {"string_value": "coffee"}, "cups": {"integer_value": 3}},
        "vectors": [dense([1.0, 0.0, 0.0, 0.0])],
    });
    let request = json!({"space": space, "ids": ["milk", "nobody", "b/ä 1"], "include_vectors": true});
    let expected = json!({"memories": [milk, {"id": "b/ä 1"}], "missing_ids": ["nobody"], "position": "*"});
    let got = answered(face, "MemoryService.GetMemories", request, &expected).await;

    for consistency in
        [json!({"linearizable": {}}), json!({"at_least": got["position"]}), json!({"max_staleness": "60s"})]
    {
        let request = json!({"space": space, "consistency": consistency});
        answered(face, "MemoryService.CountMemories", request, &json!({"count": 3})).await;
    }
    let coffee = json!({"space": space, "filter": topic("coffee"), "scope": {"user_id": "bob"}});
    answered(face, "MemoryService.CountMemories", coffee, &json!({"count": 1})).await;

    let list = json!({"space": space, "order_by": "created_at", "page_size": 2});
    let expected = json!({"memories": [{"content": "tea", "expires_at": "*"}, {"id": "*"}], "next_page_token": "*"});
    let page = answered(face, "MemoryService.ListMemories", list.clone(), &expected).await;
    let mut next = list;
    next["page_token"] = page["next_page_token"].clone();
    let expected = json!({"memories": [{"id": "*"}], "next_page_token": ""});
    answered(face, "MemoryService.ListMemories", next, &expected).await;

    let expected = json!({"namespaces": [{"path": "team/x", "memory_count": 1}], "next_page_token": ""});
    answered(face, "MemoryService.ListNamespaces", json!({"space": space, "prefix": "team"}), &expected).await;
    answered(
        face,
        "MemoryService.ListNamespaces",
        json!({"space": space, "prefix": "tea"}),
        &json!({"namespaces": []}),
    )
    .await;
}

async fn search(face: &Face, space: &str) {
    let request = json!({
        "space": space, "vectors": nearest_to([0.0, 1.0, 0.0, 0.0]), "limit": 5, "explain": true, "include_vectors": true,
        "filter": topic("coffee"), "params": {"exact": true},
    });
    let hits = json!([
        {"memory": {"id": "b/ä 1", "vectors": [dense([0.0, 1.0, 0.0, 0.0])]}, "score": 1.0, "distance": 0.0,
         "score_parts": [{"name": "vector:default", "value": 1.0}]},
        {"memory": {"id": "milk"}, "score": 0.0, "distance": 1.0},
    ]);
    let expected = json!({"hits": hits, "position": "*", "plan": {"strategy": "*", "vectors": 2, "matches": 2}});
    answered(face, "MemoryService.SearchMemories", request, &expected).await;
    let best = json!({"space": space, "vectors": nearest_to([1.0, 0.1, 0.0, 0.0]), "min_score": 0.5});
    answered(face, "MemoryService.SearchMemories", best, &json!({"hits": [{"memory": {"id": "milk"}}]})).await;
}

async fn change_and_look_back(face: &Face, space: &str) {
    let memory = json!({
        "id": "milk", "content": "soy milk", "vectors": [dense([0.0, 0.0, 1.0, 0.0])],
        "metadata": {"size": {"string_value": "large"}},
    });
    let request = json!({
        "space": space, "memory": memory, "update_mask": "content,vectors,metadata.size,metadata.cups",
        "expected_version": 2, "actor": "ada", "reason": "changed her mind", "request_id": format!("{space}-soy"),
    });
    let changed = json!({
        "id": "milk", "content": "soy milk", "version": 3, "kind": "preference",
        "metadata": {"topic": {"string_value": "coffee"}, "size": {"string_value": "large"}},
    });
    let answer =
        answered(face, "MemoryService.UpdateMemory", request, &json!({"memory": changed, "position": "*"})).await;
    assert!(answer["memory"]["metadata"].get("cups").is_none(), "{answer}");
    let request = json!({"space": space, "vectors": nearest_to([0.0, 0.0, 1.0, 0.0]), "limit": 1});
    let found = json!({"hits": [{"memory": {"id": "milk", "content": "soy milk"}, "score": 1.0}]});
    answered(face, "MemoryService.SearchMemories", request, &found).await;

    let revision = |version: u32, change: &str, actor: &str| json!({"memory": {"id": "milk", "version": version}, "change": change, "actor": actor, "changed_at": "*"});
    let expected = json!({"revisions": [
        revision(3, "CHANGE_TYPE_UPDATED", "ada"),
        revision(2, "CHANGE_TYPE_UPDATED", ""),
        revision(1, "CHANGE_TYPE_CREATED", "suite"),
    ], "next_page_token": ""});
    let history =
        answered(face, "MemoryService.GetMemoryHistory", json!({"space": space, "id": "milk"}), &expected).await;
    assert_eq!(history["revisions"][0]["reason"], "changed her mind");
    assert_eq!(history["revisions"][2]["memory"]["content"], "oat milk");
}

async fn import(face: &Face, space: &str) {
    let memory =
        |number: u32| json!({"id": format!("i{number}"), "content": "imported", "scope": {"session_id": "import"}});
    let header = json!({"space": space, "import_id": format!("{space}-monday"), "actor": "importer"});
    let batch =
        |offset: u32| json!({"offset": offset, "memories": (offset..offset + 3).map(memory).collect::<Vec<_>>()});
    let stream = json!([{"header": header}, {"batch": batch(0)}, {"batch": batch(3)}]);
    for _ in 0..2 {
        // Over HTTP the node makes the batches, of more than six memories.
        let answers = face.call("MemoryService.ImportMemories", stream.clone(), 10).await.unwrap();
        let results: usize = answers.iter().map(|answer| answer["results"].as_array().unwrap().len()).sum();
        let offset = answers.last().unwrap()["acknowledged_offset"].as_str().unwrap().to_owned();
        assert_eq!((results, offset.as_str()), (6, "6"), "{} {answers:?}", face.name());
        let count = json!({"space": space, "scope": {"session_id": "import"}});
        answered(face, "MemoryService.CountMemories", count, &json!({"count": 6})).await;
    }
    let get = json!({"space": space, "ids": ["i0", "i5"]});
    let once = json!({"memories": [{"version": 1}, {"version": 1}]});
    answered(face, "MemoryService.GetMemories", get, &once).await;
}

/// Follows the changes since `before`, by scope and from the beginning.
async fn follow(face: &Face, space: &str, before: &str) {
    let change =
        |id: &str, version: u32, kind: &str| json!({"id": id, "version": version, "type": kind, "position": "*"});
    let expected = [
        change("milk", 1, "CHANGE_TYPE_CREATED"),
        change("milk", 2, "CHANGE_TYPE_UPDATED"),
        change("milk", 3, "CHANGE_TYPE_UPDATED"),
    ];
    let request = json!({"space": space, "after": before, "scope": {"user_id": "ada"}, "include_memory": true});
    let answers = changes(face, request, expected.len()).await;
    for (answer, expected) in answers.iter().zip(&expected) {
        for name in ["id", "version", "type"] {
            let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            assert_eq!(text(&answer[name]), text(&expected[name]), "{} {answers:?}", face.name());
        }
    }
    assert_eq!(answers[2]["memory"]["content"], "soy milk", "{answers:?}");
    // From the middle, on another node.
    let request = json!({"space": space, "after": answers[1]["position"], "scope": {"user_id": "ada"}});
    assert_eq!(changes(face, request, 1).await[0]["version"], answers[2]["version"]);
}

/// The first `wanted` changes that a watch tells, without its signs of life.
async fn changes(face: &Face, request: Value, wanted: usize) -> Vec<Value> {
    let mut answers_max = wanted;
    loop {
        let answers = face.call("MemoryService.WatchMemories", request.clone(), answers_max).await.unwrap();
        let found: Vec<_> = answers.into_iter().filter_map(|answer| answer.get("change").cloned()).collect();
        if found.len() >= wanted {
            return found;
        }
        answers_max += wanted - found.len();
    }
}

async fn change_the_space(face: &Face, space: &str) {
    let request = json!({
        "space": {"name": space, "history_depth": 2, "fields": [
            {"path": "topic", "type": "FIELD_TYPE_KEYWORD"}, {"path": "size", "type": "FIELD_TYPE_KEYWORD"},
        ]},
        "update_mask": "history_depth,fields", "expected_version": 1,
    });
    let changed = json!({"space": {"name": space, "history_depth": 2, "version": "*"}, "position": "*"});
    answered(face, "SpaceService.UpdateSpace", request, &changed).await;
    let large = json!({"where": {"field": "metadata.size", "eq": {"string_value": "large"}}});
    answered(face, "MemoryService.CountMemories", json!({"space": space, "filter": large}), &json!({"count": 1})).await;

    let alias = format!("{}-alias", face.name());
    let set = json!({"alias": alias, "space": space});
    answered(face, "SpaceService.SetAlias", set, &json!({"previous_space": "", "position": "*"})).await;
    let by_alias = json!({"name": alias});
    answered(face, "SpaceService.GetSpace", by_alias, &json!({"space": {"name": space, "aliases": [alias]}})).await;
    answered(face, "MemoryService.CountMemories", json!({"space": alias}), &json!({"count": 9})).await;
    answered(face, "SpaceService.SetAlias", json!({"alias": alias}), &json!({"previous_space": space})).await;
}

/// Text in and text as a query, where the space has an embedder.
async fn text(face: &Face) {
    let space = format!("{}-words", face.name());
    let wanted = json!({"name": space, "embeddings": [{"dense": {"dimension": 384}, "embedder": "hash"}], "dedup_by_content": true});
    answered(face, "SpaceService.CreateSpace", json!({"space": wanted}), &json!({"position": "*"})).await;
    let memory = |id: &str, content: &str| json!({"id": id, "content": content});
    let memories = [memory("coffee", "Maria drinks her coffee black"), memory("disk", "the backup filled the disk")];
    let request = json!({"space": space, "memories": memories});
    answered(face, "MemoryService.AddMemories", request, &json!({"results": "*"})).await;
    let same = json!({"space": space, "memories": [memory("again", "the backup filled the disk")]});
    let there = json!({"results": [{"id": "disk", "version": 1, "outcome": "WRITE_OUTCOME_DEDUPLICATED"}]});
    answered(face, "MemoryService.AddMemories", same, &there).await;
    let query = json!({"space": space, "text": "how does Maria like her coffee?", "limit": 1});
    let found = json!({"hits": [{"memory": {"id": "coffee"}}]});
    answered(face, "MemoryService.SearchMemories", query, &found).await;
    // Changed text is found by its new words alone.
    let change =
        json!({"space": space, "memory": memory("coffee", "Maria gave up espresso"), "update_mask": "content"});
    answered(face, "MemoryService.UpdateMemory", change, &json!({"memory": {"version": 2}})).await;
    let query = json!({"space": space, "text": "espresso", "min_score": 0.1});
    answered(face, "MemoryService.SearchMemories", query, &json!({"hits": [{"memory": {"id": "coffee"}}]})).await;
    let query = json!({"space": space, "text": "black coffee drinks", "min_score": 0.1});
    answered(face, "MemoryService.SearchMemories", query, &json!({"hits": []})).await;
    answered(face, "SpaceService.DeleteSpace", json!({"name": space}), &json!({"deleted_count": 2})).await;
}

async fn delete(face: &Face, space: &str) {
    let delete = |target: Value| {
        let mut request = json!({"space": space});
        request.as_object_mut().unwrap().extend(target.as_object().unwrap().clone());
        request
    };
    let count = |count: u32| json!({"deleted_count": count, "position": "*"});
    let some = delete(json!({"ids": {"ids": ["i0", "nobody"]}}));
    answered(face, "MemoryService.DeleteMemories", some, &count(1)).await;
    let imported =
        delete(json!({"selection": {"scope": {"session_id": "import"}}, "request_id": format!("{space}-gone")}));
    answered(face, "MemoryService.DeleteMemories", imported.clone(), &count(5)).await;
    answered(face, "MemoryService.DeleteMemories", imported, &count(5)).await;
    let coffee = delete(json!({"selection": {"filter": topic("coffee")}}));
    answered(face, "MemoryService.DeleteMemories", coffee, &count(2)).await;
    let all = delete(json!({"selection": {"all": true}}));
    answered(face, "MemoryService.DeleteMemories", all, &count(1)).await;
    let nothing = json!({"space": space, "vectors": nearest_to([1.0, 1.0, 1.0, 1.0])});
    answered(face, "MemoryService.SearchMemories", nothing, &json!({"hits": []})).await;
    streamed(face, "SpaceService.DeleteSpace", json!({"name": space}), &[json!({"position": "*"})]).await;
}

async fn see_the_cluster(face: &Face, nodes: u64) {
    let expected = json!({"cluster_id": "*", "leader_id": "*", "node_id": "*", "members": "*"});
    let status = answered(face, "ClusterService.GetClusterStatus", json!({}), &expected).await;
    assert_eq!(status["members"].as_array().unwrap().len() as u64, nodes, "{status}");
}
