#!/usr/bin/env bash
# Builds the program as it is released, optimized as a whole and with the embedder `local`, tries it, and packs it beside the build's other
# files.

source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
scripts/setup.sh build
share_rocksdb
cargo build --profile dist --locked --target-dir "$CARGO_TARGET_DIR/whole" --package cairn-server --bin cairn "${LOCAL_EMBEDDER[@]}"
cairn="$CARGO_TARGET_DIR/whole/dist/cairn"
scripts/smoke.sh "$cairn"

name="cairn-$("$cairn" -V | cut -d ' ' -f 2)-linux-$(uname -m)"
dist="$CARGO_TARGET_DIR/dist"
rm -rf "${dist:?}/$name"
mkdir -p "$dist/$name"
# Without what only a debugger reads, which is most of the file.
strip --strip-debug -o "$dist/$name/cairn" "$cairn"
cp LICENSE README.md CHANGELOG.md deploy/cairn.reference.yaml "$dist/$name"
tar --create --gzip --file "$dist/$name.tar.gz" --directory "$dist" --sort=name --owner=0 --group=0 --numeric-owner \
  --mtime="@$(git log -1 --format=%ct)" "$name"
(cd "$dist" && sha256sum "$name.tar.gz" >"$name.tar.gz.sha256")
scripts/smoke.sh "$dist/$name/cairn"
say "release: $dist/$name.tar.gz, $(cut -d ' ' -f 1 "$dist/$name.tar.gz.sha256")"
