//! The receiving side of a snapshot: everything is staged, checked and synced before the state machine sees it.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cairn_proto::peer::{SnapshotChunk, SnapshotFile, SnapshotManifest};
use prost::Message;

use super::{SnapshotDir, hash_file, is_file_name};
use crate::error::StartError;
use crate::files::{make_dir, read_if_there, remove_dir, sync_dir, write_atomically};
use crate::types::{SnapshotMeta, Vote, log_id_from_proto, stored_membership_from_proto};

/// How the directory of a complete snapshot begins.
const STAGED_PREFIX: &str = "staged-";

/// Numbers the directories of complete snapshots. Of the process and not of a receiver: a directory of a node that has
/// stopped may still be on its way out while the next one runs.
static NEXT_STAGED: AtomicU64 = AtomicU64::new(1);

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

/// Receives one snapshot at a time: it is offered, then one stream brings it, and then it is complete and leaves the
/// receiver, so that no later offer touches it. All methods block.
pub(crate) struct SnapshotReceiver {
    group_dir: PathBuf,
    /// The highest vote that anything was offered under.
    vote: Option<Vote>,
    offered: Option<Offer>,
    streams: u64,
    open: Option<(u32, File)>,
}

/// What is being received. Its manifest has been checked: no name in it leads out of the staging directory.
struct Offer {
    manifest: SnapshotManifest,
    /// The stream that brings it; pieces from any other are refused.
    stream: Option<StreamId>,
}

/// Names one stream of pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamId(u64);

impl SnapshotReceiver {
    /// A receiver below `group_dir`. An incomplete snapshot that an earlier process left there can be resumed; complete
    /// ones that it did not install are removed.
    pub(crate) fn open(group_dir: &Path) -> Result<Self, StartError> {
        for entry in fs::read_dir(group_dir).map_err(StartError::io(group_dir))? {
            let path = entry.map_err(StartError::io(group_dir))?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            if name.is_some_and(|name| name.starts_with(STAGED_PREFIX)) {
                remove_dir(&path).map_err(StartError::io(&path))?;
            }
        }
        Ok(Self { group_dir: group_dir.to_path_buf(), vote: None, offered: None, streams: 0, open: None })
    }

    fn dir(&self) -> PathBuf {
        self.group_dir.join("incoming")
    }

    fn files_dir(&self) -> PathBuf {
        self.dir().join("files")
    }

    fn manifest_path(&self) -> PathBuf {
        self.dir().join("manifest")
    }

    /// Prepares for `manifest`, offered by the leader of `vote`, and says how many bytes of each of its files are there
    /// already. Takes the place of an earlier offer, unless that came from a newer leader.
    pub(crate) fn offer(&mut self, vote: Vote, manifest: &SnapshotManifest) -> Result<Vec<u64>, ReceiveError> {
        if self.vote.is_some_and(|highest| vote < highest) {
            return Err(ReceiveError::Invalid("a newer leader has offered a snapshot".to_string()));
        }
        check_manifest(manifest)?;
        self.vote = Some(vote);
        self.open = None;
        self.offered = None;
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
        let received = manifest.files.iter().map(|file| self.received(file)).collect::<Result<_, _>>()?;
        self.offered = Some(Offer { manifest: manifest.clone(), stream: None });
        Ok(received)
    }

    /// Begins the stream that brings what was offered last, under the same vote; ends an earlier one.
    pub(crate) fn begin(&mut self, vote: Vote, manifest: &SnapshotManifest) -> Result<StreamId, ReceiveError> {
        let same_vote = self.vote == Some(vote);
        let offer = self.offered.as_mut().filter(|offer| same_vote && offer.manifest == *manifest);
        let offer =
            offer.ok_or_else(|| ReceiveError::Invalid("it is not the snapshot that was offered".to_string()))?;
        self.streams += 1;
        offer.stream = Some(StreamId(self.streams));
        self.open = None;
        Ok(StreamId(self.streams))
    }

    /// Appends a piece.
    pub(crate) fn write(&mut self, stream: StreamId, chunk: &SnapshotChunk) -> Result<(), ReceiveError> {
        let offer = self.offered.as_ref().filter(|offer| offer.stream == Some(stream)).ok_or_else(superseded)?;
        let file = usize::try_from(chunk.file).ok().and_then(|index| offer.manifest.files.get(index));
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

    /// Checks and syncs all files, and hands them out in a directory of their own, ready to be installed. What comes
    /// next is received beside them: an installation waits its turn, and leaders change meanwhile.
    pub(crate) fn finish(&mut self, stream: StreamId) -> Result<Arc<SnapshotDir>, ReceiveError> {
        let offer = self.offered.take_if(|offer| offer.stream == Some(stream)).ok_or_else(superseded)?;
        let manifest = offer.manifest;
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
        let meta = meta_of(&manifest)?;
        let number = NEXT_STAGED.fetch_add(1, Ordering::Relaxed);
        let staged = self.group_dir.join(format!("{STAGED_PREFIX}{number:06}"));
        fs::rename(&files_dir, &staged).map_err(ReceiveError::io(&staged))?;
        let files = manifest.files.into_iter().map(|file| (file.name, file.size)).collect();
        let snapshot = Arc::new(SnapshotDir::new(staged, manifest.snapshot_id, meta, files));
        let dir = self.dir();
        remove_dir(&dir).map_err(ReceiveError::io(&dir))?;
        Ok(snapshot)
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

fn superseded() -> ReceiveError {
    ReceiveError::Invalid("another snapshot, or another attempt to send this one, has taken its place".to_string())
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

    fn vote(term: u64) -> Vote {
        Vote::new_committed(term, 1)
    }

    /// Brings a snapshot of one file, as a leader does.
    fn receive(receiver: &mut SnapshotReceiver, vote: Vote, content: &[u8]) -> Arc<SnapshotDir> {
        let manifest = manifest(&[("a", content)]);
        assert_eq!(receiver.offer(vote, &manifest).unwrap(), [0]);
        let stream = receiver.begin(vote, &manifest).unwrap();
        receiver.write(stream, &chunk(0, 0, content)).unwrap();
        receiver.finish(stream).unwrap()
    }

    #[test]
    fn what_was_not_offered_is_not_received() {
        let dir = tempfile::tempdir().unwrap();
        let group_dir = dir.path().join("group-0");
        make_dir(&group_dir).unwrap();
        let outside = dir.path().join("x");
        let mut receiver = SnapshotReceiver::open(&group_dir).unwrap();
        for name in ["../x", "../../x", outside.to_str().unwrap()] {
            let bad = manifest(&[(name, b"hello")]);
            assert!(matches!(receiver.begin(vote(1), &bad), Err(ReceiveError::Invalid(_))));
            let good = manifest(&[("a", b"hello")]);
            receiver.offer(vote(1), &good).unwrap();
            let other_vote = receiver.begin(vote(2), &good);
            assert!(matches!(other_vote, Err(ReceiveError::Invalid(_))));
            let other_content = receiver.begin(vote(1), &bad);
            assert!(matches!(other_content, Err(ReceiveError::Invalid(_))), "{name}");
        }
        assert!(!outside.exists());
    }

    #[test]
    fn a_complete_snapshot_is_out_of_reach_of_later_offers() {
        let dir = tempfile::tempdir().unwrap();
        let mut receiver = SnapshotReceiver::open(dir.path()).unwrap();
        let queued = receive(&mut receiver, vote(1), b"one");
        // The same leader tries again, since it has not heard that the first attempt was complete.
        let again = receive(&mut receiver, vote(1), b"one");
        // Another leader has another snapshot, and breaks off.
        let other = manifest(&[("a", b"two")]);
        receiver.offer(vote(2), &other).unwrap();
        let stream = receiver.begin(vote(2), &other).unwrap();
        receiver.write(stream, &chunk(0, 0, b"tw")).unwrap();
        drop(again);
        assert_eq!(fs::read(queued.path().join("a")).unwrap(), b"one");
        assert_eq!(receiver.offer(vote(2), &other).unwrap(), [2], "what was begun is resumed");
    }

    #[test]
    fn only_the_newest_leader_and_its_last_stream_are_listened_to() {
        let dir = tempfile::tempdir().unwrap();
        let mut receiver = SnapshotReceiver::open(dir.path()).unwrap();
        let manifest = manifest(&[("a", b"hello")]);
        receiver.offer(vote(2), &manifest).unwrap();
        let first = receiver.begin(vote(2), &manifest).unwrap();
        assert!(matches!(receiver.offer(vote(1), &manifest), Err(ReceiveError::Invalid(_))));
        receiver.write(first, &chunk(0, 0, b"he")).unwrap();
        receiver.offer(vote(2), &manifest).unwrap();
        let second = receiver.begin(vote(2), &manifest).unwrap();
        assert!(matches!(receiver.write(first, &chunk(0, 2, b"llo")), Err(ReceiveError::Invalid(_))));
        receiver.write(second, &chunk(0, 2, b"llo")).unwrap();
        assert!(matches!(receiver.finish(first), Err(ReceiveError::Invalid(_))));
        receiver.finish(second).unwrap();
        assert!(matches!(receiver.finish(second), Err(ReceiveError::Invalid(_))), "it is complete already");
    }

    #[test]
    fn a_start_removes_what_was_complete_and_not_installed() {
        let dir = tempfile::tempdir().unwrap();
        let left = dir.path().join("staged-000001");
        make_dir(&left).unwrap();
        SnapshotReceiver::open(dir.path()).unwrap();
        assert!(!left.exists());
    }

    #[test]
    fn a_snapshot_arrives_in_pieces_and_resumes() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = manifest(&[("a", b"hello world"), ("b", b""), ("c", b"xyz")]);
        let mut receiver = SnapshotReceiver::open(dir.path()).unwrap();
        assert_eq!(receiver.offer(vote(1), &manifest).unwrap(), [0, 0, 0]);
        let stream = receiver.begin(vote(1), &manifest).unwrap();
        receiver.write(stream, &chunk(0, 0, b"hello")).unwrap();
        drop(receiver);

        let mut receiver = SnapshotReceiver::open(dir.path()).unwrap();
        assert_eq!(receiver.offer(vote(1), &manifest).unwrap(), [5, 0, 0]);
        let stream = receiver.begin(vote(1), &manifest).unwrap();
        receiver.write(stream, &chunk(0, 5, b" world")).unwrap();
        receiver.write(stream, &chunk(2, 0, b"xyz")).unwrap();
        let done = receiver.finish(stream).unwrap();
        assert_eq!(fs::read(done.path().join("a")).unwrap(), b"hello world");
        assert_eq!(fs::read(done.path().join("b")).unwrap(), b"");
    }

    #[test]
    fn a_begun_file_of_other_content_is_not_resumed() {
        let dir = tempfile::tempdir().unwrap();
        let mut receiver = SnapshotReceiver::open(dir.path()).unwrap();
        let first = manifest(&[("a", b"old content"), ("same", b"12345")]);
        receiver.offer(vote(1), &first).unwrap();
        let stream = receiver.begin(vote(1), &first).unwrap();
        receiver.write(stream, &chunk(0, 0, b"old")).unwrap();
        receiver.write(stream, &chunk(1, 0, b"12345")).unwrap();
        let second = manifest(&[("a", b"new content"), ("same", b"12345")]);
        assert_eq!(receiver.offer(vote(1), &second).unwrap(), [0, 5]);
    }

    #[test]
    fn damage_is_noticed_and_not_resumed() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = manifest(&[("a", b"hello")]);
        let mut receiver = SnapshotReceiver::open(dir.path()).unwrap();
        receiver.offer(vote(1), &manifest).unwrap();
        let stream = receiver.begin(vote(1), &manifest).unwrap();
        let mut bad = chunk(0, 0, b"hello");
        bad.crc32 ^= 1;
        assert!(matches!(receiver.write(stream, &bad), Err(ReceiveError::Invalid(_))));
        receiver.write(stream, &chunk(0, 0, b"jello")).unwrap();
        assert!(matches!(receiver.finish(stream), Err(ReceiveError::Invalid(_))));
        assert_eq!(receiver.offer(vote(1), &manifest).unwrap(), [0]);
    }

    #[test]
    fn pieces_out_of_place_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = manifest(&[("a", b"hello")]);
        let mut receiver = SnapshotReceiver::open(dir.path()).unwrap();
        receiver.offer(vote(1), &manifest).unwrap();
        let stream = receiver.begin(vote(1), &manifest).unwrap();
        for bad in [chunk(1, 0, b"x"), chunk(0, 1, b"x"), chunk(0, 0, b"too long"), chunk(0, u64::MAX, b"x")] {
            assert!(matches!(receiver.write(stream, &bad), Err(ReceiveError::Invalid(_))));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn any_manifest_is_accepted_or_refused_within_the_staging_directory(bytes in proptest::collection::vec(any::<u8>(), 0..96), name in ".{0,12}") {
            let dir = tempfile::tempdir().unwrap();
            let mut receiver = SnapshotReceiver::open(dir.path()).unwrap();
            if let Ok(manifest) = SnapshotManifest::decode(&bytes[..]) {
                let _ = receiver.offer(vote(1), &manifest);
            }
            let mut manifest = manifest(&[("a", b"hello")]);
            manifest.files[0].name.clone_from(&name);
            if receiver.offer(vote(1), &manifest).is_ok() {
                let stream = receiver.begin(vote(1), &manifest).unwrap();
                receiver.write(stream, &chunk(0, 0, b"hello")).unwrap();
            }
            let outside: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            prop_assert!(outside.iter().all(|name| name == "incoming"));
        }
    }
}
