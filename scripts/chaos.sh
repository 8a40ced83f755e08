#!/usr/bin/env bash
# Runs three nodes under faults for MINUTES, and checks what their clients saw. SEED repeats the order of the faults. Where
# the system lets us (root), each node runs in a network namespace of its own, and links lose LOSS percent of their packets: by
# netem, which delays them too, or else by nftables.

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

# Drops packets where they come in or are passed on, so that the sender notices nothing.
lose_by_nftables() {
  local share
  share=$(awk "BEGIN { print int($loss * 100) }")
  ip netns exec "$space" nft -f - <<RULES
table inet cairn {
  counter lost { }
  chain arriving {
    type filter hook input priority 0;
    meta l4proto tcp numgen random mod 10000 < $share counter name lost drop
  }
  chain passing {
    type filter hook forward priority 0;
    meta l4proto tcp numgen random mod 10000 < $share counter name lost drop
  }
}
RULES
}

# Makes a namespace for each node, NAME-1 to NAME-3, whose packets to the others all pass through the one of the clients. The
# addresses are those that tests/chaos/network.rs has.
connect_nodes() {
  local id
  ip -n "$space" address add 10.77.0.1/32 dev lo &&
    ip netns exec "$space" sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward' || return 1
  for id in 1 2 3; do
    ip netns add "$space-$id" &&
      ip -n "$space" link add "node$id" type veth peer name eth0 netns "$space-$id" &&
      ip -n "$space" address add "10.77.$id.254/24" dev "node$id" &&
      ip -n "$space" link set "node$id" up &&
      ip -n "$space-$id" link set lo up &&
      ip -n "$space-$id" address add "10.77.$id.1/24" dev eth0 &&
      ip -n "$space-$id" link set eth0 up &&
      ip -n "$space-$id" route add default via "10.77.$id.254" || return 1
  done
}

remove_namespaces() {
  local name
  for name in "$space-1" "$space-2" "$space-3" "$space"; do ip netns delete "$name" 2>/dev/null || true; done
}

space="cairn-chaos-$$"
if ! ip netns add "$space" 2>/dev/null; then
  say "no network namespace: nothing is delayed or lost but by proxies"
  exec "${run[@]}"
fi
trap remove_namespaces EXIT
ip -n "$space" link set lo mtu 1500 up
links=(lo)
if connect_nodes 2>/dev/null && ip netns exec "$space" nft list ruleset >/dev/null 2>&1; then
  say "Each node runs in a network namespace of its own; nftables cuts them off."
  export CAIRN_CHAOS_NAMESPACES="$space"
  links=(node1 node2 node3)
else
  say "no namespaces for the nodes: proxies cut them off"
fi
lose_by_netem() {
  local link
  for link in "${links[@]}"; do
    tc -n "$space" qdisc add dev "$link" root netem delay 1ms 1ms loss "$loss%" 2>/dev/null || return 1
  done
}
if lose_by_netem; then
  say "Links delay packets by up to 2 ms and lose $loss % of them."
elif lose_by_nftables; then
  say "No netem: links lose $loss % of the packets, and delay none."
else
  say "no netem and no nftables: nothing is delayed or lost but by proxies"
fi
ip netns exec "$space" "${run[@]}"
ip netns exec "$space" nft list counter inet cairn lost 2>/dev/null | grep packets >&2 || true
