//! The log against a plain model, against lying disks, and against every damaged byte.
//!
//! | file | what |
//! |---|---|
//! | `disk` | a file system in memory that loses, tears and refuses |
//! | `model` | what the log should be, and random operations with restarts |
//! | `damage` | files cut or flipped at every byte, missing, foreign |
//! | `faults` | power cuts at every step, failing syncs, full disks |
//! | `commit` | sharing of syncs, backpressure, segments coming and going, the real disk |

mod commit;
mod damage;
pub(crate) mod disk;
mod faults;
mod model;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};

use cairn_engine::crypto::ClusterId;
use cairn_engine::keyring::{Keyring, RootKey};
use tempfile::TempDir;

use self::disk::BadDisk;
use super::*;

/// Where the log lies on a [`BadDisk`].
const DIRECTORY: &str = "/wal";

/// A new keyring in a directory, for node 1 and group 0.
pub(crate) fn seal_context(directory: &Path) -> SealContext {
    let root = RootKey::generate_file(&directory.join("root")).unwrap();
    let keyring = Keyring::create(&directory.join("keyring"), &root, ClusterId::generate().unwrap()).unwrap();
    SealContext { keyring: Arc::new(keyring), node_id: 1, group: 0 }
}

/// Everything that a test opens logs with.
struct Bench {
    disk: BadDisk,
    seal: SealContext,
    options: WalOptions,
    must_exist: bool,
    /// How often a log could not go on.
    failures: Arc<AtomicUsize>,
    _keys: Arc<TempDir>,
}

impl Bench {
    /// A new disk, segments of 4 KiB, no cache.
    fn new() -> Self {
        let keys = tempfile::tempdir().unwrap();
        let seal = seal_context(keys.path());
        let options = WalOptions {
            segment_bytes: 4096,
            cache_bytes_max: 0,
            full_disk_retry: std::time::Duration::from_millis(1),
            ..WalOptions::default()
        };
        Self { disk: BadDisk::new(), seal, options, must_exist: false, failures: Arc::default(), _keys: Arc::new(keys) }
    }

    /// The same keys and options on another disk.
    fn on(&self, disk: BadDisk) -> Self {
        Self {
            disk,
            seal: self.seal.clone(),
            options: self.options.clone(),
            must_exist: self.must_exist,
            failures: Arc::default(),
            _keys: Arc::clone(&self._keys),
        }
    }

    fn try_open(&self) -> Result<(Wal, Recovered), WalError> {
        let failures = Arc::clone(&self.failures);
        let on_failure: OnFailure = Arc::new(move |_| {
            failures.fetch_add(1, Ordering::SeqCst);
        });
        let environment = Environment {
            file_system: Arc::new(self.disk.clone()),
            on_failure,
            must_exist: self.must_exist,
            kept: None,
        };
        Wal::open_in(Path::new(DIRECTORY), self.options.clone(), self.seal.clone(), environment)
    }

    fn open(&self) -> Wal {
        self.try_open().unwrap().0
    }

    fn failures(&self) -> usize {
        self.failures.load(Ordering::SeqCst)
    }

    /// The segments' files, oldest first.
    fn segments(&self) -> Vec<std::path::PathBuf> {
        self.disk.paths()
    }
}

/// An acknowledgement to wait for.
struct Ack(Receiver<Result<(), WalError>>);

impl Ack {
    fn new() -> (Callback, Self) {
        let (sender, receiver) = channel();
        (Box::new(move |result| drop(sender.send(result))), Self(receiver))
    }

    fn wait(self) -> Result<(), WalError> {
        self.0.recv().unwrap_or(Err(WalError::Stopped))
    }

    fn has_come(&self) -> bool {
        self.0.try_recv().is_ok()
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn append(wal: &Wal, first_index: u64, entries: Vec<Bytes>) -> Result<Ack, WalError> {
    let (done, ack) = Ack::new();
    block_on(wal.append(first_index, entries, done))?;
    Ok(ack)
}

fn save_vote(wal: &Wal, vote: &'static str) -> Result<Ack, WalError> {
    let (done, ack) = Ack::new();
    wal.save_vote(Bytes::from_static(vote.as_bytes()), done)?;
    Ok(ack)
}

/// An entry whose bytes tell it from every other.
fn entry(index: u64, generation: u64, bytes: usize) -> Bytes {
    let mut entry = format!("entry {index} of generation {generation} ").into_bytes();
    entry.resize(entry.len().max(bytes), b'.');
    entry.into()
}

fn entries_from(first_index: u64, count: u64, bytes: usize) -> Vec<Bytes> {
    (first_index..first_index + count).map(|index| entry(index, 0, bytes)).collect()
}
