#!/usr/bin/env bash
# Every check and every test, in the order of how soon they fail. Goes on after a failure and ends with a summary.
#   tests/run.sh                everything
#   tests/run.sh format tidy    only these steps
# Steps: format lint tidy test e2e lab (the fault lab for a minute; without root and nftables it says so and is skipped)
# package (the package, its service and the image, in small Debians of their own; without root skipped, too).
# Exits 1 when a step failed, 3 when packages are missing. A step that takes longer than STEP_LIMIT seconds (2400 unless
# set) has failed: a test that hangs must not take the others with it.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

steps=("$@")
[ ${#steps[@]} -gt 0 ] || steps=(format lint tidy test e2e lab package)

prepared=$(deploy/prepare.sh --tests) || exit $?
eval "$prepared"
for component in fmt clippy; do
  cargo "$component" --version >/dev/null 2>&1 || rustup component add rustfmt clippy || exit 3
done

limited() { timeout --kill-after=10 "${STEP_LIMIT:-2400}" "$@"; }

step() {
  case $1 in
    format) limited cargo fmt --all --check ;;
    lint) limited cargo clippy --locked --workspace --all-targets -- -D warnings ;;
    tidy) limited cargo run --locked -q -p xtask -- tidy ;;
    # Built first, so that the limit is one for the tests alone.
    test)
      limited cargo test --locked --workspace --exclude e2e --no-run &&
        limited cargo test --locked --workspace --exclude e2e --no-fail-fast
      ;;
    # Real processes measure time, so nothing else runs beside them.
    e2e)
      # Without them the test of the metrics says that it did not check.
      TWINPOST_PROMETHEUS=$(tests/prometheus.sh) && export TWINPOST_PROMETHEUS
      limited cargo build --locked -p node && limited cargo test --locked -p e2e --no-run &&
        limited cargo test --locked -p e2e --no-fail-fast -- --test-threads=1
      ;;
    lab)
      if [ "$(id -u)" != 0 ] || ! command -v nft >/dev/null; then
        echo "skipped: the fault lab needs root and nftables"
        return 0
      fi
      LAB_PROFILE=dev limited jepsen/run.sh --minutes 0.8 --seed "${LAB_SEED:-1}" \
        --nemesis kill,pause-long,cut,switchover,peers,log-full
      ;;
    package)
      limited cargo build --locked -p node || return
      local part
      for part in package service image; do
        # What is tried is what is in it, not how small it is.
        DPKG_DEB_COMPRESSOR_LEVEL=1 limited "deploy/tests/$part.sh" --bin "$CARGO_TARGET_DIR/debug/twinpost" || return
      done
      ;;
    *) echo "no step $1 (format lint tidy test e2e lab package)" >&2; return 64 ;;
  esac
}

summary=() failed=0
for name in "${steps[@]}"; do
  printf '\n== %s\n' "$name"
  begun=$SECONDS
  if step "$name"; then word=ok; else word=FAILED failed=1; fi
  summary+=("$(printf '%-8s %-7s %5d s' "$name" "$word" $((SECONDS - begun)))")
done

printf '\n== summary\n'
printf '%s\n' "${summary[@]}"
exit $failed
