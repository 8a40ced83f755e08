//! Writing a checkpoint, while searches and writes go on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::Ordering;

use cairn_index::Partition;
use cairn_index::checkpoint::{Capture, ChunkState};
use zeroize::Zeroizing;

use super::file::{io_error, sync_dir};
use super::keeper::Shared;
use super::manifest::Manifest;
use super::{Counters, Kept, KeptChunk, Place, remove_dir};
use crate::error::Result;
use crate::partitions::{Slot, State};

/// A step of writing a checkpoint; tests stop after each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The directory is there.
    Directory,
    /// Another chunk is in its file.
    Chunk,
    /// All names of chunks are durable.
    Chunks,
    /// The manifest has its bytes under another name.
    Manifest,
    /// It has its name.
    Named,
    /// Durably.
    Durable,
    /// Files that it does not name are gone.
    Cleaned,
}

/// Why a checkpoint was not finished.
#[derive(Debug)]
pub(super) enum Unfinished {
    /// The partition is gone, was made anew, is too small now, or the engine closes.
    Moot,
    /// Something failed.
    Failed(crate::error::Error),
}

impl From<crate::error::Error> for Unfinished {
    fn from(error: crate::error::Error) -> Self {
        Self::Failed(error)
    }
}

impl Shared {
    /// Writes what has changed since the last checkpoint of a partition. `after` is called after each step.
    pub(super) fn save(
        &self,
        slot: &Slot,
        after: &mut dyn FnMut(Step) -> Result<()>,
    ) -> std::result::Result<(), Unfinished> {
        let mut kept = slot.keeping.kept.lock();
        if slot.keeping.is_dropped.load(Ordering::SeqCst) {
            return Err(Unfinished::Moot);
        }
        // In this order: what is applied up to here is in the partition.
        let index = self.published.load(Ordering::SeqCst).max(slot.keeping.index.load(Ordering::SeqCst));
        let instance = slot.keeping.instance.load(Ordering::SeqCst);
        let (Capture { head, chunks }, changes) = slot
            .with_partition(instance, |partition| {
                let is_large = partition.len() as u64 >= self.from;
                partition.capture().filter(|_| is_large).map(|capture| (capture, partition.changes()))
            })
            .flatten()
            .ok_or(Unfinished::Moot)?;
        let place = Place::new(&self.dir, &self.sealer, slot.space);
        fs::create_dir_all(&place.dir).map_err(|e| io_error("make", &place.dir, e))?;
        after(Step::Directory)?;
        let known = if kept.instance == instance { std::mem::take(&mut kept.chunks) } else { BTreeMap::new() };
        // Until the new manifest is in place nothing is sure.
        *kept = Kept::default();
        let mut next_file = next_file(&place)?;
        let mut files = BTreeMap::new();
        let mut bytes_written = 0;
        for chunk in chunks {
            let same = |known: &&KeptChunk| known.stamp == chunk.stamp && known.end == chunk.slots.end;
            let file = match known.get(&chunk.id).filter(same) {
                Some(known) => known.file,
                None => {
                    let plain = self.read_chunk(slot, instance, &chunk)?;
                    bytes_written += place.write_file(&place.chunk(next_file), next_file, &plain)?;
                    after(Step::Chunk)?;
                    next_file += 1;
                    next_file - 1
                }
            };
            files.insert(chunk.id, KeptChunk { stamp: chunk.stamp, end: chunk.slots.end, file });
        }
        sync_dir(&place.dir)?;
        after(Step::Chunks)?;
        let manifest = Manifest { index, next_file: next_file + 1, chunks: files, head };
        bytes_written += self.put_manifest(&place, slot, &manifest, next_file, after)?;
        clean(&place, &manifest);
        after(Step::Cleaned)?;
        *kept = Kept { instance, chunks: manifest.chunks };
        slot.keeping.changes.store(changes, Ordering::SeqCst);
        slot.keeping.saved_index.store(index, Ordering::SeqCst);
        Counters::add(&self.counters.saved, 1);
        Counters::add(&self.counters.saved_bytes, bytes_written);
        Ok(())
    }

    /// A chunk's bytes, some slots under each lock.
    fn read_chunk(
        &self,
        slot: &Slot,
        instance: u64,
        chunk: &ChunkState,
    ) -> std::result::Result<Zeroizing<Vec<u8>>, Unfinished> {
        let mut plain = Zeroizing::new(Vec::new());
        let mut next = chunk.slots.start;
        while next < chunk.slots.end {
            if self.is_over() {
                return Err(Unfinished::Moot);
            }
            let write = |partition: &Partition| partition.write_block(chunk.id.kind, next..chunk.slots.end, &mut plain);
            next = slot.with_partition(instance, write).ok_or(Unfinished::Moot)?;
        }
        Ok(plain)
    }

    fn put_manifest(
        &self,
        place: &Place<'_>,
        slot: &Slot,
        manifest: &Manifest,
        file: u64,
        after: &mut dyn FnMut(Step) -> Result<()>,
    ) -> std::result::Result<u64, Unfinished> {
        let (path, new) = (place.manifest(), place.dir.join("MANIFEST.new"));
        let _ = fs::remove_file(&new);
        let bytes = place.write_file(&new, file, &manifest.encode())?;
        after(Step::Manifest)?;
        // A partition that was made anew meanwhile has other slots, but what was captured is still right; a deleted space's is not.
        if slot.keeping.is_dropped.load(Ordering::SeqCst) {
            remove_dir(&place.dir);
            return Err(Unfinished::Moot);
        }
        fs::rename(&new, &path).map_err(|e| io_error("rename", &new, e))?;
        after(Step::Named)?;
        sync_dir(&place.dir)?;
        after(Step::Durable)?;
        Ok(bytes)
    }
}

/// A number above those of all files that are there.
fn next_file(place: &Place<'_>) -> Result<u64> {
    let manifest = place.read_file(&place.manifest(), None).ok().flatten();
    let promised = manifest.and_then(|bytes| Manifest::decode(&bytes)).map_or(1, |manifest| manifest.next_file);
    let names = fs::read_dir(&place.dir).map_err(|e| io_error("read", &place.dir, e))?;
    let numbers = names.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u64>().ok());
    Ok(numbers.max().map_or(promised, |number| promised.max(number.saturating_add(1))))
}

/// Removes the files that a manifest does not name. What cannot be removed now is so at the next time.
pub(super) fn clean(place: &Place<'_>, manifest: &Manifest) {
    let wanted: BTreeSet<u64> = manifest.chunks.values().map(|chunk| chunk.file).collect();
    let Ok(entries) = fs::read_dir(&place.dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.parse::<u64>().ok());
        let is_wanted = name == "MANIFEST" || number.is_some_and(|number| wanted.contains(&number));
        if !is_wanted && let Err(error) = fs::remove_file(entry.path()) {
            tracing::warn!(path = %entry.path().display(), %error, "a file of an old index checkpoint could not be removed");
        }
    }
}

impl Slot {
    /// Reads the partition in a turn of its own, if it is still the same one.
    fn with_partition<T>(&self, instance: u64, read: impl FnOnce(&Partition) -> T) -> Option<T> {
        let turn = self.state.turn();
        let state = turn.read();
        let is_same = self.keeping.instance.load(Ordering::SeqCst) == instance;
        match &*state {
            State::Ready(partition) if is_same => Some(read(partition)),
            _ => None,
        }
    }
}
