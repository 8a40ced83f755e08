#!/usr/bin/env bash
# Runs three nodes under faults for MINUTES, and checks what their clients saw. SEED repeats the order of the faults.

source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
scripts/setup.sh build
cargo build --release --locked --package cairn-server --bin cairn
seconds=$((${MINUTES:-5} * 60))
export CAIRN_BIN="$CARGO_TARGET_DIR/release/cairn" CAIRN_CHAOS_SECONDS="$seconds"
if [ -n "${SEED:-}" ]; then export CAIRN_CHAOS_SEED="$SEED"; fi
exec cargo test --release --locked --package cairn-tests --test chaos -- --nocapture
