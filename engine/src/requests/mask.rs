//! Update masks: which fields of a memory change.
//!
//! ```text
//!   update_mask of the request ──▶ Mask: known fields, none within another one ──▶ the paths of the command
//! ```
//!
//! An empty mask stands for what is set in the memory (AIP-134), and `*` for all of it.

use std::collections::BTreeSet;

use cairn_proto::v1;
use cairn_proto::v1::memory::Expiry;
use cairn_proto::v1::value::Kind;

use crate::error::{Error, Result};
use crate::requests::limits::{MASK_PATHS_MAX, METADATA_LEVELS_MAX, WORD_BYTES_MAX};
use crate::requests::path::{FieldPath, Violations};

/// A value of a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ScopeField {
    AgentId,
    UserId,
    SessionId,
    Namespace,
}

/// A field that changes. In the order of the names in commands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum MaskPath {
    Content,
    CreatedAt,
    /// `expires_at` and `ttl`, which are two ways to say one thing.
    Expiry,
    Importance,
    Kind,
    /// One path of the metadata; without segments: the whole map.
    Metadata(Vec<String>),
    /// The whole scope.
    Scope,
    ScopeField(ScopeField),
    Vectors,
}

/// The fields that change: not empty, none within another one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mask {
    paths: BTreeSet<MaskPath>,
    /// The memory is replaced as a whole.
    pub(crate) whole: bool,
}

impl ScopeField {
    const ALL: [Self; 4] = [Self::AgentId, Self::UserId, Self::SessionId, Self::Namespace];

    fn name(self) -> &'static str {
        match self {
            Self::AgentId => "agent_id",
            Self::UserId => "user_id",
            Self::SessionId => "session_id",
            Self::Namespace => "namespace",
        }
    }

    /// The value's place in a scope.
    pub(crate) fn of(self, scope: &mut v1::Scope) -> &mut Option<String> {
        match self {
            Self::AgentId => &mut scope.agent_id,
            Self::UserId => &mut scope.user_id,
            Self::SessionId => &mut scope.session_id,
            Self::Namespace => &mut scope.namespace,
        }
    }
}

impl MaskPath {
    /// The field of a name, as a mask or a command gives it.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "content" => Self::Content,
            "created_at" => Self::CreatedAt,
            "expires_at" | "ttl" => Self::Expiry,
            "importance" => Self::Importance,
            "kind" => Self::Kind,
            "metadata" => Self::Metadata(Vec::new()),
            "scope" => Self::Scope,
            "vectors" => Self::Vectors,
            _ => match name.split_once('.')? {
                ("metadata", path) => Self::Metadata(path.split('.').map(str::to_string).collect()),
                ("scope", field) => Self::ScopeField(ScopeField::ALL.into_iter().find(|known| known.name() == field)?),
                _ => return None,
            },
        })
    }

    /// The name in a command.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Content => "content".to_string(),
            Self::CreatedAt => "created_at".to_string(),
            Self::Expiry => "expires_at".to_string(),
            Self::Importance => "importance".to_string(),
            Self::Kind => "kind".to_string(),
            Self::Metadata(path) => {
                std::iter::once("metadata").chain(path.iter().map(String::as_str)).collect::<Vec<_>>().join(".")
            }
            Self::Scope => "scope".to_string(),
            Self::ScopeField(field) => format!("scope.{}", field.name()),
            Self::Vectors => "vectors".to_string(),
        }
    }

    /// Whether a change of this field is part of a change of `other`.
    fn is_within(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::ScopeField(_), Self::Scope) => true,
            (Self::Metadata(inner), Self::Metadata(outer)) => inner.len() > outer.len() && inner.starts_with(outer),
            _ => false,
        }
    }
}

impl Mask {
    /// Reads the mask of a request; an empty one stands for what `memory` sets.
    pub(crate) fn of_request(names: &[String], memory: &v1::Memory) -> Result<Self> {
        let path = FieldPath::root("update_mask");
        let path = path.field("paths");
        if names.len() > MASK_PATHS_MAX {
            let what = format!("has {} paths; at most {MASK_PATHS_MAX} are allowed", names.len());
            return Err(Error::invalid(path.to_string(), what));
        }
        if names.iter().any(|name| name == "*") {
            if names.len() > 1 {
                return Err(Error::invalid(path.to_string(), "must hold nothing beside `*`"));
            }
            return Ok(Self::whole(memory));
        }
        let mut violations = Violations::default();
        let mut paths = BTreeSet::new();
        for (position, name) in names.iter().enumerate() {
            match checked(name) {
                Ok(found) => {
                    paths.insert(found);
                }
                Err(what) => violations.add(&path.at(position), what),
            }
        }
        violations.into_result()?;
        if names.is_empty() {
            paths = set_in(memory);
        }
        if paths.is_empty() {
            return Err(Error::invalid("update_mask", "must name a field, since the memory sets none"));
        }
        Ok(Self::new(&paths, false))
    }

    /// The mask of a command, by the names that [`Self::names`] gave it; `None` for one of another release.
    pub(crate) fn of_command(names: &[String], whole: bool) -> Option<Self> {
        let paths = names.iter().map(|name| MaskPath::parse(name)).collect::<Option<_>>()?;
        Some(Self::new(&paths, whole))
    }

    /// Everything that a caller can set. What cannot be taken away stays where the memory does not say it, and a vector
    /// is made from the content where the memory brings none.
    fn whole(memory: &v1::Memory) -> Self {
        let mut paths = BTreeSet::from([
            MaskPath::Content,
            MaskPath::Expiry,
            MaskPath::Importance,
            MaskPath::Kind,
            MaskPath::Metadata(Vec::new()),
            MaskPath::Scope,
        ]);
        if memory.created_at.is_some() {
            paths.insert(MaskPath::CreatedAt);
        }
        if !memory.vectors.is_empty() {
            paths.insert(MaskPath::Vectors);
        }
        Self::new(&paths, true)
    }

    fn new(all: &BTreeSet<MaskPath>, whole: bool) -> Self {
        let paths = all.iter().filter(|path| !all.iter().any(|other| path.is_within(other))).cloned().collect();
        Self { paths, whole }
    }

    /// The fields.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &MaskPath> {
        self.paths.iter()
    }

    /// The names for a command.
    pub(crate) fn names(&self) -> Vec<String> {
        self.paths.iter().map(MaskPath::name).collect()
    }

    /// Whether a field changes.
    pub(crate) fn has(&self, path: &MaskPath) -> bool {
        self.paths.contains(path)
    }
}

/// A path of a mask, or what is wrong with it.
fn checked(name: &str) -> std::result::Result<MaskPath, String> {
    // The longest name of a field stands before a metadata path of the longest sort.
    if name.len() > WORD_BYTES_MAX + "metadata.".len() {
        return Err(format!("has {} bytes; a metadata path has at most {WORD_BYTES_MAX}", name.len()));
    }
    let path = MaskPath::parse(name).ok_or_else(|| {
        let known = "`content`, `kind`, `importance`, `scope`, `scope.FIELD`, `vectors`, `expires_at`, `ttl`, `created_at`, \
                     `metadata` and `metadata.PATH`";
        format!("is {name:?}; what can be updated is {known}")
    })?;
    match &path {
        MaskPath::Metadata(segments) if segments.iter().any(String::is_empty) => {
            Err(format!("is {name:?}; a metadata path has no empty segments"))
        }
        MaskPath::Metadata(segments) if segments.len() > METADATA_LEVELS_MAX => {
            Err(format!("has {} levels; metadata has at most {METADATA_LEVELS_MAX}", segments.len()))
        }
        _ => Ok(path),
    }
}

/// What a memory sets: of scope and metadata, each value for itself, so that an update without a mask takes nothing away.
fn set_in(memory: &v1::Memory) -> BTreeSet<MaskPath> {
    let mut paths = BTreeSet::new();
    let fields = [
        (MaskPath::Content, !memory.content.is_empty()),
        (MaskPath::CreatedAt, memory.created_at.is_some()),
        (MaskPath::Expiry, memory.expiry.is_some()),
        (MaskPath::Importance, memory.importance.is_some()),
        (MaskPath::Kind, !memory.kind.is_empty()),
        (MaskPath::Vectors, !memory.vectors.is_empty()),
    ];
    paths.extend(fields.into_iter().filter(|(_, set)| *set).map(|(path, _)| path));
    let mut scope = memory.scope.clone().unwrap_or_default();
    paths.extend(ScopeField::ALL.into_iter().filter(|field| field.of(&mut scope).is_some()).map(MaskPath::ScopeField));
    paths.extend(memory.metadata.keys().map(|key| MaskPath::Metadata(vec![key.clone()])));
    paths
}

/// The memory with nothing but its id and the fields of a mask. What contradicts the mask is noted, with paths below
/// `path`.
pub(crate) fn masked(mut memory: v1::Memory, names: &[String], mask: &Mask, violations: &mut Violations) -> v1::Memory {
    let path = FieldPath::root("memory");
    let mut kept = v1::Memory { id: std::mem::take(&mut memory.id), ..v1::Memory::default() };
    for field in mask.paths() {
        match field {
            MaskPath::Content => kept.content = std::mem::take(&mut memory.content),
            MaskPath::CreatedAt => {
                if memory.created_at.is_none() {
                    violations
                        .add(&path.field("created_at"), "must be set, since the mask names it: it cannot be removed");
                }
                kept.created_at = memory.created_at;
            }
            MaskPath::Expiry => {
                let named = |name: &str| names.is_empty() || mask.whole || names.iter().any(|named| named == name);
                match &memory.expiry {
                    Some(Expiry::ExpiresAt(_)) if !named("expires_at") => {
                        violations.add(&path.field("expires_at"), "is set, but the mask names `ttl`");
                    }
                    Some(Expiry::Ttl(_)) if !named("ttl") => {
                        violations.add(&path.field("ttl"), "is set, but the mask names `expires_at`");
                    }
                    _ => {}
                }
                kept.expiry = memory.expiry;
            }
            MaskPath::Importance => kept.importance = memory.importance,
            MaskPath::Kind => kept.kind = std::mem::take(&mut memory.kind),
            MaskPath::Scope => kept.scope = memory.scope.take(),
            MaskPath::ScopeField(field) => {
                if let Some(scope) = memory.scope.as_mut() {
                    *field.of(kept.scope.get_or_insert_default()) = field.of(scope).take();
                }
            }
            MaskPath::Vectors => kept.vectors = std::mem::take(&mut memory.vectors),
            MaskPath::Metadata(segments) if segments.is_empty() => kept.metadata = std::mem::take(&mut memory.metadata),
            MaskPath::Metadata(segments) => match look_up(&memory.metadata, segments) {
                Ok(Some(value)) => {
                    let value = value.clone();
                    // The way there is empty in `kept`, or made of maps by an earlier path: this cannot fail.
                    let _ = set(&mut kept.metadata, segments, value);
                }
                Ok(None) => {}
                Err(level) => {
                    let field = format!("memory.metadata.{}", segments[..level].join("."));
                    violations.add(
                        &field,
                        format!("must be a map, since the mask names {}", MaskPath::Metadata(segments.clone()).name()),
                    );
                }
            },
        }
    }
    kept
}

/// The value at a path; `None` where there is none. An error says how many segments lead to what should be a map and is
/// not.
pub(crate) fn look_up<'m>(
    metadata: &'m std::collections::BTreeMap<String, v1::Value>,
    segments: &[String],
) -> std::result::Result<Option<&'m v1::Value>, usize> {
    let mut map = metadata;
    for (level, segment) in segments.iter().enumerate() {
        let Some(value) = map.get(segment) else { return Ok(None) };
        if level + 1 == segments.len() {
            return Ok(Some(value));
        }
        match &value.kind {
            Some(Kind::MapValue(inner)) => map = &inner.entries,
            _ => return Err(level + 1),
        }
    }
    Ok(None)
}

/// Sets the value at a path, with the maps that lead there. An error says how many segments lead to what is no map; nothing
/// has changed then.
pub(crate) fn set(
    metadata: &mut std::collections::BTreeMap<String, v1::Value>,
    segments: &[String],
    value: v1::Value,
) -> std::result::Result<(), usize> {
    look_up(metadata, segments)?;
    let mut map = metadata;
    let mut level = 0;
    while let [segment, _, ..] = &segments[level..] {
        let inner = map.entry(segment.clone()).or_insert_with(empty_map);
        level += 1;
        match &mut inner.kind {
            Some(Kind::MapValue(inner)) => map = &mut inner.entries,
            _ => return Err(level),
        }
    }
    if let Some(last) = segments.last() {
        map.insert(last.clone(), value);
    }
    Ok(())
}

/// Removes the value at a path, where there is one.
pub(crate) fn remove(metadata: &mut std::collections::BTreeMap<String, v1::Value>, segments: &[String]) {
    let mut map = metadata;
    for (level, segment) in segments.iter().enumerate() {
        if level + 1 == segments.len() {
            map.remove(segment);
            return;
        }
        match map.get_mut(segment).map(|value| &mut value.kind) {
            Some(Some(Kind::MapValue(inner))) => map = &mut inner.entries,
            _ => return,
        }
    }
}

fn empty_map() -> v1::Value {
    v1::Value { kind: Some(Kind::MapValue(v1::MapValue::default())) }
}
