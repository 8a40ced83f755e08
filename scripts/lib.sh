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
