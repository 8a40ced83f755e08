#!/usr/bin/env bash
# Tests spaces of index kind HNSW_RS: the suites of the index and of the engine over it, with each kind of index in turns. They are
# built with other features than `make test`, RocksDB included, so that the first run takes long.

source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
scripts/setup.sh build
cargo clippy --release --locked --package cairn-index --features hnsw-rs --all-targets -- -D warnings
cargo test --release --locked --package cairn-index --features hnsw-rs
[ -n "${INDEX_ONLY:-}" ] || exec cargo test --release --locked --package cairn-engine --features hnsw-rs --test graph --test requests
