//! `docs/formats.md` is made from the byte maps that stand in the code, so that there is one description of each format.
//!
//! `make fix` (or this test with `CAIRN_UPDATE=1`) writes the page anew; the test fails where the page says something else than the code.

#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// The page: a heading, what it is about, and the modules whose documentation says it.
const SECTIONS: &[(&str, &[&str])] = &[
    (
        "Sealing",
        &[
            "engine/src/crypto/record.rs",
            "engine/src/crypto/compress.rs",
            "engine/src/crypto/aad.rs",
            "engine/src/crypto/frame.rs",
            "engine/src/crypto/lookup.rs",
        ],
    ),
    ("Keyring", &["engine/src/keyring/root_key.rs", "engine/src/keyring/format.rs", "engine/src/keyring/wrap.rs"]),
    ("Store", &["engine/src/store/keys.rs", "engine/src/store/sealing.rs"]),
    (
        "Index checkpoints",
        &["engine/src/partitions/checkpoint/mod.rs", "index/src/checkpoint/mod.rs", "index/src/attributes/row.rs"],
    ),
    (
        "Log",
        &["raft/src/wal/segment.rs", "raft/src/wal/frame.rs", "raft/src/wal/record.rs", "raft/src/wal/recovery.rs"],
    ),
    ("Data directory", &["raft/src/identity.rs", "raft/src/state_machine/generation.rs", "raft/src/snapshot/mod.rs"]),
    ("Tokens", &["engine/src/position.rs", "engine/src/reads/page.rs"]),
];

const PREAMBLE: &str = "\
# Formats

Every byte that Cairn keeps or hands out. This page is made from the documentation of the modules that read and write
those bytes; change it there and run `make fix`. Messages are protobuf and stand with their comments in
`proto/cairn/storage/v1`. Every persisted value begins with the version of its format; numbers of kinds are never used again.
";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// The module documentation of a source file, with links between modules turned into plain names.
fn module_documentation(path: &str) -> String {
    let source = fs::read_to_string(root().join(path)).unwrap();
    let lines = source.lines().take_while(|line| line.starts_with("//!"));
    let text: Vec<&str> = lines.map(|line| line.trim_start_matches("//!").strip_prefix(' ').unwrap_or("")).collect();
    text.join("\n").replace("[`", "`").replace("`]", "`")
}

fn page() -> String {
    let mut page = PREAMBLE.to_owned();
    for (heading, paths) in SECTIONS {
        write!(page, "\n## {heading}\n").unwrap();
        for path in *paths {
            let documentation = module_documentation(path);
            assert!(!documentation.is_empty(), "{path} has no module documentation");
            write!(page, "\n### `{path}`\n\n{documentation}\n").unwrap();
        }
    }
    page
}

#[test]
fn the_page_of_formats_says_what_the_code_says() {
    let path = root().join("docs/formats.md");
    if std::env::var_os("CAIRN_UPDATE").is_some() {
        fs::write(&path, page()).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page(), "docs/formats.md is not what the code says: run `make fix`");
}
