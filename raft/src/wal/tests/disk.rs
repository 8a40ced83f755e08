//! A file system in memory that behaves as badly as POSIX allows.
//!
//! Every write lies in a "page cache" until its file is synced, every new, renamed or removed name until its directory
//! is. A power cut keeps any part of what was not synced: whole writes, some of their 512-byte sectors, in any
//! combination; of unsynced names a prefix, as journaling file systems do. The cut may come before any operation; the
//! operations after it fail, as for a process whose disk is gone.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{FileSystem, LogFile};

const SECTOR_BYTES: usize = 512;

/// What a power cut keeps of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    Nothing,
    Everything,
    /// Sectors and names chosen by a seed.
    Some(u64),
}

#[derive(Debug, Default)]
struct Inode {
    durable: Vec<u8>,
    cached: Vec<u8>,
    /// Writes since the last sync: offset and length.
    unsynced: Vec<(usize, usize)>,
    /// A size set since the last sync.
    resized: bool,
    /// Writes whose sync failed: their pages count as clean, so that no later sync writes them.
    dropped: Vec<(usize, usize)>,
}

#[derive(Debug, Clone)]
enum NameChange {
    Link(PathBuf, u64),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf),
}

fn change_name(names: &mut BTreeMap<PathBuf, u64>, change: &NameChange) {
    match change {
        NameChange::Link(path, inode) => {
            names.insert(path.clone(), *inode);
        }
        NameChange::Unlink(path) => {
            names.remove(path);
        }
        NameChange::Rename(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
    }
}

#[derive(Debug, Default)]
struct State {
    inodes: HashMap<u64, Inode>,
    durable_names: BTreeMap<PathBuf, u64>,
    names: BTreeMap<PathBuf, u64>,
    unsynced_names: Vec<NameChange>,
    next_inode: u64,
    operations: u64,
    /// The operation before which the power is cut.
    power_cut_at: Option<u64>,
    /// Bytes that may still be reserved.
    space: Option<u64>,
    /// Whether creating a file reserves its space, so that writes cannot run out of it.
    reserves: bool,
    fail_sync: bool,
    syncs: u64,
}

/// The disk. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct BadDisk {
    state: Arc<Mutex<State>>,
    /// While a test holds it, syncs of files do not return.
    pub(crate) gate: Arc<Mutex<()>>,
}

impl BadDisk {
    pub(crate) fn new() -> Self {
        let disk = Self::default();
        disk.state.lock().reserves = true;
        disk
    }

    /// Operations so far that a power cut could have come before.
    pub(crate) fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    pub(crate) fn cut_power_at(&self, operation: u64) {
        self.state.lock().power_cut_at = Some(operation);
    }

    pub(crate) fn is_cut(&self) -> bool {
        let state = self.state.lock();
        state.power_cut_at.is_some_and(|at| state.operations > at)
    }

    /// From now on syncs of files fail, or succeed again.
    pub(crate) fn fail_syncs(&self, fail: bool) {
        self.state.lock().fail_sync = fail;
    }

    /// Bounds the bytes that files may still take; `None`: no bound.
    pub(crate) fn set_space(&self, bytes: Option<u64>) {
        self.state.lock().space = bytes;
    }

    /// Files are created without space of their own, so that a write may meet a full disk.
    pub(crate) fn without_reservation(self) -> Self {
        self.state.lock().reserves = false;
        self
    }

    pub(crate) fn syncs(&self) -> u64 {
        self.state.lock().syncs
    }

    /// The disk as the next process finds it after a power cut.
    pub(crate) fn after_power_cut(&self, keep: Keep) -> Self {
        let state = self.state.lock();
        let mut dice = Dice(match keep {
            Keep::Some(seed) => seed,
            _ => 0,
        });
        let kept_names = match keep {
            Keep::Nothing => 0,
            Keep::Everything => state.unsynced_names.len(),
            Keep::Some(_) => dice.below(state.unsynced_names.len() + 1),
        };
        let mut names = state.durable_names.clone();
        state.unsynced_names[..kept_names].iter().for_each(|change| change_name(&mut names, change));
        let mut inodes = HashMap::new();
        for inode in names.values() {
            let bytes = after_power_cut(&state.inodes[inode], keep, &mut dice);
            inodes.insert(*inode, Inode { cached: bytes.clone(), durable: bytes, ..Inode::default() });
        }
        let next_inode = state.next_inode;
        let state =
            State { inodes, durable_names: names.clone(), names, next_inode, reserves: true, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)), gate: Arc::default() }
    }

    /// The file's bytes, to look at and to damage.
    pub(crate) fn with_file<T>(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let mut state = self.state.lock();
        let inode = state.names[path];
        let inode = state.inodes.get_mut(&inode).unwrap();
        let result = change(&mut inode.cached);
        inode.durable = inode.cached.clone();
        result
    }

    /// A copy that shares nothing.
    pub(crate) fn copy(&self) -> Self {
        self.after_power_cut(Keep::Everything)
    }

    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.state.lock().names.keys().cloned().collect()
    }

    pub(crate) fn remove_file(&self, path: &Path) {
        let mut state = self.state.lock();
        state.names.remove(path);
        state.durable_names.remove(path);
    }

    fn operate<T>(&self, operation: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state.lock();
        let number = state.operations;
        state.operations += 1;
        if state.power_cut_at.is_some_and(|at| number >= at) {
            return Err(io::Error::other("the power is cut"));
        }
        operation(&mut state)
    }
}

fn after_power_cut(inode: &Inode, keep: Keep, dice: &mut Dice) -> Vec<u8> {
    match keep {
        Keep::Everything => inode.cached.clone(),
        Keep::Nothing => inode.durable.clone(),
        Keep::Some(_) => {
            let mut bytes = inode.durable.clone();
            if inode.resized && dice.coin() {
                bytes.resize(inode.cached.len(), 0);
            }
            for (offset, length) in &inode.unsynced {
                let keep_all = dice.coin();
                for begin in (*offset..offset + length).step_by(SECTOR_BYTES) {
                    let end = (begin + SECTOR_BYTES).min(offset + length);
                    if end <= bytes.len() && end <= inode.cached.len() && (keep_all || dice.coin()) {
                        bytes[begin..end].copy_from_slice(&inode.cached[begin..end]);
                    }
                }
            }
            bytes
        }
    }
}

/// Small and repeatable: splitmix64.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

impl FileSystem for BadDisk {
    fn create_directory(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let state = self.state.lock();
        let names = state.names.keys().filter(|path| path.parent() == Some(directory));
        Ok(names.map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect())
    }

    fn create(&self, path: &Path, bytes: u64) -> io::Result<Arc<dyn LogFile>> {
        let inode = self.operate(|state| {
            if state.names.contains_key(path) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            if state.reserves {
                take_space(state, bytes)?;
            }
            let number = state.next_inode;
            state.next_inode += 1;
            let inode = Inode { cached: vec![0; bytes as usize], resized: true, ..Inode::default() };
            state.inodes.insert(number, inode);
            let change = NameChange::Link(path.to_owned(), number);
            change_name(&mut state.names, &change);
            state.unsynced_names.push(change);
            Ok(number)
        })?;
        Ok(Arc::new(BadFile { disk: self.clone(), inode }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        let inode = *self.state.lock().names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(BadFile { disk: self.clone(), inode }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.operate(|state| {
            let change = NameChange::Rename(from.to_owned(), to.to_owned());
            change_name(&mut state.names, &change);
            state.unsynced_names.push(change);
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.operate(|state| {
            let inode = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
            let freed = state.inodes[&inode].cached.len() as u64;
            state.space = state.space.map(|space| space + freed);
            let change = NameChange::Unlink(path.to_owned());
            change_name(&mut state.names, &change);
            state.unsynced_names.push(change);
            Ok(())
        })
    }

    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        self.operate(|state| {
            state.durable_names = state.names.clone();
            state.unsynced_names.clear();
            Ok(())
        })
    }
}

fn take_space(state: &mut State, bytes: u64) -> io::Result<()> {
    match state.space {
        Some(space) if space < bytes => Err(io::ErrorKind::StorageFull.into()),
        space => {
            state.space = space.map(|space| space - bytes);
            Ok(())
        }
    }
}

#[derive(Debug)]
struct BadFile {
    disk: BadDisk,
    inode: u64,
}

impl BadFile {
    fn operate<T>(&self, operation: impl FnOnce(&mut State, &mut Inode) -> io::Result<T>) -> io::Result<T> {
        self.disk.operate(|state| {
            let mut inode = state.inodes.remove(&self.inode).unwrap();
            let result = operation(state, &mut inode);
            state.inodes.insert(self.inode, inode);
            result
        })
    }
}

impl LogFile for BadFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.state.lock().inodes[&self.inode].cached.len() as u64)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.disk.state.lock();
        let bytes = &state.inodes[&self.inode].cached;
        let bytes = bytes.get(offset as usize..offset as usize + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.operate(|state, inode| {
            let offset = offset as usize;
            let mut fits = bytes.len();
            if !state.reserves && take_space(state, bytes.len() as u64).is_err() {
                // Half of it arrives, as a real file system may have it.
                fits = bytes.len() / 2;
            }
            let end = offset + fits;
            if inode.cached.len() < end {
                inode.cached.resize(end, 0);
                inode.resized = true;
            }
            inode.cached[offset..end].copy_from_slice(&bytes[..fits]);
            inode.unsynced.push((offset, fits));
            if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        })
    }

    fn set_size(&self, bytes: u64) -> io::Result<()> {
        self.operate(|_, inode| {
            inode.cached.resize(bytes as usize, 0);
            inode.resized = true;
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        let _open = self.disk.gate.lock();
        self.operate(|state, inode| {
            state.syncs += 1;
            if state.fail_sync {
                inode.dropped.append(&mut inode.unsynced);
                return Err(io::Error::other("EIO"));
            }
            let before = std::mem::replace(&mut inode.durable, inode.cached.clone());
            for (offset, length) in &inode.dropped {
                for at in *offset..(offset + length).min(inode.durable.len()) {
                    inode.durable[at] = before.get(at).copied().unwrap_or(0);
                }
            }
            inode.unsynced.clear();
            inode.resized = false;
            Ok(())
        })
    }
}
