//! The machine's disk under a node's log, with something to go wrong.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cairn_raft::Environment;
use cairn_raft::wal::{self, Disk, FileSystem, LogFile};

/// What the kernel says of a medium that it cannot write to.
const EIO: i32 = 5;

/// What goes wrong, once it is switched on. Shared by all who have a clone of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trouble {
    is_full: Arc<AtomicBool>,
    is_slow: Arc<AtomicBool>,
    is_broken: Arc<AtomicBool>,
    /// How long a slow disk takes to sync.
    sync_time: Duration,
}

impl Trouble {
    /// A disk that is well, and whose syncs take so long once it is slow.
    pub(crate) fn with_sync_time(sync_time: Duration) -> Self {
        Self { sync_time, ..Self::default() }
    }

    /// Has nothing more fit on the disk, or something again.
    pub(crate) fn fill(&self, is_full: bool) {
        self.is_full.store(is_full, Ordering::SeqCst);
    }

    /// Has syncs take long, or no longer.
    pub(crate) fn slow_down(&self, is_slow: bool) {
        self.is_slow.store(is_slow, Ordering::SeqCst);
    }

    /// From now on syncs fail as they do where the medium does.
    pub(crate) fn break_down(&self) {
        self.is_broken.store(true, Ordering::SeqCst);
    }

    /// The surroundings of a node whose log lies on this disk.
    pub(crate) fn environment(&self) -> Environment {
        let log = wal::Environment { file_system: Arc::new(self.clone()), ..wal::Environment::default() };
        Environment { log, ..Environment::default() }
    }

    fn before_growth(&self) -> io::Result<()> {
        if self.is_full.load(Ordering::SeqCst) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn before_sync(&self) -> io::Result<()> {
        if self.is_slow.load(Ordering::SeqCst) {
            std::thread::sleep(self.sync_time);
        }
        if self.is_broken.load(Ordering::SeqCst) { Err(io::Error::from_raw_os_error(EIO)) } else { Ok(()) }
    }

    fn file(&self, file: Arc<dyn LogFile>) -> Arc<dyn LogFile> {
        Arc::new(TroubledFile { file, trouble: self.clone() })
    }
}

impl FileSystem for Trouble {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        Disk.create_directory(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        Disk.list(directory)
    }

    fn create(&self, path: &Path, bytes: u64) -> io::Result<Arc<dyn LogFile>> {
        self.before_growth()?;
        Disk.create(path, bytes).map(|file| self.file(file))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        Disk.open(path).map(|file| self.file(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        Disk.remove(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        Disk.sync_directory(path)
    }
}

#[derive(Debug)]
struct TroubledFile {
    file: Arc<dyn LogFile>,
    trouble: Trouble,
}

impl LogFile for TroubledFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.trouble.before_growth()?;
        self.file.write_all_at(bytes, offset)
    }

    fn set_size(&self, bytes: u64) -> io::Result<()> {
        self.file.set_size(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.trouble.before_sync()?;
        self.file.sync_data()
    }
}
