#!/usr/bin/env bash
# Tests spaces of index kind HNSW_RS: the suites of the index and of the engine over it, with each kind of index in turns. INDEX_ONLY=1
# leaves the engine out.

source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
scripts/setup.sh build
cargo clippy --release --locked --package cairn-index --features hnsw-rs --all-targets -- -D warnings
cargo test --release --locked --package cairn-index --features hnsw-rs
[ -z "${INDEX_ONLY:-}" ] || exit 0

# hnsw_rs brings nix, which asks for a feature of libc, on which librocksdb-sys depends: cargo would compile all of RocksDB once more.
share_rocksdb
exec cargo test --release --locked --target-dir "$CARGO_TARGET_DIR/hnsw" --package cairn-engine --features hnsw-rs --test graph --test requests
