#!/usr/bin/env bash
# Builds librocksdb.a once per user and machine, and prints the two variables that make cargo use it:
#   eval "$(deploy/rocksdb.sh)"
# The source is the one inside the locked librocksdb-sys crate, built by RocksDB's own CMake as a unity build
# (about six minutes on two cores instead of eighteen per cargo profile). The folder is keyed by crate version and
# flags and left alone when it is there. Progress goes to standard error. Plain `cargo build` works without it.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'rocksdb: %s\n' "$*" >&2; }

batch=14
flags="Release unity$batch lz4 zstd portable v1"
crate=${TWINPOST_ROCKSDB_SOURCE:-}
if [ -z "$crate" ]; then
  cargo fetch --locked >&2
  crate=$(cargo metadata --locked --format-version 1 |
    python3 -c 'import json,sys,os
for p in json.load(sys.stdin)["packages"]:
    if p["name"] == "librocksdb-sys":
        print(os.path.dirname(p["manifest_path"]))')
fi
[ -d "$crate/rocksdb" ] || { say "no RocksDB source found; run cargo fetch"; exit 1; }

key=$(printf '%s %s' "$(basename "$crate")" "$flags" | tr -c 'A-Za-z0-9.\n' '-')
cache=${TWINPOST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/twinpost}
home=$cache/$key
lib=$home/librocksdb.a

if [ ! -f "$lib" ]; then
  mkdir -p "$cache"
  # One build at a time; whoever waits finds the finished library.
  exec 9>"$cache/rocksdb.lock"
  flock 9
fi
if [ ! -f "$lib" ]; then
  say "building librocksdb.a once for this machine (about six minutes on two cores)"
  work=$cache/build-$key
  rm -rf "$work"
  mkdir -p "$work"
  cp -r "$crate/rocksdb" "$work/src"
  compiler=()
  if command -v clang++ >/dev/null && command -v clang >/dev/null; then
    compiler=(-DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++)
  fi
  cmake -S "$work/src" -B "$work/out" -DCMAKE_BUILD_TYPE=Release "${compiler[@]}" \
    -DCMAKE_UNITY_BUILD=ON -DCMAKE_UNITY_BUILD_BATCH_SIZE=$batch -DCMAKE_POSITION_INDEPENDENT_CODE=ON \
    -DPORTABLE=1 -DFAIL_ON_WARNINGS=OFF -DWITH_LZ4=ON -DWITH_ZSTD=ON -DWITH_GFLAGS=OFF -DWITH_LIBURING=OFF \
    -DWITH_TESTS=OFF -DWITH_ALL_TESTS=OFF -DWITH_TOOLS=OFF -DWITH_CORE_TOOLS=OFF -DWITH_BENCHMARK_TOOLS=OFF \
    -DWITH_TRACE_TOOLS=OFF -DROCKSDB_BUILD_SHARED=OFF >"$work/cmake.log" 2>&1 ||
    { tail -n 30 "$work/cmake.log" >&2; say "cmake failed (is the apt line of README installed?)"; exit 1; }
  cmake --build "$work/out" --target rocksdb --parallel "$(nproc)" 2>&1 |
    tee "$work/build.log" | grep --line-buffered -E '^\[ *[0-9]+%\]|error' | sed -u 's/^/rocksdb: /' >&2 ||
    { tail -n 30 "$work/build.log" >&2; say "build failed"; exit 1; }
  [ -f "$work/out/librocksdb.a" ] || { tail -n 30 "$work/build.log" >&2; say "build failed"; exit 1; }
  mkdir -p "$home"
  strip --strip-debug "$work/out/librocksdb.a"
  mv "$work/out/librocksdb.a" "$lib.part"
  mv "$lib.part" "$lib"
  rm -rf "$work"
  say "done: $(du -h "$lib" | cut -f1)"
fi

printf 'export ROCKSDB_LIB_DIR=%q\nexport ROCKSDB_STATIC=1\n' "$home"
