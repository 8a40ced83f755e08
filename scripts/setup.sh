#!/usr/bin/env bash
# Installs what is missing: setup.sh build (to compile and run), setup.sh check (for `make check` too), setup.sh chaos (as root, for
# a network of its own) or setup.sh model (to fetch one).
# Debian packages come from apt-get and Rust from rustup's installer; on a terminal it asks first, in CI and in pipes it does not.

source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

has() {
  command -v "$1" >/dev/null 2>&1
}

# bindgen loads libclang at build time, from where Debian or LIBCLANG_PATH puts it.
has_libclang() {
  [ -n "${LIBCLANG_PATH:-}" ] || ldconfig -p 2>/dev/null | grep -q 'libclang[-.].*so' ||
    compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null
}

missing_packages() {
  has cc && has c++ && has make || echo build-essential
  has clang || echo clang
  has_libclang || echo libclang-dev
  has pkg-config || echo pkg-config
  has git || echo git
  has curl || echo curl
  [ -e /etc/ssl/certs/ca-certificates.crt ] || echo ca-certificates
  if [ "$1" = model ]; then
    python3 -c 'import ensurepip, venv' >/dev/null 2>&1 || echo python3-venv
  fi
  if [ "$1" = chaos ]; then
    has ip && has tc || echo iproute2
    has nft || echo nftables
  fi
  if [ "$1" = check ]; then
    has node || echo nodejs
    has npm || echo npm
  fi
}

install_packages() {
  local packages=("$@") root=()
  has apt-get || die "missing: ${packages[*]}. There is no apt-get here; install what corresponds to these Debian packages."
  if [ "$(id -u)" -ne 0 ]; then
    has sudo || die "missing: ${packages[*]}. Run as root: apt-get install ${packages[*]}"
    root=(sudo)
  fi
  say "Missing Debian packages: ${packages[*]}"
  agreed "Install them with apt-get now?" || die "not installed; run: apt-get install ${packages[*]}"
  "${root[@]}" apt-get update -q >&2
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${packages[@]}" >&2
}

install_rust() {
  local installer
  say "Rust is missing. Its official installer, rustup, puts it into ${CARGO_HOME:-$HOME/.cargo} and changes no other file."
  agreed "Install it now?" || die "not installed; see https://rustup.rs"
  installer=$(mktemp)
  curl --proto '=https' --tlsv1.2 --silent --show-error --fail --location https://sh.rustup.rs --output "$installer"
  sh "$installer" -y --quiet --profile minimal --default-toolchain none --no-modify-path >&2
  rm -f "$installer"
}

main() {
  local packages
  mapfile -t packages < <(missing_packages "${1:-build}")
  [ "${#packages[@]}" -eq 0 ] || install_packages "${packages[@]}"
  has cargo || install_rust
  # rustup fetches the version that rust-toolchain.toml names, here and not in the middle of something else.
  if has rustup; then
    rustup show active-toolchain >/dev/null 2>&1 || rustup toolchain install >&2 || say "rustup is old; cargo will fetch its version itself"
  fi
  cargo --version >/dev/null || die "cargo does not start; see rust-toolchain.toml for the version that is needed"
  if ! compgen -G "$CARGO_TARGET_DIR/release/deps/librocksdb-*" >/dev/null && ! compgen -G "$CARGO_TARGET_DIR/release/deps/librocksdb_sys-*" >/dev/null; then
    say "The first build takes about 15 minutes on 2 cores, most of it for RocksDB's C++. It is kept in $CARGO_TARGET_DIR; later builds take seconds."
  fi
}

main "$@"
