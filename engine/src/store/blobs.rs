//! Large values, which lie in files of their own beside RocksDB's tables.
//!
//! ```text
//!   write buffer --flush--> tables: keys, small values, places of large ones    merged over and over
//!                     '---> blob files: large values                            written once
//! ```
//!
//! Merging tables moves places and no values, and makes the values of rows that are gone garbage. A file of nothing but garbage goes
//! by itself. Where garbage has become a large part, or files many and small, a pass over all tables moves what is alive out of the
//! oldest files, so that they go. See docs/decisions/0030.

use std::io;
use std::path::{Path, PathBuf};

use rocksdb::{Cache, CompactOptions, DB};

use crate::error::{Error, Result};
use crate::options::Options;

/// Values of so many bytes and more lie in blob files: what it costs to merge a smaller one hardly differs from its place.
const FROM_DEFAULT: u64 = 512;
/// A pass is due when one in so many bytes is garbage,
const GARBAGE_SHARE: u64 = 3;
/// or when there are so many times as many files as their bytes would fill,
const FILES_SHARE: u64 = 2;
/// and so many more.
const FILES_MORE: u64 = 64;
/// Files are moved together that have as many bytes as all tables, which a pass writes anew, but those of so many full files at least,
const MOVED_FILES: u64 = 8;
/// and one in so many of the bytes that are free on the disk at most: compactions want the rest.
const FREE_SHARE: u64 = 4;
/// The setting of RocksDB that says how large a part of the files, by age, compactions move values out of.
const AGE_CUTOFF: &str = "blob_garbage_collection_age_cutoff";

/// The blob files of a store.
pub(super) struct Blobs {
    dir: PathBuf,
    /// Bytes of a full file.
    file_bytes: u64,
}

/// What the files hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    files: u64,
    bytes: u64,
    garbage: u64,
}

/// Has a store keep large values in blob files, which stay as they are but for [`Blobs::collect`].
pub(super) fn configure(rocks: &mut rocksdb::Options, options: &Options, cache: &Cache) {
    let from = if options.blobs_from_bytes == 0 { FROM_DEFAULT } else { options.blobs_from_bytes };
    rocks.set_enable_blob_files(true);
    rocks.set_min_blob_size(from);
    rocks.set_blob_file_size(options.write_buffer_bytes as u64);
    rocks.set_blob_cache(cache);
    rocks.set_enable_blob_gc(true);
    rocks.set_blob_gc_age_cutoff(0.0);
    // Who reads all rows of a kind reads each blob file from one end to the other, and the system can be ahead of it.
    rocks.set_advise_random_on_open(false);
}

impl Blobs {
    pub(super) fn new(options: &Options) -> Self {
        Self { dir: options.dir.clone(), file_bytes: options.write_buffer_bytes as u64 }
    }

    /// Whether a pass is due.
    pub(super) fn is_due(&self, db: &DB) -> Result<bool> {
        Ok(Held::in_store(db)?.is_worn(self.file_bytes))
    }

    /// Moves what is alive out of the oldest files, with a `pass` that writes all tables anew: out of as many as [`moved_max`]
    /// says, and one at least. Reads and writes go on.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Internal`](crate::ErrorKind::Internal) when they are as they were, such as for want of room on the disk.
    pub(super) fn collect(&self, db: &DB, pass: &CompactOptions) -> Result<()> {
        let before = Held::in_store(db)?;
        let cannot_read = |e| Error::internal(format!("cannot read {}", self.dir.display())).with_source(e);
        let mut sizes = sizes(&self.dir).map_err(cannot_read)?;
        let file_system = rustix::fs::statvfs(&self.dir).map_err(|e| cannot_read(e.into()))?;
        let free_bytes = file_system.f_bavail * file_system.f_frsize;
        // Files that have just gone may still have their names.
        sizes.drain(..sizes.len().saturating_sub(before.files as usize));
        let table_bytes = db.property_int_value("rocksdb.live-sst-files-size")?.unwrap_or(0);
        let share = share_of_oldest(&sizes, moved_max(self.file_bytes, table_bytes, free_bytes));
        db.set_options(&[(AGE_CUTOFF, &share.to_string())])?;
        db.compact_range_opt(None::<&[u8]>, None::<&[u8]>, pass);
        db.set_options(&[(AGE_CUTOFF, "0")])?;
        if Held::in_store(db)? == before {
            return Err(Error::internal("no values could be moved out of the oldest files of the store"));
        }
        Ok(())
    }
}

impl Held {
    fn in_store(db: &DB) -> Result<Self> {
        let number = |name: &str| Ok::<_, Error>(db.property_int_value(name)?.unwrap_or(0));
        Ok(Self {
            files: number("rocksdb.num-blob-files")?,
            bytes: number("rocksdb.live-blob-file-size")?,
            garbage: number("rocksdb.live-blob-file-garbage-size")?,
        })
    }

    fn is_worn(self, file_bytes: u64) -> bool {
        let is_garbage = self.garbage >= file_bytes && self.garbage * GARBAGE_SHARE > self.bytes;
        is_garbage || self.files > self.bytes / file_bytes * FILES_SHARE + FILES_MORE
    }
}

/// Bytes of the blob files in a directory, the oldest first.
fn sizes(dir: &Path) -> io::Result<Vec<u64>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".blob")?.parse::<u64>().ok());
        // One that goes meanwhile holds nothing.
        files.extend(number.map(|number| (number, entry.metadata().map_or(0, |metadata| metadata.len()))));
    }
    files.sort_unstable();
    Ok(files.into_iter().map(|(_, bytes)| bytes).collect())
}

/// How many bytes of files may be moved together.
fn moved_max(file_bytes: u64, table_bytes: u64, free_bytes: u64) -> u64 {
    table_bytes.max(file_bytes * MOVED_FILES).min(free_bytes / FREE_SHARE)
}

/// The part of these files that RocksDB is to take for the oldest ones, so that they have up to so many bytes together. At least one is.
fn share_of_oldest(sizes: &[u64], bytes_max: u64) -> f64 {
    let sums = sizes.iter().scan(0, |sum, bytes| {
        *sum += bytes;
        Some(*sum)
    });
    let count = sums.take_while(|sum| *sum <= bytes_max).count().max(1);
    // RocksDB rounds down.
    ((count as f64 + 0.5) / sizes.len().max(1) as f64).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_of_the_oldest_as_fit_are_moved() {
        let taken = |sizes: &[u64], bytes_max| (share_of_oldest(sizes, bytes_max) * sizes.len() as f64) as usize;
        assert_eq!(taken(&[10, 10, 10, 10], 25), 2);
        assert_eq!(taken(&[10, 10, 10, 10], 9), 1);
        assert_eq!(taken(&[10, 10, 10, 10], 1_000), 4);
        for files in 1..300 {
            let sizes = vec![1; files];
            assert!((1..=files).all(|count| taken(&sizes, count as u64) == count), "of {files}");
        }
        assert!(share_of_oldest(&[], 5) <= 1.0);
    }

    #[test]
    fn what_is_moved_together_fits_the_disk() {
        assert_eq!(moved_max(64, 10, 10_000), 512);
        assert_eq!(moved_max(64, 700, 10_000), 700);
        assert_eq!(moved_max(64, 700, 1_000), 250);
    }

    #[test]
    fn garbage_and_small_files_are_worth_a_pass() {
        let is_worn = |files, bytes, garbage| Held { files, bytes, garbage }.is_worn(100);
        assert!(!is_worn(0, 0, 0));
        assert!(!is_worn(10, 900, 300));
        assert!(is_worn(10, 900, 301));
        assert!(!is_worn(1, 150, 99), "less than a file would hold");
        assert!(is_worn(65, 50, 0));
        assert!(!is_worn(84, 1_000, 0));
    }
}
