//! Makes the messages alone, without the services: those would bring tonic and all that is below it.

use std::path::{Path, PathBuf};

fn proto_files(directory: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
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

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from("../proto");
    println!("cargo:rerun-if-changed=../proto/cairn");
    let mut files = Vec::new();
    for package in ["cairn/v1", "cairn/storage"] {
        proto_files(&root.join(package), &mut files)?;
    }
    let descriptors = protox::compile(&files, [&root])?;
    // As in proto/build.rs, for the packages that are used here.
    prost_build::Config::new().bytes([".cairn.storage.v1"]).btree_map(["."]).compile_fds(descriptors)?;
    Ok(())
}
