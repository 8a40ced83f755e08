//! What a store holds, counted without its keys: the keys of rows say their kind, and the applied record is not sealed.

use std::collections::BTreeMap;
use std::path::Path;

use cairn_proto::storage::AppliedRecord;
use prost::Message;
use rocksdb::{DB, IteratorMode};

use crate::error::{Error, Result};
use crate::position::LogId;
use crate::store::keys::{Key, Kind, MetaItem};

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
    let cannot = |error: rocksdb::Error| {
        Error::refused(format!("cannot read the store in {}: {error}", dir.display())).with_source(error)
    };
    let db = DB::open_for_read_only(&rocksdb::Options::default(), dir, false).map_err(cannot)?;
    let mut rows: BTreeMap<Kind, RowsReport> = BTreeMap::new();
    let mut applied = AppliedRecord::default();
    for row in db.iterator(IteratorMode::Start) {
        let (key_bytes, value) = row.map_err(cannot)?;
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
