#!/usr/bin/env bash
# Holds the embedder `local` to the vectors of sentence-transformers itself, with the model that `make model` fetches. Nothing is
# skipped here: without the model it fails.

source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
scripts/setup.sh build
scripts/model.sh
CAIRN_MODEL_REQUIRED=1 exec cargo test --release --locked --package cairn-server "${LOCAL_EMBEDDER[@]}" --lib embed::local -- --nocapture
