//! Checkpoints of indexes: what a partition holds in memory, kept in sealed files, so that a start need not make it anew.
//!
//! ```text
//! index/TENANT-SPACE-EMBEDDING/MANIFEST               which files make up the checkpoint; replaced atomically
//! index/TENANT-SPACE-EMBEDDING/00000000000000000017   a chunk; its name is its file number, which is never used again
//!
//!   partition ──blocks under short read locks──▶ changed chunks ──sealed──▶ files, synced ──▶ MANIFEST, renamed into place
//!   MANIFEST ──▶ chunks ──opened on two threads──▶ partition ◀── memories that the feed names behind its index, out of the records
//! ```
//!
//! A checkpoint is a copy of what the records say, of one node alone, and never the only one. So whatever is wrong with it (damage, a
//! missing file, another format, keys that are gone, a feed that was cut behind it) leads to the same: it is left aside, and the
//! index is made from the records. A chunk that has not changed keeps its file; files that the manifest does not name are removed.
//! Snapshots of the store do not take checkpoints along.
//!
//! Every file has the same frame; all numbers are little-endian:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | format: 1 |
//! | 1 | 7 | `CairnIx` |
//! | 8 | 8 | tenant |
//! | 16 | 8 | space |
//! | 24 | 2 | embedding |
//! | 26 | 2 | Raft group |
//! | 28 | 8 | file number |
//! | 36 | 2 | `n`: bytes of the wrapped key |
//! | 38 | n | the file's own data key, wrapped by the tenant's data key; AAD: `cairn.index` and bytes 0..36 |
//! | 38 + n | | frames: length (4) and a frame sealed with AES-256-GCM under the file's key, numbered from 0; kind 1: more follow, kind 2: the last one, with nothing behind it |
//!
//! The plaintext of all frames together is a chunk or a head of `index/src/checkpoint`, or, in the manifest:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | format: 1 |
//! | 1 | 8 | log index: of what was applied behind it, nothing counts as known |
//! | 9 | 8 | the next file number |
//! | 17 | 4 | number of chunks, and for each: |
//! | | 1 + 4 + 4 + 8 | kind, number, the slot behind its last one, file number |
//! | | 4 + h | length of the head, head |
//!
//! | file | holds |
//! |---|---|
//! | `file.rs` | sealed files |
//! | `manifest.rs` | the manifest |
//! | `save.rs` | writing a checkpoint |
//! | `load.rs` | reading one, and what has happened since |
//! | `keeper.rs` | when, and the thread that does it |

mod file;
mod keeper;
mod load;
mod manifest;
mod save;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use cairn_index::checkpoint::ChunkId;

use crate::spaces::EMBEDDING_ID;
use crate::store::keys::SpaceRef;
use crate::store::sealing::Sealer;

pub(super) use keeper::{Keeper, Keeping};
pub(super) use load::Loaded;

/// The directory of all checkpoints, within the engine's.
pub(super) const INDEX_DIR: &str = "index";

/// What a partition's checkpoint consists of.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// The partition that it was made of or became; another one has other slots.
    instance: u64,
    chunks: BTreeMap<ChunkId, KeptChunk>,
}

/// A chunk in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct KeptChunk {
    /// Of the partition in memory, when the file was what it holds.
    stamp: u64,
    /// The slot behind the last one.
    end: u32,
    file: u64,
}

/// What has been done since the engine was opened.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) saved: AtomicU64,
    pub(super) saved_bytes: AtomicU64,
    pub(super) save_failures: AtomicU64,
    pub(super) loaded: AtomicU64,
    pub(super) unusable: AtomicU64,
    pub(super) made: AtomicU64,
    pub(super) made_memories: AtomicU64,
    pub(super) astray: AtomicU64,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

/// Where a space's checkpoint is, and what seals it.
struct Place<'a> {
    sealer: &'a Sealer,
    space: SpaceRef,
    dir: PathBuf,
}

impl<'a> Place<'a> {
    fn new(index_dir: &Path, sealer: &'a Sealer, space: SpaceRef) -> Self {
        let dir = index_dir.join(format!("{}-{}-{EMBEDDING_ID}", space.tenant, space.space));
        Self { sealer, space, dir }
    }

    fn manifest(&self) -> PathBuf {
        self.dir.join("MANIFEST")
    }

    fn chunk(&self, file: u64) -> PathBuf {
        self.dir.join(format!("{file:020}"))
    }
}

/// The space that a directory is named after.
fn space_of(name: &str) -> Option<SpaceRef> {
    let mut numbers = name.split('-').map(|part| part.parse().ok());
    let (tenant, space) = (numbers.next()??, numbers.next()??);
    Some(SpaceRef { tenant, space })
}

/// Removes a directory with all that is in it, if it is there.
fn remove_dir(dir: &Path) {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %dir.display(), %error, "an index checkpoint could not be removed");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
