#!/usr/bin/env bash
# The fault lab: real nodes in network namespaces, real faults, a checker. Needs root.
#   jepsen/run.sh --minutes 10 --seed 7                        a storm of all faults
#   jepsen/run.sh --minutes 2 --nemesis kill,cut --witness     some, with a third vote
#   jepsen/run.sh --measure kill=300,switchover=100            outages, one fault after the other
#   jepsen/run.sh --control backup-first --nemesis crash --minutes 1   a negative control: must exit with 1 (all: outcomes.md)
#   jepsen/run.sh --keepalived default                         the same measure for keepalived
# Exit: 0 good, 1 violations or false failovers, 2 the lab did not work, 3 packages are missing. LAB_PROFILE=dev takes the
# debug build. What the kernel cannot inject is a row "not injected (why)".
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2

if [ "$(id -u)" != 0 ]; then
  echo "jepsen/run.sh: the lab makes network namespaces and needs root" >&2
  exit 2
fi
prepared=$(deploy/prepare.sh --tests) || exit $?
eval "$prepared"
missing=()
for pair in nft:nftables ip:iproute2 losetup:mount mkfs.ext4:e2fsprogs; do
  command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
if [ ${#missing[@]} -gt 0 ]; then
  echo "jepsen/run.sh: packages are missing: apt-get install ${missing[*]}" >&2
  exit 3
fi
command -v iptables-legacy >/dev/null || echo "jepsen/run.sh: without iptables no slow links" >&2

profile=${LAB_PROFILE:-release}
[ "$profile" = dev ] && folder=debug || folder=$profile
target=${CARGO_TARGET_DIR:-target}/$folder
features=() binary=twinpost control=
for word in "$@"; do
  case $control$word in
    --control) control=x ;;
    xlost-disk) control= ;;
    x*) features=(--features lab/controls) binary=twinpost-control control= ;;
  esac
done
cargo build --locked -q --profile "$profile" -p node -p lab "${features[@]}" || exit 2
exec "$target/lab" --binary "$(realpath "$target/$binary")" "$@"
