//! Rows as text, for people: in the golden scripts and in `cairn inspect`.
//!
//! ```text
//! memory 1/1/milk = "oat milk" v2 user=ada topic=coffee created=... updated=...
//! KIND   KEY      = RECORD
//! ```
//!
//! Lookup ids, which no key of ours turns back, are shown as what they stand for where that is known.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use cairn_proto::storage::outcome::Result as OutcomeResult;
use cairn_proto::storage::{
    AppliedRecord, DedupRecord, FeedChange, FeedRecord, MemoryRecord, NamespaceRecord, Outcome, RevisionRecord,
    SpaceBuildRecord, SpaceCountersRecord, SpaceNameRecord, SpaceRecord, StoreHeader, TenantRecord, UpdateOutcome,
};
use cairn_proto::v1;
use cairn_proto::v1::value::Kind;

use crate::apply::vector_from_row;
use crate::content::take_content;
use crate::error::{Error, Result};
use crate::store::decode;
use crate::store::keys::{Key, LookupId, MetaItem};
use crate::time::micros_of_timestamp;

/// Values of a vector that are shown.
const VALUES_SHOWN: usize = 8;

/// How ids and times are shown.
pub(crate) struct Notation<'a> {
    /// What a lookup id stands for.
    pub(crate) name: &'a dyn Fn(&LookupId) -> String,
    /// A time in microseconds since 1970.
    pub(crate) time: &'a dyn Fn(i64) -> String,
}

impl Notation<'_> {
    /// A key: its kind and its fields.
    pub(crate) fn key(&self, key: &Key) -> String {
        let (name, time) = (self.name, self.time);
        let fields = match key {
            Key::Meta(item) => format!("{item:?}"),
            Key::Tenant { tenant } => format!("{tenant}"),
            Key::TenantName { name: id } => name(id),
            Key::Space(space) | Key::SpaceCounters(space) | Key::Build(space) => {
                format!("{}/{}", space.tenant, space.space)
            }
            Key::SpaceName { tenant, name: id } => format!("{tenant}/{}", name(id)),
            Key::Memory { space, memory } => format!("{}/{}/{}", space.tenant, space.space, name(memory)),
            Key::Vector { space, embedding, memory } => {
                format!("{}/{}/{embedding}/{}", space.tenant, space.space, name(memory))
            }
            Key::ByCreated { space, time_micros, memory } | Key::ByUpdated { space, time_micros, memory } => {
                format!("{}/{}/{}/{}", space.tenant, space.space, time(*time_micros), name(memory))
            }
            Key::Expiry { time_micros, space, memory } => {
                format!("{}/{}/{}/{}", time(*time_micros), space.tenant, space.space, name(memory))
            }
            Key::Content { space, .. } => format!("{}/{}/(scope and content)", space.tenant, space.space),
            Key::Namespace { space, path } => format!("{}/{}/{}", space.tenant, space.space, name(path)),
            Key::History { space, memory, version } => {
                format!("{}/{}/{}/{version}", space.tenant, space.space, name(memory))
            }
            Key::Request { tenant, request } => format!("{tenant}/{}", name(request)),
            Key::RequestExpiry { time_micros, tenant, request } => {
                format!("{}/{tenant}/{}", time(*time_micros), name(request))
            }
            Key::Feed { index, space, changes } => format!("{index}/{}/{}/{changes}", space.tenant, space.space),
        };
        format!("{} {fields}", key.kind().name())
    }

    /// The record of a row, opened; empty for rows whose key says all.
    ///
    /// # Errors
    /// Bytes that are no record of this kind.
    pub(crate) fn record(&self, key: &Key, plain: &[u8]) -> Result<String> {
        let damaged = || Error::corruption(format!("a {} row does not hold what it should", key.kind().name()));
        Ok(match key {
            Key::Meta(MetaItem::Header) => {
                let record: StoreHeader = decode(key, plain)?;
                format!("format {}, cluster {}, group {}", record.format, hex::encode(&record.cluster_id), record.group)
            }
            Key::Meta(MetaItem::Applied) => self.applied(&decode(key, plain)?),
            Key::Tenant { .. } => {
                let record: TenantRecord = decode(key, plain)?;
                format!("{:?}, next space {}, {} spaces", record.name, record.next_space_id, record.spaces)
            }
            Key::TenantName { .. } => u64::from_be_bytes(plain.try_into().map_err(|_| damaged())?).to_string(),
            Key::Space(_) => {
                let record: SpaceRecord = decode(key, plain)?;
                let space = record.definition.unwrap_or_default();
                let aliases =
                    if space.aliases.is_empty() { String::new() } else { format!(" aliases {:?}", space.aliases) };
                format!("{:?} version {}{aliases}", space.name, record.version)
            }
            Key::SpaceName { .. } => {
                let record: SpaceNameRecord = decode(key, plain)?;
                format!("{}space {}", if record.alias { "alias of " } else { "" }, record.space_id)
            }
            Key::SpaceCounters(_) => {
                let record: SpaceCountersRecord = decode(key, plain)?;
                format!("{} memories, {} vectors", record.memories, record.vectors)
            }
            Key::Memory { .. } => self.memory(decode(key, plain)?)?,
            Key::History { .. } => self.revision(decode(key, plain)?)?,
            Key::Vector { .. } => vector(&vector_from_row(plain).ok_or_else(damaged)?),
            Key::ByCreated { .. } | Key::ByUpdated { .. } | Key::Expiry { .. } | Key::RequestExpiry { .. } => {
                String::new()
            }
            Key::Content { .. } => (self.name)(&plain.try_into().map_err(|_| damaged())?),
            Key::Namespace { .. } => {
                let record: NamespaceRecord = decode(key, plain)?;
                format!("{:?} {} memories", record.path, record.memories)
            }
            Key::Request { .. } => self.request(decode(key, plain)?),
            Key::Build(_) => {
                let record: SpaceBuildRecord = decode(key, plain)?;
                format!("{} of {}", record.done, record.total)
            }
            Key::Feed { .. } => feed(&decode(key, plain)?),
        })
    }

    fn applied(&self, record: &AppliedRecord) -> String {
        let index = record.applied.as_ref().map_or(0, |applied| applied.index);
        let membership = match std::str::from_utf8(&record.membership) {
            Ok(text) if !text.contains(char::is_control) => format!("{text:?}"),
            _ => hex::encode(&record.membership),
        };
        format!(
            "index {index}, stamp {}, {} requests, {} changes, membership {membership}",
            (self.time)(record.stamp_micros),
            record.dedup_rows,
            record.feed_changes
        )
    }

    fn request(&self, record: DedupRecord) -> String {
        let outcome = outcome(&record.outcome.unwrap_or_default());
        let cursor = if record.cursor.is_empty() { "" } else { ", behind a row" };
        format!("{outcome}, until {}{cursor}", (self.time)(record.expires_at_micros))
    }

    fn memory(&self, mut record: MemoryRecord) -> Result<String> {
        let content = take_content(&mut record)?;
        let mut shown = format!("{content:?} v{}", record.version);
        let scope = record.scope.clone().unwrap_or_default();
        let scope = [
            ("agent", scope.agent_id),
            ("user", scope.user_id),
            ("session", scope.session_id),
            ("namespace", scope.namespace),
        ];
        // Writing to a string does not fail.
        for (name, value) in scope.iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
            let _ = write!(shown, " {name}={}", word(value));
        }
        if !record.kind.is_empty() {
            let _ = write!(shown, " kind={}", word(&record.kind));
        }
        if let Some(importance) = record.importance {
            let _ = write!(shown, " importance={importance}");
        }
        let time = |micros| (self.time)(micros);
        self.metadata(&mut shown, "", &record.metadata);
        let _ = write!(shown, " created={} updated={}", time(record.created_at_micros), time(record.updated_at_micros));
        if let Some(expires_at) = record.expires_at_micros {
            let _ = write!(shown, " expires={}", time(expires_at));
        }
        for (name, value) in [("actor", &record.actor), ("reason", &record.reason)] {
            if !value.is_empty() {
                let _ = write!(shown, " {name}={value:?}");
            }
        }
        if record.history_from != 0 {
            let _ = write!(shown, " history=v{}..", record.history_from);
        }
        Ok(shown)
    }

    fn metadata(&self, shown: &mut String, prefix: &str, entries: &BTreeMap<String, v1::Value>) {
        for (key, value) in entries {
            match &value.kind {
                Some(Kind::MapValue(map)) if !map.entries.is_empty() => {
                    self.metadata(shown, &format!("{prefix}{key}."), &map.entries);
                }
                kind => {
                    // Writing to a string does not fail.
                    let _ = write!(shown, " {prefix}{key}={}", self.value(kind.as_ref()));
                }
            }
        }
    }

    fn value(&self, kind: Option<&Kind>) -> String {
        match kind {
            None | Some(Kind::NullValue(_)) => "null".to_owned(),
            Some(Kind::BoolValue(value)) => value.to_string(),
            Some(Kind::IntegerValue(value)) => value.to_string(),
            Some(Kind::DoubleValue(value)) => format!("{value:?}"),
            Some(Kind::StringValue(text)) => word(text),
            Some(Kind::TimestampValue(time)) => micros_of_timestamp(time).map_or_else(|| "?".to_owned(), self.time),
            Some(Kind::ListValue(list)) => {
                let values: Vec<_> = list.values.iter().map(|value| self.value(value.kind.as_ref())).collect();
                format!("[{}]", values.join(", "))
            }
            Some(Kind::MapValue(map)) => {
                let entry =
                    |(key, value): (&String, &v1::Value)| format!("{}: {}", word(key), self.value(value.kind.as_ref()));
                format!("{{{}}}", map.entries.iter().map(entry).collect::<Vec<_>>().join(", "))
            }
        }
    }

    fn revision(&self, revision: RevisionRecord) -> Result<String> {
        let (change, at) = (revision.change(), (self.time)(revision.changed_at_micros));
        Ok(format!("{change:?} at {at}: {}", self.memory(revision.memory.unwrap_or_default())?))
    }
}

/// A text as it is where that cannot be misread, else in quotation marks.
pub(crate) fn word(text: &str) -> String {
    let plain = |character: char| !character.is_control() && !character.is_whitespace() && character != '"';
    if !text.is_empty() && text.chars().all(plain) { text.to_owned() } else { format!("{text:?}") }
}

/// The first values, and how many there are where that is not all.
fn vector(values: &[f32]) -> String {
    if values.len() <= VALUES_SHOWN {
        return format!("{values:?}");
    }
    let first: Vec<String> = values[..VALUES_SHOWN].iter().map(|value| format!("{value:?}")).collect();
    format!("[{}, .. {} values]", first.join(", "), values.len())
}

fn feed(record: &FeedRecord) -> String {
    let change = |change: &FeedChange| format!("{:?} {} v{}", change.r#type(), word(&change.id), change.version);
    let mut shown = record.changes.iter().map(change).collect::<Vec<_>>();
    // A delete by selection finds memories in the order of their keys, which says nothing to a reader.
    if shown.iter().all(|change| change.starts_with("Deleted")) {
        shown.sort();
    }
    shown.join(", ")
}

/// What a command led to.
pub(crate) fn outcome(outcome: &Outcome) -> String {
    let shown = match outcome.result.clone() {
        None => "nothing".to_string(),
        Some(OutcomeResult::Failure(failure)) => format!("{:?}: {}", failure.code(), failure.message),
        Some(OutcomeResult::Done(_)) => "done".to_string(),
        Some(OutcomeResult::AddMemories(added)) => {
            let result = |r: &v1::WriteResult| format!("{:?} {} v{}", r.outcome(), word(&r.id), r.version);
            added.results.iter().map(result).collect::<Vec<_>>().join(", ")
        }
        Some(OutcomeResult::UpdateMemory(updated)) => updated_outcome(&updated),
        Some(OutcomeResult::DeleteMemories(deleted) | OutcomeResult::DeleteSpace(deleted)) => {
            format!("deleted {}{}", deleted.deleted_count, if deleted.unfinished { ", unfinished" } else { "" })
        }
        Some(OutcomeResult::CreateSpace(created)) => {
            let space = created.space.unwrap_or_default();
            format!("space {} {:?}", space.id, space.name)
        }
        Some(OutcomeResult::UpdateSpace(updated)) => {
            let space = updated.space.unwrap_or_default();
            format!("space {} {:?} version {}", space.id, space.name, space.version)
        }
        Some(OutcomeResult::AdvanceSpaceBuild(build)) => {
            format!("looked at {}{}", build.done, if build.unfinished { ", unfinished" } else { "" })
        }
        Some(OutcomeResult::SetAlias(set)) => format!("meant {:?} before", set.previous_space),
        Some(OutcomeResult::ExpireMemories(expired)) => {
            format!("expired {} memories, {} requests", expired.memories, expired.dedup_rows)
        }
    };
    format!("{}{shown}", if outcome.replayed { "again: " } else { "" })
}

fn updated_outcome(updated: &UpdateOutcome) -> String {
    let memory = updated.memory.clone().unwrap_or_default();
    let mut shown = format!("updated {} v{}", word(&memory.id), memory.version);
    if memory.created_at.is_some() {
        let _ = write!(shown, " {:?}", memory.content);
    }
    shown
}
