#!/usr/bin/env bash
# Builds the Debian package of Twinpost and prints its path.
#   deploy/package.sh [--bin PATH] [--version VERSION] [--out FOLDER]
#     --bin      package this release binary, build nothing
#     --version  instead of the workspace's version (with commit count and hash where no tag v... is checked out)
#     --out      where the package goes, and beside it the symbols that were stripped (target/debian unless said)
# Needs what deploy/prepare.sh installs, and dpkg-dev. The same commit gives the same bytes on the same machine.
set -euo pipefail
cd "$(dirname "$0")/.."
here=$PWD

say() { printf 'package: %s\n' "$*" >&2; }

binary='' version='' out=target/debian
while [ $# -gt 0 ]; do
  case $1 in
    --bin) binary=$(realpath "${2:?--bin needs a path}"); shift ;;
    --version) version=${2:?--version needs one}; shift ;;
    --out) out=${2:?--out needs a folder}; shift ;;
    *) say "no option $1"; exit 64 ;;
  esac
  shift
done
command -v dpkg-shlibdeps >/dev/null || { say "needs dpkg-dev"; exit 3; }

prepared=$(deploy/prepare.sh) || exit $?
eval "$prepared"
commit=$(git rev-parse --verify HEAD 2>/dev/null || echo 'an archive')
if [ -z "$version" ]; then
  version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
  tag=$(git describe --exact-match --tags HEAD 2>/dev/null || true)
  if [ "$commit" != "an archive" ] && [ "$tag" != "v$version" ]; then
    version=$version+git$(git rev-list --count HEAD).$(git rev-parse --short=8 HEAD)
  fi
fi
if [ -z "$binary" ]; then
  # Nodes tell each other what they run.
  TWINPOST_VERSION=$version cargo build --locked --release -p node >&2
  binary=$CARGO_TARGET_DIR/release/twinpost
fi
# Without a repository around it (an archive of the sources) the newest thing that is known is the lock file.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y Cargo.lock)}
export SOURCE_DATE_EPOCH
# As Debian's own tools have it.
maintainer="${DEBFULLNAME:-The Twinpost authors} <${DEBEMAIL:-twinpost@localhost}>"
architecture=$(dpkg --print-architecture)
name=twinpost_${version}_$architecture

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
put() { install -D -m "$1" "$2" "$root/$3"; }
squeeze() { gzip -9n >"$root/$1" && chmod 0644 "$root/$1"; }

# The program. Its symbols lie beside the package: a stranger's backtrace can be read with them.
install -D -m 0755 "$binary" "$root/usr/bin/twinpost"
mkdir -p "$out"
objcopy --only-keep-debug --compress-debug-sections "$binary" "$out/$name.debug"
chmod 0644 "$out/$name.debug"
(cd "$out" && strip "$root/usr/bin/twinpost" && objcopy --add-gnu-debuglink="$name.debug" "$root/usr/bin/twinpost")

put 0644 deploy/systemd/twinpost.service usr/lib/systemd/system/twinpost.service
put 0644 deploy/systemd/sysusers.conf usr/lib/sysusers.d/twinpost.conf
put 0644 deploy/debian/default etc/default/twinpost
install -d -m 0755 "$root/etc/twinpost"
put 0644 deploy/debian/twinpost.toml usr/share/doc/twinpost/examples/twinpost.toml
for page in docs/operations/*.md; do
  case $page in
    */evidence.md | */controls.md) ;; # of this repository, not of an installation
    *) put 0644 "$page" "usr/share/doc/twinpost/operations/$(basename "$page")" ;;
  esac
done

doc=usr/share/doc/twinpost
# The MIT text, indented and with points for empty lines, as the format of the file wants it.
{ cat deploy/debian/copyright; sed 's/^$/./; s/^/ /' LICENSE-MIT; } >"$root/$doc/copyright"
python3 deploy/debian/notices.py | squeeze $doc/notices.gz
date=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%d)
mkdir -p "$root/usr/share/man/man1"
python3 deploy/debian/man.py "$root/usr/bin/twinpost" "$date" "$version" | squeeze usr/share/man/man1/twinpost.1.gz
{
  printf 'twinpost (%s) unstable; urgency=medium\n\n  * Built from %s.\n\n' "$version" "$commit"
  printf ' -- %s  %s\n' "$maintainer" "$(date -u -R -d "@$SOURCE_DATE_EPOCH")"
} | squeeze $doc/changelog.gz

# Libraries by what the binary asks of them. dpkg-shlibdeps wants a source package around it.
mkdir "$work/debian"
printf 'Source: twinpost\n\nPackage: twinpost\nArchitecture: any\n' >"$work/debian/control"
depends=$(cd "$work" && dpkg-shlibdeps -O "$root/usr/bin/twinpost" | sed -n 's/^shlibs:Depends=//p')
[ -n "$depends" ] || { say "dpkg-shlibdeps found no libraries"; exit 1; }

control=$root/DEBIAN
install -d -m 0755 "$control"
for script in postinst prerm postrm; do
  install -m 0755 "deploy/debian/$script" "$control/$script"
done
echo /etc/default/twinpost >"$control/conffiles"
size=$(find "$root" -type f -not -path "$control/*" -printf '%k\n' | awk '{ kib += $1 } END { print kib }')
cat >"$control/control" <<END
Package: twinpost
Version: $version
Architecture: $architecture
Maintainer: $maintainer
Installed-Size: $size
Depends: $depends, init-system-helpers (>= 1.54), passwd
Provides: imap-server, pop3-server
Section: mail
Priority: optional
Description: highly available mail system for a pair of machines
 SMTP, submission, IMAP, POP3 and an HTTP API behind one address of a pair of
 machines, without shared storage and without an external database. A message is
 acknowledged when it is durable on both, either machine goes on alone when the
 other is gone, and what was acknowledged is there when they meet again.
 .
 The same package makes a node with mail or a witness, which only votes.
END
(cd "$root" && find . -type f -not -path './DEBIAN/*' -printf '%P\0' | sort -z | xargs -0 md5sum >DEBIAN/md5sums)
chmod 0644 "$control/control" "$control/conffiles" "$control/md5sums"
find "$root" -newermt "@$SOURCE_DATE_EPOCH" -print0 | xargs -0r touch --no-dereference --date="@$SOURCE_DATE_EPOCH"

dpkg-deb --root-owner-group -Zxz --build "$root" "$out/$name.deb" >&2
say "$(du -h "$out/$name.deb" | cut -f1) package, $((size / 1024)) MiB installed"
cd "$here" && realpath "$out/$name.deb"
