//! Where the `.proto` files are; shared by the build scripts that compile them.

use std::path::{Path, PathBuf};

/// Adds every `.proto` file below `directory`.
///
/// # Errors
/// A directory that cannot be read.
pub(crate) fn proto_files(directory: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            proto_files(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            found.push(path);
        }
    }
    Ok(())
}
