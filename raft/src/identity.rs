//! Whose data directory this is: the files `LOCK` and `identity`.
//!
//! ```text
//! identity:  [format u8 = 1][crc32 u32 LE of the rest][storage.v1.NodeIdentity]
//! LOCK:      empty; held with flock(2) while a node lives in the directory
//! ```
//!
//! A directory gets an *incarnation*, 16 random bytes, before the node first speaks to a peer. Peers remember it durably
//! under the node's id at first sight. An id that comes back with another disk has another incarnation and is refused, since
//! its old votes and entries are lost; a node that crashed while it joined has the same one and may go on.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use cairn_engine::crypto::ClusterId;
use cairn_proto::storage::{NodeIdentity, SeenNode};
use parking_lot::Mutex;
use prost::Message;
use rustix::fs::{FlockOperation, flock};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::error::StartError;
use crate::files::{make_dir, read_if_there, write_atomically};

const FORMAT: u8 = 1;
const HEADER_LEN: usize = 5;

/// Names a data directory.
pub(crate) type Incarnation = [u8; 16];

/// The exclusive use of a data directory; given back when dropped.
#[derive(Debug)]
pub(crate) struct DirLock {
    file: File,
    // Dropped with this value, once the directory is free.
    given_back: DropGuard,
}

impl DirLock {
    /// Makes the directory where it is missing, and takes it.
    pub(crate) fn take(data_dir: &Path) -> Result<Self, StartError> {
        if data_dir.exists() && !data_dir.is_dir() {
            return Err(StartError::ForeignDirectory {
                path: data_dir.to_path_buf(),
                reason: "is not a directory: name one that this node can have for itself".to_string(),
            });
        }
        make_dir(data_dir).map_err(StartError::io(data_dir))?;
        let path = data_dir.join("LOCK");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(StartError::io(&path))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| StartError::Locked { path: data_dir.to_path_buf() })?;
        Ok(Self { file, given_back: CancellationToken::new().drop_guard() })
    }

    /// Is cancelled once the directory is given back.
    pub(crate) fn given_back(&self) -> CancellationToken {
        self.given_back.token().clone()
    }
}

impl Drop for DirLock {
    fn drop(&mut self) {
        // Closing the file would not do while a process that is just being started has it too. It fails for nothing that is locked.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

/// The file `identity`, in memory and on disk.
pub(crate) struct Identity {
    path: PathBuf,
    node_id: u64,
    incarnation: Incarnation,
    state: Mutex<State>,
}

#[derive(Clone, Default)]
struct State {
    cluster_id: Option<ClusterId>,
    log_created: bool,
    founder: bool,
    seen: BTreeMap<u64, Incarnation>,
}

/// Whether a node's data directory is the one that was seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sighting {
    /// Never seen, or seen in this directory.
    Fine,
    /// Seen in another directory.
    OtherDirectory,
}

impl Identity {
    /// Reads the identity of `data_dir`, or makes one in an empty directory.
    pub(crate) fn open(data_dir: &Path, node_id: u64) -> Result<Self, StartError> {
        let path = data_dir.join("identity");
        match read_if_there(&path).map_err(StartError::io(&path))? {
            Some(bytes) => Self::decode(data_dir, path, node_id, &bytes),
            None => Self::create(data_dir, path, node_id),
        }
    }

    fn create(data_dir: &Path, path: PathBuf, node_id: u64) -> Result<Self, StartError> {
        refuse_foreign_files(data_dir)?;
        let mut incarnation = Incarnation::default();
        getrandom::fill(&mut incarnation)
            .map_err(|error| StartError::io(&path)(std::io::Error::other(error.to_string())))?;
        let identity = Self { path, node_id, incarnation, state: Mutex::default() };
        identity.change(|_| ())?;
        Ok(identity)
    }

    fn decode(data_dir: &Path, path: PathBuf, node_id: u64, bytes: &[u8]) -> Result<Self, StartError> {
        let damaged = |reason: &str| StartError::Damaged { path: path.clone(), reason: reason.to_string() };
        let message = parse(&path, bytes)?;
        if message.node_id != node_id {
            return Err(StartError::ForeignDirectory {
                path: data_dir.to_path_buf(),
                reason: format!(
                    "belongs to node {}, not to node {node_id}: correct the node id or the data directory",
                    message.node_id
                ),
            });
        }
        let incarnation = incarnation_of(&message.incarnation).ok_or_else(|| damaged("it names no incarnation"))?;
        let cluster_id = match &message.cluster_id[..] {
            [] => None,
            bytes => Some(cluster_id_of(bytes).ok_or_else(|| damaged("its cluster id has a wrong length"))?),
        };
        let seen = message
            .seen_nodes
            .iter()
            .filter_map(|node| Some((node.node_id, incarnation_of(&node.incarnation)?)))
            .collect();
        let state = State { cluster_id, log_created: message.log_created, founder: message.founder, seen };
        Ok(Self { path, node_id, incarnation, state: Mutex::new(state) })
    }

    /// This node.
    pub(crate) fn node_id(&self) -> u64 {
        self.node_id
    }

    /// This directory.
    pub(crate) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The cluster, once joined.
    pub(crate) fn cluster_id(&self) -> Option<ClusterId> {
        self.state.lock().cluster_id
    }

    /// Whether the log has been made.
    pub(crate) fn log_created(&self) -> bool {
        self.state.lock().log_created
    }

    /// Notes that this node is a member of `cluster_id`.
    pub(crate) fn join(&self, cluster_id: ClusterId) -> Result<(), StartError> {
        self.change(|state| state.cluster_id = Some(cluster_id))
    }

    /// Whether this node made the cluster, or was about to.
    pub(crate) fn is_founder(&self) -> bool {
        self.state.lock().founder
    }

    /// Notes whether this node makes the cluster; before the keyring that it makes.
    pub(crate) fn set_founder(&self, founder: bool) -> Result<(), StartError> {
        if self.is_founder() == founder { Ok(()) } else { self.change(|state| state.founder = founder) }
    }

    /// Notes that the log has been made.
    pub(crate) fn set_log_created(&self) -> Result<(), StartError> {
        self.change(|state| state.log_created = true)
    }

    /// All directories that this node knows, its own included.
    pub(crate) fn seen(&self) -> BTreeMap<u64, Incarnation> {
        let mut seen = self.state.lock().seen.clone();
        seen.insert(self.node_id, self.incarnation);
        seen
    }

    /// Whether this very directory has been seen under the id.
    pub(crate) fn is_known(&self, node_id: u64, incarnation: Incarnation) -> bool {
        node_id == self.node_id && incarnation == self.incarnation
            || self.state.lock().seen.get(&node_id) == Some(&incarnation)
    }

    /// Compares a node's directory with the one that was seen before; remembers nothing.
    pub(crate) fn compare(&self, node_id: u64, incarnation: Incarnation) -> Sighting {
        let known = if node_id == self.node_id {
            Some(self.incarnation)
        } else {
            self.state.lock().seen.get(&node_id).copied()
        };
        match known {
            Some(known) if known != incarnation => Sighting::OtherDirectory,
            _ => Sighting::Fine,
        }
    }

    /// Compares as [`compare`](Self::compare), and durably remembers a directory that is seen for the first time.
    pub(crate) fn sight(&self, node_id: u64, incarnation: Incarnation) -> Result<Sighting, StartError> {
        if self.compare(node_id, incarnation) == Sighting::OtherDirectory {
            return Ok(Sighting::OtherDirectory);
        }
        let known = node_id == self.node_id || self.state.lock().seen.contains_key(&node_id);
        if !known {
            self.change(|state| {
                state.seen.entry(node_id).or_insert(incarnation);
            })?;
        }
        Ok(self.compare(node_id, incarnation))
    }

    /// Changes the state on disk first, then in memory.
    fn change(&self, change: impl FnOnce(&mut State)) -> Result<(), StartError> {
        let mut state = self.state.lock();
        let mut next = state.clone();
        change(&mut next);
        let message = NodeIdentity {
            node_id: self.node_id,
            incarnation: self.incarnation.to_vec().into(),
            cluster_id: next.cluster_id.map(|id| id.0.to_vec()).unwrap_or_default().into(),
            log_created: next.log_created,
            founder: next.founder,
            seen_nodes: next
                .seen
                .iter()
                .map(|(&node_id, incarnation)| SeenNode { node_id, incarnation: incarnation.to_vec().into() })
                .collect(),
        };
        let body = message.encode_to_vec();
        let mut bytes = Vec::with_capacity(HEADER_LEN + body.len());
        bytes.push(FORMAT);
        bytes.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        write_atomically(&self.path, &bytes).map_err(StartError::io(&self.path))?;
        *state = next;
        Ok(())
    }
}

/// The content of the file `identity`, whoever's it is.
pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<NodeIdentity, StartError> {
    let damaged = |reason: &str| StartError::Damaged { path: path.to_path_buf(), reason: reason.to_string() };
    let (header, body) = bytes.split_at_checked(HEADER_LEN).ok_or_else(|| damaged("it is too short"))?;
    if header[0] > FORMAT {
        return Err(StartError::NewerDirectory { path: path.to_path_buf(), found: header[0], supported: FORMAT });
    }
    if header[0] != FORMAT {
        return Err(damaged("its first byte is no format version"));
    }
    if header[1..] != crc32fast::hash(body).to_le_bytes() {
        return Err(damaged("its checksum does not match"));
    }
    NodeIdentity::decode(body).map_err(|_| damaged("it is no identity"))
}

/// An incarnation from a message.
pub(crate) fn incarnation_of(bytes: &[u8]) -> Option<Incarnation> {
    bytes.try_into().ok()
}

/// A cluster id from a message.
pub(crate) fn cluster_id_of(bytes: &[u8]) -> Option<ClusterId> {
    bytes.try_into().ok().map(ClusterId)
}

/// Without an identity there must be nothing else: other files belong to somebody else, or have lost their identity.
fn refuse_foreign_files(data_dir: &Path) -> Result<(), StartError> {
    for entry in std::fs::read_dir(data_dir).map_err(StartError::io(data_dir))? {
        let name = entry.map_err(StartError::io(data_dir))?.file_name();
        if !matches!(name.to_str(), Some("LOCK" | "identity.tmp" | "lost+found")) {
            return Err(StartError::ForeignDirectory {
                path: data_dir.to_path_buf(),
                reason: format!(
                    "holds {} but no file `identity`, so it is no data directory of Cairn: choose an empty directory",
                    Path::new(&name).display()
                ),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::open(dir.path(), 2).unwrap();
        first.join(ClusterId([7; 16])).unwrap();
        assert_eq!(first.sight(3, [1; 16]).unwrap(), Sighting::Fine);
        let again = Identity::open(dir.path(), 2).unwrap();
        assert_eq!(again.incarnation(), first.incarnation());
        assert_eq!(again.cluster_id(), Some(ClusterId([7; 16])));
        assert_eq!(again.sight(3, [2; 16]).unwrap(), Sighting::OtherDirectory);
        assert_eq!(again.sight(3, [1; 16]).unwrap(), Sighting::Fine);
    }

    /// As a process has it between its fork and the program that it becomes.
    #[test]
    fn a_directory_is_given_back_though_somebody_else_has_its_file_open() {
        let dir = tempfile::tempdir().unwrap();
        let lock = DirLock::take(dir.path()).unwrap();
        assert!(matches!(DirLock::take(dir.path()), Err(StartError::Locked { .. })));
        let _inherited = lock.file.try_clone().unwrap();
        drop(lock);
        DirLock::take(dir.path()).unwrap();
    }

    #[test]
    fn another_nodes_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        Identity::open(dir.path(), 2).unwrap();
        let error = Identity::open(dir.path(), 3).err().unwrap().to_string();
        assert!(error.contains("belongs to node 2, not to node 3"), "{error}");
    }

    #[test]
    fn a_directory_with_foreign_files_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("PG_VERSION"), "17").unwrap();
        let error = Identity::open(dir.path(), 1).err().unwrap().to_string();
        assert!(error.contains("PG_VERSION") && error.contains("choose an empty directory"), "{error}");
    }

    #[test]
    fn damage_and_newer_formats_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        Identity::open(dir.path(), 1).unwrap();
        let path = dir.path().join("identity");
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            std::fs::write(&path, &bad).unwrap();
            let error = Identity::open(dir.path(), 1).err().unwrap();
            match at {
                0 => assert!(matches!(error, StartError::NewerDirectory { found: 0x41, .. }), "{error}"),
                _ => assert!(matches!(error, StartError::Damaged { .. }), "{error}"),
            }
        }
        std::fs::write(&path, &good[..3]).unwrap();
        assert!(matches!(Identity::open(dir.path(), 1).err().unwrap(), StartError::Damaged { .. }));
    }

    #[test]
    fn a_directory_has_one_process() {
        let dir = tempfile::tempdir().unwrap();
        let lock = DirLock::take(dir.path()).unwrap();
        let given_back = lock.given_back();
        assert!(matches!(DirLock::take(dir.path()), Err(StartError::Locked { .. })));
        assert!(!given_back.is_cancelled());
        drop(lock);
        assert!(given_back.is_cancelled());
        DirLock::take(dir.path()).unwrap();
    }
}
