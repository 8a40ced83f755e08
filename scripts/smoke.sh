#!/usr/bin/env bash
# Tries the program $1 as a new user would: a development server of its own, and the verbs of the README against it. Where
# `make model` has fetched a model, text is searched by meaning; without it, by words.

source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cairn="${1:?the program to try}"
work=$(mktemp -d)
server=
finish() {
  [ -z "$server" ] || kill "$server" 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT
# Neither the caller's settings nor a server that is running already.
unset CAIRN_ENDPOINT CAIRN_SPACE CAIRN_CONTEXT
export XDG_CONFIG_HOME="$work/config" HOME="$work"

"$cairn" --version | grep -q '^embedders: .*local' || die "the embedder \`local\` is not compiled in"
options=()
if has_model; then options=(--model "$CAIRN_MODEL_HOME"); fi
"$cairn" dev --data "$work/data" --listen 127.0.0.1:0 "${options[@]}" >"$work/server.log" 2>&1 &
server=$!
for _ in $(seq 600); do
  address=$(sed -n 's/^ *gRPC *//p' "$work/server.log")
  [ -z "$address" ] || break
  kill -0 "$server" 2>/dev/null || die "the server has ended: $(cat "$work/server.log")"
  sleep 0.1
done
[ -n "$address" ] || die "the server does not come up: $(cat "$work/server.log")"
export CAIRN_ENDPOINT="http://$address"

# expect TEXT COMMAND..: the command prints the text, on either stream.
expect() {
  local text="$1" printed
  shift
  printed=$("$cairn" "$@" 2>&1) || die "cairn $*: $printed"
  [[ "$printed" == *"$text"* ]] || die "cairn $*: no '$text' in: $printed"
}

expect milk add 'Ada takes her coffee with oat milk' --id milk --kind preference --user ada
expect train add 'The night train to Vienna leaves at ten' --id train --user ada
expect 'oat milk' search 'which milk does Ada take?' --user ada -n 1
if has_model; then
  # Not one word in common.
  expect 'night train' search 'railway departures toward Austria' -n 1
fi
expect milk update milk 'Ada takes her coffee with soy milk' --actor me --reason 'she said so'
expect 'she said so' history milk
expect 2 count --user ada
expect '' export "$work/memories.jsonl"
[ "$(wc -l <"$work/memories.jsonl")" = 2 ] || die "the export holds other than two memories"
expect '' rm milk --yes
expect 1 count
expect '' import "$work/memories.jsonl"
expect 'soy milk' get milk
expect leader status
if "$cairn" search 2>"$work/refused"; then die "a search for nothing is not refused"; fi
kill "$server"
wait "$server" || die "the server did not stop in order: $(cat "$work/server.log")"
server=
say "smoke: ok"
