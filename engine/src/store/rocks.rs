//! RocksDB: how it is set up, opened, written, flushed and copied.
//!
//! Invariants:
//! - RocksDB's own log is off: what is written is durable once its buffer is flushed, and the log of whoever embeds the
//!   engine is re-applied from [`Store::durable_applied`] on.
//! - Every write carries the applied record, so that what is durable is always the state after some entry.
//! - The header row is the first thing that becomes durable.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cairn_proto::storage::{AppliedRecord, StoreHeader};
use prost::Message;
use rocksdb::checkpoint::Checkpoint as RocksCheckpoint;
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, BlockBasedTablePinningTier, BottommostLevelCompaction, Cache,
    CompactOptions, DB, DBCompressionType, FlushOptions, LogLevel, ReadOptions, ReadTier, WriteBatch, WriteOptions,
};

use crate::crypto::ClusterId;
use crate::error::{Error, Result};
use crate::options::{COMPACTION_WRITE_BUFFERS, Options};
use crate::store::blobs::{self, Blobs};
use crate::store::keys::{Key, KeyBytes, Kind, MetaItem, SpaceRef, prefix_of_space};
use crate::store::sealing::Sealer;
use crate::store::{Rows, decode};

/// The newest format that this release reads and the one that it writes.
const STORE_FORMAT: u32 = 1;

/// An open store.
pub(crate) struct Store {
    db: DB,
    blobs: Blobs,
    sealer: Sealer,
}

/// One consistent state of the store, as of when it was taken.
pub(crate) struct View<'a> {
    snapshot: rocksdb::Snapshot<'a>,
    sealer: &'a Sealer,
    /// Read when it is first asked for.
    applied_index: OnceLock<u64>,
}

/// The size of the first level that compactions fill, in write buffers: as much as the flushed ones that go into it at once.
const LEVEL_WRITE_BUFFERS: u64 = 4;

/// The part of a write buffer that its filter of keys takes beside it.
const MEMTABLE_FILTER_SHARE: f64 = 0.02;

fn rocks_options(options: &Options) -> rocksdb::Options {
    let mut table = BlockBasedOptions::default();
    let cache = Cache::new_lru_cache(options.block_cache_bytes);
    table.set_block_cache(&cache);
    table.set_block_size(16 * 1024);
    table.set_bloom_filter(10.0, false);
    table.set_index_type(BlockBasedIndexType::BinarySearch);
    table.set_cache_index_and_filter_blocks(true);
    // Every lookup reads them, several times over; some two bytes for each row.
    table.set_unpartitioned_pinning_tier(BlockBasedTablePinningTier::All);

    let mut rocks = rocksdb::Options::default();
    rocks.set_block_based_table_factory(&table);
    rocks.create_if_missing(true);
    rocks.set_paranoid_checks(true);
    rocks.set_atomic_flush(true);
    // Sealed values do not compress, and keys are mostly keyed hashes.
    rocks.set_compression_type(DBCompressionType::None);
    rocks.set_write_buffer_size(options.write_buffer_bytes);
    rocks.set_max_write_buffer_number(options.write_buffers_max as i32);
    // One thread writes. And most of what it looks up before is not there: new memories, new request ids.
    rocks.set_allow_concurrent_memtable_write(false);
    rocks.set_memtable_whole_key_filtering(true);
    rocks.set_memtable_prefix_bloom_ratio(MEMTABLE_FILTER_SHARE);
    // So that a compaction needs no more room beside the data than `COMPACTION_WRITE_BUFFERS` says.
    rocks.set_target_file_size_base(options.write_buffer_bytes as u64);
    rocks.set_max_bytes_for_level_base(options.write_buffer_bytes as u64 * LEVEL_WRITE_BUFFERS);
    rocks.set_max_compaction_bytes(options.write_buffer_bytes as u64 * COMPACTION_WRITE_BUFFERS);
    blobs::configure(&mut rocks, options, &cache);
    rocks.set_max_background_jobs(options.background_threads as i32);
    rocks.set_max_open_files(options.open_files_max as i32);
    rocks.set_bytes_per_sync(1024 * 1024);
    rocks.set_keep_log_file_num(2);
    rocks.set_max_log_file_size(1024 * 1024);
    rocks.set_log_level(LogLevel::Warn);
    rocks.set_stats_dump_period_sec(0);
    rocks
}

/// A compaction beside all others that leaves no table of its range as it is.
fn written_anew() -> CompactOptions {
    let mut options = CompactOptions::default();
    options.set_exclusive_manual_compaction(false);
    // Else what lies at the bottom already would stay, deleted or not.
    options.set_bottommost_level_compaction(BottommostLevelCompaction::ForceOptimized);
    options
}

fn write_options() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    options
}

impl Store {
    /// Opens or makes the store. See [`crate::Engine::open`].
    pub(crate) fn open(options: &Options, sealer: Sealer) -> Result<Self> {
        let dir = &options.dir;
        std::fs::create_dir_all(dir)
            .map_err(|e| Error::refused(format!("cannot make the directory {}: {e}", dir.display())))?;
        refuse_foreign_files(dir)?;
        let db = DB::open(&rocks_options(options), dir).map_err(|e| open_error(dir, e))?;
        let store = Self { db, blobs: Blobs::new(options), sealer };
        store.check_header(dir, options)?;
        Ok(store)
    }

    fn check_header(&self, dir: &Path, options: &Options) -> Result<()> {
        let key = Key::Meta(MetaItem::Header);
        let expected = StoreHeader {
            format: STORE_FORMAT,
            cluster_id: self.sealer.keyring().cluster_id().as_bytes().to_vec().into(),
            group: u32::from(options.group.0),
        };
        let place = dir.display();
        let Some(stored) = self.db.get(key.encode(options.group))? else {
            // The header is written first and flushed at once, so a store that has rows but no header is not ours.
            if self.db.iterator(rocksdb::IteratorMode::Start).next().is_some() {
                return Err(Error::refused(format!("{place} holds a database of another program or group")));
            }
            let mut batch = WriteBatch::default();
            batch.put(key.encode(options.group), self.sealer.seal_row(&key, &expected.encode_to_vec())?);
            self.write(batch)?;
            return self.flush();
        };
        let found: StoreHeader = decode(&key, &self.sealer.open_row(&key, &stored)?)?;
        if found.format > STORE_FORMAT {
            return Err(Error::refused(format!(
                "{place} has format {}, this release reads up to {STORE_FORMAT}: start a newer release on it",
                found.format
            )));
        }
        if found.cluster_id != expected.cluster_id {
            let found = ClusterId::from_slice(&found.cluster_id).map_or_else(|| "?".to_string(), |id| id.to_string());
            return Err(Error::refused(format!(
                "{place} belongs to cluster {found}, the keyring to cluster {}: check the data directory",
                self.sealer.keyring().cluster_id()
            )));
        }
        Ok(())
    }

    pub(crate) fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    /// Writes a batch without a log of its own.
    pub(crate) fn write(&self, batch: WriteBatch) -> Result<()> {
        Ok(self.db.write_opt(batch, &write_options())?)
    }

    /// Makes everything that is written durable.
    pub(crate) fn flush(&self) -> Result<()> {
        let mut options = FlushOptions::default();
        options.set_wait(true);
        Ok(self.db.flush_opt(&options)?)
    }

    /// Gives the disk back what the rows of a deleted space took: files that hold nothing else go, the others are written
    /// anew. Reads and writes go on meanwhile.
    pub(crate) fn reclaim(&self, space: SpaceRef) -> Result<()> {
        let options = written_anew();
        self.flush()?;
        for kind in Kind::OF_A_SPACE {
            let start = prefix_of_space(self.sealer.group(), kind, space);
            self.db.compact_range_opt(Some(start), Some(start.prefix_end()), &options);
        }
        Ok(())
    }

    /// Whether [`Self::collect`] has something to do.
    pub(crate) fn is_collection_due(&self) -> Result<bool> {
        self.blobs.is_due(&self.db)
    }

    /// Gives the disk back some of what values took that are gone. Reads and writes go on meanwhile.
    pub(crate) fn collect(&self) -> Result<()> {
        self.blobs.collect(&self.db, &written_anew())
    }

    /// Ends what goes on in the background. Nothing can be written afterwards.
    pub(crate) fn end_background_work(&self) {
        self.db.cancel_all_background_work(false);
    }

    /// The applied record as of the last write.
    pub(crate) fn applied(&self) -> Result<AppliedRecord> {
        Ok(self.get_message(&Key::Meta(MetaItem::Applied))?.unwrap_or_default())
    }

    /// The applied record that a crash of the machine would leave.
    pub(crate) fn durable_applied(&self) -> Result<AppliedRecord> {
        let mut options = ReadOptions::default();
        options.set_read_tier(ReadTier::Persisted);
        let key = Key::Meta(MetaItem::Applied);
        let stored = self.db.get_opt(key.encode(self.sealer.group()), &options)?;
        stored.map_or_else(|| Ok(AppliedRecord::default()), |value| decode(&key, &self.sealer.open_row(&key, &value)?))
    }

    /// A view of the state as it is now.
    pub(crate) fn view(&self) -> View<'_> {
        View { snapshot: self.db.snapshot(), sealer: &self.sealer, applied_index: OnceLock::new() }
    }

    /// The stored rows of `[start, end)` in order of their keys.
    pub(crate) fn cursor(&self, start: &KeyBytes, end: &KeyBytes) -> Cursor<'_> {
        Cursor::new(self.db.raw_iterator_opt(bounded(start, end)), false)
    }

    /// Copies the store into a directory that is not there yet, and reads back what the copy has applied.
    pub(crate) fn checkpoint(&self, dir: &Path, options: &Options) -> Result<(AppliedRecord, Vec<(PathBuf, u64)>)> {
        // Size 0: the buffers are always flushed first. Any other value may leave them out, since RocksDB's log is off.
        RocksCheckpoint::new(&self.db)?.create_checkpoint_with_log_size(dir, 0)?;
        let key = Key::Meta(MetaItem::Applied);
        let stored = {
            let copy = DB::open_for_read_only(&rocks_options(options), dir, false)?;
            copy.get(key.encode(self.sealer.group()))?
        };
        let applied = match stored {
            Some(value) => decode(&key, &self.sealer.open_row(&key, &value)?)?,
            None => AppliedRecord::default(),
        };
        let files = checkpoint_files(dir)
            .map_err(|e| Error::internal(format!("cannot read the checkpoint {}", dir.display())).with_source(e))?;
        Ok((applied, files))
    }
}

impl Rows for Store {
    fn get(&self, key: &Key) -> Result<Option<Vec<u8>>> {
        match self.db.get_pinned(key.encode(self.sealer.group()))? {
            Some(value) => self.sealer.open_row(key, &value).map(Some),
            None => Ok(None),
        }
    }
}

impl View<'_> {
    pub(crate) fn sealer(&self) -> &Sealer {
        self.sealer
    }

    /// The last log index that is applied in this view; 0: none.
    pub(crate) fn applied_index(&self) -> Result<u64> {
        if let Some(index) = self.applied_index.get() {
            return Ok(*index);
        }
        let key = Key::Meta(MetaItem::Applied);
        let record: Option<AppliedRecord> = self.get(&key)?.map(|row| decode(&key, &row)).transpose()?;
        let index = record.and_then(|record| record.applied).map_or(0, |id| id.index);
        Ok(*self.applied_index.get_or_init(|| index))
    }

    /// The stored rows of `[start, end)` in order of their keys, or backwards.
    pub(crate) fn cursor(&self, start: &KeyBytes, end: &KeyBytes, backwards: bool) -> Cursor<'_> {
        Cursor::new(self.snapshot.raw_iterator_opt(bounded(start, end)), backwards)
    }
}

impl Rows for View<'_> {
    fn get(&self, key: &Key) -> Result<Option<Vec<u8>>> {
        match self.snapshot.get_pinned(key.encode(self.sealer.group()))? {
            Some(value) => self.sealer.open_row(key, &value).map(Some),
            None => Ok(None),
        }
    }
}

/// Stored rows, one after the other.
pub(crate) struct Cursor<'a> {
    rows: rocksdb::DBRawIteratorWithThreadMode<'a, DB>,
    backwards: bool,
}

impl<'a> Cursor<'a> {
    fn new(mut rows: rocksdb::DBRawIteratorWithThreadMode<'a, DB>, backwards: bool) -> Self {
        if backwards {
            rows.seek_to_last();
        } else {
            rows.seek_to_first();
        }
        Self { rows, backwards }
    }

    /// Key and stored value of the row that the cursor stands on; `None` behind the last one.
    pub(crate) fn item(&self) -> Result<Option<(&[u8], &[u8])>> {
        match self.rows.item() {
            Some(row) => Ok(Some(row)),
            None => Ok(self.rows.status().map(|()| None)?),
        }
    }

    /// Goes on to the next row.
    pub(crate) fn advance(&mut self) {
        if self.backwards {
            self.rows.prev();
        } else {
            self.rows.next();
        }
    }
}

fn bounded(start: &KeyBytes, end: &KeyBytes) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(start.as_ref());
    options.set_iterate_upper_bound(end.as_ref());
    options
}

/// A directory with files but without RocksDB's `CURRENT` was not made by us, unless the first start was cut short.
fn refuse_foreign_files(dir: &Path) -> Result<()> {
    let refused = |what: String| Error::refused(format!("{} {what}", dir.display()));
    let entries = std::fs::read_dir(dir).map_err(|e| refused(format!("cannot be read: {e}")))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| refused(format!("cannot be read: {e}")))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    if names.iter().any(|name| name == "CURRENT") {
        return Ok(());
    }
    let of_a_first_start = |name: &String| {
        matches!(name.as_str(), "LOCK" | "LOG" | "IDENTITY")
            || name.starts_with("LOG.old")
            || name.starts_with("MANIFEST-")
            || name.ends_with(".dbtmp")
    };
    match names.iter().find(|name| !of_a_first_start(name)) {
        None => Ok(()),
        Some(name) => {
            Err(refused(format!("holds {name:?} but no store: choose an empty directory, or restore the file CURRENT")))
        }
    }
}

fn open_error(dir: &Path, error: rocksdb::Error) -> Error {
    let place = dir.display();
    let text = error.to_string();
    if text.contains("lock hold") || text.contains("While lock file") {
        return Error::refused(format!("{place} is in use by another process: stop that one first")).with_source(error);
    }
    match error.kind() {
        rocksdb::ErrorKind::Corruption => {
            Error::corruption(format!("the store in {place} is damaged ({text}): replace this node's data"))
                .with_source(error)
        }
        rocksdb::ErrorKind::InvalidArgument => {
            Error::refused(format!("{place} holds a database of another program ({text})")).with_source(error)
        }
        _ => Error::refused(format!("cannot open the store in {place}: {text}")).with_source(error),
    }
}

/// The files of a checkpoint, by name. RocksDB's own text logs, which opening the copy left, are removed first.
fn checkpoint_files(dir: &Path) -> std::io::Result<Vec<(PathBuf, u64)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_string_lossy().starts_with("LOG") || name == "LOCK" {
            std::fs::remove_file(entry.path())?;
        } else {
            files.push((PathBuf::from(name), entry.metadata()?.len()));
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::error::ErrorKind;
    use crate::keyring::{Keyring, RootKey};
    use crate::position::GroupId;

    fn store_with_header(header: &StoreHeader) -> Error {
        let dir = tempfile::TempDir::new().unwrap();
        let root = RootKey::from_bytes(&[7; 32]);
        let keyring = Keyring::create(&dir.path().join("keyring"), &root, ClusterId([9; 16])).unwrap();
        let options = Options::new(dir.path().join("store"));
        let sealer = Sealer::new(Arc::new(keyring), GroupId(0));
        let store = Store::open(&options, sealer.clone()).unwrap();
        let key = Key::Meta(MetaItem::Header);
        let mut batch = WriteBatch::default();
        batch.put(key.encode(GroupId(0)), sealer.seal_row(&key, &header.encode_to_vec()).unwrap());
        store.write(batch).unwrap();
        store.flush().unwrap();
        drop(store);
        Store::open(&options, sealer).err().unwrap()
    }

    #[test]
    fn a_newer_format_is_refused_in_one_line() {
        let header = StoreHeader { format: 2, cluster_id: vec![9; 16].into(), group: 0 };
        let error = store_with_header(&header);
        assert_eq!(*error.kind(), ErrorKind::Refused);
        assert!(error.to_string().contains("has format 2, this release reads up to 1"), "{error}");
        assert!(!error.to_string().contains('\n'));
    }

    /// RocksDB's log is off: families that are flushed one by one would come back from a crash at different entries.
    #[test]
    fn all_rows_lie_in_one_family() {
        let dir = tempfile::TempDir::new().unwrap();
        let root = RootKey::from_bytes(&[7; 32]);
        let keyring = Keyring::create(&dir.path().join("keyring"), &root, ClusterId([9; 16])).unwrap();
        let options = Options::new(dir.path().join("store"));
        drop(Store::open(&options, Sealer::new(Arc::new(keyring), GroupId(0))).unwrap());
        assert_eq!(DB::list_cf(&rocks_options(&options), &options.dir).unwrap(), ["default"]);
    }

    #[test]
    fn another_cluster_is_refused() {
        let header = StoreHeader { format: 1, cluster_id: vec![8; 16].into(), group: 0 };
        assert!(store_with_header(&header).to_string().contains("belongs to cluster 0808"));
    }
}
