#!/usr/bin/env bash
# Runs three nodes under faults for MINUTES, and checks what their clients saw. SEED repeats the order of the faults. Where
# the system lets us (root, ip and tc), all of it runs in a network namespace of its own, on a link that delays and loses.

source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
scripts/setup.sh build
cargo build --release --locked --package cairn-server --bin cairn
# Before the network is cut off, which cargo may want.
cargo test --release --locked --package cairn-tests --test chaos --no-run
seconds=$((${MINUTES:-5} * 60))
export CAIRN_BIN="$CARGO_TARGET_DIR/release/cairn" CAIRN_CHAOS_SECONDS="$seconds"
if [ -n "${SEED:-}" ]; then export CAIRN_CHAOS_SEED="$SEED"; fi
run=(cargo test --release --locked --offline --package cairn-tests --test chaos -- --nocapture)

space="cairn-chaos-$$"
if ! ip netns add "$space" 2>/dev/null; then
  say "no network namespace: nothing is delayed or lost but by proxies"
  exec "${run[@]}"
fi
trap 'ip netns delete "$space"' EXIT
ip -n "$space" link set lo up
tc -n "$space" qdisc add dev lo root netem delay 1ms 1ms loss "${LOSS:-0.5}%" || say "no netem: nothing is delayed or lost but by proxies"
ip netns exec "$space" "${run[@]}"
