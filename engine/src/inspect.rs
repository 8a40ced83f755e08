//! What a store holds: counted without its keys, since the keys of rows say their kind and the applied record is not sealed; or,
//! with the keyring, row by row.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use cairn_proto::storage::{AppliedRecord, MemoryRecord, NamespaceRecord, SpaceRecord, TenantRecord};
use prost::Message;
use rocksdb::{DB, IteratorMode};

use crate::error::{Error, Result};
use crate::keyring::Keyring;
use crate::notation::{Notation, word};
use crate::position::LogId;
use crate::store::decode;
use crate::store::keys::{Key, Kind, LookupDomain, LookupId, MetaItem};
use crate::store::sealing::Sealer;

/// What a store holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreReport {
    /// The last entry that it has applied; `None`: none yet.
    pub applied: Option<LogId>,
    /// The last stamp, microseconds since 1970.
    pub stamp_micros: i64,
    /// Sum over all logical rows, in hexadecimal.
    pub digest: String,
    /// The replicated cluster version.
    pub cluster_version: u32,
    /// Rows by kind, in order of the kinds' numbers; kinds without rows are left out.
    pub rows: Vec<RowsReport>,
}

/// The rows of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowsReport {
    /// The kind's name, such as `memory`.
    pub kind: &'static str,
    /// How many.
    pub rows: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
}

/// Counts the rows of the store in `dir`, without changing it. Reads all of it.
///
/// # Errors
/// Refused where there is no store, corruption where a row is not one.
pub fn inspect(dir: &Path) -> Result<StoreReport> {
    let (db, cannot) = (open(dir)?, cannot_read(dir));
    let mut rows: BTreeMap<Kind, RowsReport> = BTreeMap::new();
    let mut applied = AppliedRecord::default();
    for row in db.iterator(IteratorMode::Start) {
        let (key_bytes, value) = row.map_err(&cannot)?;
        let (_, key) = Key::decode(&key_bytes)?;
        let kind = key.kind();
        let count = rows.entry(kind).or_insert(RowsReport { kind: kind.name(), rows: 0, bytes: 0 });
        count.rows += 1;
        count.bytes += (key_bytes.len() + value.len()) as u64;
        if matches!(key, Key::Meta(MetaItem::Applied)) {
            // Plain rows begin with a version byte; see `store/sealing.rs`.
            applied = AppliedRecord::decode(value.get(1..).unwrap_or_default())
                .map_err(|_| Error::corruption("the applied record is not what was written"))?;
        }
    }
    Ok(StoreReport {
        applied: applied.applied.map(|at| LogId { term: at.term, node_id: at.leader_node_id, index: at.index }),
        stamp_micros: applied.stamp_micros,
        digest: applied.digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        cluster_version: applied.cluster_version,
        rows: rows.into_values().collect(),
    })
}

/// A row as text, in the notation of the golden scripts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowText {
    /// The name of its kind, such as `memory`.
    pub kind: &'static str,
    /// The kind and the fields of its key, such as `memory 1/1/milk`.
    pub key: String,
    /// What it holds; empty where the key says all. `Err`: why it cannot be opened or read.
    pub record: std::result::Result<String, String>,
}

/// Tells the rows of the store in `dir`, of these kinds or of all where there is none, in the order of their keys, until `each`
/// returns false. `time` shows microseconds since 1970. Changes nothing. A row that is damaged, or whose tenant's keys are
/// gone, is told as such.
///
/// # Errors
/// INVALID_ARGUMENT where there is no such kind, refused where there is no store, corruption where a key is none.
pub fn inspect_rows(
    dir: &Path,
    keyring: &Arc<Keyring>,
    kinds: &[String],
    time: &dyn Fn(i64) -> String,
    each: &mut dyn FnMut(RowText) -> bool,
) -> Result<()> {
    if let Some(unknown) = kinds.iter().find(|kind| !Kind::names().any(|name| name == *kind)) {
        let known = Kind::names().collect::<Vec<_>>().join(", ");
        return Err(Error::invalid("kind", format!("{unknown:?} is no kind of row; there are {known}")));
    }
    let (db, cannot) = (open(dir)?, cannot_read(dir));
    let mut names = BTreeMap::new();
    for row in db.iterator(IteratorMode::Start) {
        let (key_bytes, value) = row.map_err(&cannot)?;
        let (group, key) = Key::decode(&key_bytes)?;
        learn(&Sealer::new(Arc::clone(keyring), group), &key, &value, &mut names);
    }
    let name = |id: &LookupId| names.get(id).cloned().unwrap_or_else(|| hex::encode(id));
    let notation = Notation { name: &name, time };
    for row in db.iterator(IteratorMode::Start) {
        let (key_bytes, value) = row.map_err(&cannot)?;
        let (group, key) = Key::decode(&key_bytes)?;
        let kind = key.kind().name();
        if !kinds.is_empty() && !kinds.iter().any(|wanted| wanted == kind) {
            continue;
        }
        let opened: Result<Vec<u8>> = Sealer::new(Arc::clone(keyring), group).open_row(&key, &value);
        let record = opened.and_then(|plain| notation.record(&key, &plain)).map_err(|error| error.to_string());
        if !each(RowText { kind, key: notation.key(&key), record }) {
            break;
        }
    }
    Ok(())
}

/// Notes what the lookup id of a row stands for, where its record says it. A row that cannot be read teaches nothing here.
fn learn(sealer: &Sealer, key: &Key, value: &[u8], names: &mut BTreeMap<LookupId, String>) {
    let plain = || sealer.open_row(key, value).ok();
    match key {
        Key::Memory { memory, .. } => {
            if let Some(record) = plain().and_then(|plain| decode::<MemoryRecord>(key, &plain).ok()) {
                names.insert(*memory, word(&record.id));
            }
        }
        Key::Namespace { path, .. } => {
            if let Some(record) = plain().and_then(|plain| decode::<NamespaceRecord>(key, &plain).ok()) {
                names.insert(*path, word(&record.path));
            }
        }
        Key::Space(space) => {
            let record =
                plain().and_then(|plain| decode::<SpaceRecord>(key, &plain).ok()).and_then(|record| record.definition);
            for name in record.into_iter().flat_map(|definition| [vec![definition.name], definition.aliases].concat()) {
                if let Ok(id) = sealer.lookup_id(space.tenant, LookupDomain::SpaceName, &[name.as_bytes()]) {
                    names.insert(id, word(&name));
                }
            }
        }
        Key::Tenant { .. } => {
            if let Some(record) = plain().and_then(|plain| decode::<TenantRecord>(key, &plain).ok())
                && let Ok(id) = sealer.lookup_id(0, LookupDomain::TenantName, &[record.name.as_bytes()])
            {
                names.insert(id, word(&record.name));
            }
        }
        _ => {}
    }
}

fn open(dir: &Path) -> Result<DB> {
    DB::open_for_read_only(&rocksdb::Options::default(), dir, false).map_err(cannot_read(dir))
}

fn cannot_read(dir: &Path) -> impl Fn(rocksdb::Error) -> Error {
    let dir = dir.display().to_string();
    move |error| Error::refused(format!("cannot read the store in {dir}: {error}")).with_source(error)
}
