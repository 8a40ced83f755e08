//! Everything that can be asked, compared with the model.

use std::collections::BTreeMap;

use cairn_engine::{Engine, ReadPoint};
use cairn_proto::v1;
use cairn_proto::v1::condition::Test;

use crate::common::{Bed, SECOND, condition, integer, me, query, text};
use crate::{Kept, Model, Past, SPACES, rank_of, vector_of};

/// Compares everything that can be asked with the model.
pub(crate) fn check_answers(engine: &Engine, bed: &Bed, model: &Model) {
    let at = bed.at();
    for (index, name) in SPACES.iter().enumerate() {
        let alive = model.alive(index, bed.now);
        let listed = list(engine, name, &at);
        if !model.spaces.contains_key(&index) {
            assert!(listed.is_err(), "a space that was deleted is listed");
            continue;
        }
        let mut expected: Vec<_> = alive.keys().cloned().collect();
        let mut found: Vec<_> = listed.unwrap().into_iter().map(|memory| memory.id).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
        check_each(engine, name, &alive, &at);
        check_namespaces(engine, name, &alive, &at);
        for user in [None, Some("ann")] {
            for below in [None, Some(1)] {
                check_selection(engine, name, &alive, &at, user, below);
            }
        }
    }
}

fn list(engine: &Engine, space: &str, at: &ReadPoint) -> Result<Vec<v1::Memory>, cairn_engine::Error> {
    let mut memories = Vec::new();
    let mut request = v1::ListMemoriesRequest { space: space.into(), page_size: 2, ..Default::default() };
    loop {
        let page = engine.list_memories(&me(), &request, at)?;
        memories.extend(page.memories);
        if page.next_page_token.is_empty() {
            let times: Vec<_> = memories.iter().map(|memory| memory.created_at.unwrap().seconds).collect();
            assert!(times.is_sorted_by(|a, b| a >= b), "newest first");
            return Ok(memories);
        }
        request.page_token = page.next_page_token;
    }
}

fn check_each(engine: &Engine, space: &str, alive: &BTreeMap<String, Kept>, at: &ReadPoint) {
    let ids: Vec<_> = (0..12).map(|id| format!("id{id}")).collect();
    let request = v1::GetMemoriesRequest { space: space.into(), ids, include_vectors: true, ..Default::default() };
    let found = engine.get_memories(&me(), &request, at).unwrap();
    assert_eq!(found.memories.len(), alive.len());
    assert_eq!(found.missing_ids.len(), 12 - alive.len());
    for memory in found.memories {
        let kept = &alive[&memory.id];
        let values = vector_of(&memory);
        let scope = memory.scope.clone().unwrap_or_default();
        let seen = Kept {
            rank: rank_of(&memory),
            content: memory.content,
            user: scope.user_id,
            namespace: scope.namespace,
            vector: values,
            at: memory.updated_at.unwrap().seconds * SECOND,
            expires: memory.expiry.map(|expiry| match expiry {
                v1::memory::Expiry::ExpiresAt(time) => time.seconds * SECOND,
                v1::memory::Expiry::Ttl(_) => panic!("reads say when, not how long"),
            }),
            version: memory.version,
            past: past(engine, space, &memory.id, at),
        };
        assert_eq!(&seen, kept);
    }
    let gone = (0..12).map(|id| format!("id{id}")).filter(|id| !alive.contains_key(id));
    for id in gone {
        let request = v1::GetMemoryHistoryRequest { space: space.into(), id, ..Default::default() };
        assert!(engine.get_memory_history(&me(), &request, at).is_err(), "no version is left of what is gone");
    }
}

/// The earlier versions of a memory, the oldest first.
fn past(engine: &Engine, space: &str, id: &str, at: &ReadPoint) -> Vec<Past> {
    let mut request =
        v1::GetMemoryHistoryRequest { space: space.into(), id: id.into(), page_size: 2, ..Default::default() };
    let mut past = Vec::new();
    loop {
        let page = engine.get_memory_history(&me(), &request, at).unwrap();
        past.extend(page.revisions.into_iter().map(|revision| {
            let memory = revision.memory.unwrap();
            let change = if memory.version == 1 { v1::ChangeType::Created } else { v1::ChangeType::Updated };
            assert_eq!(revision.change, change as i32);
            assert_eq!(revision.changed_at, memory.updated_at);
            Past { version: memory.version, content: memory.content, at: memory.updated_at.unwrap().seconds * SECOND }
        }));
        if page.next_page_token.is_empty() {
            past.remove(0);
            past.reverse();
            return past;
        }
        request.page_token = page.next_page_token;
    }
}

fn check_namespaces(engine: &Engine, space: &str, alive: &BTreeMap<String, Kept>, at: &ReadPoint) {
    let mut expected = BTreeMap::new();
    for namespace in alive.values().filter_map(|kept| kept.namespace.clone()) {
        *expected.entry(namespace).or_insert(0u64) += 1;
    }
    let request = v1::ListNamespacesRequest { space: space.into(), ..Default::default() };
    let found = engine.list_namespaces(&me(), &request, at).unwrap().namespaces;
    let found: Vec<_> = found.into_iter().map(|namespace| (namespace.path, namespace.memory_count)).collect();
    assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
}

fn check_selection(
    engine: &Engine,
    space: &str,
    alive: &BTreeMap<String, Kept>,
    at: &ReadPoint,
    user: Option<&str>,
    below: Option<i64>,
) {
    let scope = user.map(|user| v1::Scope { user_id: Some(user.into()), ..Default::default() });
    let filter = below.map(|below| v1::Filter {
        node: Some(v1::filter::Node::All(v1::FilterList {
            filters: vec![
                condition("metadata.rank", Test::Lt(integer(below))),
                condition("metadata.unknown", Test::Ne(text("x"))),
            ],
        })),
    });
    let selected: BTreeMap<_, _> = alive
        .iter()
        .filter(|(_, kept)| user.is_none_or(|user| kept.user.as_deref() == Some(user)))
        .filter(|(_, kept)| below.is_none_or(|below| kept.rank.is_some_and(|rank| rank < below)))
        .collect();
    let request = v1::CountMemoriesRequest {
        space: space.into(),
        scope: scope.clone(),
        filter: filter.clone(),
        ..Default::default()
    };
    let count = engine.count_memories(&me(), &request, at).unwrap().count;
    assert_eq!(count, selected.len() as u64);

    let mut expected: Vec<(f64, &str)> = selected
        .iter()
        .filter_map(|(id, kept)| {
            let [x, y] = kept.vector?;
            let score = (f64::from(x) * 2.0 + f64::from(y)) / (f64::from(x).hypot(f64::from(y)) * 5f64.sqrt());
            Some((score, id.as_str()))
        })
        .collect();
    expected.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    let request = v1::SearchMemoriesRequest { scope, filter, limit: 4, ..query(space, &[2.0, 1.0]) };
    let hits = engine.search_memories(&me(), &request, at).unwrap().hits;
    assert_eq!(hits.len(), expected.len().min(4), "min(limit, matches) hits");
    for (hit, (score, _)) in hits.iter().zip(&expected) {
        assert!((hit.score - score).abs() < 1e-5, "{} is not {score}", hit.score);
        assert!(selected.contains_key(&hit.memory.as_ref().unwrap().id));
    }
}
