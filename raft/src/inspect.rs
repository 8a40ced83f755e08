//! What a data directory holds, read without starting a node and without changing a byte.
//!
//! Nothing that is sealed is opened, so that no key is needed. A running node may be looked at too; what it shows then is
//! what it has flushed so far.

use std::fs::File;
use std::path::{Path, PathBuf};

use cairn_engine::StoreReport;
use cairn_engine::crypto::ClusterId;
use rustix::fs::{FlockOperation, flock};

use crate::error::StartError;
use crate::files::read_if_there;
use crate::identity;

/// A data directory.
#[derive(Debug, Clone)]
pub struct DirectoryReport {
    /// The node whose directory it is.
    pub node_id: u64,
    /// The cluster, once joined.
    pub cluster_id: Option<ClusterId>,
    /// Names this very directory among all that ever had the node's id.
    pub incarnation: Vec<u8>,
    /// The other nodes that this one has met.
    pub seen_nodes: Vec<u64>,
    /// Whether a process lives in the directory.
    pub in_use: bool,
    /// The keyring's file, where there is one.
    pub keyring: Option<PathBuf>,
    /// The segments of group 0's write-ahead log, in order.
    pub segments: Vec<FileReport>,
    /// The snapshots that are kept to be sent, by name.
    pub snapshots: Vec<String>,
    /// The store, where there is one.
    pub store: Option<GenerationReport>,
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileReport {
    /// Its name within its directory.
    pub name: String,
    /// Its size. Segments are made at full size and filled later.
    pub bytes: u64,
}

/// The store in use.
#[derive(Debug, Clone)]
pub struct GenerationReport {
    /// The name of its directory, such as `gen-000003`.
    pub name: String,
    /// What is in it, or why it cannot be read.
    pub store: Result<StoreReport, String>,
}

/// Reads what a data directory holds.
///
/// # Errors
/// Where it is no data directory of Cairn, or a file beside the store is damaged; one line that says which. A store that cannot be
/// read is a part of the report.
pub fn inspect(data_dir: &Path) -> Result<DirectoryReport, StartError> {
    let path = data_dir.join("identity");
    let bytes = read_if_there(&path).map_err(StartError::io(&path))?.ok_or_else(|| StartError::ForeignDirectory {
        path: data_dir.to_path_buf(),
        reason: "holds no file `identity`, so it is no data directory of Cairn".to_owned(),
    })?;
    let message = identity::parse(&path, &bytes)?;
    let keyring = data_dir.join("keyring");
    let group = data_dir.join("group-0");
    let mut segments = files(&data_dir.join("wal").join("group-0"))?;
    segments.retain(|file| file.name.ends_with(".wal"));
    Ok(DirectoryReport {
        node_id: message.node_id,
        cluster_id: identity::cluster_id_of(&message.cluster_id),
        incarnation: message.incarnation.to_vec(),
        seen_nodes: message.seen_nodes.iter().map(|node| node.node_id).collect(),
        in_use: in_use(data_dir),
        keyring: keyring.is_file().then_some(keyring),
        segments,
        snapshots: names(&group.join("snapshots"))?,
        store: generation(&group)?,
    })
}

/// Whether somebody holds the lock. A directory whose lock cannot be tried counts as free: reading does no harm.
fn in_use(data_dir: &Path) -> bool {
    let Ok(file) = File::open(data_dir.join("LOCK")) else { return false };
    // Given back at once, when the file is closed.
    flock(&file, FlockOperation::NonBlockingLockShared).is_err()
}

fn generation(group_dir: &Path) -> Result<Option<GenerationReport>, StartError> {
    let path = group_dir.join("CURRENT");
    let Some(bytes) = read_if_there(&path).map_err(StartError::io(&path))? else { return Ok(None) };
    let name = String::from_utf8_lossy(&bytes).trim().to_owned();
    // The name is joined to a path; it must not lead elsewhere.
    if !name.starts_with("gen-") || name.contains(['/', '\\']) {
        return Err(StartError::Damaged { path, reason: "it names no generation".to_owned() });
    }
    let store = cairn_engine::inspect(&group_dir.join(&name)).map_err(|error| error.to_string());
    Ok(Some(GenerationReport { name, store }))
}

/// The entries of a directory, sorted; none where it is missing.
fn names(directory: &Path) -> Result<Vec<String>, StartError> {
    Ok(files(directory)?.into_iter().map(|file| file.name).collect())
}

fn files(directory: &Path) -> Result<Vec<FileReport>, StartError> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(StartError::io(directory)(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(StartError::io(directory))?;
        let bytes = entry.metadata().map_err(StartError::io(&entry.path()))?.len();
        files.push(FileReport { name: entry.file_name().to_string_lossy().into_owned(), bytes });
    }
    files.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    #[test]
    fn a_fresh_directory_shows_its_identity_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::open(dir.path(), 3).unwrap();
        let report = inspect(dir.path()).unwrap();
        assert_eq!((report.node_id, report.cluster_id), (3, None));
        assert_eq!(report.incarnation, identity.incarnation());
        assert!(!report.in_use && report.segments.is_empty() && report.store.is_none());
        let _lock = crate::identity::DirLock::take(dir.path()).unwrap();
        assert!(inspect(dir.path()).unwrap().in_use);
    }

    #[test]
    fn other_directories_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let error = inspect(dir.path()).unwrap_err().to_string();
        assert!(error.contains("no data directory of Cairn"), "{error}");
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        Identity::open(dir.path(), 1).unwrap();
        std::fs::create_dir(dir.path().join("group-0")).unwrap();
        std::fs::write(dir.path().join("group-0/CURRENT"), "gen-1/../../../elsewhere\n").unwrap();
        assert!(inspect(dir.path()).unwrap_err().to_string().contains("names no generation"));
    }
}
