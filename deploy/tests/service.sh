#!/usr/bin/env bash
# The package and its unit under a real systemd, which runs as the first process of namespaces of its own in a Debian of its
# own: sandbox, readiness, watchdog, restarts, and an upgrade in a pair whose other node is a process beside it.
#   deploy/tests/service.sh [--bin PATH]     PATH: package this binary instead of a release build
# Needs root and a writable cgroup2 hierarchy; says so and is skipped otherwise.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=deploy/tests/lib.sh
. deploy/tests/lib.sh "$@"

a=$work/a b=$work/b
groups=$(findmnt -rnt cgroup2 -o TARGET | head -n 1)
if [ -z "$groups" ] || ! mkdir "$groups/$space" 2>/dev/null; then
  echo "skipped: no writable cgroup2 hierarchy here"
  exit 0
fi
leave_groups() {
  local status=$?
  if [ $status != 0 ] && [ -n "${init:-}" ]; then
    echo "the end of the journal:"
    inside journalctl --no-pager -n 60 || true
    cat "$work/log-b" 2>/dev/null || true
  fi
  cleanup
  # The kernel empties it when the last process is gone.
  within 10 find "$groups/$space" -depth -type d -exec rmdir {} + || true
}
trap leave_groups EXIT

make_packages() {
  local one
  for one in 1 2; do
    cp "$(deploy/package.sh "${build[@]}" --version "0.1.0~test$one" --out "$work/out")" "$a/var/tmp/$one.deb"
  done
}

# Its own devices and a /sys and /proc/sys that nobody writes to: the machine's kernel is not this systemd's to set up.
boot() {
  cat >"$work/boot" <<'END'
exec unshare --cgroup sh -eu -c '
  cd "$0"
  mount --bind "$0" "$0" && cd "$0"
  mount -t proc proc proc
  mount --bind proc/sys proc/sys && mount -o remount,bind,ro proc/sys
  mount -t sysfs -o ro sysfs sys
  mount -t cgroup2 cgroup2 sys/fs/cgroup
  mount -t tmpfs -o mode=755 tmpfs run
  mount -t tmpfs -o mode=755 tmpfs dev
  mkdir dev/pts dev/shm .old
  mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
  ln -s pts/ptmx dev/ptmx
  for one in null zero full random urandom tty; do
    touch dev/$one && mount --bind /dev/$one dev/$one
  done
  pivot_root . .old
  umount -l .old
  exec env -i container=test /lib/systemd/systemd --system --show-status=no --log-target=journal --unit=multi-user.target
' "$1"
END
  # The group first: a network namespace comes with a /sys without groups.
  sh -c 'echo $$ >"$1/cgroup.procs" && shift && exec "$@"' sh "$groups/$space" \
    ip netns exec "$space-a" unshare --pid --fork --kill-child=KILL --mount --uts --ipc \
    sh "$work/boot" "$a" </dev/null >"$work/log" 2>&1 &
  started+=($!)
  init=''
  if within 20 pgrep -P $! >/dev/null; then init=$(pgrep -P $!); fi
}

inside() { nsenter -t "$init" -a env PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"; }
shown() { inside systemctl show twinpost -p "$1" --value; }
is() { [ "$(shown "$1")" = "$2" ] || { echo "$1 is $(shown "$1"), not $2"; return 1; }; }
is_running() { is ActiveState active && is SubState running; }
daemon() { inside cat /var/lib/twinpost/twinpost.pid; }
is_not() { [ "$(daemon)" != "$1" ]; }
no_process() { ! inside test -e "/proc/$1"; }
end() { inside bash -c "kill -$1 $2"; }
holds() { ip -n "$space-a" -o addr show dev eth0 | grep -q ' 192.0.2.10/24 '; }
# What the daemon's own eyes see.
sees() { inside nsenter -t "$(daemon)" -m -- "$@"; }
cannot_write() {
  local place
  for place in "$@"; do ! sees touch "$place/x" 2>/dev/null || { echo "writes to $place"; return 1; }; done
}
status() { inside twinpost status --json; }
in_sync() { status | /usr/bin/python3 -c "import json, sys; sys.exit(json.load(sys.stdin)['in_sync'] != $1)"; }
said() { inside journalctl -u twinpost --no-pager | grep -q "$1"; }

test_start() {
  check "the package is put in" inside dpkg -i /var/tmp/1.deb
  check "it is enabled" inside systemctl is-enabled twinpost
  check "a start before there is a node does nothing" inside systemctl start twinpost
  check "and is no failure" is ActiveState inactive
  printf 'address = "192.0.2.11"\nname = "a"\n[cluster_address]\nprovider = "netlink"\ninterface = "eth0"\n[probe]\ntargets = []\n' \
    >"$a/etc/twinpost/twinpost.toml"
  check "root founds a cluster" inside twinpost cluster init --cluster-address 192.0.2.10/24
  check "it starts" inside systemctl start twinpost
  check "started means ready" is_running
  check "the line of status is the daemon's" within 10 is StatusText "primary, joined, alone in sync"
  check "the watchdog waits" test -n "$(shown WatchdogTimestamp)"
  check "the cluster address is here" within 10 holds
}

test_sandbox() {
  check "it writes to its data alone" cannot_write / /etc /etc/twinpost /usr /var /var/lib /root /home /sys /proc/sys
  check "and there it does" sees setpriv --reuid twinpost --clear-groups sh -c 'touch /var/lib/twinpost/x && rm /var/lib/twinpost/x'
  check "homes look empty" test -z "$(sees ls -A /root /home | grep -v :)"
  check "it has three capabilities" inside grep -q '^CapBnd:.0000000000003400$' "/proc/$(daemon)/status"
}

test_ends() {
  local before guard
  before=$(daemon)
  end KILL "$before"
  check "a daemon that was killed comes back" within 20 is_not "$before"
  check "the guard said so" within 10 said 'guard: the daemon .* ended: signal: 9'
  within 20 is_running
  before=$(daemon) guard=$(shown MainPID)
  end KILL "$guard"
  check "without its guard a daemon does not go on" within 20 no_process "$before"
  check "and comes back with one" within 20 is_running

  mkdir -p "$a/etc/systemd/system/twinpost.service.d"
  printf '[Service]\nWatchdogSec=3s\n' >"$a/etc/systemd/system/twinpost.service.d/quick.conf"
  inside systemctl daemon-reload
  inside systemctl restart twinpost
  before=$(daemon) guard=$(shown NRestarts)
  sleep 5
  check "a heart that beats is left alone" is NRestarts "$guard"
  end STOP "$before"
  check "a daemon that hangs is ended by the watchdog" within 30 no_process "$before"
  check "through the guard" within 10 said 'guard: the watchdog heard nothing from the daemon'
  check "and comes back" within 20 is_running
  rm "$a/etc/systemd/system/twinpost.service.d/quick.conf"
  inside systemctl daemon-reload
  inside systemctl restart twinpost
}

# The other node: a process with the same binary.
other() { ip netns exec "$space-b" chroot "$b" env PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"; }
test_upgrade() {
  local before
  before=$(shown MainPID)
  check "an upgrade of the only node" inside dpkg -i /var/tmp/2.deb
  check "restarts it" test "$before" != "$(shown MainPID)"
  check "and it runs" is_running
  printf 'address = "192.0.2.12"\nname = "b"\n[cluster_address]\nprovider = "netlink"\ninterface = "eth0"\n[probe]\ntargets = []\n' \
    >"$b/etc/twinpost/twinpost.toml"
  check "a second node joins" bash -c "nsenter -t $init -a twinpost cluster token |
    ip netns exec $space-b chroot $b twinpost cluster join"
  other twinpost guard >>"$work/log-b" 2>&1 &
  started+=($!)
  second=$!
  check "and comes in sync" within 60 in_sync "[1, 2]"
  before=$(shown MainPID)
  check "an upgrade beside a node in sync" inside dpkg -i /var/tmp/1.deb
  check "restarts the node" test "$before" != "$(shown MainPID)"
  check "the other one took over, and both are in sync again" within 60 in_sync "[1, 2]"
  check "the other one is the primary now" has '"role": *"primary"' "$(status | tr -d '\n' | grep -o '{[^{}]*"name": *"b"[^{}]*}')"
  # Both gone at once: nobody is left to take over.
  kill -KILL "$(cat "$b/var/lib/twinpost/twinpost.pid")" "$second"
  before=$(shown MainPID)
  check "an upgrade beside a node that is gone says that it restarts nothing" has 'NOT restarted' \
    "$(inside env TWINPOST_UPGRADE_WAIT=3 dpkg -i /var/tmp/2.deb 2>&1)"
  check "the node runs on" is MainPID "$before"
}

test_stop() {
  local restarts
  restarts=$(shown NRestarts)
  check "a stop is in order" inside systemctl stop twinpost
  check "and no failure" is Result success
  check "the cluster address is gone" eval '! holds'
  sed -i 's/^address/adress/' "$a/etc/twinpost/twinpost.toml"
  check "a wrong node file is a failure" eval '! inside systemctl start twinpost'
  sleep 3
  check "that is not tried again" is NRestarts "$restarts"
  check "and is said" said 'adress'
  sed -i 's/^adress/address/' "$a/etc/twinpost/twinpost.toml"
  check "the node starts" inside systemctl start twinpost
  check "removal stops it" inside dpkg --remove twinpost
  check "nothing is left running" eval '! inside pgrep -x twinpost'
}

debian "$a" systemd,systemd-sysv,dbus,procps
make_packages
# The other node's folder, before anything is in this one's.
cp -a "$a" "$b"
mount -t proc proc "$b/proc"
mounted+=("$b/proc")
chroot "$b" dpkg -i /var/tmp/1.deb >/dev/null 2>&1
bridge
plug a 192.0.2.11/24 eth0
plug b 192.0.2.12/24 eth0
boot
if [ -z "$init" ] || ! within 60 inside systemctl is-active --quiet multi-user.target; then
  echo "skipped: no systemd starts in namespaces here"
  tail -n 5 "$work/log"
  exit 0
fi
ok "systemd runs as the first process of its namespaces"
test_start
test_sandbox
test_ends
test_upgrade
test_stop
finish /dev/null
