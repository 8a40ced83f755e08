#!/usr/bin/env bash
# Mends formatting and the lints that can mend themselves, and writes docs/formats.md and the OpenAPI document anew.

source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
scripts/setup.sh check
source scripts/tools.sh
cargo clippy --release --workspace --all-targets --fix --allow-dirty --allow-staged
cargo fmt --all
buf format --write
# The page of formats and the description of the API are made from the code.
CAIRN_UPDATE=1 cargo test --release --quiet --package cairn-tests --test formats
CAIRN_UPDATE=1 cargo test --release --quiet --package cairn-server --lib openapi
