//! Compiles every `.proto` file with protox, so that no `protoc` needs to be installed.

use std::path::{Path, PathBuf};

use prost::Message;

fn proto_files(dir: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            proto_files(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            found.push(path);
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
    let mut files = Vec::new();
    proto_files(&root.join("cairn"), &mut files)?;
    files.sort();
    println!("cargo:rerun-if-changed={}", root.join("cairn").display());

    let descriptors = protox::compile(&files, [&root])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("cairn.binpb"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".cairn.storage.v1")
        .bytes(".cairn.peer.v1")
        .btree_map(".")
        .compile_fds(descriptors)?;
    Ok(())
}
