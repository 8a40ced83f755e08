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

    /// Has nobody get at the generation in use, until what this returns is dropped.
    #[cfg(test)]
    pub(super) fn withhold(&self) -> impl Drop + '_ {
        self.current.write()
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

#[cfg(test)]
mod tests {
    use cairn_engine::{ApplyEntry, EntryBody, LogId};

    use super::*;
    use crate::sim::copy_as_it_is;
    use crate::state_machine::tests::Builder;

    /// Generations that have applied up to 3, and at `received` a snapshot of others that have applied up to 9.
    fn before_an_installation(stores: &Builder) -> Generations {
        let other = stores.generations(&stores.path("other"), true);
        apply_up_to(&other.current(), 9);
        other.current().checkpoint(&stores.path("received")).unwrap();
        let generations = stores.generations(&stores.path("group"), true);
        apply_up_to(&generations.current(), 3);
        generations
    }

    fn applied_index(engine: &Engine) -> u64 {
        engine.applied().log_id.unwrap().index
    }

    /// What a start makes of a directory: the number of the generation, the index that it has applied, and the generations whose
    /// directories are there then.
    fn restart(stores: &Builder, name: &str) -> (u64, u64, Vec<String>) {
        let dir = stores.path(name);
        let current = stores.generations(&dir, false).current();
        let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut left: Vec<String> = names.filter(|name| name.starts_with("gen-")).collect();
        left.sort();
        (current.number(), applied_index(&current), left)
    }

    fn apply_up_to(engine: &Engine, index: u64) {
        let entry = |index| ApplyEntry { log_id: LogId { term: 1, node_id: 1, index }, body: EntryBody::Blank };
        engine.apply(&(1..=index).map(entry).collect::<Vec<_>>()).unwrap();
        engine.flush().unwrap();
    }

    /// The directory as it is at each step of an installation is what a crash there leaves behind.
    #[test]
    fn a_crash_at_any_step_of_an_installation_leaves_the_old_state_or_the_new_one() {
        let stores = Builder::new();
        let generations = before_an_installation(&stores);
        let save = |name: &str| copy_as_it_is(&stores.path("group"), &stores.path(name));

        save("before");
        copy_as_it_is(&stores.path("received"), &stores.path("before/gen-000002"));
        let installed = generations.install(&stores.path("received"), |next| {
            assert_eq!(applied_index(next), 9);
            save("opened");
            save("switching");
            fs::write(stores.path("switching/CURRENT.tmp"), "gen-0000").unwrap();
            Ok(())
        });
        installed.unwrap();
        let old = stores.path("group/gen-000001");
        while old.exists() {
            std::thread::yield_now();
        }
        save("after");
        save("switched");
        copy_as_it_is(&stores.path("opened/gen-000001"), &stores.path("switched/gen-000001"));
        drop(generations);

        for crashed in ["before", "opened", "switching"] {
            assert_eq!(restart(&stores, crashed), (1, 3, vec!["gen-000001".to_string()]), "{crashed}");
        }
        for crashed in ["switched", "after"] {
            assert_eq!(restart(&stores, crashed), (2, 9, vec!["gen-000002".to_string()]), "{crashed}");
        }
    }

    /// What cannot be used must not be in use after the next start either.
    #[test]
    fn a_snapshot_that_is_refused_changes_nothing() {
        let stores = Builder::new();
        let generations = before_an_installation(&stores);
        let refused = generations.install(&stores.path("received"), |_| Err("it is another one".to_string()));
        assert!(refused.unwrap_err().to_string().contains("it is another one"));
        fs::create_dir(stores.path("torn")).unwrap();
        fs::write(stores.path("torn/CURRENT"), "MANIFEST-000005\n").unwrap();
        assert!(generations.install(&stores.path("torn"), |_| Ok(())).is_err());
        assert_eq!((generations.current().number(), applied_index(&generations.current())), (1, 3));
        drop(generations);
        assert_eq!(restart(&stores, "group"), (1, 3, vec!["gen-000001".to_string()]));
    }
}
