//! Random histories of commands against a plain model, on two engines that flush and chunk differently, and after
//! crashes: outcomes, answers and digests must always agree.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod answers;
#[path = "../common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use answers::check_answers;
use cairn_engine::{ApplyEntry, Engine, Limits, Options, WriteRequest, WriteResponse};
use cairn_proto::v1;
use cairn_proto::v1::condition::Test;
use common::{Bed, SECOND, condition, integer, space, vector};
use proptest::prelude::*;
use tempfile::TempDir;

const SPACES: [&str; 2] = ["plain", "once"];
const USERS: [&str; 2] = ["ann", "bob"];
const NAMESPACES: [&str; 3] = ["a", "a/b", "ab"];
/// How many earlier versions they keep.
const DEPTHS: [u32; 2] = [3, 1];
/// So small that deletes by selection take several commands.
const SCAN_ROWS: u64 = 3;

#[derive(Clone, Debug)]
struct Item {
    id: u8,
    content: u8,
    user: u8,
    namespace: u8,
    rank: i64,
    vector: Option<[i8; 2]>,
    ttl_seconds: Option<u8>,
}

/// What an update says of the fields of a memory; the outer option: whether the mask names it.
#[derive(Clone, Debug)]
struct Change {
    content: Option<u8>,
    vector: Option<Option<[i8; 2]>>,
    user: Option<Option<u8>>,
    rank: Option<Option<i64>>,
    ttl_seconds: Option<Option<u8>>,
}

#[derive(Clone, Debug)]
enum Step {
    Create {
        space: usize,
    },
    Drop {
        space: usize,
    },
    Add {
        space: usize,
        items: Vec<Item>,
        insert: bool,
        request: Option<u8>,
    },
    /// `expect`: the present version and so much more.
    Update {
        space: usize,
        id: u8,
        change: Change,
        expect: Option<u64>,
        request: Option<u8>,
    },
    DeleteIds {
        space: usize,
        ids: Vec<u8>,
        request: Option<u8>,
    },
    DeleteRank {
        space: usize,
        below: i64,
        user: Option<u8>,
    },
    Expire,
    Wait {
        seconds: u8,
    },
    Flush,
    Crash,
}

fn item() -> impl Strategy<Value = Item> {
    (0u8..12, 0u8..6, 0u8..3, 0u8..4, -2i64..4, proptest::option::of([-2i8..3, -2i8..3]), proptest::option::of(0u8..30))
        .prop_map(|(id, content, user, namespace, rank, vector, ttl_seconds)| Item {
            id,
            content,
            user,
            namespace,
            rank,
            vector: vector.filter(|vector| *vector != [0, 0]),
            ttl_seconds: ttl_seconds.filter(|ttl| *ttl > 0),
        })
}

fn change() -> impl Strategy<Value = Change> {
    use proptest::option::{of, weighted};

    let vector = of([-2i8..3, -2i8..3].prop_filter("a direction", |vector| *vector != [0, 0]));
    (of(0u8..6), of(vector), of(of(0u8..2)), weighted(0.7, of(-2i64..4)), weighted(0.2, of(1u8..30)))
        .prop_map(|(content, vector, user, rank, ttl_seconds)| Change { content, vector, user, rank, ttl_seconds })
}

fn step() -> impl Strategy<Value = Step> {
    let space = 0usize..2;
    let request = || proptest::option::weighted(0.3, 0u8..3);
    prop_oneof![
        2 => space.clone().prop_map(|space| Step::Create { space }),
        1 => space.clone().prop_map(|space| Step::Drop { space }),
        12 => (space.clone(), proptest::collection::vec(item(), 1..6), proptest::bool::weighted(0.2), request())
            .prop_map(|(space, items, insert, request)| Step::Add { space, items, insert, request }),
        8 => (space.clone(), 0u8..12, change(), proptest::option::weighted(0.2, 0u64..2), request())
            .prop_map(|(space, id, change, expect, request)| Step::Update { space, id, change, expect, request }),
        3 => (space.clone(), proptest::collection::vec(0u8..12, 1..4), request())
            .prop_map(|(space, ids, request)| Step::DeleteIds { space, ids, request }),
        3 => (space, -2i64..4, proptest::option::of(0u8..2))
            .prop_map(|(space, below, user)| Step::DeleteRank { space, below, user }),
        2 => Just(Step::Expire),
        3 => (0u8..40).prop_map(|seconds| Step::Wait { seconds }),
        2 => Just(Step::Flush),
        1 => Just(Step::Crash),
    ]
}

/// A memory as the model keeps it.
#[derive(Clone, Debug, PartialEq)]
struct Kept {
    content: String,
    user: Option<String>,
    namespace: Option<String>,
    rank: Option<i64>,
    vector: Option<[f32; 2]>,
    at: i64,
    expires: Option<i64>,
    version: u64,
    /// Earlier versions, the oldest first.
    past: Vec<Past>,
}

/// An earlier version as the model keeps it.
#[derive(Clone, Debug, PartialEq)]
struct Past {
    version: u64,
    content: String,
    at: i64,
}

impl Kept {
    /// The earlier versions of the one that takes the place of this one.
    fn past_of_next(&self, space: usize) -> Vec<Past> {
        let mut past = self.past.clone();
        past.push(Past { version: self.version, content: self.content.clone(), at: self.at });
        past.split_off(past.len().saturating_sub(DEPTHS[space] as usize))
    }
}

#[derive(Default)]
struct Model {
    spaces: BTreeMap<usize, BTreeMap<String, Kept>>,
    /// Method and request id to the request as sent and its result.
    requests: BTreeMap<(&'static str, String), (String, String)>,
}

fn wire(item: &Item) -> v1::Memory {
    let name = |values: &[&str], index: u8| values.get(usize::from(index)).map(|value| value.to_string());
    v1::Memory {
        id: format!("id{}", item.id),
        content: format!("content {}", item.content),
        scope: Some(v1::Scope {
            user_id: name(&USERS, item.user),
            namespace: name(&NAMESPACES, item.namespace),
            ..Default::default()
        }),
        metadata: [("rank".to_string(), integer(item.rank))].into(),
        vectors: item.vector.iter().map(|[x, y]| vector(&[f32::from(*x), f32::from(*y)])).collect(),
        expiry: item
            .ttl_seconds
            .map(|seconds| v1::memory::Expiry::Ttl(prost_types::Duration { seconds: i64::from(seconds), nanos: 0 })),
        ..Default::default()
    }
}

impl Model {
    fn alive(&self, space: usize, now: i64) -> BTreeMap<String, Kept> {
        let memories = self.spaces.get(&space).cloned().unwrap_or_default();
        memories.into_iter().filter(|(_, kept)| kept.expires.is_none_or(|at| at > now)).collect()
    }

    fn add(&mut self, space: usize, items: &[v1::Memory], insert: bool, now: i64) -> String {
        if !self.spaces.contains_key(&space) {
            return "NotFound".into();
        }
        let before = self.spaces[&space].clone();
        let mut results = Vec::new();
        for item in items {
            let alive = self.alive(space, now);
            let scope = item.scope.clone().unwrap();
            let old = alive.get(&item.id);
            if insert && old.is_some() {
                self.spaces.insert(space, before);
                return "AlreadyExists".into();
            }
            let twin = alive.iter().find(|(id, kept)| {
                SPACES[space] == "once"
                    && **id != item.id
                    && kept.content == item.content
                    && kept.user == scope.user_id
                    && kept.namespace == scope.namespace
            });
            if let Some((id, kept)) = twin {
                results.push(format!("{id} v{} 3", kept.version));
                continue;
            }
            let version = old.map_or(1, |old| old.version + 1);
            results.push(format!("{} v{version} {}", item.id, if old.is_some() { 2 } else { 1 }));
            let kept = Kept {
                content: item.content.clone(),
                user: scope.user_id,
                namespace: scope.namespace,
                rank: rank_of(item),
                vector: vector_of(item),
                at: now,
                expires: item.expiry.as_ref().map(|expiry| match expiry {
                    v1::memory::Expiry::Ttl(ttl) => now + ttl.seconds * SECOND,
                    v1::memory::Expiry::ExpiresAt(_) => panic!("only times to live are made here"),
                }),
                version,
                past: old.map(|old| old.past_of_next(space)).unwrap_or_default(),
            };
            self.spaces.get_mut(&space).unwrap().insert(item.id.clone(), kept);
        }
        results.join(", ")
    }

    fn update(&mut self, space: usize, id: &str, change: &Change, expect: Option<u64>, now: i64) -> String {
        let alive = self.alive(space, now);
        let Some(old) = alive.get(id) else { return "NotFound".into() };
        if expect.is_some_and(|expect| expect != old.version) {
            return "Aborted".into();
        }
        if change.content.is_some() && change.vector.is_none() {
            return "VECTOR_NEEDED".into();
        }
        let mut new = Kept { at: now, version: old.version + 1, past: old.past_of_next(space), ..old.clone() };
        if let Some(content) = change.content {
            new.content = format!("content {content}");
        }
        if let Some(vector) = change.vector {
            new.vector = vector.map(|values| values.map(f32::from));
        }
        if let Some(user) = change.user {
            new.user = user.map(|user| USERS[usize::from(user)].to_string());
        }
        if let Some(rank) = change.rank {
            new.rank = rank;
        }
        if let Some(ttl) = change.ttl_seconds {
            new.expires = ttl.map(|ttl| now + i64::from(ttl) * SECOND);
        }
        let holds_the_same =
            |other: &Kept| other.content == new.content && other.user == new.user && other.namespace == new.namespace;
        let moved = old.content != new.content || old.user != new.user;
        let taken = alive.iter().any(|(other, kept)| other != id && holds_the_same(kept));
        if SPACES[space] == "once" && moved && taken {
            return "AlreadyExists".into();
        }
        let said = format!("{id} v{} {:?}", new.version, new.content);
        self.spaces.get_mut(&space).unwrap().insert(id.to_string(), new);
        said
    }

    fn delete(&mut self, space: usize, now: i64, selects: impl Fn(&str, &Kept) -> bool) -> String {
        if !self.spaces.contains_key(&space) {
            return "NotFound".into();
        }
        let gone: Vec<_> =
            self.alive(space, now).into_iter().filter(|(id, kept)| selects(id, kept)).map(|(id, _)| id).collect();
        for id in &gone {
            self.spaces.get_mut(&space).unwrap().remove(id);
        }
        format!("deleted {}", gone.len())
    }
}

fn rank_of(memory: &v1::Memory) -> Option<i64> {
    memory.metadata.get("rank").map(|rank| match rank.kind {
        Some(v1::value::Kind::IntegerValue(rank)) => rank,
        _ => panic!("ranks are integers"),
    })
}

fn vector_of(memory: &v1::Memory) -> Option<[f32; 2]> {
    memory.vectors.first().map(|vector| match &vector.data {
        Some(v1::vector::Data::Dense(dense)) => [dense.values[0], dense.values[1]],
        _ => panic!("only dense vectors are made here"),
    })
}

/// An update as it is sent.
fn wire_update(space: usize, id: u8, change: &Change) -> v1::UpdateMemoryRequest {
    let mut memory = v1::Memory { id: format!("id{id}"), ..Default::default() };
    let mut paths = Vec::new();
    if let Some(content) = change.content {
        paths.push("content");
        memory.content = format!("content {content}");
    }
    if let Some(values) = change.vector {
        paths.push("vectors");
        memory.vectors = values.iter().map(|[x, y]| vector(&[f32::from(*x), f32::from(*y)])).collect();
    }
    if let Some(user) = change.user {
        paths.push("scope.user_id");
        let user_id = user.map(|user| USERS[usize::from(user)].to_string());
        memory.scope = Some(v1::Scope { user_id, ..Default::default() });
    }
    if let Some(rank) = change.rank {
        paths.push("metadata.rank");
        memory.metadata = rank.into_iter().map(|rank| ("rank".to_string(), integer(rank))).collect();
    }
    if let Some(ttl) = change.ttl_seconds {
        paths.push("ttl");
        let seconds = ttl.map(i64::from);
        memory.expiry = seconds.map(|seconds| v1::memory::Expiry::Ttl(prost_types::Duration { seconds, nanos: 0 }));
    }
    let paths = paths.into_iter().map(str::to_string).collect();
    v1::UpdateMemoryRequest {
        space: SPACES[space].into(),
        memory: Some(memory),
        update_mask: Some(prost_types::FieldMask { paths }),
        ..Default::default()
    }
}

/// A write's result in the words of the model.
fn said(result: Result<WriteResponse, cairn_engine::Error>) -> String {
    match result {
        Ok(WriteResponse::AddMemories(response)) => {
            let result = |result: &v1::WriteResult| format!("{} v{} {}", result.id, result.version, result.outcome);
            response.results.iter().map(result).collect::<Vec<_>>().join(", ")
        }
        Ok(WriteResponse::UpdateMemory(response)) => {
            let memory = response.memory.unwrap();
            format!("{} v{} {:?}", memory.id, memory.version, memory.content)
        }
        Ok(WriteResponse::DeleteMemories(response)) => format!("deleted {}", response.deleted_count),
        Ok(WriteResponse::DeleteSpace(_)) | Ok(WriteResponse::CreateSpace(_)) => "done".into(),
        Ok(other) => format!("{other:?}"),
        Err(error) => match error.kind() {
            cairn_engine::ErrorKind::NotFound { .. } => "NotFound".into(),
            cairn_engine::ErrorKind::AlreadyExists { .. } => "AlreadyExists".into(),
            cairn_engine::ErrorKind::Aborted => "Aborted".into(),
            cairn_engine::ErrorKind::FailedPrecondition { reason } => reason.clone(),
            cairn_engine::ErrorKind::InvalidArgument { violations } => violations[0].field.clone(),
            other => format!("{other:?}"),
        },
    }
}

struct Run {
    bed: Bed,
    model: Model,
    /// The second engine, which applies the same log in chunks.
    other: Engine,
    other_dir: TempDir,
    applied_by_other: usize,
    crashes: usize,
}

impl Run {
    fn new() -> Self {
        let bed = Bed::with_limits(Limits { delete_scan_rows_max: SCAN_ROWS, ..Limits::default() });
        let other_dir = TempDir::new().unwrap();
        let options = Options { dir: other_dir.path().join("other"), ..bed.options.clone() };
        let other = Engine::open(&options, Arc::clone(&bed.keyring)).unwrap();
        let model = Model::default();
        Self { bed, model, other, other_dir, applied_by_other: 0, crashes: 0 }
    }

    fn once(
        &mut self,
        key: Option<(&'static str, u8)>,
        body: String,
        expected: impl FnOnce(&mut Model) -> String,
    ) -> String {
        let Some((method, id)) = key else { return expected(&mut self.model) };
        let key = (method, format!("request {id}"));
        if let Some((known, result)) = self.model.requests.get(&key) {
            return if *known == body { result.clone() } else { "request_id".into() };
        }
        let result = expected(&mut self.model);
        if !matches!(result.as_str(), "NotFound" | "AlreadyExists" | "Aborted" | "VECTOR_NEEDED" | "update_mask") {
            self.model.requests.insert(key, (body, result.clone()));
        }
        result
    }

    fn request_id(request: Option<u8>) -> String {
        request.map(|id| format!("request {id}")).unwrap_or_default()
    }

    fn step(&mut self, step: &Step) {
        let now = self.bed.now;
        match step {
            Step::Create { space: index } => {
                let definition = v1::Space {
                    dedup_by_content: SPACES[*index] == "once",
                    history_depth: DEPTHS[*index],
                    fields: vec![v1::IndexedField { path: "rank".into(), r#type: v1::FieldType::Integer as i32 }],
                    ..space(SPACES[*index], 2)
                };
                let created = self.bed.create_space(definition).is_ok();
                assert_eq!(created, !self.model.spaces.contains_key(index));
                self.model.spaces.entry(*index).or_default();
            }
            Step::Drop { space } => {
                let request = v1::DeleteSpaceRequest { name: SPACES[*space].into(), ..Default::default() };
                let deleted = self.bed.write(WriteRequest::DeleteSpace(request)).is_ok();
                assert_eq!(deleted, self.model.spaces.remove(space).is_some());
            }
            Step::Add { space, items, insert, request } => self.add(*space, items, *insert, *request),
            Step::Update { space, id, change, expect, request } => self.update(*space, *id, change, *expect, *request),
            Step::DeleteIds { space, ids, request } => {
                let ids: Vec<_> = ids.iter().map(|id| format!("id{id}")).collect();
                let target = v1::delete_memories_request::Target::Ids(v1::MemoryIds { ids: ids.clone() });
                let wire = v1::DeleteMemoriesRequest {
                    space: SPACES[*space].into(),
                    target: Some(target),
                    request_id: Self::request_id(*request),
                };
                let expected = self.once(request.map(|id| ("delete", id)), format!("{wire:?}"), |model| {
                    model.delete(*space, now, |id, _| ids.iter().any(|wanted| wanted == id))
                });
                assert_eq!(said(self.bed.write(WriteRequest::DeleteMemories(wire))), expected);
            }
            Step::DeleteRank { space, below, user } => {
                let user = user.and_then(|user| USERS.get(usize::from(user)).map(|user| user.to_string()));
                let scope = user.clone().map(|user| v1::Scope { user_id: Some(user), ..Default::default() });
                let filter = Some(condition("metadata.rank", Test::Lt(integer(*below))));
                let selection = v1::Selection { scope, filter, all: false };
                let wire = v1::DeleteMemoriesRequest {
                    space: SPACES[*space].into(),
                    target: Some(v1::delete_memories_request::Target::Selection(selection)),
                    request_id: String::new(),
                };
                let expected = self.model.delete(*space, now, |_, kept| {
                    kept.rank.is_some_and(|rank| rank < *below) && (user.is_none() || kept.user == user)
                });
                assert_eq!(said(self.bed.write(WriteRequest::DeleteMemories(wire))), expected);
            }
            Step::Expire => {
                if let Some(command) = self.bed.engine.prepare_expiry(now).unwrap() {
                    self.bed.apply(command);
                }
                for memories in self.model.spaces.values_mut() {
                    memories.retain(|_, kept| kept.expires.is_none_or(|at| at > now));
                }
            }
            Step::Wait { seconds } => self.bed.now += i64::from(*seconds) * SECOND,
            Step::Flush => self.bed.engine.flush().unwrap(),
            Step::Crash => self.crash(),
        }
    }

    fn add(&mut self, space: usize, items: &[Item], insert: bool, request: Option<u8>) {
        let now = self.bed.now;
        let mut memories: Vec<v1::Memory> = Vec::new();
        for item in items.iter().map(wire) {
            if memories.iter().all(|memory| memory.id != item.id) {
                memories.push(item);
            }
        }
        let wire = v1::AddMemoriesRequest {
            space: SPACES[space].into(),
            memories: memories.clone(),
            write_mode: if insert { v1::WriteMode::Insert } else { v1::WriteMode::Upsert } as i32,
            request_id: Self::request_id(request),
            ..Default::default()
        };
        let expected = self
            .once(request.map(|id| ("add", id)), format!("{wire:?}"), |model| model.add(space, &memories, insert, now));
        assert_eq!(said(self.bed.write(WriteRequest::AddMemories(wire))), expected);
    }

    fn update(&mut self, space: usize, id: u8, change: &Change, expect: Option<u64>, request: Option<u8>) {
        let now = self.bed.now;
        let name = format!("id{id}");
        let version = self.model.alive(space, now).get(&name).map_or(1, |kept| kept.version);
        let expect = expect.map(|more| version + more);
        let wire = v1::UpdateMemoryRequest {
            expected_version: expect.unwrap_or_default(),
            request_id: Self::request_id(request),
            ..wire_update(space, id, change)
        };
        let names_nothing = wire.update_mask.as_ref().is_some_and(|mask| mask.paths.is_empty());
        let expected = if names_nothing {
            "update_mask".to_string()
        } else {
            let body = format!("{wire:?}");
            self.once(request.map(|id| ("update", id)), body, |model| model.update(space, &name, change, expect, now))
        };
        let said = said(self.bed.write(WriteRequest::UpdateMemory(wire)));
        // A retry is told the text only while the version that it made is kept.
        let kept = expected.split_once(" \"").map_or(expected.as_str(), |(version, _)| version);
        assert!(said == expected || said == format!("{kept} \"\""), "{said} is not {expected}");
    }

    /// A crash: what was not flushed is gone; the log is applied again, some of it a second time.
    fn crash(&mut self) {
        self.crashes += 1;
        let dir = self.other_dir.path().join(format!("crash-{}", self.crashes));
        let options = self.bed.crashed_copy(&dir);
        let again = Engine::open(&options, Arc::clone(&self.bed.keyring)).unwrap();
        let durable = again.applied().log_id.map_or(0, |id| id.index);
        assert_eq!(durable, self.bed.engine.durable_applied().unwrap().map_or(0, |id| id.index));
        let from = durable.saturating_sub(2) as usize;
        again.apply(&self.bed.log[from..]).unwrap();
        assert_eq!(again.applied(), self.bed.engine.applied());
        check_answers(&again, &self.bed, &self.model);
    }

    /// Brings the second engine up to date, in chunks of some size.
    fn follow(&mut self, chunk: usize) {
        let rest: Vec<ApplyEntry> = self.bed.log[self.applied_by_other..].to_vec();
        for entries in rest.chunks(chunk) {
            self.other.apply(entries).unwrap();
        }
        self.applied_by_other = self.bed.log.len();
        assert_eq!(self.other.applied().digest, self.bed.engine.applied().digest);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn engines_agree_with_the_model_and_with_each_other(
        steps in proptest::collection::vec(step(), 1..40),
        chunk in 1usize..9,
    ) {
        let mut run = Run::new();
        run.step(&Step::Create { space: 0 });
        run.step(&Step::Create { space: 1 });
        for (number, step) in steps.iter().enumerate() {
            run.step(step);
            if number % 8 == 7 {
                check_answers(&run.bed.engine, &run.bed, &run.model);
            }
        }
        check_answers(&run.bed.engine, &run.bed, &run.model);
        run.follow(chunk);
        check_answers(&run.other, &run.bed, &run.model);
        run.crash();
    }
}
