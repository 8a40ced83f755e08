//! Snapshots: checkpoints of the store, kept as files and sent as files.
//!
//! ```text
//! group-0/snapshots/ID/             a checkpoint, mostly hard links; ours to send
//! group-0/incoming/manifest         what is being received: peer.v1.SnapshotManifest
//! group-0/incoming/files/           what has been received of it
//! group-0/staged-N/                 what was received completely and waits to be installed
//! ```
//!
//! The state is durable by itself, so a snapshot serves two ends only: a follower that has fallen behind the log, and the
//! permission to purge the log. It therefore lives no longer than the process: a start removes what it finds and takes a
//! new one when it is needed. A directory is removed when the last sender that reads it is done.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | snapshots on disk, manifests |
//! | `receive.rs` | the receiving side: staging, checksums, resuming |
//! | `send.rs` | the sending side |
//! | `transfers.rs` | who is being sent a snapshot, and the log that it needs then |
//! | `controller.rs` | when to take a snapshot and what to purge |

mod controller;
mod receive;
mod send;
mod transfers;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use cairn_engine::Engine;
use cairn_proto::peer::{SnapshotFile, SnapshotManifest};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

#[cfg(test)]
pub(crate) use controller::look;
pub(crate) use controller::run as run_controller;
pub(crate) use receive::{ReceiveError, SnapshotReceiver};
pub(crate) use send::{Pace, SendError, send};
use transfers::{Transfer, Transfers};

use crate::error::StartError;
use crate::files::{make_dir, remove_dir};
use crate::state_machine::{error_chain, from_engine_log_id};
use crate::types::{SnapshotMeta, StoredMembership, decode_membership, log_id_to_proto, stored_membership_to_proto};

/// What openraft hands around as the content of a snapshot.
pub(crate) type SnapshotData = Arc<SnapshotDir>;

/// A snapshot in a directory of its own.
#[derive(Debug)]
pub(crate) struct SnapshotDir {
    /// Removed with this value, unless it has become a generation until then.
    path: PathBuf,
    id: String,
    meta: SnapshotMeta,
    files: Vec<(String, u64)>,
    manifest: OnceLock<SnapshotManifest>,
}

impl SnapshotDir {
    /// The snapshot `id` in the directory `path`, which holds `files` (names and bytes) and nothing else.
    fn new(path: PathBuf, id: String, meta: SnapshotMeta, files: Vec<(String, u64)>) -> Self {
        Self { path, id, meta, files, manifest: OnceLock::new() }
    }

    /// What the snapshot covers.
    #[must_use]
    pub(crate) fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }

    /// The directory.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The last index in the snapshot.
    pub(crate) fn index(&self) -> Option<u64> {
        self.meta.last_log_id.map(|log_id| log_id.index)
    }

    /// The manifest; hashes all files when first asked. Blocks.
    ///
    /// The hashes are made here and not with the snapshot, since most snapshots are never sent.
    pub(crate) fn manifest(&self) -> std::io::Result<&SnapshotManifest> {
        if let Some(manifest) = self.manifest.get() {
            return Ok(manifest);
        }
        let mut files = Vec::with_capacity(self.files.len());
        for (name, size) in &self.files {
            let sha256 = hash_file(&self.path.join(name))?.to_vec().into();
            files.push(SnapshotFile { name: name.clone(), size: *size, sha256 });
        }
        Ok(self.manifest.get_or_init(|| SnapshotManifest {
            snapshot_id: self.id.clone(),
            last_log_id: self.meta.last_log_id.as_ref().map(log_id_to_proto),
            membership: Some(stored_membership_to_proto(&self.meta.last_membership)),
            files,
        }))
    }
}

impl Drop for SnapshotDir {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.path);
        // The last owner may be a task on an async worker.
        std::thread::spawn(move || {
            if let Err(error) = remove_dir(&path) {
                tracing::warn!(path = %path.display(), %error, "an old snapshot could not be removed");
            }
        });
    }
}

/// The snapshots of this node.
pub(crate) struct SnapshotStore {
    dir: PathBuf,
    state: Mutex<Held>,
    transfers: Transfers,
    traffic: Arc<Traffic>,
}

/// Bytes of snapshots that were exchanged with peers since the start.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Traffic {
    /// Counts a piece that was sent.
    pub(crate) fn count_sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts a piece that was received.
    pub(crate) fn count_received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes sent and received.
    pub(crate) fn totals(&self) -> (u64, u64) {
        (self.sent.load(Ordering::Relaxed), self.received.load(Ordering::Relaxed))
    }
}

#[derive(Default)]
struct Held {
    current: Option<Arc<SnapshotDir>>,
    previous_index: Option<u64>,
}

impl Held {
    /// Makes `dir` the newest snapshot if it is. Snapshots are taken beside the apply thread, so one that was begun
    /// before another was installed may be done after it, and must not take its place.
    fn replace(&mut self, dir: Arc<SnapshotDir>) -> Arc<SnapshotDir> {
        if let Some(current) = &self.current {
            if dir.index() < current.index() {
                return Arc::clone(current);
            }
            if current.index() < dir.index() {
                self.previous_index = current.index();
            }
        }
        self.current = Some(Arc::clone(&dir));
        dir
    }
}

impl SnapshotStore {
    /// An empty store in `dir`; removes what an earlier process left there.
    pub(crate) fn open(dir: PathBuf) -> Result<Self, StartError> {
        remove_dir(&dir).map_err(StartError::io(&dir))?;
        make_dir(&dir).map_err(StartError::io(&dir))?;
        Ok(Self { dir, state: Mutex::default(), transfers: Transfers::default(), traffic: Arc::default() })
    }

    /// The newest snapshot.
    pub(crate) fn current(&self) -> Option<Arc<SnapshotDir>> {
        self.state.lock().current.clone()
    }

    /// The last index of the snapshot before the newest: what a follower that is a little behind still finds in the log.
    pub(crate) fn previous_index(&self) -> Option<u64> {
        self.state.lock().previous_index
    }

    /// Takes a snapshot of `engine` and returns the newest: this one, unless a later state has been installed meanwhile.
    /// Blocks.
    pub(crate) fn build(&self, engine: &Engine) -> Result<Arc<SnapshotDir>, String> {
        // Not counted by this store alone: one of another store that was in the same place may be under removal.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = format!("{:06}", NEXT.fetch_add(1, Ordering::Relaxed));
        let path = self.dir.join(&id);
        let built = build_in(engine, &path, id).inspect_err(|_| {
            // What there is of it takes up space, which may be what was missing.
            let _ = remove_dir(&path);
        })?;
        self.transfers.count_snapshot();
        Ok(self.state.lock().replace(built))
    }

    /// Notes that `snapshot` is being sent to `target`; the log after it is kept, see [`Transfers`].
    pub(crate) fn begin_transfer(&self, snapshot: &SnapshotDir, target: u64) -> Transfer {
        self.transfers.begin(target, snapshot.index().unwrap_or(0))
    }

    /// What was sent and received.
    pub(crate) fn traffic(&self) -> &Arc<Traffic> {
        &self.traffic
    }

    /// What is being sent, and who has not yet caught up.
    pub(crate) fn transfers(&self) -> &Transfers {
        &self.transfers
    }
}

/// Takes the snapshot `id` of `engine` in the directory `path`.
fn build_in(engine: &Engine, path: &Path, id: String) -> Result<Arc<SnapshotDir>, String> {
    let checkpoint = engine.checkpoint(path).map_err(|error| error_chain(&error))?;
    let membership = match &checkpoint.applied.membership {
        None => StoredMembership::default(),
        Some((log_id, bytes)) => StoredMembership::new(
            Some(from_engine_log_id(log_id)),
            decode_membership(bytes).map_err(|error| error.to_string())?,
        ),
    };
    let meta = SnapshotMeta {
        last_log_id: checkpoint.applied.log_id.as_ref().map(from_engine_log_id),
        last_membership: membership,
    };
    let mut files = Vec::with_capacity(checkpoint.files.len());
    for (name, size) in &checkpoint.files {
        let name = name.to_str().filter(|name| is_file_name(name));
        let name = name.ok_or_else(|| "the checkpoint has a file in a place of its own".to_string())?;
        files.push((name.to_string(), *size));
    }
    Ok(Arc::new(SnapshotDir::new(path.to_path_buf(), id, meta, files)))
}

/// Whether `name` is a plain file name: it comes from a peer, and must not lead out of the staging directory.
pub(crate) fn is_file_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    !name.is_empty() && name.len() <= 128 && name.bytes().all(plain) && !name.bytes().all(|byte| byte == b'.')
}

/// The SHA-256 of a file. Blocks.
pub(crate) fn hash_file(path: &Path) -> std::io::Result<[u8; 32]> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize().into()),
            read => hasher.update(&buffer[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{LeaderId, LogId};

    #[test]
    fn only_plain_file_names_pass() {
        for good in ["CURRENT", "MANIFEST-000004", "000012.sst", "OPTIONS-000007", "a_b"] {
            assert!(is_file_name(good), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "/etc/passwd", "..\\x", "a\0b", "é", &"x".repeat(129)] {
            assert!(!is_file_name(bad), "{bad}");
        }
    }

    #[test]
    fn an_older_snapshot_does_not_take_the_place_of_a_newer_one() {
        let snapshot = |index| {
            let last_log_id = Some(LogId::new(LeaderId { term: 1, node_id: 1 }, index));
            let meta = SnapshotMeta { last_log_id, ..SnapshotMeta::default() };
            Arc::new(SnapshotDir::new(PathBuf::new(), index.to_string(), meta, Vec::new()))
        };
        let mut held = Held::default();
        assert_eq!(held.replace(snapshot(10)).index(), Some(10));
        assert_eq!(held.previous_index, None);
        assert_eq!(held.replace(snapshot(30)).index(), Some(30));
        assert_eq!(held.previous_index, Some(10));
        assert_eq!(held.replace(snapshot(20)).index(), Some(30), "it was begun before the other was installed");
        let again = snapshot(30);
        assert!(Arc::ptr_eq(&held.replace(Arc::clone(&again)), &again), "the same state may be taken again");
        assert_eq!(held.previous_index, Some(10));
    }
}
