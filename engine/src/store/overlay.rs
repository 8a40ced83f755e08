//! The changes of commands that are not written yet, over what is.
//!
//! ```text
//!   command in progress ──finish──▶ finished commands of the batch ──into_batch──▶ one RocksDB write
//!          └──────undo─────▶ nothing
//! ```
//!
//! Reads see all three layers: the command's own changes, then those of the batch, then the store. Rows are plaintext
//! here and are sealed once, when the batch is made. The overlay also keeps the books: the digest over all logical rows,
//! and how many memories and vectors each space holds.

use std::collections::BTreeMap;

use cairn_proto::storage::SpaceCountersRecord;
use prost::Message;
use rocksdb::WriteBatch;
use sha2::{Digest, Sha256};

use crate::crypto::Compression;
use crate::error::{Error, Result};
use crate::position::GroupId;
use crate::store::Rows;
use crate::store::keys::{Key, KeyBytes, Kind, SpaceRef, prefix_of_space};
use crate::store::rocks::Store;
use crate::store::sealing::Sealer;

/// A row that was changed.
struct Change {
    key: Key,
    /// Its new plaintext, or `None` where it was deleted.
    plain: Option<Vec<u8>>,
    /// Bytes of the plaintext that do not shrink.
    packed_bytes: usize,
}

/// Looks at a row, whose plaintext is opened only on demand, and says whether to go on.
pub(crate) type Visit<'v> = dyn FnMut(&Key, &dyn Fn() -> Result<Vec<u8>>) -> Result<bool> + 'v;

/// See the module.
pub(crate) struct Overlay<'a> {
    store: &'a Store,
    finished: BTreeMap<KeyBytes, Change>,
    dropped_spaces: Vec<SpaceRef>,
    digest: u128,
    current: Current,
}

/// What the command in progress has changed.
#[derive(Default)]
struct Current {
    rows: BTreeMap<KeyBytes, Change>,
    dropped_spaces: Vec<SpaceRef>,
    digest: u128,
    books: BTreeMap<SpaceRef, Books>,
}

/// By how much a space's numbers change.
#[derive(Default)]
struct Books {
    memories: i64,
    vectors: i64,
    digest: u128,
}

/// The part of the digest that a row contributes: the first 16 bytes of the SHA-256 of key and plaintext, as a number.
pub(crate) fn row_digest(group: GroupId, key: &Key, plain: &[u8]) -> u128 {
    let key = key.encode(group);
    let mut hash = Sha256::new();
    hash.update([key.as_ref().len() as u8]);
    hash.update(key.as_ref());
    hash.update(plain);
    let hash: [u8; 32] = hash.finalize().into();
    let (first, _) = hash.split_first_chunk::<16>().unwrap_or((&[0; 16], &[]));
    u128::from_le_bytes(*first)
}

/// Reads a digest from a record; none is zero.
pub(crate) fn digest_from_bytes(bytes: &[u8]) -> Result<u128> {
    match bytes {
        [] => Ok(0),
        _ => bytes
            .try_into()
            .map(u128::from_le_bytes)
            .map_err(|_| Error::corruption(format!("a digest of {} bytes", bytes.len()))),
    }
}

impl<'a> Overlay<'a> {
    /// No changes yet; `digest` is that of the store.
    pub(crate) fn new(store: &'a Store, digest: u128) -> Self {
        let current = Current { digest, ..Current::default() };
        Self { store, finished: BTreeMap::new(), dropped_spaces: Vec::new(), digest, current }
    }

    pub(crate) fn sealer(&self) -> &'a Sealer {
        self.store.sealer()
    }

    fn group(&self) -> GroupId {
        self.store.sealer().group()
    }

    /// Sets a row. `old` is its plaintext so far, which callers have at hand.
    pub(crate) fn put(&mut self, key: Key, old: Option<&[u8]>, new: Vec<u8>) {
        self.put_packed(key, old, new, 0);
    }

    /// As [`put`](Self::put), of a row of which so many bytes do not shrink.
    pub(crate) fn put_packed(&mut self, key: Key, old: Option<&[u8]>, new: Vec<u8>, packed_bytes: usize) {
        self.account(&key, old, Some(&new));
        self.change(Change { key, plain: Some(new), packed_bytes });
    }

    fn change(&mut self, change: Change) {
        self.current.rows.insert(change.key.encode(self.group()), change);
    }

    /// Sets a row to a message; see [`put`](Self::put).
    pub(crate) fn put_message(&mut self, key: Key, old: Option<&[u8]>, new: &impl Message) {
        self.put(key, old, new.encode_to_vec());
    }

    /// Deletes a row; see [`put`](Self::put).
    pub(crate) fn delete(&mut self, key: Key, old: Option<&[u8]>) {
        self.account(&key, old, None);
        self.change(Change { key, plain: None, packed_bytes: 0 });
    }

    /// What a row adds to the digest.
    pub(crate) fn part_of_digest(&self, key: &Key, plain: &[u8]) -> u128 {
        row_digest(self.group(), key, plain)
    }

    /// Deletes rows of a space of which nothing is known but what they add to the digest together.
    pub(crate) fn delete_unread(&mut self, space: SpaceRef, keys: impl Iterator<Item = Key>, digest: u128) {
        for key in keys {
            self.change(Change { key, plain: None, packed_bytes: 0 });
        }
        self.current.digest = self.current.digest.wrapping_sub(digest);
        let books = self.current.books.entry(space).or_default();
        books.digest = books.digest.wrapping_sub(digest);
    }

    fn account(&mut self, key: &Key, old: Option<&[u8]>, new: Option<&[u8]>) {
        if !key.kind().in_digest() {
            return;
        }
        let part = |plain: Option<&[u8]>| plain.map_or(0, |plain| self.part_of_digest(key, plain));
        let change = part(new).wrapping_sub(part(old));
        self.current.digest = self.current.digest.wrapping_add(change);
        if let Key::Memory { space, .. } | Key::History { space, .. } = key {
            let books = self.current.books.entry(*space).or_default();
            books.digest = books.digest.wrapping_add(change);
        }
    }

    /// Notes that a space has so many memories and vectors more.
    pub(crate) fn count(&mut self, space: SpaceRef, memories: i64, vectors: i64) {
        let books = self.current.books.entry(space).or_default();
        books.memories += memories;
        books.vectors += vectors;
    }

    /// Deletes all rows of a space at once, but not the space's own row and names. Returns its numbers.
    pub(crate) fn drop_space(&mut self, space: SpaceRef) -> Result<SpaceCountersRecord> {
        let counters: SpaceCountersRecord = self.get_message(&Key::SpaceCounters(space))?.unwrap_or_default();
        self.current.digest = self.current.digest.wrapping_sub(digest_from_bytes(&counters.digest)?);
        self.current.dropped_spaces.push(space);
        Ok(counters)
    }

    /// Keeps the changes of the command in progress.
    pub(crate) fn finish(&mut self) -> Result<()> {
        for (space, books) in std::mem::take(&mut self.current.books) {
            let key = Key::SpaceCounters(space);
            let mut counters: SpaceCountersRecord = self.get_message(&key)?.unwrap_or_default();
            let overflow = || Error::internal("the books of a space do not balance");
            counters.memories = counters.memories.checked_add_signed(books.memories).ok_or_else(overflow)?;
            counters.vectors = counters.vectors.checked_add_signed(books.vectors).ok_or_else(overflow)?;
            let digest = digest_from_bytes(&counters.digest)?.wrapping_add(books.digest);
            counters.digest = digest.to_le_bytes().to_vec().into();
            self.put_message(key, None, &counters);
        }
        self.finished.extend(std::mem::take(&mut self.current.rows));
        self.dropped_spaces.append(&mut self.current.dropped_spaces);
        self.digest = self.current.digest;
        Ok(())
    }

    /// Forgets the changes of the command in progress.
    pub(crate) fn undo(&mut self) {
        self.current = Current { digest: self.digest, ..Current::default() };
    }

    /// The digest over all logical rows, finished commands included.
    pub(crate) fn digest(&self) -> u128 {
        self.digest
    }

    /// The keys of `[start, end)` in order, changes included; at most `limit`.
    pub(crate) fn keys(&self, start: &KeyBytes, end: &KeyBytes, limit: usize) -> Result<Vec<Key>> {
        let mut keys = Vec::new();
        self.scan(start, end, &mut |key, _| {
            if keys.len() < limit {
                keys.push(*key);
            }
            Ok(keys.len() < limit)
        })?;
        Ok(keys)
    }

    /// Visits the rows of `[start, end)` in order of their keys, changes included, with their plaintext; `visit` says
    /// whether to go on.
    pub(crate) fn scan(&self, start: &KeyBytes, end: &KeyBytes, visit: &mut Visit<'_>) -> Result<()> {
        let mut changed: BTreeMap<&KeyBytes, &Change> = self.finished.range(*start..*end).collect();
        changed.extend(self.current.rows.range(*start..*end));
        let mut changed = changed.into_iter().peekable();
        let mut stored = self.store.cursor(start, end);
        loop {
            let next_stored = stored.item()?;
            let next_changed = changed.next_if(|(bytes, _)| next_stored.is_none_or(|(key, _)| bytes.as_ref() <= key));
            let go_on = match (next_changed, next_stored) {
                (Some((bytes, change)), stored_row) => {
                    let replaces = stored_row.is_some_and(|(stored_key, _)| stored_key == bytes.as_ref());
                    let go_on = match &change.plain {
                        Some(plain) => visit(&change.key, &|| Ok(plain.clone()))?,
                        None => true,
                    };
                    if replaces {
                        stored.advance();
                    }
                    go_on
                }
                (None, Some((stored_key, value))) => {
                    let (_, key) = Key::decode(stored_key)?;
                    let go_on = visit(&key, &|| self.sealer().open_row(&key, value))?;
                    stored.advance();
                    go_on
                }
                (None, None) => false,
            };
            if !go_on {
                return Ok(());
            }
        }
    }

    /// Everything as one write; the finished commands' changes only.
    pub(crate) fn into_batch(self) -> Result<WriteBatch> {
        let mut batch = WriteBatch::default();
        let group = self.group();
        let mut nonces = self.sealer().nonces()?;
        for (bytes, Change { key, plain, packed_bytes }) in &self.finished {
            let Some(plain) = plain else {
                batch.delete(bytes);
                continue;
            };
            let compression = Compression::worth_trying(plain.len(), *packed_bytes);
            batch.put(bytes, self.sealer().seal_row_of_batch(key, plain, compression, &mut nonces)?);
        }
        // Nothing is put into a space after its end, so that the order within the batch is right.
        for space in &self.dropped_spaces {
            for kind in Kind::OF_A_SPACE {
                let prefix = prefix_of_space(group, kind, *space);
                batch.delete_range(prefix, prefix.prefix_end());
            }
        }
        Ok(batch)
    }
}

impl Rows for Overlay<'_> {
    fn get(&self, key: &Key) -> Result<Option<Vec<u8>>> {
        let bytes = key.encode(self.group());
        match self.current.rows.get(&bytes).or_else(|| self.finished.get(&bytes)) {
            Some(change) => Ok(change.plain.clone()),
            None => self.store.get(key),
        }
    }
}
