#!/usr/bin/env bash
# Runs three nodes under faults for MINUTES, and checks what their clients saw. SEED repeats the order of the faults. Where
# the system lets us (root), all of it runs in a network namespace of its own, on a link that loses LOSS percent of its packets:
# by netem, which delays them too, or else by nftables.

source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
loss="${LOSS:-0.5}"
[[ "$loss" =~ ^[0-9]{1,2}(\.[0-9]{1,2})?$ ]] || die "LOSS is a share in percent, from 0 to 99.99: $loss"
if [ "$(id -u)" -eq 0 ]; then scripts/setup.sh chaos; else scripts/setup.sh build; fi
cargo build --release --locked --package cairn-server --bin cairn
# Before the network is cut off, which cargo may want.
cargo test --release --locked --package cairn-tests --test chaos --no-run
seconds=$((${MINUTES:-5} * 60))
export CAIRN_BIN="$CARGO_TARGET_DIR/release/cairn" CAIRN_CHAOS_SECONDS="$seconds"
if [ -n "${SEED:-}" ]; then export CAIRN_CHAOS_SEED="$SEED"; fi
run=(cargo test --release --locked --offline --package cairn-tests --test chaos -- --nocapture)

# Drops packets where they come in, so that the sender notices nothing.
lose_by_nftables() {
  ip netns exec "$space" nft -f - <<RULES
table inet cairn {
  counter lost { }
  chain arriving {
    type filter hook input priority 0;
    meta l4proto tcp numgen random mod 10000 < $(awk "BEGIN { print int($loss * 100) }") counter name lost drop
  }
}
RULES
}

space="cairn-chaos-$$"
if ! ip netns add "$space" 2>/dev/null; then
  say "no network namespace: nothing is delayed or lost but by proxies"
  exec "${run[@]}"
fi
trap 'ip netns delete "$space"' EXIT
ip -n "$space" link set lo mtu 1500 up
if tc -n "$space" qdisc add dev lo root netem delay 1ms 1ms loss "$loss%" 2>/dev/null; then
  say "The link delays packets by up to 2 ms and loses $loss % of them."
elif lose_by_nftables; then
  say "No netem: the link loses $loss % of the packets, and only proxies delay."
else
  say "no netem and no nftables: nothing is delayed or lost but by proxies"
fi
ip netns exec "$space" "${run[@]}"
ip netns exec "$space" nft list counter inet cairn lost 2>/dev/null | grep packets >&2 || true
