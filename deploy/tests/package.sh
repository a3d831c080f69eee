#!/usr/bin/env bash
# Installs, runs, upgrades, removes and purges the Debian package in a Debian of its own (debootstrap, bookworm) and looks at
# what it leaves. No systemd runs there: the unit's command is started as the unit says (deploy/tests/as_unit.py) in a network
# namespace, and what the package asks of systemctl is written down.
#   deploy/tests/package.sh [--bin PATH]     PATH: package this binary instead of a release build
# Needs root; says so and is skipped otherwise. Missing tools are installed. The Debian mirror is the one of this machine's apt.
set -euo pipefail
cd "$(dirname "$0")/../.."

# shellcheck source=deploy/tests/lib.sh
. deploy/tests/lib.sh "$@"

node=192.0.2.11 cluster=192.0.2.10
exposure_max=25 # systemd-analyze security, in tenths

root=$work/root
# mode PATH WANTED: rights, user and group.
mode() {
  local found
  found=$(chroot "$root" stat -c '%a %U:%G' "$1")
  [ "$found" = "$2" ] || { echo "$1 is $found, not $2"; return 1; }
}
inside() { ip netns exec "$space" chroot "$root" env PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"; }
put_in() { inside dpkg --force-confold -i "/var/tmp/$1.deb" 2>&1; }
asked() { cat "$root/var/tmp/systemctl.log"; }

make_root() {
  debian "$root"
  mount -t proc proc "$root/proc"
  mounted+=("$root/proc")
  mkdir -p "$root/run/systemd/system" "$root/usr/local/bin"
  # The service runs for the package when the file says so.
  cat >"$root/usr/local/bin/systemctl" <<'END'
#!/bin/sh
echo "$*" >>/var/tmp/systemctl.log
case $* in
  *is-active*) [ -e /var/tmp/service-is-active ] ;;
esac
END
  chmod +x "$root/usr/local/bin/systemctl"
  : >"$root/var/tmp/systemctl.log"
}

make_packages() {
  local one
  for one in 1 2; do
    cp "$(deploy/package.sh "${build[@]}" --version "0.1.0~test$one" --out "$work/out")" "$work/$one.deb"
  done
  mkdir -p "$root/var/tmp"
  cp "$work"/[12].deb "$root/var/tmp/"
}

libraries() { ! inside ldd /usr/bin/twinpost | grep 'not found'; }
no_process() { ! find /proc/[0-9]*/root -maxdepth 0 -lname "$root" 2>/dev/null | grep .; }
all_owned() {
  local other
  other=$(chroot "$root" find /var/lib/twinpost \( -not -user twinpost -o -not -group twinpost -o -perm /077 \) -not -type l)
  [ -z "$other" ] || { printf '%s\n' "$other"; return 1; }
}

test_install() {
  local said
  said=$(put_in 1) || { bad "installs"; printf '%s\n' "$said"; return; }
  ok "installs"
  check "says what comes next" has "twinpost cluster init" "$said"
  check "finds its libraries" libraries
  check "is of its version" inside twinpost --version
  check "user and group are a system's, without a shell" has '^twinpost:.*:/var/lib/twinpost:/usr/sbin/nologin$' \
    "$(inside getent passwd twinpost)"
  check "data folder 0700" mode /var/lib/twinpost "700 twinpost:twinpost"
  check "settings 0750" mode /etc/twinpost "750 root:twinpost"
  check "binary is root's" mode /usr/bin/twinpost "755 root:root"
  check "no other file with rights of its own" test -z "$(chroot "$root" dpkg -L twinpost | while read -r path; do
    [ -d "$root$path" ] || chroot "$root" find "$path" \( -perm /6022 -o -not -user root \) -not -type l; done)"
  # shellcheck disable=SC2016
  check "conffiles" has "/etc/default/twinpost" "$(inside dpkg-query -W -f '${Conffiles}' twinpost)"
  check "unit is enabled" test -L "$root/etc/systemd/system/multi-user.target.wants/twinpost.service"
  check "systemd was told" has "daemon-reload" "$(asked)"
  check "nothing was started" test -z "$(asked | grep -E '\b(re)?start\b')"
  check "nothing runs" no_process
  check "manual page is sound" bash -c "! zcat '$root/usr/share/man/man1/twinpost.1.gz' | groff -man -Tutf8 -ww -z 2>&1 | grep ."
  check "example of a node file is understood" example_is_understood
  check "files are as packed" inside dpkg --verify twinpost
}

example_is_understood() {
  sed 's/^#//; s/^ \(.*\)$/# \1/' "$root/usr/share/doc/twinpost/examples/twinpost.toml" >"$root/var/tmp/example.toml"
  sed -i 's/^\(interface\) = .*/\1 = "lan0"/' "$root/var/tmp/example.toml"
  local said
  said=$(inside twinpost cluster init --dry-run --config /var/tmp/example.toml 2>&1) || true
  has "would be node 1" "$said" || has "data-folder" "$said"
}

test_unit() {
  local unit=$root/usr/lib/systemd/system/twinpost.service said
  # With the units that a machine with systemd has; this one's manual pages are not the chroot's.
  install -d "$work/verify/usr/lib/systemd/system" "$work/verify/usr/bin"
  cp /lib/systemd/system/*.target "$unit" "$work/verify/usr/lib/systemd/system/"
  cp "$root/usr/bin/twinpost" "$work/verify/usr/bin/"
  said=$(systemd-analyze verify --man=no --root="$work/verify" twinpost.service 2>&1) || true
  check "systemd-analyze verify has nothing to say" test -z "$said"
  [ -z "$said" ] || printf '%s\n' "$said"
  check "systemd-analyze security: exposure of $exposure_max tenths at most" \
    systemd-analyze security --offline=true --threshold=$exposure_max "$unit"
  systemd-analyze security --offline=true "$unit" | sed -n 's/.*\(Overall [ -~]*\).*/        \1/p'
}

test_found() {
  printf 'address = "%s"\nname = "a"\n[cluster_address]\nprovider = "netlink"\ninterface = "lan0"\n[probe]\ntargets = []\n' \
    "$node" >"$root/etc/twinpost/twinpost.toml"
  chroot "$root" chown root:twinpost /etc/twinpost/twinpost.toml
  chmod 0640 "$root/etc/twinpost/twinpost.toml"
  check "root founds a cluster" inside twinpost cluster init --cluster-name office --cluster-address $cluster/24
  check "what root founded is the user's alone" all_owned
}

capabilities() {
  local pid=$1 wanted=0000000000003400 line
  for line in CapInh CapPrm CapEff CapBnd CapAmb; do
    grep -q "^$line:.$wanted\$" "/proc/$pid/status" || { grep '^Cap' "/proc/$pid/status"; return 1; }
  done
  grep -q '^NoNewPrivs:.1$' "/proc/$pid/status" && grep -q '^Seccomp:.2$' "/proc/$pid/status"
}
daemon() { cat "$root/var/lib/twinpost/twinpost.pid"; }
answers() { ip netns exec "$space" curl -sfk "https://$1/health/live"; }
holds() { ip -n "$space" -o addr show dev lan0 | grep -q " $cluster/24 "; }
holds_not() { ! holds; }
heard() { grep -q "$1" "$work/heard"; }
# No anonymous memory that can be written and run.
no_rwx() { ! grep -E '^[^ ]+ rwx' "/proc/$1/maps"; }
as_user() { [ "$(chroot "$root" stat -c %U "/proc/$1")" = twinpost ]; }

test_run() {
  /usr/bin/python3 deploy/tests/hear.py "$root/var/tmp/notify" >"$work/heard" &
  started+=($!)
  within 10 test -S "$root/var/tmp/notify"
  start_unit
  check "is ready" within 60 heard 'READY=1'
  check "/health/live answers" within 20 answers $node
  check "runs as the user" as_user "$(daemon)"
  check "has three capabilities and gets no more (daemon)" capabilities "$(daemon)"
  check "has three capabilities and gets no more (guard)" capabilities "$guard"
  check "no memory is both written and run" no_rwx "$(daemon)"
  check "adds the cluster address" within 20 holds
  check "beats" within 10 heard 'WATCHDOG=1'
  check "says how it does" within 10 heard 'STATUS=primary, joined, alone in sync'
  check "takes a domain" inside twinpost domain add example.org --default
  check "takes an account" bash -c "echo 'correct horse' | ip netns exec $space chroot $root twinpost account add bob@example.org"
  check "takes mail on the cluster address and shows it" bash -c "echo 'correct horse' | ip netns exec $space \
    /usr/bin/python3 deploy/tests/client.py $root/var/lib/twinpost/ca.pem $cluster $node bob@example.org"
  check "keeps everything to itself" all_owned
  touch "$root/var/tmp/service-is-active"
}

start_unit() {
  NOTIFY_SOCKET=/var/tmp/notify WATCHDOG_USEC=4000000 ip netns exec "$space" \
    /usr/bin/python3 deploy/tests/as_unit.py "$root/usr/lib/systemd/system/twinpost.service" "$root" >>"$work/log" 2>&1 &
  guard=$!
  started+=("$guard")
}

test_upgrade() {
  local said
  : >"$root/var/tmp/systemctl.log"
  echo '# a word of the administrator' >>"$root/etc/default/twinpost"
  said=$(put_in 2) || { bad "upgrades"; printf '%s\n' "$said"; return; }
  ok "upgrades"
  check "restarts the only node" has 'restart twinpost.service' "$(asked)"
  check "did not stop it before" test -z "$(asked | grep -E '\bstop\b')"
  check "what was changed stays" grep -q 'word of the administrator' "$root/etc/default/twinpost"
  check "the new version is there" has '0.1.0~test2' "$(inside dpkg-query -W twinpost)"

  sed -i 's/^TWINPOST_UPGRADE_RESTART=.*/TWINPOST_UPGRADE_RESTART=never/' "$root/etc/default/twinpost"
  : >"$root/var/tmp/systemctl.log"
  said=$(put_in 2)
  check "restarts nothing when told so, and says it" has 'NOT restarted' "$said"
  check "nothing was restarted" test -z "$(asked | grep -E '\brestart\b')"
  sed -i 's/^TWINPOST_UPGRADE_RESTART=.*/TWINPOST_UPGRADE_RESTART=auto/' "$root/etc/default/twinpost"
}

test_stop() {
  local status=0
  kill -TERM "$guard" || { bad "runs until it is asked to end"; return; }
  check "ends within 20 s" within 20 test ! -e "/proc/$guard/exe"
  wait "$guard" || status=$?
  check "ends with 0" test $status = 0
  check "said that it stops" heard 'STOPPING=1'
  check "gives the cluster address up" holds_not
  : >"$root/var/tmp/systemctl.log"
  # Nobody answers: somebody else may not be in sync.
  check "does not restart what it cannot ask" has 'NOT restarted' "$(TWINPOST_UPGRADE_WAIT=3 put_in 2)"
  check "nothing was restarted" test -z "$(asked | grep -E '\brestart\b')"
  rm "$root/var/tmp/service-is-active"
}

test_no_member() {
  local status=0
  mv "$root/var/lib/twinpost/node.json" "$root/var/tmp/"
  inside twinpost serve >/dev/null 2>&1 || status=$?
  check "serve exits with 78 where there is no node" test $status = 78
  mv "$root/var/tmp/node.json" "$root/var/lib/twinpost/"
}

test_remove() {
  local said
  : >"$root/var/tmp/systemctl.log"
  said=$(inside dpkg --remove twinpost 2>&1)
  check "removal stops the service" has 'stop twinpost.service' "$(asked)"
  check "removal reminds of the cluster" has 'still a member' "$said"
  check "binary is gone" absent "$root/usr/bin/twinpost"
  check "unit is gone" absent "$root/usr/lib/systemd/system/twinpost.service"
  check "mail stays" test -d "$root/var/lib/twinpost/mail"
  check "settings stay" test -f "$root/etc/twinpost/twinpost.toml"
  check "mail is still the user's" all_owned
}

test_purge() {
  local said
  said=$(inside dpkg --purge twinpost 2>&1)
  check "purge removes the settings" absent "$root/etc/twinpost"
  check "purge removes the environment" absent "$root/etc/default/twinpost"
  check "purge forgets that it was enabled" absent "$root/etc/systemd/system/multi-user.target.wants/twinpost.service"
  check "purge keeps mail and says so" has 'is kept' "$said"
  check "mail is there" test -d "$root/var/lib/twinpost/mail"
  put_in 1 >/dev/null
  check "mail is found again" test -f "$root/var/lib/twinpost/node.json"
  check "and is the user's" all_owned
  inside env TWINPOST_PURGE_DATA=yes dpkg --purge twinpost >/dev/null 2>&1
  check "purge deletes mail when told so" absent "$root/var/lib/twinpost"
  put_in 1 >/dev/null
  inside dpkg --purge twinpost >/dev/null 2>&1
  check "purge removes an empty data folder" absent "$root/var/lib/twinpost"
  check "nothing else is left" test -z "$(find "$root/etc" "$root/usr" "$root/var/lib" -name '*twinpost*' \
    -not -path '*/dpkg/*' -not -path '*/systemd/deb-systemd-*')"
}

test_same_bytes() {
  local again
  again=$(deploy/package.sh "${build[@]}" --version 0.1.0~test1 --out "$work/again")
  check "the same commit gives the same bytes" cmp "$work/1.deb" "$again"
}

make_root
bridge
plug node "$node/24" lan0
space=$space-node
make_packages
test_install
test_unit
test_found
test_run
test_upgrade
test_stop
test_no_member
test_remove
test_purge
test_same_bytes
printf '        package %s bytes, installed %s KiB\n' "$(stat -c %s "$work/1.deb")" "$(dpkg-deb -f "$work/1.deb" Installed-Size)"
finish "$work/log"
