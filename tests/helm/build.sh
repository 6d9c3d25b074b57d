#!/usr/bin/env bash
# Builds helm from its published Go module, for the tests of the chart. Prints the binary's path as its last line.
#
# It is kept in a cache folder keyed by the content of go.mod, go.sum and this script, so that a second run takes no
# time and an edited pin is built anew.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if ! command -v go >/dev/null; then
  cat >&2 <<'MESSAGE'
build.sh: 'go' is not on the PATH, and helm is built from its Go module. Two ways out:
  - install Go 1.26 or later and run this again, or
  - set LEASEHOLD_TEST_HELM to a helm binary, 4.0 or later.
MESSAGE
  exit 2
fi

version=$(awk '$1 == "helm.sh/helm/v4" {print $2}' "$here/go.mod")
key=$(cat "$here/go.mod" "$here/go.sum" "${BASH_SOURCE[0]}" | sha256sum | cut -c1-12)
cache=${LEASEHOLD_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/leasehold}
out="$cache/helm/$version-$key"
mkdir -p "$out"
if [ ! -x "$out/helm" ]; then
  started=$SECONDS
  echo "building helm $version (the first time only: minutes) ..." >&2
  (cd "$here" && CGO_ENABLED=0 GOFLAGS=-mod=readonly go build -trimpath \
    -ldflags "-s -w -X helm.sh/helm/v4/internal/version.version=$version" -o "$out/helm.partial" helm.sh/helm/v4/cmd/helm)
  mv "$out/helm.partial" "$out/helm"
  echo "built helm in $((SECONDS - started)) s" >&2
fi
echo "$out/helm"
