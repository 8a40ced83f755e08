//! Compiles every `.proto` file with protox, so that no `protoc` needs to be installed.

mod proto_files;

use std::path::PathBuf;

use prost::Message;

use crate::proto_files::proto_files;

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
