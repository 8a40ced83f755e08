# The tools of `make check` that are neither Debian's nor Rust's own; sourced after lib.sh. Each is installed once, into the cache.

CARGO_DENY_VERSION=0.20.2

cargo_deny() {
  local home="$CAIRN_CACHE/tools/cargo-deny-$CARGO_DENY_VERSION"
  if [ ! -x "$home/bin/cargo-deny" ]; then
    say "Installing cargo-deny $CARGO_DENY_VERSION into $home; about two minutes on 2 cores"
    # Unoptimized, since it runs for a second and is compiled by everybody; without what only fetches advisories.
    cargo install cargo-deny --quiet --locked --debug --no-default-features --version "$CARGO_DENY_VERSION" \
      --root "$home" --target-dir "$home/target" >&2 || return
    rm -rf "$home/target"
  fi
  "$home/bin/cargo-deny" "$@"
}

# Installs what scripts/package.json names, and says where it is.
npm_tools() {
  local home
  home="$CAIRN_CACHE/tools/npm-$(sha256sum scripts/package-lock.json | cut -c 1-16)"
  if [ ! -e "$home/complete" ]; then
    say "Installing buf and a linter for OpenAPI into $home"
    mkdir -p "$home" && cp scripts/package.json scripts/package-lock.json "$home" || return
    (cd "$home" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2) || return
    touch "$home/complete"
  fi
  printf '%s' "$home"
}

buf() {
  local home platform
  platform=$(uname -m)
  [ "$platform" = x86_64 ] && platform=x64
  home=$(npm_tools) || return
  "$home/node_modules/@bufbuild/buf-linux-$platform/bin/buf" "$@"
}

lint_openapi() {
  local home
  home=$(npm_tools) || return
  NODE_PATH="$home/node_modules" node scripts/lint_openapi.cjs "$@"
}
