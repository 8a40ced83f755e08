#!/usr/bin/env bash
# Writes the image that `make check` compares the public API with. Run it when a compatible change has landed.

source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
scripts/setup.sh check
source scripts/tools.sh
buf lint
buf build --path proto/cairn/v1 --exclude-source-info --output proto/cairn.image.binpb
