#!/usr/bin/env bash
# Builds Cairn and starts one durable node in ./data, on loopback. Ctrl-C stops it; the next run goes on with the same data.
# Where `make model` has fetched a model, it is compiled in and served as the embedder `local`.

source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
scripts/setup.sh build
features=()
if has_model; then
  features=("${LOCAL_EMBEDDER[@]}")
  set -- --model "$CAIRN_MODEL_HOME" "$@"
fi
cargo build --release --locked --workspace --bin cairn "${features[@]}"
exec "$CARGO_TARGET_DIR/release/cairn" dev --data "${DATA:-./data}" "$@"
