//! Generations of the state: an engine in a directory of its own.
//!
//! ```text
//! group-0/CURRENT          the name of the directory in use, such as `gen-000003`, and a newline; replaced atomically
//! group-0/gen-000003/      the engine's directory; `index` in it holds checkpoints, which snapshots leave out
//! group-0/gen-000004/      a snapshot that is being installed, or a leftover of one: removed at the next start
//! ```
//!
//! Readers hold an [`Arc`] of the generation that they began with. Installing a snapshot opens the next generation beside
//! it and then switches; the old directory is removed when its last reader is gone.

use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cairn_engine::keyring::Keyring;
use cairn_engine::{Engine, Options};
use parking_lot::RwLock;

use crate::error::StartError;
use crate::files::{make_dir, read_if_there, remove_dir, sync_dir, write_atomically};
use crate::identity::DirLock;

/// One engine and its directory. Dereferences to the engine.
pub struct Generation {
    // Dropped in this order: the directory is removed once the engine has closed it.
    engine: Engine,
    number: u64,
    dir: RetirableDir,
    /// A data directory is free only when nobody has its store open any more.
    _lock: Option<Arc<DirLock>>,
}

impl Generation {
    /// The generation's number; each installed snapshot makes a higher one.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }
}

impl Deref for Generation {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.engine
    }
}

struct RetirableDir {
    path: PathBuf,
    retired: AtomicBool,
}

impl Drop for RetirableDir {
    fn drop(&mut self) {
        if !self.retired.load(Ordering::Acquire) {
            return;
        }
        // Removing many files takes a while, and the last reader may well run on an async worker.
        let path = std::mem::take(&mut self.path);
        std::thread::spawn(move || {
            if let Err(error) = remove_dir(&path) {
                tracing::warn!(path = %path.display(), %error, "an old generation could not be removed");
            }
        });
    }
}

/// The generation in use, and how to switch to the next one.
pub(crate) struct Generations {
    group_dir: PathBuf,
    options: Options,
    keyring: Arc<Keyring>,
    lock: Option<Arc<DirLock>>,
    current: RwLock<Arc<Generation>>,
}

impl Generations {
    /// Opens the generation that `CURRENT` names, and removes all others. Blocks.
    ///
    /// `first_start`: whether there is no log yet, so that the absence of `CURRENT` is no loss. `lock`: kept as long as any
    /// generation is open.
    pub(crate) fn open(
        group_dir: &Path,
        options: &Options,
        keyring: Arc<Keyring>,
        first_start: bool,
        lock: Option<Arc<DirLock>>,
    ) -> Result<Self, StartError> {
        make_dir(group_dir).map_err(StartError::io(group_dir))?;
        let number = match (read_current(group_dir)?, first_start) {
            (Some(number), _) => Some(number),
            (None, true) => None,
            (None, false) => {
                return Err(StartError::Damaged {
                    path: group_dir.join("CURRENT"),
                    reason: "it is missing, but there is a log".to_string(),
                });
            }
        };
        remove_other_generations(group_dir, number)?;
        let opened = open_engine(group_dir, number.unwrap_or(1), options, &keyring, lock.clone())?;
        if number.is_none() {
            write_current(group_dir, 1)?;
        }
        Ok(Self {
            group_dir: group_dir.to_path_buf(),
            options: options.clone(),
            keyring,
            lock,
            current: RwLock::new(Arc::new(opened)),
        })
    }

    /// The generation in use.
    pub(crate) fn current(&self) -> Arc<Generation> {
        Arc::clone(&self.current.read())
    }

    /// Makes the files in `received` the next generation, opens it, lets `check` look at it, and switches. Blocks.
    ///
    /// A crash before `CURRENT` is replaced leaves the old generation in use.
    pub(crate) fn install(
        &self,
        received: &Path,
        check: impl FnOnce(&Engine) -> Result<(), String>,
    ) -> Result<(), StartError> {
        let number = self.current().number + 1;
        let dir = generation_dir(&self.group_dir, number);
        remove_dir(&dir).map_err(StartError::io(&dir))?;
        fs::rename(received, &dir).map_err(StartError::io(&dir))?;
        sync_dir(&self.group_dir).map_err(StartError::io(&self.group_dir))?;
        let next = open_engine(&self.group_dir, number, &self.options, &self.keyring, self.lock.clone())?;
        check(&next).map_err(StartError::Engine)?;
        next.flush().map_err(|error| StartError::Engine(error.to_string()))?;
        write_current(&self.group_dir, number)?;
        let old = std::mem::replace(&mut *self.current.write(), Arc::new(next));
        old.dir.retired.store(true, Ordering::Release);
        Ok(())
    }
}

fn generation_dir(group_dir: &Path, number: u64) -> PathBuf {
    group_dir.join(format!("gen-{number:06}"))
}

fn open_engine(
    group_dir: &Path,
    number: u64,
    options: &Options,
    keyring: &Arc<Keyring>,
    lock: Option<Arc<DirLock>>,
) -> Result<Generation, StartError> {
    let path = generation_dir(group_dir, number);
    let mut options = options.clone();
    options.dir.clone_from(&path);
    let engine =
        Engine::open(&options, Arc::clone(keyring)).map_err(|error| StartError::Engine(error_chain(&error)))?;
    Ok(Generation { engine, number, dir: RetirableDir { path, retired: AtomicBool::new(false) }, _lock: lock })
}

fn read_current(group_dir: &Path) -> Result<Option<u64>, StartError> {
    let path = group_dir.join("CURRENT");
    let Some(bytes) = read_if_there(&path).map_err(StartError::io(&path))? else { return Ok(None) };
    let number = std::str::from_utf8(&bytes)
        .ok()
        .and_then(|text| text.strip_prefix("gen-")?.strip_suffix('\n')?.parse::<u64>().ok())
        .filter(|&number| generation_dir(group_dir, number).is_dir());
    match number {
        Some(number) => Ok(Some(number)),
        None => Err(StartError::Damaged { path, reason: "it names no generation".to_string() }),
    }
}

fn write_current(group_dir: &Path, number: u64) -> Result<(), StartError> {
    let path = group_dir.join("CURRENT");
    write_atomically(&path, format!("gen-{number:06}\n").as_bytes()).map_err(StartError::io(&path))
}

fn remove_other_generations(group_dir: &Path, keep: Option<u64>) -> Result<(), StartError> {
    for entry in fs::read_dir(group_dir).map_err(StartError::io(group_dir))? {
        let path = entry.map_err(StartError::io(group_dir))?.path();
        let is_generation =
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("gen-"));
        if is_generation && keep.is_none_or(|number| path != generation_dir(group_dir, number)) {
            remove_dir(&path).map_err(StartError::io(&path))?;
        }
    }
    Ok(())
}

/// An error and all its causes, in one line.
pub(crate) fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
