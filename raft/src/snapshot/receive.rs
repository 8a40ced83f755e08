//! The receiving side of a snapshot: everything is staged, checked and synced before the state machine sees it.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use cairn_proto::peer::{SnapshotChunk, SnapshotFile, SnapshotManifest};
use prost::Message;

use super::{SnapshotDir, hash_file, is_file_name};
use crate::files::{make_dir, read_if_there, remove_dir, sync_dir, write_atomically};
use crate::types::{SnapshotMeta, log_id_from_proto, stored_membership_from_proto};

/// Why a snapshot is not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    /// The sender says something that cannot be; it must begin again.
    #[error("{0}")]
    Invalid(String),
    /// The file system refused.
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
}

impl ReceiveError {
    fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }
}

/// Stages one snapshot at a time. All methods block.
pub(crate) struct SnapshotReceiver {
    dir: PathBuf,
    open: Option<(u32, File)>,
}

impl SnapshotReceiver {
    /// A receiver that stages in `dir`; what an earlier attempt left there can be resumed.
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir, open: None }
    }

    fn files_dir(&self) -> PathBuf {
        self.dir.join("files")
    }

    fn manifest_path(&self) -> PathBuf {
        self.dir.join("manifest")
    }

    /// Prepares for `manifest` and says how many bytes of each of its files are there already.
    pub(crate) fn offer(&mut self, manifest: &SnapshotManifest) -> Result<Vec<u64>, ReceiveError> {
        self.open = None;
        check_manifest(manifest)?;
        let files_dir = self.files_dir();
        let known = self.stored_manifest();
        make_dir(&files_dir).map_err(ReceiveError::io(&files_dir))?;
        for entry in fs::read_dir(&files_dir).map_err(ReceiveError::io(&files_dir))? {
            let path = entry.map_err(ReceiveError::io(&files_dir))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let wanted = manifest.files.iter().find(|file| file.name == name);
            // A begun file is of use only if it was begun for the very same content.
            if wanted.is_none() || wanted != known.iter().flat_map(|known| &known.files).find(|file| file.name == name)
            {
                fs::remove_file(&path).map_err(ReceiveError::io(&path))?;
            }
        }
        let path = self.manifest_path();
        write_atomically(&path, &manifest.encode_to_vec()).map_err(ReceiveError::io(&path))?;
        manifest.files.iter().map(|file| self.received(file)).collect()
    }

    /// Appends a piece.
    pub(crate) fn write(&mut self, manifest: &SnapshotManifest, chunk: &SnapshotChunk) -> Result<(), ReceiveError> {
        let file = usize::try_from(chunk.file).ok().and_then(|index| manifest.files.get(index));
        let file = file.ok_or_else(|| ReceiveError::Invalid(format!("there is no file {}", chunk.file)))?;
        if crc32fast::hash(&chunk.data) != chunk.crc32 {
            return Err(ReceiveError::Invalid(format!("a piece of {} was damaged on its way", file.name)));
        }
        let end = chunk.offset.checked_add(chunk.data.len() as u64).filter(|&end| end <= file.size);
        if end.is_none() {
            return Err(ReceiveError::Invalid(format!("a piece of {} lies beyond its end", file.name)));
        }
        let path = self.files_dir().join(&file.name);
        let mut open = match self.open.take() {
            Some((index, open)) if index == chunk.file => open,
            _ => open_for_append(&path).map_err(ReceiveError::io(&path))?,
        };
        let at = open.seek(SeekFrom::End(0)).map_err(ReceiveError::io(&path))?;
        if at != chunk.offset {
            return Err(ReceiveError::Invalid(format!("{} has {at} bytes, not {}", file.name, chunk.offset)));
        }
        open.write_all(&chunk.data).map_err(ReceiveError::io(&path))?;
        self.open = Some((chunk.file, open));
        Ok(())
    }

    /// Checks and syncs all files; afterwards they are ready to be installed.
    pub(crate) fn finish(&mut self, manifest: &SnapshotManifest) -> Result<Arc<SnapshotDir>, ReceiveError> {
        self.open = None;
        let files_dir = self.files_dir();
        for file in &manifest.files {
            let path = files_dir.join(&file.name);
            if file.size == 0 {
                // No piece brings an empty file.
                open_for_append(&path).map_err(ReceiveError::io(&path))?;
            }
            let size = fs::metadata(&path).map_err(ReceiveError::io(&path))?.len();
            let hash = hash_file(&path).map_err(ReceiveError::io(&path))?;
            if size != file.size || hash[..] != file.sha256[..] {
                // Or the next attempt would resume from the damage.
                fs::remove_file(&path).map_err(ReceiveError::io(&path))?;
                return Err(ReceiveError::Invalid(format!("{} is not what was announced", file.name)));
            }
            File::open(&path).and_then(|file| file.sync_all()).map_err(ReceiveError::io(&path))?;
        }
        sync_dir(&files_dir).map_err(ReceiveError::io(&files_dir))?;
        let meta = meta_of(manifest)?;
        Ok(Arc::new(SnapshotDir {
            path: files_dir,
            temporary: false,
            id: manifest.snapshot_id.clone(),
            meta,
            files: manifest.files.iter().map(|file| (file.name.clone(), file.size)).collect(),
            manifest: OnceLock::new(),
        }))
    }

    /// Forgets what was staged.
    pub(crate) fn clear(&mut self) -> Result<(), ReceiveError> {
        self.open = None;
        remove_dir(&self.dir).map_err(ReceiveError::io(&self.dir))
    }

    fn received(&self, file: &SnapshotFile) -> Result<u64, ReceiveError> {
        let path = self.files_dir().join(&file.name);
        match fs::metadata(&path) {
            Ok(metadata) if metadata.len() <= file.size => Ok(metadata.len()),
            Ok(_) => {
                fs::remove_file(&path).map_err(ReceiveError::io(&path))?;
                Ok(0)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(ReceiveError::io(&path)(error)),
        }
    }

    /// What the staged files were begun for; unreadable: nothing.
    fn stored_manifest(&self) -> Option<SnapshotManifest> {
        let bytes = read_if_there(&self.manifest_path()).ok()??;
        SnapshotManifest::decode(&bytes[..]).ok()
    }
}

fn open_for_append(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

fn check_manifest(manifest: &SnapshotManifest) -> Result<(), ReceiveError> {
    let invalid = |reason: String| Err(ReceiveError::Invalid(reason));
    if manifest.files.is_empty() {
        return invalid("the snapshot has no files".to_string());
    }
    for pair in manifest.files.windows(2) {
        if pair[0].name >= pair[1].name {
            return invalid("the files of the snapshot are not in order".to_string());
        }
    }
    for file in &manifest.files {
        if !is_file_name(&file.name) {
            return invalid("a file of the snapshot has a name that is none".to_string());
        }
        if file.sha256.len() != 32 {
            return invalid(format!("{} has no SHA-256", file.name));
        }
    }
    meta_of(manifest).map(|_| ())
}

/// What the snapshot of `manifest` covers.
fn meta_of(manifest: &SnapshotManifest) -> Result<SnapshotMeta, ReceiveError> {
    let membership = manifest.membership.as_ref();
    let membership = membership.ok_or_else(|| ReceiveError::Invalid("the snapshot names no members".to_string()))?;
    let last_membership =
        stored_membership_from_proto(membership).map_err(|error| ReceiveError::Invalid(error.to_string()))?;
    Ok(SnapshotMeta { last_log_id: manifest.last_log_id.as_ref().map(log_id_from_proto), last_membership })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::types::stored_membership_to_proto;

    fn manifest(files: &[(&str, &[u8])]) -> SnapshotManifest {
        SnapshotManifest {
            snapshot_id: "1".to_string(),
            last_log_id: None,
            membership: Some(stored_membership_to_proto(&crate::types::StoredMembership::default())),
            files: files
                .iter()
                .map(|(name, content)| SnapshotFile {
                    name: (*name).to_string(),
                    size: content.len() as u64,
                    sha256: Sha256::digest(content).to_vec().into(),
                })
                .collect(),
        }
    }

    fn chunk(file: u32, offset: u64, data: &[u8]) -> SnapshotChunk {
        SnapshotChunk { file, offset, crc32: crc32fast::hash(data), data: data.to_vec().into() }
    }

    #[test]
    fn a_snapshot_arrives_in_pieces_and_resumes() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = manifest(&[("a", b"hello world"), ("b", b""), ("c", b"xyz")]);
        let mut receiver = SnapshotReceiver::new(dir.path().join("incoming"));
        assert_eq!(receiver.offer(&manifest).unwrap(), [0, 0, 0]);
        receiver.write(&manifest, &chunk(0, 0, b"hello")).unwrap();
        drop(receiver);

        let mut receiver = SnapshotReceiver::new(dir.path().join("incoming"));
        assert_eq!(receiver.offer(&manifest).unwrap(), [5, 0, 0]);
        receiver.write(&manifest, &chunk(0, 5, b" world")).unwrap();
        receiver.write(&manifest, &chunk(2, 0, b"xyz")).unwrap();
        let done = receiver.finish(&manifest).unwrap();
        assert_eq!(fs::read(done.path().join("a")).unwrap(), b"hello world");
        assert_eq!(fs::read(done.path().join("b")).unwrap(), b"");
    }

    #[test]
    fn a_begun_file_of_other_content_is_not_resumed() {
        let dir = tempfile::tempdir().unwrap();
        let mut receiver = SnapshotReceiver::new(dir.path().join("incoming"));
        let first = manifest(&[("a", b"old content"), ("same", b"12345")]);
        receiver.offer(&first).unwrap();
        receiver.write(&first, &chunk(0, 0, b"old")).unwrap();
        receiver.write(&first, &chunk(1, 0, b"12345")).unwrap();
        let second = manifest(&[("a", b"new content"), ("same", b"12345")]);
        assert_eq!(receiver.offer(&second).unwrap(), [0, 5]);
    }

    #[test]
    fn damage_is_noticed_and_not_resumed() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = manifest(&[("a", b"hello")]);
        let mut receiver = SnapshotReceiver::new(dir.path().join("incoming"));
        receiver.offer(&manifest).unwrap();
        let mut bad = chunk(0, 0, b"hello");
        bad.crc32 ^= 1;
        assert!(matches!(receiver.write(&manifest, &bad), Err(ReceiveError::Invalid(_))));
        receiver.write(&manifest, &chunk(0, 0, b"jello")).unwrap();
        assert!(matches!(receiver.finish(&manifest), Err(ReceiveError::Invalid(_))));
        assert_eq!(receiver.offer(&manifest).unwrap(), [0]);
    }

    #[test]
    fn pieces_out_of_place_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = manifest(&[("a", b"hello")]);
        let mut receiver = SnapshotReceiver::new(dir.path().join("incoming"));
        receiver.offer(&manifest).unwrap();
        for bad in [chunk(1, 0, b"x"), chunk(0, 1, b"x"), chunk(0, 0, b"too long"), chunk(0, u64::MAX, b"x")] {
            assert!(matches!(receiver.write(&manifest, &bad), Err(ReceiveError::Invalid(_))));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn any_manifest_is_accepted_or_refused_within_the_staging_directory(bytes in proptest::collection::vec(any::<u8>(), 0..96), name in ".{0,12}") {
            let dir = tempfile::tempdir().unwrap();
            let mut receiver = SnapshotReceiver::new(dir.path().join("incoming"));
            if let Ok(manifest) = SnapshotManifest::decode(&bytes[..]) {
                let _ = receiver.offer(&manifest);
            }
            let mut manifest = manifest(&[("a", b"hello")]);
            manifest.files[0].name.clone_from(&name);
            if receiver.offer(&manifest).is_ok() {
                receiver.write(&manifest, &chunk(0, 0, b"hello")).unwrap();
            }
            let outside: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            prop_assert!(outside.iter().all(|name| name == "incoming"));
        }
    }
}
