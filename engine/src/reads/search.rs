//! SearchMemories and CountMemories: matched by the partition, fetched from the store in the same state.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use cairn_index::Filter;
use cairn_index::{Hit, Partition, Records, SearchOutput, SearchParams, SearchRequest, Strategy};
use cairn_proto::storage::{MemoryRecord, SpaceCountersRecord};
use cairn_proto::v1;
use cairn_proto::v1::search_memories_request::Query;
use cairn_proto::v1::vector::Data;

use crate::apply::vector_from_row;
use crate::error::{Error, Result};
use crate::filters::{self, RecordFields};
use crate::partitions::index_error;
use crate::reads::list::check_request_scope;
use crate::reads::{AnswerSize, Reader, expired_memories, position, record, wire_memory};
use crate::requests::limits::{EFFORT_MAX, SEARCH_LIMIT_DEFAULT, SEARCH_LIMIT_MAX};
use crate::requests::memory::check_vector;
use crate::requests::path::{FieldPath, Violations};
use crate::spaces::{EMBEDDING_ID, SpaceInfo};
use crate::store::Rows;
use crate::store::keys::{Key, LookupId};
use crate::store::rocks::View;

/// What a search asks for, checked as far as that needs no state.
struct Asked<'a> {
    embedding: &'a str,
    query: &'a [f32],
    limit: usize,
    params: SearchParams,
}

/// What the partition answered.
struct Found {
    output: SearchOutput,
    vectors: u64,
    matches: Option<u64>,
    record_checks: bool,
    /// Records that were opened to test them, by slot.
    records: HashMap<u32, MemoryRecord>,
    matching: std::time::Duration,
    searching: std::time::Duration,
}

fn check(request: &v1::SearchMemoriesRequest) -> Result<Asked<'_>> {
    let mut violations = Violations::default();
    let limit = match request.limit {
        0 => SEARCH_LIMIT_DEFAULT,
        1..=SEARCH_LIMIT_MAX => request.limit as usize,
        other => {
            violations.add(&FieldPath::root("limit"), format!("is {other}; 0 to {SEARCH_LIMIT_MAX} are allowed"));
            0
        }
    };
    if request.min_score.is_some_and(f32::is_nan) {
        violations.add(&FieldPath::root("min_score"), "must be a number");
    }
    let params = request.params.unwrap_or_default();
    if params.effort > EFFORT_MAX {
        let what = format!("is {}; at most {EFFORT_MAX} is allowed", params.effort);
        violations.add(&FieldPath::root("params").field("effort"), what);
    }
    let path = FieldPath::root("vectors");
    let path = path.field("vectors");
    let vector = match &request.query {
        Some(Query::Vectors(vectors)) => match vectors.vectors.as_slice() {
            [] => return Err(Error::invalid(path.to_string(), "must hold exactly one vector")),
            [vector] => vector,
            _ => return Err(Error::unimplemented("a search with more than one vector")),
        },
        Some(Query::Text(_)) => {
            return Err(Error::failed_precondition("NO_EMBEDDER", "nothing here turns text into vectors"));
        }
        None => return Err(Error::invalid("query", "must set vectors or text")),
    };
    check_vector(vector, &path.at(0), &mut violations)?;
    violations.into_result()?;
    check_request_scope(request.scope.as_ref())?;
    let query = match &vector.data {
        Some(Data::Dense(dense)) => dense.values.as_slice(),
        _ => &[],
    };
    let params = SearchParams { exact: params.exact, effort: params.effort };
    Ok(Asked { embedding: &vector.embedding, query, limit, params })
}

impl<'a> Reader<'a> {
    /// Finds the memories nearest to a query.
    pub(crate) fn search_memories(&self, request: &v1::SearchMemoriesRequest) -> Result<v1::SearchMemoriesResponse> {
        let asked = check(request)?;
        let (space, found, view) = self.in_partition(
            &request.space,
            |space| {
                if !space.searchable {
                    return Err(Error::failed_precondition("NO_INDEX", "the space keeps vectors without an index"));
                }
                let path = FieldPath::root("vectors");
                let path = path.field("vectors").at(0);
                space.check_vector(asked.embedding, asked.query, &path).map_err(|(f, what)| Error::invalid(f, what))?;
                filters::selection("", request.scope.as_ref(), request.filter.as_ref(), &space.schema)
            },
            |partition, view, space, filter| self.search_partition(partition, view, space, filter, &asked),
        )?;
        let started = stopwatch();
        let mut records = found.records;
        let mut size = AnswerSize::default();
        let mut hits = Vec::with_capacity(found.output.hits.len());
        for hit in &found.output.hits {
            if request.min_score.is_some_and(|min| hit.score < f64::from(min)) {
                break;
            }
            let memory = hit.key.0;
            let record = match records.remove(&hit.slot) {
                Some(record) => record,
                None => record(&view, &space, memory)?
                    .ok_or_else(|| Error::corruption("the index names a memory that is not there"))?,
            };
            let memory = wire_memory(&view, &space, memory, record, request.include_vectors)?;
            size.add(&memory)?;
            hits.push(wire_hit(&space, hit, memory));
        }
        let plan = request.explain.then(|| v1::SearchPlan {
            strategy: strategy(found.output.strategy).to_string(),
            vectors: found.vectors,
            matches: found.matches,
            compared: found.output.compared,
            record_checks: found.record_checks,
            steps: vec![
                step("match", found.matching),
                step("search", found.searching),
                step("fetch", started.elapsed()),
            ],
        });
        Ok(v1::SearchMemoriesResponse { hits, position: position(&view)?, plan })
    }

    /// Counts memories.
    pub(crate) fn count_memories(&self, request: &v1::CountMemoriesRequest) -> Result<v1::CountMemoriesResponse> {
        check_request_scope(request.scope.as_ref())?;
        if request.scope.as_ref().is_none_or(|scope| *scope == v1::Scope::default()) && request.filter.is_none() {
            return self.count_all(&request.space);
        }
        let (_, count, view) = self.in_partition(
            &request.space,
            |space| filters::selection("", request.scope.as_ref(), request.filter.as_ref(), &space.schema),
            |partition, view, space, filter| {
                let filter = filters::alive(filter.clone(), self.time_micros);
                let matches = partition.matches(&filter);
                if matches.is_exact() {
                    return Ok(matches.possible().len());
                }
                let mut count = matches.certain().len();
                for slot in matches.possible() - matches.certain() {
                    let found = slot_record(partition, view, space, slot)?;
                    count += u64::from(filter.matches(&RecordFields(&found)));
                }
                Ok(count)
            },
        )?;
        Ok(v1::CountMemoriesResponse { count, position: position(&view)? })
    }

    fn count_all(&self, name: &str) -> Result<v1::CountMemoriesResponse> {
        let view = self.store.view();
        let space = self.space(&view, name)?;
        let counters: SpaceCountersRecord = view.get_message(&Key::SpaceCounters(space.reference))?.unwrap_or_default();
        let expired = expired_memories(&view, space.reference, self.time_micros)?.len() as u64;
        Ok(v1::CountMemoriesResponse { count: counters.memories.saturating_sub(expired), position: position(&view)? })
    }

    /// Reads a space's partition, together with the view of the same state. The space is looked up again in that view,
    /// since its name may have come to mean another one meanwhile.
    fn in_partition<T>(
        &self,
        name: &str,
        selection: impl Fn(&SpaceInfo) -> Result<Filter>,
        mut read: impl FnMut(&Partition, &View<'a>, &SpaceInfo, &Filter) -> Result<T>,
    ) -> Result<(Arc<SpaceInfo>, T, View<'a>)> {
        let mut space = match self.known.latest(self.tenant, name) {
            Some(space) => space,
            None => self.space(&self.store.view(), name)?,
        };
        loop {
            let filter = selection(&space)?;
            let (result, view) = self.partitions.read(self.store, &space, |partition, view| {
                let now = self.space(view, name)?;
                if now.reference != space.reference || now.record.version != space.record.version {
                    return Ok(Err(now));
                }
                read(partition, view, &space, &filter).map(Ok)
            })?;
            match result {
                Ok(result) => return Ok((space, result, view)),
                Err(now) => space = now,
            }
        }
    }

    fn search_partition(
        &self,
        partition: &Partition,
        view: &View<'_>,
        space: &SpaceInfo,
        filter: &Filter,
        asked: &Asked<'_>,
    ) -> Result<Found> {
        let started = stopwatch();
        let alive = filters::alive(filter.clone(), self.time_micros);
        let matches = partition.matches(&alive);
        let matching = started.elapsed();
        let request =
            SearchRequest { query: asked.query, limit: asked.limit, matches: Some(&matches), params: asked.params };
        let mut behind = Behind { partition, view, space, filter: &alive, records: HashMap::new(), failed: None };
        let output = partition.search_checked(&request, &mut behind).map_err(index_error)?;
        let Behind { records, failed, .. } = behind;
        if let Some(error) = failed {
            return Err(error);
        }
        Ok(Found {
            output,
            vectors: partition.vectors(),
            matches: matches.is_exact().then(|| matches.possible().len()),
            record_checks: !matches.is_exact(),
            records,
            matching,
            searching: started.elapsed() - matching,
        })
    }
}

/// The records behind a partition's slots, as a search asks for them.
struct Behind<'s, 'v> {
    partition: &'s Partition,
    view: &'s View<'v>,
    space: &'s SpaceInfo,
    filter: &'s Filter,
    /// Records that were read and match.
    records: HashMap<u32, MemoryRecord>,
    /// The first error; the search's answer is then of no use.
    failed: Option<Error>,
}

impl Behind<'_, '_> {
    fn read_vector(&self, slot: u32) -> Result<Option<Vec<f32>>> {
        let Some(memory) = self.partition.key_of(slot) else { return Ok(None) };
        let key = Key::Vector { space: self.space.reference, embedding: EMBEDDING_ID, memory: memory.0 };
        let row = self.view.get(&key)?;
        Ok(row.as_deref().and_then(vector_from_row))
    }
}

impl Records for Behind<'_, '_> {
    fn accepts(&mut self, slot: u32) -> bool {
        match slot_record(self.partition, self.view, self.space, slot) {
            Ok(record) => {
                let accepted = self.filter.matches(&RecordFields(&record));
                if accepted {
                    self.records.insert(slot, record);
                }
                accepted
            }
            Err(error) => {
                self.failed.get_or_insert(error);
                false
            }
        }
    }

    fn vector(&mut self, slot: u32, into: &mut Vec<f32>) -> bool {
        let missing = || Error::corruption("a memory's vector row is missing or has a bad length");
        match self.read_vector(slot).and_then(|vector| vector.ok_or_else(missing)) {
            Ok(vector) => into.extend(vector),
            Err(error) => {
                self.failed.get_or_insert(error);
            }
        }
        !into.is_empty()
    }
}

fn slot_record(partition: &Partition, view: &View<'_>, space: &SpaceInfo, slot: u32) -> Result<MemoryRecord> {
    let memory: Option<LookupId> = partition.key_of(slot).map(|key| key.0);
    let found = memory.map(|memory| record(view, space, memory)).transpose()?.flatten();
    found.ok_or_else(|| Error::corruption("the index names a memory that is not there"))
}

fn wire_hit(space: &SpaceInfo, hit: &Hit, memory: v1::Memory) -> v1::SearchHit {
    let part = v1::ScorePart { name: format!("vector:{}", space.embedding), value: hit.score };
    v1::SearchHit { memory: Some(memory), score: hit.score, distance: hit.distance, score_parts: vec![part] }
}

fn strategy(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::Empty => "empty",
        Strategy::Flat => "flat",
        Strategy::Graph => "graph",
        Strategy::FilteredGraph => "filtered_graph",
    }
}

fn step(name: &str, took: std::time::Duration) -> v1::PlanStep {
    v1::PlanStep { name: name.to_string(), duration: prost_types::Duration::try_from(took).ok() }
}

/// Starts timing a step of a plan, which is told to the caller and decides nothing.
#[expect(clippy::disallowed_methods, reason = "what it measures is only reported")]
fn stopwatch() -> Instant {
    Instant::now()
}
