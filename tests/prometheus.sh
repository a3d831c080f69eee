#!/usr/bin/env bash
# Debian's prometheus and promtool without installing them: says the folder they are in, or nothing and why on standard
# error. A test that finds neither says that it did not check. Needs no root.
set -uo pipefail
for name in prometheus promtool; do
  command -v "$name" >/dev/null || missing=1
done
if [ -z "${missing:-}" ]; then
  dirname "$(command -v promtool)"
  exit 0
fi
home=${XDG_CACHE_HOME:-$HOME/.cache}/twinpost/prometheus
if [ ! -x "$home/usr/bin/promtool" ]; then
  mkdir -p "$home" && cd "$home" || exit 1
  if ! { apt-get download prometheus && dpkg -x prometheus_*.deb . && rm -f prometheus_*.deb; } >&2; then
    echo "prometheus.sh: Debian's prometheus cannot be fetched" >&2
    exit 1
  fi
fi
echo "$home/usr/bin"
