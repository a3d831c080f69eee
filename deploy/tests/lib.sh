# What the tests of the package and of the image share; sourced by them in the root of the repository, with `set -eu`.
#   . deploy/tests/lib.sh [--bin PATH]     what follows goes to deploy/package.sh by `build`
# shellcheck shell=bash

# Read by those who source this.
# shellcheck disable=SC2034
build=()
case ${1:-} in
  '') ;;
  --bin) build=(--bin "${2:?--bin needs a path}") ;;
  *) echo "no option $1" >&2; exit 64 ;;
esac

if [ "$(id -u)" != 0 ]; then
  echo "skipped: this test needs root (debootstrap, chroot, network namespaces)"
  exit 0
fi

suite=bookworm
needed=()
need() { command -v "$1" >/dev/null || needed+=("$2"); }
need debootstrap debootstrap
need dpkg-shlibdeps dpkg-dev
need systemd-analyze systemd
need ip iproute2
need curl curl
need groff groff-base
/usr/bin/python3 -c 'import seccomp' 2>/dev/null || needed+=(python3-seccomp)
/usr/bin/python3 -c 'import yaml' 2>/dev/null || needed+=(python3-yaml)
if [ ${#needed[@]} -gt 0 ]; then
  echo "installing ${needed[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${needed[@]}" >/dev/null
fi

# Everything lies in `work`. Processes in `started`, mounts in `mounted`, network namespaces in `spaces` end with the test.
work=$(mktemp -d)
space=twinpost-test-$$
started=() mounted=() spaces=()
cleanup() {
  local one
  for one in "${started[@]}"; do
    # `unshare --kill-child` does not end a child that has become another user since.
    pkill -KILL -P "$one" 2>/dev/null || true
    kill -KILL "$one" 2>/dev/null || true
    wait "$one" 2>/dev/null || true
  done
  for one in "${mounted[@]}"; do umount "$one" 2>/dev/null || true; done
  for one in "${spaces[@]}"; do ip netns del "$one" 2>/dev/null || true; done
  # Never across a mount that is left.
  rm -rf --one-file-system "$work"
}
trap cleanup EXIT

passed=0 failed=0
ok() { passed=$((passed + 1)); printf 'ok      %s\n' "$1"; }
bad() { failed=$((failed + 1)); printf 'FAILED  %s\n' "$1"; }
# check NAME COMMAND...: the command must succeed; what it says is shown when it does not.
check() {
  local name=$1 said
  shift
  if said=$("$@" 2>&1); then ok "$name"; else bad "$name"; printf '%s\n' "$said" | sed 's/^/        /'; fi
}
# The last words of a test; LOG is shown when something failed.
finish() {
  if [ $failed -gt 0 ] && [ -s "$1" ]; then
    echo "the end of the log:"
    tail -n 40 "$1"
  fi
  printf '%s passed, %s failed\n' $passed $failed
  [ $failed = 0 ]
}

absent() { ! [ -e "$1" ] || { ls -ld "$1"; return 1; }; }
has() { printf '%s\n' "$2" | grep -q -- "$1" || { printf 'no "%s" in: %s\n' "$1" "$2"; return 1; }; }
# within SECONDS COMMAND...: waits for the command to succeed.
within() {
  local limit=$1 begun=$SECONDS
  shift
  until "$@" >/dev/null 2>&1; do
    [ $((SECONDS - begun)) -lt "$limit" ] || { echo "not within $limit s: $*"; return 1; }
    sleep 0.2
  done
}

# bridge: a network for nodes. plug NAME ADDRESS/BITS INTERFACE: puts a network namespace `$space-NAME` on it.
bridge() {
  ip netns add "$space"
  spaces+=("$space")
  ip -n "$space" link add bridge type bridge
  ip -n "$space" link set bridge up
}
plug() {
  ip netns add "$space-$1"
  spaces+=("$space-$1")
  ip -n "$space-$1" link set lo up
  ip -n "$space-$1" link add "$3" type veth peer name "port-$1" netns "$space"
  ip -n "$space-$1" link set "$3" up
  ip -n "$space-$1" addr add "$2" dev "$3"
  ip -n "$space" link set dev "port-$1" master bridge up
}

# debian FOLDER [PACKAGES]: puts a small Debian there, with these packages (a,b). One is kept for a week beside the other things
# that are built once.
debian() {
  local cache=${TWINPOST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/twinpost} mirror
  local base=$cache/$suite-minbase${2:+-${2//,/-}}.tar
  if [ -z "$(find "$base" -mtime -7 2>/dev/null)" ]; then
    # shellcheck disable=SC2016
    mirror=$(apt-get indextargets --format '$(CODENAME) $(COMPONENT) $(SITE)' 'Created-By: Packages' |
      sed -n "s/^$suite main //p" | head -n 1)
    [ -n "$mirror" ] || { echo "skipped: this machine's apt knows no mirror of $suite"; exit 0; }
    mkdir -p "$cache"
    debootstrap --variant=minbase ${2:+--include="$2"} "$suite" "$work/base" "$mirror" >"$work/debootstrap.log" 2>&1 ||
      { tail -n 5 "$work/debootstrap.log"; echo "skipped: no Debian could be had from this machine's mirror"; exit 0; }
    rm -f "$work"/base/var/cache/apt/archives/*.deb
    tar -C "$work/base" -cf "$base.part" . && mv "$base.part" "$base"
    rm -rf "$work/base"
  fi
  mkdir "$1"
  tar -C "$1" -xf "$base"
}
