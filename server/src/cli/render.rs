//! Results as text: pure functions of the answers, so that the snapshots need no server.

use cairn_client::{
    Added, AliasSet, Change, ChangeKind, Hit, Memory, Namespace, Outcome, Position, Scope, SpaceInfo, WriteResult,
    proto,
};
use cairn_engine::RowText;
use serde_json::{Value as Json, json};

use super::json::{memory_to_json, metadata_to_text};
use super::output::{
    Cell, Details, Form, Listing, bytes_for_people, duration_for_people, escaped, grouped, memories, printable,
    time_for_people,
};

/// Lines of a memory's content in a list; all of it is in `cairn get`.
pub(crate) const CONTENT_LINES: usize = 3;

/// Memories as a list.
pub(crate) fn memory_listing<'a>(memories: impl IntoIterator<Item = &'a Memory>) -> Listing {
    let header = ["ID", "KIND", "SCOPE", "CREATED", "METADATA", "CONTENT"];
    let mut listing = Listing::new(&header).wrapping("CONTENT", CONTENT_LINES);
    for memory in memories {
        listing.row(memory_cells(memory));
    }
    listing
}

fn memory_cells(memory: &Memory) -> Vec<Cell> {
    vec![
        Cell::text(&memory.id),
        Cell::text(&memory.kind),
        Cell::text(scope_to_text(&memory.scope)),
        Cell::time(memory.created_at),
        // Too wide for a table.
        Cell::both("", metadata_or_nothing(memory)),
        Cell::text(&memory.content),
    ]
}

/// The metadata as JSON; empty where there is none.
pub(crate) fn metadata_or_nothing(memory: &Memory) -> String {
    if memory.metadata.is_empty() { String::new() } else { metadata_to_text(&memory.metadata) }
}

/// Hits as a list, best first.
pub(crate) fn hit_listing(hits: &[Hit]) -> Listing {
    let header = ["SCORE", "ID", "KIND", "SCOPE", "CREATED", "METADATA", "CONTENT"];
    let mut listing = Listing::new(&header).wrapping("CONTENT", CONTENT_LINES);
    for hit in hits {
        let mut cells = memory_cells(&hit.memory);
        // When it was made matters less than what it says; programs get it all the same.
        cells[3] = Cell::both("", hit.memory.created_at.map(|time| time.to_string()).unwrap_or_default());
        cells.insert(0, Cell::both(format!("{:.4}", hit.score), hit.score.to_string()).right());
        listing.row(cells);
    }
    listing
}

/// A hit as JSON.
pub(crate) fn hit_to_json(hit: &Hit) -> Json {
    let parts: Json = hit.parts.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    json!({
        "score": hit.score,
        "distance": hit.distance,
        "score_parts": parts,
        "memory": memory_to_json(&hit.memory),
    })
}

/// All of one memory.
pub(crate) fn memory_details(memory: &Memory, form: Form) -> String {
    let mut details = Details::new();
    details
        .add("id", Cell::text(&memory.id))
        .add("kind", Cell::text(&memory.kind))
        .add("scope", Cell::text(scope_to_text(&memory.scope)))
        .add("content", Cell::text(&memory.content))
        .add("metadata", Cell::text(metadata_or_nothing(memory)))
        .add("importance", Cell::text(memory.importance.map(|value| value.to_string()).unwrap_or_default()))
        .add("created", Cell::time(memory.created_at))
        .add("updated", Cell::time(memory.updated_at))
        .add("expires", Cell::time(memory.ends_at()))
        .add("version", Cell::number(memory.version));
    details.to_text(form)
}

/// `user=ada session=s1`; empty where nothing is set.
pub(crate) fn scope_to_text(scope: &Scope) -> String {
    let parts = [
        ("agent", &scope.agent_id),
        ("user", &scope.user_id),
        ("session", &scope.session_id),
        ("namespace", &scope.namespace),
    ];
    let set = parts.into_iter().filter_map(|(name, value)| value.as_ref().map(|value| format!("{name}={value}")));
    set.collect::<Vec<_>>().join(" ")
}

/// What a write did, memory by memory. The id comes first: `id=$(cairn add TEXT | cut -f1)`.
pub(crate) fn added_listing(added: &Added) -> Listing {
    let mut listing = Listing::new(&["ID", "OUTCOME", "VERSION"]);
    for result in &added.results {
        listing.row(vec![
            Cell::text(&result.id),
            Cell::text(outcome_word(result.outcome)),
            Cell::number(result.version).right(),
        ]);
    }
    listing
}

/// What a write did, as JSON.
pub(crate) fn added_to_json(added: &Added) -> Json {
    let results: Json = added
        .results
        .iter()
        .map(|result| json!({"id": result.id, "version": result.version, "outcome": outcome_word(result.outcome)}))
        .collect();
    json!({"results": results, "position": added.position.as_str()})
}

fn outcome_word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Created => "created",
        Outcome::Replaced => "replaced",
        Outcome::Deduplicated => "deduplicated",
    }
}

/// What an import of a file did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ImportSummary {
    pub(crate) created: u64,
    pub(crate) replaced: u64,
    pub(crate) deduplicated: u64,
    pub(crate) position: String,
}

impl ImportSummary {
    /// Adds what one batch did.
    pub(crate) fn add(&mut self, added: &Added) {
        self.add_results(&added.results, &added.position);
    }

    /// Adds what was done with some memories.
    pub(crate) fn add_results(&mut self, results: &[WriteResult], position: &Position) {
        for result in results {
            match result.outcome {
                Outcome::Created => self.created += 1,
                Outcome::Replaced => self.replaced += 1,
                Outcome::Deduplicated => self.deduplicated += 1,
            }
        }
        position.as_str().clone_into(&mut self.position);
    }

    /// Memories in all.
    pub(crate) fn total(&self) -> u64 {
        self.created + self.replaced + self.deduplicated
    }

    /// One line for people.
    pub(crate) fn to_text(&self) -> String {
        let parts = [(self.created, "created"), (self.replaced, "replaced"), (self.deduplicated, "deduplicated")];
        let parts = parts.into_iter().filter(|(count, _)| *count > 0);
        let parts: Vec<String> = parts.map(|(count, word)| format!("{} {word}", grouped(count))).collect();
        let colon = if parts.is_empty() { "" } else { ": " };
        format!("{}{colon}{}\n", memories(self.total()), parts.join(", "))
    }

    /// For programs.
    pub(crate) fn to_json(&self) -> Json {
        json!({
            "memories": self.total(),
            "created": self.created,
            "replaced": self.replaced,
            "deduplicated": self.deduplicated,
            "position": self.position,
        })
    }
}

/// How a search was carried out, on a few lines.
pub(crate) fn plan_to_text(plan: &proto::SearchPlan) -> String {
    let matches = plan.matches.map(|matches| format!(", {} matched", grouped(matches))).unwrap_or_default();
    let checks = if plan.record_checks { ", some conditions tested on stored records" } else { "" };
    let mut text = format!(
        "plan: {}, {} vectors{matches}, {} compared{checks}\n",
        plan.strategy,
        grouped(plan.vectors),
        grouped(plan.compared)
    );
    for step in &plan.steps {
        let duration = step.duration.unwrap_or_default();
        let micros = duration.seconds * 1_000_000 + i64::from(duration.nanos) / 1_000;
        text.push_str(&format!("  {:<12} {micros:>8} us\n", step.name));
    }
    text
}

/// How a search was carried out, as JSON.
pub(crate) fn plan_to_json(plan: &proto::SearchPlan) -> Json {
    let micros = |step: &proto::PlanStep| {
        let duration = step.duration.unwrap_or_default();
        duration.seconds * 1_000_000 + i64::from(duration.nanos) / 1_000
    };
    let steps: Json = plan.steps.iter().map(|step| json!({"name": step.name, "duration_us": micros(step)})).collect();
    json!({
        "strategy": plan.strategy,
        "vectors": plan.vectors,
        "matches": plan.matches,
        "compared": plan.compared,
        "record_checks": plan.record_checks,
        "steps": steps,
    })
}

/// What a space's embedding looks like, in a few words.
struct EmbeddingView {
    dimension: u32,
    metric: &'static str,
    embedder: String,
    model: String,
}

fn embedding_of(space: &proto::Space) -> EmbeddingView {
    let Some(embedding) = space.embeddings.first() else {
        return EmbeddingView { dimension: 0, metric: "", embedder: String::new(), model: String::new() };
    };
    let (dimension, metric) = match &embedding.kind {
        Some(proto::embedding::Kind::Dense(dense)) => (dense.dimension, metric_word(dense.metric())),
        Some(proto::embedding::Kind::Multi(multi)) => (multi.dimension, metric_word(multi.metric())),
        _ => (0, ""),
    };
    let embedder = if embedding.embedder.is_empty() { "none".to_owned() } else { embedding.embedder.clone() };
    EmbeddingView { dimension, metric, embedder, model: embedding.model.clone() }
}

fn metric_word(metric: proto::Metric) -> &'static str {
    match metric {
        proto::Metric::Unspecified => "",
        proto::Metric::Cosine => "cosine",
        proto::Metric::Dot => "dot",
        proto::Metric::L2 => "l2",
    }
}

fn field_word(field: proto::FieldType) -> &'static str {
    match field {
        proto::FieldType::Unspecified => "",
        proto::FieldType::Keyword => "keyword",
        proto::FieldType::Integer => "integer",
        proto::FieldType::Float => "float",
        proto::FieldType::Bool => "bool",
        proto::FieldType::Datetime => "datetime",
    }
}

fn fields_to_text(space: &proto::Space) -> String {
    let field = |field: &proto::IndexedField| format!("{}:{}", field.path, field_word(field.r#type()));
    space.fields.iter().map(field).collect::<Vec<_>>().join(" ")
}

/// A row of a store, in the notation of the golden scripts.
pub(crate) fn row_line(row: &RowText) -> String {
    match &row.record {
        Ok(record) if record.is_empty() => format!("{}\n", row.key),
        Ok(record) => format!("{} = {record}\n", row.key),
        Err(problem) => format!("{} cannot be shown: {problem}\n", row.key),
    }
}

/// A row of a store, as JSON.
pub(crate) fn row_to_json(row: &RowText) -> Json {
    match &row.record {
        Ok(record) => json!({"kind": row.kind, "key": row.key, "record": record}),
        Err(problem) => json!({"kind": row.kind, "key": row.key, "problem": problem}),
    }
}

/// Namespaces as a list.
pub(crate) fn namespace_listing(namespaces: &[Namespace]) -> Listing {
    let mut listing = Listing::new(&["NAMESPACE", "MEMORIES"]);
    for namespace in namespaces {
        listing.row(vec![Cell::text(&namespace.path), Cell::number(namespace.memory_count).right()]);
    }
    listing
}

/// A namespace as JSON.
pub(crate) fn namespace_to_json(namespace: &Namespace) -> Json {
    json!({"path": namespace.path, "memory_count": namespace.memory_count})
}

/// Spaces as a list.
pub(crate) fn space_listing(spaces: &[proto::Space]) -> Listing {
    let header = ["NAME", "DIMENSION", "METRIC", "EMBEDDER", "FIELDS", "ALIASES", "CREATED"];
    let mut listing = Listing::new(&header).wrapping("FIELDS", CONTENT_LINES);
    for space in spaces {
        let embedding = embedding_of(space);
        listing.row(vec![
            Cell::text(&space.name),
            Cell::number(embedding.dimension.into()),
            Cell::text(embedding.metric),
            Cell::text(embedding.embedder),
            Cell::text(fields_to_text(space)),
            Cell::text(space.aliases.join(" ")),
            Cell::time(space.created_at.map(Into::into)),
        ]);
    }
    listing
}

/// All of one space.
pub(crate) fn space_details(info: &SpaceInfo, form: Form) -> String {
    let SpaceInfo { space, statistics, .. } = info;
    let embedding = embedding_of(space);
    let ttl = space
        .default_ttl
        .map_or_else(Cell::default, |ttl| Cell::both(duration_for_people(ttl.seconds), ttl.seconds.to_string()));
    let index_bytes = Cell::both(bytes_for_people(statistics.index_bytes), statistics.index_bytes.to_string());
    let mut details = Details::new();
    details
        .add("name", Cell::text(&space.name))
        .add("aliases", Cell::text(space.aliases.join(" ")))
        .add("memories", Cell::number(statistics.memories))
        .add("vectors", Cell::number(statistics.vectors))
        .add("dimension", Cell::number(embedding.dimension.into()))
        .add("metric", Cell::text(embedding.metric))
        .add("embedder", Cell::text(embedding.embedder))
        .add("model", Cell::text(embedding.model))
        .add("fields", Cell::text(fields_to_text(space)))
        .add("building", Cell::text(building_to_text(space)))
        .add("default ttl", ttl)
        .add("dedup", Cell::text(if space.dedup_by_content { "by content" } else { "" }))
        .add("history", Cell::both(history_to_text(space.history_depth), space.history_depth.to_string()))
        .add("index", Cell::text(&statistics.index_tier))
        .add("index size", index_bytes)
        .add("created", Cell::time(space.created_at.map(Into::into)))
        .add("version", Cell::number(space.version));
    details.to_text(form)
}

/// What is being built, and how far it is.
fn building_to_text(space: &proto::Space) -> String {
    let progress =
        |field: &proto::FieldProgress| format!("{} {} of {}", field.path, grouped(field.done), grouped(field.total));
    space.building.iter().map(progress).collect::<Vec<_>>().join(", ")
}

fn history_to_text(depth: u32) -> String {
    if depth == 0 { String::new() } else { format!("{depth} versions") }
}

/// A space as JSON.
pub(crate) fn space_to_json(space: &proto::Space) -> Json {
    let embedding = embedding_of(space);
    let fields: Json =
        space.fields.iter().map(|field| json!({"path": field.path, "type": field_word(field.r#type())})).collect();
    let building: Json = space
        .building
        .iter()
        .map(|field| json!({"path": field.path, "done": field.done, "total": field.total}))
        .collect();
    let time = |time: Option<_>| time.map(|time| cairn_client::Timestamp::from(time).to_string());
    json!({
        "name": space.name,
        "id": space.id,
        "aliases": space.aliases,
        "dimension": embedding.dimension,
        "metric": embedding.metric,
        "embedder": embedding.embedder,
        "model": embedding.model,
        "fields": fields,
        "building": building,
        "default_ttl_s": space.default_ttl.map(|ttl| ttl.seconds),
        "dedup_by_content": space.dedup_by_content,
        "history_depth": space.history_depth,
        "created_at": time(space.created_at),
        "updated_at": time(space.updated_at),
        "version": space.version,
    })
}

/// A change as a line: there is no end to wait for, so its columns have fixed widths.
pub(crate) fn change_line(change: &Change, form: Form) -> String {
    let kind = change_word(change.kind);
    if form == Form::Lines {
        let time = change.changed_at.map(|time| time.to_string()).unwrap_or_default();
        let fields = [&time, kind, &change.id, &change.version.to_string(), change.position.as_str()];
        return fields.map(escaped).join("\t") + "\n";
    }
    let time = change.changed_at.map(time_for_people).unwrap_or_default();
    format!("{time:20}  {kind:7}  {} v{}\n", printable(&change.id), change.version)
}

/// A change as JSON.
pub(crate) fn change_to_json(change: &Change) -> Json {
    let mut json = json!({
        "change": change_word(change.kind),
        "id": change.id,
        "version": change.version,
        "changed_at": change.changed_at.map(|time| time.to_string()),
        "position": change.position.as_str(),
    });
    if let Some(memory) = &change.memory {
        json["memory"] = memory_to_json(memory);
    }
    json
}

/// What happened to a memory, in a word.
pub(crate) fn change_word(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Created => "created",
        ChangeKind::Updated => "updated",
        ChangeKind::Deleted => "deleted",
        ChangeKind::Expired => "expired",
    }
}

/// What became of an alias: a sentence for people; for programs what it meant before.
pub(crate) fn alias_to_text(alias: &str, space: Option<&str>, set: &AliasSet, form: Form) -> String {
    let previous = set.previous_space.as_deref();
    if form == Form::Lines {
        return format!("{}\n", previous.unwrap_or_default());
    }
    match (space, previous) {
        (Some(space), Some(previous)) if space != previous => format!("{alias} means {space} now, not {previous}\n"),
        (Some(space), Some(_)) => format!("{alias} means {space} already\n"),
        (Some(space), None) => format!("{alias} means {space} now\n"),
        (None, previous) => format!("removed alias {alias} of {}\n", previous.unwrap_or_default()),
    }
}

/// What became of an alias, as JSON.
pub(crate) fn alias_to_json(alias: &str, space: Option<&str>, set: &AliasSet) -> Json {
    json!({
        "alias": alias,
        "space": space,
        "previous_space": set.previous_space,
        "position": set.position.as_str(),
    })
}

/// A space and what is in it, as JSON.
pub(crate) fn space_info_to_json(info: &SpaceInfo) -> Json {
    let mut json = space_to_json(&info.space);
    json["statistics"] = json!({
        "memories": info.statistics.memories,
        "vectors": info.statistics.vectors,
        "index_bytes": info.statistics.index_bytes,
        "index_tier": info.statistics.index_tier,
    });
    json
}

#[cfg(test)]
#[path = "render_tests.rs"]
mod tests;
