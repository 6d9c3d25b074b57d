#!/usr/bin/env bash
# Builds OpenTofu from its published Go module, for the test of its state locks. Prints the binary's path as its last
# line.
#
# The binary is kept in a cache folder keyed by the content of go.mod, go.sum and this script, so that a second run
# takes no time and an edited pin is built anew.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if ! command -v go >/dev/null; then
  cat >&2 <<'MESSAGE'
build.sh: 'go' is not on the PATH, and OpenTofu is built from its Go module. Two ways out:
  - install Go 1.26 or later and run this again, or
  - set LEASEHOLD_TEST_TOFU to a tofu binary, 1.12 or later.
MESSAGE
  exit 2
fi

version=$(awk '$1 == "github.com/opentofu/opentofu" {print $2}' "$here/go.mod")
key=$(cat "$here/go.mod" "$here/go.sum" "${BASH_SOURCE[0]}" | sha256sum | cut -c1-12)
cache=${LEASEHOLD_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/leasehold}
out="$cache/opentofu/$version-$key"
mkdir -p "$out"

# Tests that start at the same time build it once.
exec 9>"$out/lock"
flock 9
if [ ! -x "$out/tofu" ]; then
  started=$SECONDS
  echo "building tofu $version (the first time only: minutes) ..." >&2
  (cd "$here" && CGO_ENABLED=0 GOFLAGS=-mod=readonly go build -trimpath \
    -ldflags "-s -w -X github.com/opentofu/opentofu/version.dev=no" -o "$out/tofu.partial" github.com/opentofu/opentofu/cmd/tofu)
  mv "$out/tofu.partial" "$out/tofu"
  echo "built tofu in $((SECONDS - started)) s" >&2
fi
echo "$out/tofu"
