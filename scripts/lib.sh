# Where things are, for all scripts; sourced, never run. Leaves the shell in the top directory of the checkout.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Nothing is built or installed inside the checkout: what is made once serves every run and every clone.
CAIRN_CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/cairn"
CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$CAIRN_CACHE/target}"
export CAIRN_CACHE CARGO_TARGET_DIR
# The sentence model that `make model` fetches, and what compiles the embedder `local` in.
CAIRN_MODEL_HOME="$CAIRN_CACHE/models/all-MiniLM-L6-v2"
LOCAL_EMBEDDER=(--features cairn-server/local-embedder)
export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"

say() {
  printf '%s\n' "$*" >&2
}

die() {
  say "error: $*"
  exit 1
}

has_model() {
  [ -e "$CAIRN_MODEL_HOME/model.safetensors" ]
}

# Whether there is somebody to ask.
interactive() {
  [ -z "${CI:-}" ] && [ -t 0 ] && [ -t 2 ]
}

# Asks a yes-or-no question; yes where there is nobody to ask.
agreed() {
  local answer
  interactive || return 0
  read -r -p "$1 [Y/n] " answer
  [[ "${answer:-y}" =~ ^[Yy] ]]
}

# Builds the program, and has later cargo commands of this shell link the RocksDB that was compiled for it instead of compiling
# it anew for other features or another profile. These need a target directory of their own: with these variables set, cargo would
# take what is in the usual one as out of date.
share_rocksdb() {
  local library
  library=$(cargo build --release --locked --workspace --bin cairn --message-format=json-render-diagnostics |
    sed -n 's/.*"reason":"build-script-executed".*librocksdb-sys.*"out_dir":"\([^"]*\)".*/\1/p' | head -n 1)
  [ -e "$library/librocksdb.a" ] || die "RocksDB was not compiled into '$library'"
  export ROCKSDB_LIB_DIR="$library" ROCKSDB_STATIC=1
}
