#!/usr/bin/env bash
# Measures Cairn's index beside other libraries on a corpus, and puts the tables into bench/RESULTS.md, each in the place of the one with
# the same heading. Asks nothing.
#
#   CORPUS=DIR      a folder with base.f16.npy, queries.f16.npy and gt100.i32.npy
#   COUNT=1000000   instead on so many vectors, made from the corpus by bench/peers/corpus.py into the cache, without filters
#   DIMENSION=768   instead on vectors of so many dimensions, made likewise: a multiple of the corpus's own
#   ROUNDS=5        how often each setting is measured
#   THREADS=1       threads that build
#   SYSTEMS=...     names with commas; all by default, with COUNT those that fit into 16 GiB of memory together

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

cargo build --release --locked --workspace --bin cairn-bench
cargo build --release --locked --manifest-path bench/peers/hnsw_rs/Cargo.toml --target-dir "$CARGO_TARGET_DIR/peers" ||
  say "left out: hnsw_rs"

input="$CORPUS"
if [ -n "${COUNT:-}${DIMENSION:-}" ]; then
  input="$CAIRN_CACHE/corpora/$(basename "$CORPUS")-${COUNT:-all}x${DIMENSION:-own}"
  if [ ! -e "$input/complete" ]; then
    say "making $input"
    "$python" bench/peers/corpus.py --corpus "$CORPUS" --out "$input" ${COUNT:+--count "$COUNT"} ${DIMENSION:+--dimension "$DIMENSION"}
    touch "$input/complete"
  fi
fi
if [ -n "${COUNT:-}" ]; then
  SYSTEMS="${SYSTEMS:-cairn,hnswlib,faiss-sq8,usearch,qdrant}"
fi

log="$CARGO_TARGET_DIR/bench-index.jsonl"
compare=("$python" bench/peers/compare.py --corpus "$input" --cairn "$CARGO_TARGET_DIR/release/cairn-bench"
  --hnsw-rs "$CARGO_TARGET_DIR/peers/release/cairn-peer-hnsw-rs" --rounds "${ROUNDS:-5}" --threads "${THREADS:-1}"
  --json "$log" --out bench/RESULTS.md)
rm -f "$log"
"${compare[@]}" ${SYSTEMS:+--systems "$SYSTEMS"}
if [ "$input" = "$CORPUS" ]; then
  "${compare[@]}" --filters
fi
say "bench/RESULTS.md is written; every measurement is in $log"
