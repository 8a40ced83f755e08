#!/usr/bin/env bash
# Runs SEEDS simulations of whole clusters (from FIRST on), or the single one of SEED, with everything that happens in it.

source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
scripts/setup.sh build
if [ -n "${SEED:-}" ]; then export CAIRN_SIM_SEED="$SEED"; fi
if [ -n "${FIRST:-}" ]; then export CAIRN_SIM_FIRST="$FIRST"; fi
export CAIRN_SIM_SEEDS="${SEEDS:-200}"
exec cargo test --release --locked --package cairn-raft --lib sim::clusters -- --nocapture
