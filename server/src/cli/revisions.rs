//! Updates and histories as text: pure functions of the answers, like `render`.

use cairn_client::{Revision, Updated};
use serde_json::{Value as Json, json};

use super::json::memory_to_json;
use super::output::{Cell, Listing};
use super::render::{CONTENT_LINES, change_word, metadata_or_nothing, scope_to_text};

/// What an update did, in the form of what `cairn add` says.
pub(crate) fn updated_listing(updated: &Updated) -> Listing {
    let mut listing = Listing::new(&["ID", "OUTCOME", "VERSION"]);
    listing.row(vec![
        Cell::text(&updated.memory.id),
        Cell::text("updated"),
        Cell::number(updated.memory.version).right(),
    ]);
    listing
}

/// What an update did, as JSON.
pub(crate) fn updated_to_json(updated: &Updated) -> Json {
    json!({"memory": memory_to_json(&updated.memory), "position": updated.position.as_str()})
}

/// The versions of a memory, newest first.
pub(crate) fn revision_listing<'a>(revisions: impl IntoIterator<Item = &'a Revision>) -> Listing {
    let header = ["VERSION", "CHANGE", "WHEN", "ACTOR", "PRINCIPAL", "REASON", "KIND", "SCOPE", "METADATA", "CONTENT"];
    let mut listing = Listing::new(&header).wrapping("CONTENT", CONTENT_LINES);
    for revision in revisions {
        let memory = &revision.memory;
        let only_for_programs = |text: String| Cell::both("", text);
        listing.row(vec![
            Cell::number(memory.version).right(),
            Cell::text(change_word(revision.change)),
            Cell::time(revision.changed_at),
            Cell::text(&revision.actor),
            // Too wide for a table, and told by `-o json` to people.
            only_for_programs(revision.principal.clone()),
            Cell::text(&revision.reason),
            only_for_programs(memory.kind.clone()),
            only_for_programs(scope_to_text(&memory.scope)),
            only_for_programs(metadata_or_nothing(memory)),
            Cell::text(&memory.content),
        ]);
    }
    listing
}

/// A version as JSON.
pub(crate) fn revision_to_json(revision: &Revision) -> Json {
    json!({
        "change": change_word(revision.change),
        "changed_at": revision.changed_at.map(|time| time.to_string()),
        "actor": revision.actor,
        "principal": revision.principal,
        "reason": revision.reason,
        "memory": memory_to_json(&revision.memory),
    })
}

#[cfg(test)]
mod tests {
    use cairn_client::{ChangeKind, Memory, Position, Timestamp};

    use super::*;
    use crate::cli::snapshot;

    fn revisions() -> Vec<Revision> {
        let time = |seconds: i64| Timestamp::from_micros(1_750_000_000_000_000 + seconds * 1_000_000);
        let version = |version: u64, content: &str| {
            let mut memory = Memory::new(content).id("m1").user("ada").metadata("topic", "coffee").created_at(time(0));
            memory.version = version;
            memory.updated_at = Some(time(version as i64 * 3_600));
            Revision {
                changed_at: memory.updated_at,
                memory,
                change: if version == 1 { ChangeKind::Created } else { ChangeKind::Updated },
                actor: if version == 2 { String::new() } else { format!("agent-{version}") },
                reason: if version == 3 { "she said so on\tMonday".to_owned() } else { String::new() },
                principal: "anonymous".to_owned(),
            }
        };
        vec![
            version(
                3,
                "Ada takes oat milk in her coffee, and no sugar since Monday, when her doctor advised against it",
            ),
            version(2, "Ada takes oat milk in her coffee"),
            version(1, "Ada takes milk in her coffee"),
        ]
    }

    #[test]
    fn a_history_in_each_form() {
        let listing = revision_listing(&revisions());
        let json: String = revisions().iter().map(|revision| format!("{}\n", revision_to_json(revision))).collect();
        snapshot::check("history", &[listing.to_table(100, false), listing.to_lines(), json].join("\n"));
    }

    #[test]
    fn what_an_update_did() {
        let memory = revisions().remove(0).memory;
        let updated = Updated { memory, position: Position::from("AQAAMDk") };
        let listing = updated_listing(&updated);
        let text =
            [listing.to_table(100, false), listing.to_lines(), format!("{}\n", updated_to_json(&updated))].join("\n");
        snapshot::check("updated", &text);
    }
}
