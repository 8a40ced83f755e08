//! Makes the messages alone, without the services: those would bring tonic and all that is below it.

#[path = "../proto/proto_files.rs"]
mod proto_files;

use std::path::PathBuf;

use crate::proto_files::proto_files;

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
