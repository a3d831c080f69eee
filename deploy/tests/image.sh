#!/usr/bin/env bash
# The image and compose files as far as they can be tried without a container engine: the last stage's steps in a Debian of the
# test's own, then three nodes with the addresses, capabilities and command of the compose file, each in a root, a network and
# a process namespace of its own, founded and joined by the commands of docs/operations/install.md.
#   deploy/tests/image.sh [--bin PATH]     PATH: this binary instead of a release build
# Not tried: the build stage and its base images, volumes, the read-only root, the engine's network and health checks.
# Needs root; says so and is skipped otherwise.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=deploy/tests/lib.sh
. deploy/tests/lib.sh "$@"

image=$work/image
cluster=10.89.64.10

make_image() {
  local package step
  debian "$image"
  mkdir "$image/package"
  package=$(deploy/package.sh "${build[@]}" --out "$work/out")
  cp "$package" "$image/package/"
  while read -r step; do
    check "step of the image: ${step%% *}" chroot "$image" sh -c "$step"
  done < <(/usr/bin/python3 deploy/tests/compose.py deploy/oci --steps)
  check "the user has the number that volumes know" has '^twinpost:x:6420:6420:' "$(chroot "$image" getent passwd twinpost)"
  check "the package is not kept" absent "$image/package"
}

# node NAME ADDRESS: a network and a root, as an engine would make them.
make_node() {
  local root=$work/$1
  cp -a "$image" "$root"
  install -m 0644 "deploy/oci/$1.toml" "$root/etc/twinpost/twinpost.toml"
  plug "$1" "$2/24" eth0
}

# start NAME CAPABILITIES COMMAND...: as the first process, with these capabilities and no way to more.
start_node() {
  local name=$1 caps=+${2//,/,+}
  shift 2
  ip netns exec "$space-$name" unshare --pid --fork --kill-child=KILL --mount-proc="$work/$name/proc" \
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin NO_COLOR=1 chroot "$work/$name" \
    setpriv --bounding-set "-all,$caps" --inh-caps=-all --no-new-privs "$@" >>"$work/log" 2>&1 &
  started+=($!)
  pids[$name]=$!
}

# inside NAME COMMAND...: what `exec` of an engine does; with as_user= what `exec -u twinpost` does.
inside() {
  local name=$1 who=()
  shift
  if [ -n "${as_user:-}" ]; then who=(--reuid twinpost --regid twinpost --clear-groups); fi
  ip netns exec "$space-$name" chroot "$work/$name" env PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    setpriv "${who[@]}" --bounding-set "-all,+${capabilities//,/,+}" --inh-caps=-all "$@"
}
ask() { as_user=yes inside "$@"; }
join() { ask a twinpost cluster token | inside "$1" twinpost cluster join "${@:2}"; }
waits() { [ "$(grep -c 'waiting for .twinpost cluster init' "$work/log")" -ge "$1" ]; }
shows() { ask "$1" twinpost status --json | /usr/bin/python3 -c "import json, sys; s = json.load(sys.stdin); sys.exit(not ($2))"; }
holds() { ip -n "$space-$1" -o addr show dev eth0 | grep -q " $cluster/24 "; }
mail_on() {
  echo 'correct horse' | ip netns exec "$space-witness" /usr/bin/python3 deploy/tests/client.py \
    "$work/a/var/lib/twinpost/ca.pem" $cluster "$1" bob@example.org
}
# The kernel's number of the guard, which is number one in its namespace.
guard_of() { pgrep -P "${pids[$1]}"; }

declare -A pids
make_image
services=$(/usr/bin/python3 deploy/tests/compose.py deploy/oci) || { echo "$services"; exit 1; }
ok "image, compose and node files fit together"
bridge
while read -r name address capabilities command; do
  make_node "$name" "$address"
  # shellcheck disable=SC2086
  start_node "$name" "$capabilities" $command
done <<<"$services"
capabilities=$(head -n 1 <<<"$services" | cut -d ' ' -f 3)

check "three guards wait to be made nodes" within 20 waits 3
check "a cluster is founded" inside a twinpost cluster init --cluster-name office --cluster-address $cluster/24
check "the first node serves" within 60 shows a 's["mode"] == "joined"'
check "no process is root's" test -z "$(find /proc/[0-9]*/root -maxdepth 0 -lname "$work/a" 2>/dev/null |
  while read -r root; do stat -c %u "${root%/root}"; done | grep -x 0)"
check "takes a domain" ask a twinpost domain add example.org --default
check "takes an account" bash -c "$(declare -f ask inside); work=$work capabilities=$capabilities
  echo 'correct horse' | ip netns exec $space-a chroot $work/a setpriv --reuid twinpost --regid twinpost \
  --clear-groups twinpost account add bob@example.org"
check "the second node joins" join b
check "and comes in sync" within 60 shows a 's["in_sync"] == [1, 2]'
check "the witness joins" join witness --witness
check "and votes" within 60 shows a 'sum(n["votes"] for n in s["nodes"]) == 3'
check "the first node holds the cluster address" within 20 holds a
check "mail goes in by the cluster address and is read on the other node" mail_on 10.89.64.12
guard=$(guard_of a)
kill -TERM "$guard"
check "the first node ends in order" within 60 test ! -e "/proc/$guard/exe"
check "the second one takes the cluster address" within 20 holds b
check "and goes on" mail_on 10.89.64.12
check "its data are the user's alone" test -z "$(find "$work/a/var/lib/twinpost" -not -type l \( -not -uid 6420 -o -perm /077 \))"
finish "$work/log"
