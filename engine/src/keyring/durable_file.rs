//! Small secret files that are written whole, and are whole after a crash at any step.
//!
//! ```text
//!   remove a leftover NAME.new -> write NAME.new, mode 0600 -> sync it -> rename (replace) or link (create) to NAME
//!     -> sync the directory -> overwrite the bytes of the file that was replaced
//! ```
//!
//! A crash before the rename leaves the old file and a leftover that the next writer or reader removes; a crash after it
//! leaves the new file. The last step is a courtesy to destroyed keys: the replaced file's blocks would keep their wrapped
//! form until the file system uses them again. It cannot reach copies that a copy-on-write file system or the drive
//! itself keeps; what protects those is the root key.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::KeyringError;

/// A step of writing a file; tests stop after each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// The temporary file has its name and no bytes.
    Created,
    /// It has its bytes, unsynced.
    Written,
    /// It is synced.
    Synced,
    /// It has the final name, too or only.
    Named,
    /// The directory is synced.
    Durable,
}

/// How the finished file gets its name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// In place of the file that has the name, if one has.
    Replace,
    /// Only where no file has the name.
    Create,
}

pub(super) fn io_error(action: &'static str, path: &Path) -> impl Fn(io::Error) -> KeyringError + use<> {
    let path = path.to_owned();
    move |source| KeyringError::Io { action, path: path.clone(), source }
}

/// Reads the whole file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, KeyringError> {
    match fs::read(path) {
        Ok(bytes) => Ok(bytes),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(KeyringError::NotFound { path: path.to_owned() }),
        Err(error) => Err(io_error("read", path)(error)),
    }
}

/// Removes what a crashed writer left beside `path`.
pub(super) fn remove_leftovers(path: &Path) -> Result<(), KeyringError> {
    let leftover = temporary(path);
    match fs::remove_file(&leftover) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(io_error("remove", &leftover)(error)),
        _ => Ok(()),
    }
}

/// Puts `bytes` durably in place of the file at `path`.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), KeyringError> {
    let replaced = OpenOptions::new().write(true).open(path).ok();
    write(path, bytes, Mode::Replace, &mut |_| Ok(()))?;
    if let Some(replaced) = replaced
        && let Err(error) = wipe(&replaced)
    {
        tracing::warn!(path = %path.display(), %error, "the bytes of the replaced keyring file could not be overwritten");
    }
    Ok(())
}

/// Puts `bytes` durably into a new file at `path`.
pub(super) fn create_new(path: &Path, bytes: &[u8]) -> Result<(), KeyringError> {
    write(path, bytes, Mode::Create, &mut |_| Ok(()))
}

fn write(
    path: &Path,
    bytes: &[u8],
    mode: Mode,
    after: &mut dyn FnMut(Step) -> io::Result<()>,
) -> Result<(), KeyringError> {
    let temporary = temporary(path);
    remove_leftovers(path)?;
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        after(Step::Created)?;
        file.write_all(bytes)?;
        after(Step::Written)?;
        file.sync_all()?;
        after(Step::Synced)
    })();
    written.map_err(io_error("write", &temporary))?;

    let named = match mode {
        Mode::Replace => fs::rename(&temporary, path),
        // A link, unlike a rename, fails when the name is taken.
        Mode::Create => fs::hard_link(&temporary, path),
    };
    if let Err(error) = named {
        remove_leftovers(path)?;
        let exists = mode == Mode::Create && error.kind() == ErrorKind::AlreadyExists;
        return Err(if exists {
            KeyringError::Exists { path: path.to_owned() }
        } else {
            io_error("write", path)(error)
        });
    }
    after(Step::Named).map_err(io_error("write", path))?;
    if mode == Mode::Create {
        remove_leftovers(path)?;
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|parent| parent.sync_all()).map_err(io_error("sync directory", parent))?;
    after(Step::Durable).map_err(io_error("write", path))
}

/// Overwrites a file that has lost its name. One that still has another name is someone's copy and stays.
fn wipe(file: &File) -> io::Result<()> {
    let metadata = file.metadata()?;
    if metadata.nlink() > 0 {
        return Ok(());
    }
    let mut file = file;
    let zeros = [0; 4096];
    let mut left = metadata.len();
    while left > 0 {
        let chunk = left.min(zeros.len() as u64);
        file.write_all(&zeros[..chunk as usize])?;
        left -= chunk;
    }
    file.sync_data()
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

/// [`replace`], cut off by a crash after `crash`.
#[cfg(test)]
pub(super) fn replace_until(path: &Path, bytes: &[u8], crash: Step) -> Result<(), KeyringError> {
    write(path, bytes, Mode::Replace, &mut crash_after(crash))
}

/// [`create_new`], cut off by a crash after `crash`.
#[cfg(test)]
pub(super) fn create_until(path: &Path, bytes: &[u8], crash: Step) -> Result<(), KeyringError> {
    write(path, bytes, Mode::Create, &mut crash_after(crash))
}

#[cfg(test)]
fn crash_after(crash: Step) -> impl FnMut(Step) -> io::Result<()> {
    move |step| if step == crash { Err(io::Error::other("crashed by the test")) } else { Ok(()) }
}
