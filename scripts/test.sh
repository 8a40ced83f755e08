#!/usr/bin/env bash
# Runs every test of the workspace. Arguments go to cargo test, such as `scripts/test.sh --package cairn-engine`.

source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
scripts/setup.sh build
# Tests of the whole start real processes of this binary. It is built together with the tests, since cargo would compile
# much of it twice otherwise: once with the features that only tests ask for, once without.
cargo build --release --locked --workspace --bins --tests
if [ "$#" -eq 0 ]; then
  set -- --workspace --no-fail-fast
fi
CAIRN_BIN="$CARGO_TARGET_DIR/release/cairn" exec cargo test --release --locked "$@"
