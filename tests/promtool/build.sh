#!/usr/bin/env bash
# Builds Prometheus's promtool from its published Go module, for the tests of metrics and alerts. Prints the binary's
# path as its last line.
#
# The binary is kept in a cache folder keyed by the content of go.mod, go.sum and this script, so that a second run
# takes no time and an edited pin is built anew.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if ! command -v go >/dev/null; then
  cat >&2 <<'MESSAGE'
build.sh: 'go' is not on the PATH, and promtool is built from its Go module. Two ways out:
  - install Go 1.26 or later and run this again, or
  - set PROMTOOL to a promtool of Prometheus 3.
MESSAGE
  exit 2
fi

key=$(cat "$here/go.mod" "$here/go.sum" "${BASH_SOURCE[0]}" | sha256sum | cut -c1-12)
cache=${LEASEHOLD_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/leasehold}
out="$cache/promtool/$key"
mkdir -p "$out"

# Tests that start at the same time build it once.
exec 9>"$out/lock"
flock 9
if [ ! -x "$out/promtool" ]; then
  started=$SECONDS
  echo "building promtool (the first time only: minutes) ..." >&2
  # The tag leaves out the clients of two dozen clouds, which only service discovery needs.
  (cd "$here" && CGO_ENABLED=0 GOFLAGS=-mod=readonly go build -trimpath -tags remove_all_sd -ldflags '-s -w' \
    -o "$out/promtool.partial" github.com/prometheus/prometheus/cmd/promtool)
  mv "$out/promtool.partial" "$out/promtool"
  echo "built promtool in $((SECONDS - started)) s" >&2
fi
echo "$out/promtool"
