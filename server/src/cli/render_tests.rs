//! Outputs from fixed answers, against checked-in files.

use cairn_client::{Position, Timestamp, WriteResult};

use super::*;
use crate::cli::snapshot;

const TABLE: Form = Form::Table { width: 100, styled: false };

fn samples() -> Vec<Memory> {
    let time = |micros: i64| Timestamp::from_micros(1_750_000_000_000_000 + micros);
    let mut milk = Memory::new("Ada takes oat milk in her coffee, and no sugar")
        .id("0198b2d4-7c1a-7d3e-9f00-5a2b6c7d8e9f")
        .kind("preference")
        .user("ada")
        .metadata("topic", "coffee")
        .metadata("confidence", 0.75)
        .importance(0.8)
        .created_at(time(0))
        .expires_at(time(86_400_000_000));
    milk.updated_at = Some(time(5_250_000));
    milk.version = 2;
    let mut long = Memory::new(
        "The deployment of the billing service failed twice on Monday, since the migration waited for a lock that the \
         nightly report held; it was run again by hand at 09:40 and went through. The team decided to move the report \
         to the replica, to set a lock timeout of five seconds for all migrations, and to page nobody for a failed \
         deployment outside of working hours as long as the old version is still serving.",
    )
    .id("incident-17")
    .kind("episode")
    .agent("ops")
    .namespace("team/billing")
    .created_at(time(60_000_000));
    long.version = 1;
    let mut strange = Memory::new("Two lines:\n\tand a tab, \u{1b}[31mred\u{1b}[0m, 日本語").id("strange\tid");
    strange.version = 1;
    vec![milk, long, strange]
}

fn hits() -> Vec<Hit> {
    let scores = [0.912_345_678, 0.5, -0.25];
    let hit = |(memory, score): (Memory, f64)| Hit {
        memory,
        score,
        distance: 1.0 - score,
        parts: vec![("vector:default".to_owned(), score)],
    };
    samples().into_iter().zip(scores).map(hit).collect()
}

fn space() -> proto::Space {
    let new = cairn_client::NewSpace::new("notes", 384)
        .metric(proto::Metric::Cosine)
        .embedder("hash")
        .field("topic", proto::FieldType::Keyword)
        .field("due", proto::FieldType::Datetime)
        .default_ttl(std::time::Duration::from_secs(2_592_000))
        .dedup_by_content(true)
        .history_depth(5);
    proto::Space {
        id: 3,
        aliases: vec!["current".to_owned()],
        building: vec![proto::FieldProgress { path: "due".to_owned(), done: 400, total: 1_234 }],
        created_at: Some(Timestamp::from_micros(1_750_000_000_000_000).into()),
        version: 2,
        ..new.into()
    }
}

#[test]
fn a_list_of_memories_in_each_form() {
    let listing = memory_listing(&samples());
    snapshot::check("memories_table", &listing.to_table(100, false));
    snapshot::check("memories_narrow", &listing.to_table(60, false));
    snapshot::check("memories_lines", &listing.to_lines());
    let json: String = samples().iter().map(|memory| format!("{}\n", memory_to_json(memory))).collect();
    snapshot::check("memories_json", &json);
}

#[test]
fn hits_in_each_form() {
    let listing = hit_listing(&hits());
    snapshot::check("hits_table", &listing.to_table(100, false));
    snapshot::check("hits_styled", &listing.to_table(100, true));
    snapshot::check("hits_lines", &listing.to_lines());
    let json: String = hits().iter().map(|hit| format!("{}\n", hit_to_json(hit))).collect();
    snapshot::check("hits_json", &json);
}

#[test]
fn one_memory_in_full() {
    let text: String = samples().iter().map(|memory| memory_details(memory, TABLE) + "\n").collect();
    snapshot::check("memory_details", &text);
}

#[test]
fn a_plan() {
    let step = |name: &str, nanos| proto::PlanStep {
        name: name.to_owned(),
        duration: Some(prost_types::Duration { seconds: 0, nanos }),
    };
    let plan = proto::SearchPlan {
        strategy: "flat".to_owned(),
        vectors: 117_659,
        matches: Some(4_200),
        compared: 4_200,
        record_checks: true,
        steps: vec![step("read point", 45_000), step("match", 310_000), step("search", 120_000)],
    };
    snapshot::check("plan", &format!("{}{:#}\n", plan_to_text(&plan), plan_to_json(&plan)));
}

#[test]
fn what_a_write_did() {
    let result = |id: &str, version, outcome| WriteResult { id: id.to_owned(), version, outcome };
    let added = Added {
        results: vec![
            result("0198b2d4-7c1a-7d3e-9f00-5a2b6c7d8e9f", 1, Outcome::Created),
            result("a", 12, Outcome::Replaced),
            result("b", 3, Outcome::Deduplicated),
        ],
        position: Position::from("AQAAMDk"),
    };
    let mut summary = ImportSummary::default();
    let nothing = summary.to_text();
    summary.add(&added);
    let text = [
        added_listing(&added).to_table(100, false),
        added_listing(&added).to_lines(),
        format!("{}\n", added_to_json(&added)),
        nothing,
        summary.to_text(),
        format!("{}\n", summary.to_json()),
    ];
    snapshot::check("added", &text.join("\n"));
}

#[test]
fn spaces_in_each_form() {
    let plain = proto::Space { name: "default".to_owned(), ..cairn_client::NewSpace::new("default", 384).into() };
    let spaces = [plain, space()];
    let statistics = proto::SpaceStatistics {
        memories: 1_234,
        vectors: 1_200,
        index_bytes: 2_345_678,
        index_tier: "flat".to_owned(),
    };
    let info = SpaceInfo { space: space(), statistics, position: Position::from("p") };
    let text = [
        space_listing(&spaces).to_table(100, false),
        space_listing(&spaces).to_lines(),
        space_details(&info, TABLE),
        space_details(&info, Form::Lines),
        format!("{:#}\n", space_info_to_json(&info)),
    ];
    snapshot::check("spaces", &text.join("\n"));
}

#[test]
fn what_became_of_an_alias() {
    let set = |previous: Option<&str>| AliasSet {
        previous_space: previous.map(str::to_owned),
        position: Position::from("AQAAMDk"),
    };
    let cases =
        [(Some("notes"), None), (Some("notes"), Some("old")), (Some("notes"), Some("notes")), (None, Some("notes"))];
    let mut text = String::new();
    for (space, previous) in cases {
        let set = set(previous);
        text.push_str(&alias_to_text("live", space, &set, TABLE));
        text.push_str(&alias_to_text("live", space, &set, Form::Lines));
        text.push_str(&format!("{}\n", alias_to_json("live", space, &set)));
    }
    snapshot::check("aliases", &text);
}

#[test]
fn changes_in_each_form() {
    let change = |kind, id: &str, memory| Change {
        kind,
        id: id.to_owned(),
        version: 3,
        changed_at: Some(Timestamp::from_micros(1_750_000_000_250_000)),
        memory,
        position: Position::from("AQAAMDk"),
    };
    let changes = [
        change(ChangeKind::Created, "0198b2d4-7c1a-7d3e-9f00-5a2b6c7d8e9f", Some(samples().remove(0))),
        change(ChangeKind::Updated, "strange\tid", None),
        change(ChangeKind::Deleted, "a", None),
        change(ChangeKind::Expired, "b", None),
    ];
    let mut text = String::new();
    for form in [TABLE, Form::Lines] {
        text.extend(changes.iter().map(|change| change_line(change, form)));
    }
    text.extend(changes.iter().map(|change| format!("{}\n", change_to_json(change))));
    snapshot::check("changes", &text);
}

#[test]
fn namespaces_in_each_form() {
    let namespace = |path: &str, memory_count| Namespace { path: path.to_owned(), memory_count };
    let namespaces = [namespace("team/x", 12_345), namespace("team/x/y\tz", 1)];
    let listing = namespace_listing(&namespaces);
    let json: String = namespaces.iter().map(|namespace| format!("{}\n", namespace_to_json(namespace))).collect();
    snapshot::check("namespaces", &[listing.to_table(100, false), listing.to_lines(), json].join("\n"));
}

#[test]
fn rows_of_a_store_in_each_form() {
    let row = |kind: &'static str, key: &str, record: Result<&str, &str>| {
        let record = record.map(str::to_owned).map_err(str::to_owned);
        RowText { kind, key: format!("{kind} {key}"), record }
    };
    let rows = [
        row("memory", "1/1/milk", Ok("\"oat milk\" v2 user=ada")),
        row("by_created", "1/1/2026-11-20T12:00:00Z/milk", Ok("")),
        row("space", "2/1", Err("tenant 2 not found")),
    ];
    let lines: String = rows.iter().map(row_line).collect();
    let json: String = rows.iter().map(|row| format!("{}\n", row_to_json(row))).collect();
    snapshot::check("rows", &[lines, json].join("\n"));
}
