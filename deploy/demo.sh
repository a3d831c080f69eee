#!/usr/bin/env bash
# Builds Twinpost and shows it: a pair on loopback takes mail, loses its primary, goes on, heals, and every
# acknowledged message is compared on both nodes. Everything after the options below goes to `twinpost demo`.
#   --release     build with optimisation (a second build of everything)
#   --bin PATH    use this binary, build nothing
# Exits 3 when packages are missing and may not be installed.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)

build=() profile=debug binary='' passed=()
while [ $# -gt 0 ]; do
  case $1 in
    --release) build=(--release) profile=release ;;
    --bin) binary=${2:?--bin needs a path}; passed+=("$1" "$2"); shift ;;
    --bin=*) binary=${1#--bin=}; passed+=("$1") ;;
    *) passed+=("$1") ;;
  esac
  shift
done

if [ -z "$binary" ]; then
  prepared=$("$here/deploy/prepare.sh") || exit $?
  eval "$prepared"
  (cd "$here" && cargo build --locked -p node "${build[@]}") || exit 1
  binary=$CARGO_TARGET_DIR/$profile/twinpost
fi
exec "$binary" demo "${passed[@]}"
