#!/usr/bin/env bash
# Runs every check that changes nothing, the quick ones first. `make fix` mends what can be mended by itself.

source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
scripts/setup.sh check
source scripts/tools.sh

step() {
  say "== $1"
  shift
  "$@" || die "'$*' failed"
}

step "formatting" cargo fmt --all --check
step "public API: rules" buf lint
step "public API: formatting" buf format --diff --exit-code
step "public API: compatible with proto/cairn.image.binpb" buf breaking --against proto/cairn.image.binpb
step "public API: its description for HTTP" lint_openapi server/src/http/openapi.json
step "mutants: what they take out is there" scripts/mutants.sh --check
step "lock file" cargo fetch --locked --quiet
step "dependencies: bans, licences, sources" cargo_deny --offline --locked check bans licenses sources
step "lints" cargo clippy --release --locked --workspace --all-targets "${LOCAL_EMBEDDER[@]}" -- -D warnings
# Without the feature too; only what it reaches is compiled again.
step "lints, without features" cargo clippy --release --locked --workspace --all-targets -- -D warnings
step "documentation" env RUSTDOCFLAGS="-D warnings" cargo doc --release --locked --workspace --no-deps --quiet
step "house rules" cargo test --release --locked --workspace --test tidy --test formats
say "check: ok"
