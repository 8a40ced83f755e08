#!/usr/bin/env bash
# Builds Cairn and starts one durable node in ./data, on loopback. Ctrl-C stops it; the next run goes on with the same data.

source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
scripts/setup.sh build
cargo build --release --locked --workspace --bin cairn
exec "$CARGO_TARGET_DIR/release/cairn" dev --data "${DATA:-./data}" "$@"
