//! The write-ahead log: the only place where an acknowledged write is made durable before the reply.
//!
//! ```text
//!   callers (any thread)                      one thread                          disk
//!   append, save_vote,      ordered queue     encode, seal   ---- write ---->  NNN.wal  (open segment)
//!   truncate, purge     --> + ledger      --> one fdatasync  ---- sync  ---->
//!                                             acknowledge all
//!   read  <-- recent entries from the ledger's cache, older ones from the segments
//! ```
//!
//! One log serves one Raft group. It knows nothing of Raft's types: entries, votes and log ids are the caller's bytes.
//!
//! Durability contract
//! - What is queued is written in the order in which it was queued, votes and entries alike; after a crash the log is
//!   what a prefix of that sequence leads to, and the prefix contains everything acknowledged.
//! - A callback comes after the fdatasync that covers its records, and many records share one.
//! - The committed position is written without a sync of its own: it may be older after a crash, never newer than the
//!   entries behind it.
//! - A purge or truncation shows to readers at once and is durable with the next acknowledged write; segments are
//!   removed once a durable purge covers all their entries.
//! - A failed sync ends the process. A full disk does not: writes wait.
//!
//! On the disk: a directory of segment files. Each has a key of its own and is written by one run of one process; a
//! restart begins a new segment, so that no nonce is ever used twice. The byte maps stand in `segment` (header and
//! names), `frame` (frames) and `record` (payloads).
//!
//! | file | what |
//! |---|---|
//! | `frame`, `record` | bytes and what they mean; pure |
//! | `ledger` | which entries there are, where they lie, the recent ones themselves; pure |
//! | `segment` | files with a header and a key |
//! | `recovery` | what of the files counts after a crash |
//! | `shared`, `writer` | the queue and the thread |
//! | `file_system` | the seam at which tests tear, lose and refuse writes |

mod error;
mod file_system;
mod frame;
mod ledger;
mod options;
mod record;
mod recovery;
mod segment;
mod shared;
mod writer;

use std::any::Any;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use parking_lot::Mutex;

pub use error::WalError;
pub use file_system::{Disk, FileSystem, LogFile};
pub use options::WalOptions;
pub use record::{Purged, Summary};
pub use recovery::Cut;
pub use segment::SealContext;
pub use shared::{Callback, WalStats};
pub use writer::OnFailure;
#[cfg(test)]
pub(crate) use writer::Stepper;

use frame::frame_bytes;
use ledger::{Location, Source};
use record::Record;
use segment::{Directory, Segment};
use shared::{Shared, Waiting};
use writer::{RecoveredFiles, Writer};

/// What opening a log found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// The state of the log. All of it is durable.
    pub summary: Summary,
    /// Where the log was cut because its last writes were torn; `None` after a clean stop.
    pub cut: Option<Cut>,
    /// Whether the directory held no log, so that this one is new.
    pub created: bool,
}

/// What a log works on; [`Environment::default`] is the real world.
#[derive(Clone)]
pub struct Environment {
    /// Where the files lie.
    pub file_system: Arc<dyn FileSystem>,
    /// What happens when the log cannot go on. When it returns, as only a test's does, the log is stopped.
    pub on_failure: OnFailure,
    /// Whether the log was made before: a directory without one is then refused, and nothing is made in it.
    pub must_exist: bool,
    /// Let go once the log's thread has ended and nothing is written any more: such as the lock of the data directory.
    pub kept: Option<Arc<dyn Any + Send + Sync>>,
}

impl Default for Environment {
    fn default() -> Self {
        Self { file_system: Arc::new(Disk), on_failure: Arc::new(writer::abort_process), must_exist: false, kept: None }
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").field("file_system", &self.file_system).finish_non_exhaustive()
    }
}

/// An open log. Share it by `Arc`; the last to drop it closes it.
pub struct Wal {
    shared: Arc<Shared>,
    options: WalOptions,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Wal {
    /// Opens the log in a directory, or creates it there, and starts its thread. Blocks on the disk.
    ///
    /// # Errors
    /// [`WalError::Corruption`] when bytes that had been synced are damaged; [`WalError::Missing`] when there is no log
    /// where there must be one; [`WalError::Foreign`],
    /// [`WalError::NewerFormat`] and [`WalError::Key`] when the files are not this node's; [`WalError::Io`] otherwise.
    pub fn open(directory: &Path, options: WalOptions, seal: SealContext) -> Result<(Self, Recovered), WalError> {
        Self::open_in(directory, options, seal, Environment::default())
    }

    /// As [`Wal::open`], on another file system or with another end.
    ///
    /// # Errors
    /// As [`Wal::open`].
    pub fn open_in(
        directory: &Path,
        options: WalOptions,
        seal: SealContext,
        environment: Environment,
    ) -> Result<(Self, Recovered), WalError> {
        let kept = environment.kept.clone();
        let (wal, recovered, writer) = Self::prepare(directory, options, seal, environment)?;
        let thread = std::thread::Builder::new()
            .name("wal".to_owned())
            .spawn(move || {
                writer.run();
                drop(kept);
            })
            .map_err(WalError::io("start the thread of", Path::new("the write-ahead log")))?;
        *wal.thread.lock() = Some(thread);
        Ok((wal, recovered))
    }

    /// A log without its thread: the caller runs the writer.
    fn prepare(
        directory: &Path,
        options: WalOptions,
        seal: SealContext,
        environment: Environment,
    ) -> Result<(Self, Recovered, Writer), WalError> {
        options.validate()?;
        let Environment { file_system, on_failure, must_exist, kept: _ } = environment;
        if !must_exist {
            file_system.create_directory(directory).map_err(WalError::io("create", directory))?;
        }
        let directory =
            Directory { file_system, path: directory.to_owned(), seal, segment_bytes: options.segment_bytes };
        let recovery = recovery::recover(&directory, must_exist)?;

        let recovered = Recovered {
            summary: recovery.ledger.summary().clone(),
            cut: recovery.cut.clone(),
            created: recovery.created,
        };
        if let Some(Cut { path, offset }) = &recovered.cut {
            tracing::warn!(file = %path.display(), offset, "the write-ahead log ended in a torn write and was cut there");
        }
        let closed = recovery.closed.iter().map(|closed| &closed.segment);
        let segments = closed.chain([&recovery.open.segment]);
        let segments = segments.map(|segment| (segment.sequence, Arc::clone(segment))).collect();
        let (files, ledger) = RecoveredFiles::split(recovery);
        let shared = Arc::new(Shared::new(ledger, segments, options.queue_bytes_max));
        let summary = recovered.summary.clone();
        let writer = Writer::new(Arc::clone(&shared), directory, options.clone(), on_failure, summary, files);
        Ok((Self { shared, options, thread: Mutex::new(None) }, recovered, writer))
    }

    /// As [`Wal::open_in`], but without a thread: nothing reaches the disk unless the returned [`Stepper`] is called.
    #[cfg(test)]
    pub(crate) fn open_stepped(
        directory: &Path,
        options: WalOptions,
        seal: SealContext,
        environment: Environment,
    ) -> Result<(Self, Recovered, Stepper), WalError> {
        let (wal, recovered, writer) = Self::prepare(directory, options, seal, environment)?;
        Ok((wal, recovered, Stepper::new(writer)))
    }

    /// Queues entries, the first with the given index, which must follow the log (any index will do while the log is
    /// empty and was never purged). They can be read when this returns; `done` is called when they are durable. Waits
    /// while the queue is full. With an error nothing was queued and `done` is not called.
    ///
    /// # Errors
    /// [`WalError::OutOfOrder`], [`WalError::EntryTooLarge`], [`WalError::Stopped`].
    pub async fn append(&self, first_index: u64, entries: Vec<Bytes>, done: Callback) -> Result<(), WalError> {
        let limit = self.options.entry_bytes_max;
        if let Some(entry) = entries.iter().find(|entry| entry.len() > limit) {
            return Err(WalError::EntryTooLarge { bytes: entry.len(), limit });
        }
        let bytes: usize = entries.iter().map(|entry| frame_bytes(8 + entry.len())).sum();
        // One append larger than the queue passes when it has the queue for itself.
        let permits = bytes.min(self.options.queue_bytes_max) as u32;
        let room =
            Arc::clone(&self.shared.room).acquire_many_owned(permits).await.map_err(|_closed| WalError::Stopped)?;
        let waiting = Waiting { done, room: Some(room) };
        self.shared.submit(Some(waiting), |ledger| {
            let ticket = ledger.append(first_index, &entries)?;
            let records = (first_index..).zip(entries).map(|(index, data)| Record::Entry { index, data }).collect();
            Ok((records, ticket))
        })
    }

    /// Queues a vote behind everything that is queued already; `done` is called when it is durable. With an error
    /// `done` is not called.
    ///
    /// # Errors
    /// [`WalError::Stopped`].
    pub fn save_vote(&self, vote: Bytes, done: Callback) -> Result<(), WalError> {
        let record = Record::Vote(vote);
        self.shared.submit(Some(Waiting { done, room: None }), |ledger| {
            ledger.apply(&record)?;
            Ok((vec![record], 0))
        })
    }

    /// Queues the committed position. It is written soon and synced with the next write that is.
    ///
    /// # Errors
    /// [`WalError::Stopped`].
    pub fn save_committed(&self, committed: Bytes) -> Result<(), WalError> {
        self.shared.submit_committed(committed)
    }

    /// Removes the entries after an index, or all of them; `done` is called when that is durable. With an error `done` is
    /// not called.
    ///
    /// # Errors
    /// [`WalError::Stopped`].
    pub fn truncate_after(&self, last_index: Option<u64>, done: Callback) -> Result<(), WalError> {
        // There is nothing after the last index that there can be.
        let from = last_index.map_or(Some(0), |index| index.checked_add(1));
        self.shared.submit(Some(Waiting { done, room: None }), |ledger| {
            let Some(from) = from else { return Ok((Vec::new(), 0)) };
            let changed = ledger.truncate(from);
            Ok((if changed { vec![Record::Truncation { from }] } else { Vec::new() }, 0))
        })
    }

    /// Removes the entries up to an index, beyond the tail too: the next entry then follows the purged index. Going
    /// back changes nothing. `id` is what [`Summary::purged`] is to say.
    ///
    /// # Errors
    /// [`WalError::Stopped`].
    pub fn purge_to(&self, index: u64, id: Bytes) -> Result<(), WalError> {
        self.shared.submit(None, |ledger| {
            let changed = ledger.purge(index, &id);
            Ok((if changed { vec![Record::Purge { index, id }] } else { Vec::new() }, 0))
        })
    }

    /// The state of the log as its callers have left it, durable or not.
    pub fn summary(&self) -> Summary {
        self.shared.look(|state| state.ledger.summary().clone())
    }

    /// Prepares to read the live entries of a range, from the first on, as many as fit into a number of bytes, but at
    /// least one if there is one. What is read is the state at this call, whatever is truncated or purged before
    /// [`Reading::load`].
    pub fn read(&self, range: Range<u64>, bytes_max: usize) -> Reading {
        self.shared.look(|state| {
            let (first_index, sources) = state.ledger.plan(range, bytes_max);
            let sources = sources.into_iter().map(|source| match source {
                Source::Cached(entry) => Ok(entry),
                Source::Stored(location) => Err((state.segments.get(&location.segment).cloned(), location)),
            });
            Reading { first_index, sources: sources.collect() }
        })
    }

    /// What the log has done since it was opened.
    pub fn stats(&self) -> WalStats {
        self.shared.stats()
    }

    /// Takes no more, writes and syncs what is queued, and ends the thread. Blocks on the disk; closing twice is fine.
    pub fn close(&self) {
        self.shared.close();
        let thread = self.thread.lock().take();
        // A callback may hold the last reference, and then this is the thread itself, which ends by itself.
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            // A panic was dealt with in the thread.
            let _ = thread.join();
        }
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Wal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wal").field("options", &self.options).field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// Entries about to be read.
#[derive(Debug)]
pub struct Reading {
    first_index: u64,
    sources: Vec<Place>,
}

/// An entry in memory, or where it lies.
type Place = Result<Bytes, (Option<Arc<Segment>>, Location)>;

impl Reading {
    /// The index of the first entry, if there is one.
    pub fn first_index(&self) -> u64 {
        self.first_index
    }

    /// How many entries will be read.
    pub fn len(&self) -> usize {
        self.sources.len()
    }

    /// Whether there is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// Whether all entries are in memory, so that [`Reading::load`] does not block.
    pub fn is_cached(&self) -> bool {
        self.sources.iter().all(Result::is_ok)
    }

    /// Reads the entries; consecutive, the first with [`Reading::first_index`]. Blocks on the disk for those that are
    /// not in memory.
    ///
    /// # Errors
    /// [`WalError::Io`], or [`WalError::Corruption`] when a segment was damaged since it was opened.
    pub fn load(self) -> Result<Vec<Bytes>, WalError> {
        let load = |(index, source): (u64, Place)| match source {
            Ok(entry) => Ok(entry),
            Err((Some(segment), location)) => segment.read_entry(index, location),
            // A live entry's segment is always there.
            Err((None, _)) => Err(WalError::Stopped),
        };
        (self.first_index..).zip(self.sources).map(load).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests;
