//! Compares what is printed with checked-in files, so that a change of an output is seen in a review.
//!
//! `UPDATE_SNAPSHOTS=1 cargo test --release -p cairn-server cli` writes the files anew.

use std::path::Path;

/// Compares a text with `src/cli/snapshots/NAME.txt`.
pub(crate) fn check(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/cli/snapshots/{name}.txt"));
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "{name} is not what {} holds; UPDATE_SNAPSHOTS=1 writes it anew", path.display());
}
