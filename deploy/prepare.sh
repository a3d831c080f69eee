#!/usr/bin/env bash
# Gets a machine ready to build and prints the variables a build wants:
#   prepared=$(deploy/prepare.sh) || exit $?
#   eval "$prepared"
# `--tests` adds what tests with networks of their own need, which only root can make.
# Installs Debian packages when root or with passwordless sudo; otherwise prints the one line to type and exits 3.
# Messages go to standard error.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'prepare: %s\n' "$*" >&2; }

# A C++ compiler, cmake and make for RocksDB; libclang for its binding; the two compressors' headers; python3 for
# deploy/rocksdb.sh.
packages=(g++ cmake make clang libclang-dev pkg-config liblz4-dev libzstd-dev python3)

present() {
  case $1 in
    iproute2) command -v ip >/dev/null ;;
    nftables) command -v nft >/dev/null ;;
    e2fsprogs) command -v mkfs.ext4 >/dev/null ;;
    libclang-dev) compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null ||
      compgen -G '/usr/lib/*/libclang*.so*' >/dev/null ;;
    liblz4-dev) echo '#include <lz4.h>' | c++ -E -x c++ - >/dev/null 2>&1 ;;
    libzstd-dev) echo '#include <zstd.h>' | c++ -E -x c++ - >/dev/null 2>&1 ;;
    *) command -v "$1" >/dev/null ;;
  esac
}

missing=()
for package in "${packages[@]}"; do
  present "$package" || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  install=(apt-get install -y --no-install-recommends "${missing[@]}")
  sudo=()
  if [ "$(id -u)" != 0 ]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
      sudo=(sudo -n)
    else
      say "packages are missing and this user may not install them; type this and start again:"
      printf '  sudo %s\n' "${install[*]}" >&2
      exit 3
    fi
  fi
  command -v apt-get >/dev/null || { say "needs: ${missing[*]} (no apt-get here)"; exit 3; }
  say "installing ${missing[*]}"
  "${sudo[@]}" apt-get update -qq >&2
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive "${install[@]}" >&2
fi

# A build does not depend on these; a machine that cannot have them skips or fails the tests that want them.
if [ "${1:-}" = --tests ] && [ "$(id -u)" = 0 ]; then
  missing=()
  for package in iproute2 nftables iptables e2fsprogs mount git curl; do
    present "$package" || missing+=("$package")
  done
  if [ ${#missing[@]} -gt 0 ]; then
    say "installing for the tests: ${missing[*]}"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; } >&2 ||
      say "could not be installed: ${missing[*]}"
  fi
fi

# rustup may be installed without being on the path, without a toolchain, or with one that is too old.
if ! command -v cargo >/dev/null && [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]; then
  PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
  export PATH
  printf 'export PATH=%q\n' "$PATH"
fi
command -v cargo >/dev/null || { say "no cargo found; install rustup from https://rustup.rs"; exit 3; }
wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
found=$(rustc --version 2>/dev/null | cut -d ' ' -f 2 || true)
if [ "$(printf '%s\n%s\n' "$wanted" "${found:-0}" | sort -V | head -n 1)" != "$wanted" ]; then
  command -v rustup >/dev/null || { say "needs Rust $wanted or newer, found ${found:-none}"; exit 3; }
  say "installing Rust $wanted (found ${found:-none})"
  rustup toolchain install "$wanted" --profile minimal --component rustfmt --component clippy >&2
  RUSTUP_TOOLCHAIN=$wanted
  export RUSTUP_TOOLCHAIN
  printf 'export RUSTUP_TOOLCHAIN=%q\n' "$wanted"
fi

# Outside the clone, so that fresh clones share what is built.
cache=${TWINPOST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/twinpost}
printf 'export CARGO_TARGET_DIR=%q\n' "${CARGO_TARGET_DIR:-$cache/target}"

if [ -n "${ROCKSDB_LIB_DIR:-}" ] && [ -f "$ROCKSDB_LIB_DIR/librocksdb.a" ]; then
  printf 'export ROCKSDB_LIB_DIR=%q\nexport ROCKSDB_STATIC=1\n' "$ROCKSDB_LIB_DIR"
else
  deploy/rocksdb.sh
fi
