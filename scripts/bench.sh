#!/usr/bin/env bash
# Runs the benches. Arguments go to cargo bench.

source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
scripts/setup.sh build
exec cargo bench --locked --package cairn-bench "$@"
