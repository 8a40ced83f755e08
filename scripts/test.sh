#!/usr/bin/env bash
# Runs every test of the workspace. Arguments go to cargo test, such as `scripts/test.sh --package cairn-engine`.

source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
scripts/setup.sh build
features=() is_all=
if has_model; then features=("${LOCAL_EMBEDDER[@]}"); fi
# Tests of the whole start real processes of this binary. It is built together with the tests, since cargo would compile
# much of it twice otherwise: once with the features that only tests ask for, once without.
cargo build --release --locked --workspace --bins --tests "${features[@]}"
if [ "$#" -eq 0 ]; then
  set -- --workspace --no-fail-fast "${features[@]}"
  is_all=1
fi
status=0
CAIRN_BIN="$CARGO_TARGET_DIR/release/cairn" cargo test --release --locked "$@" || status=$?
# No other build has this feature on.
[ -z "$is_all" ] || INDEX_ONLY=1 scripts/test_hnsw.sh || status=$?
has_model || say "SKIPPED: the tests of the embedder \`local\`, which need its model; run 'make test-model'"
exit "$status"
