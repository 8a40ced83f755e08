#!/usr/bin/env bash
# Builds Cairn and shows it: three nodes, real memories, the leader killed in mid-write. See deploy/demo.

source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
scripts/setup.sh build
cargo build --release --locked --workspace --bin cairn --bin cairn-demo
CAIRN_BIN="$CARGO_TARGET_DIR/release/cairn" exec "$CARGO_TARGET_DIR/release/cairn-demo" "$@"
