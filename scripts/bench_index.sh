#!/usr/bin/env bash
# Measures Cairn's index beside other libraries on a corpus, and writes bench/RESULTS.md.
#
#   CORPUS=DIR      a folder with base.f16.npy, queries.f16.npy and gt100.i32.npy
#   ROUNDS=5        how often each setting is measured
#   SYSTEMS=...     names with commas; all by default

source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[ -n "${CORPUS:-}" ] || die "set CORPUS to a folder with base.f16.npy, queries.f16.npy and gt100.i32.npy"
scripts/setup.sh build

peers="$CAIRN_CACHE/peers"
python="$peers/bin/python"
if [ ! -x "$python" ]; then
  python3 -m venv "$peers" || die "python3 with venv is needed"
fi
# One by one: a library that cannot be had here is left out of the table.
grep -v '^#' bench/peers/requirements.txt | while read -r library; do
  "$python" -m pip install --quiet "$library" || say "left out: $library"
done

cargo build --release --locked --package cairn-bench --bin cairn-bench
cargo build --release --locked --manifest-path bench/peers/hnsw_rs/Cargo.toml --target-dir "$CARGO_TARGET_DIR/peers" ||
  say "left out: hnsw_rs"

results=bench/RESULTS.md
compare=("$python" bench/peers/compare.py --corpus "$CORPUS" --cairn "$CARGO_TARGET_DIR/release/cairn-bench"
  --hnsw-rs "$CARGO_TARGET_DIR/peers/release/cairn-peer-hnsw-rs" --rounds "${ROUNDS:-5}"
  --json "$CARGO_TARGET_DIR/bench-index.jsonl" --out "$results.new")
rm -f "$results.new" "$CARGO_TARGET_DIR/bench-index.jsonl"
cat >"$results.new" <<'HEAD'
# Cairn's index beside others

Written by `make bench-index`, which [peers/README.md](peers/README.md) explains. Everything from the caller's f32 query to ids and scores is timed. Systems
take turns at each setting; a ratio is made within a round, at equal recall, from log(queries/s) interpolated between the two settings around it.

HEAD
"${compare[@]}" ${SYSTEMS:+--systems "$SYSTEMS"}
"${compare[@]}" --filters
mv "$results.new" "$results"
say "$results is written"
