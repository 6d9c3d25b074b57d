#!/usr/bin/env bash
# Builds a real control plane (etcd, kube-apiserver, kubectl, kube-scheduler, kube-controller-manager) from
# published Go modules, for the API-server tests. Prints the folder that holds the binaries as its last line.
#
#   tests/controlplane/build.sh [VERSION]        VERSION: a folder beside this script without its "v" (1.37.2)
#
# Binaries are kept in a cache folder keyed by version and by the content of go.mod, go.sum and this script, so
# that a second run takes no time and an edited pin is built anew.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
version=${1:-1.37.2}
module="$here/v$version"
if [ ! -f "$module/go.mod" ]; then
  echo "build.sh: no control plane is pinned for version '$version'; pinned: $(cd "$here" && ls -d v*/ | tr -d 'v/' | tr '\n' ' ')" >&2
  exit 2
fi
if ! command -v go >/dev/null; then
  cat >&2 <<'MESSAGE'
build.sh: 'go' is not on the PATH, and the control plane is built from Go modules. Two ways out:
  - install Go 1.26 or later and run this again, or
  - set KUBEBUILDER_ASSETS to a folder that holds kube-apiserver, etcd, kubectl and kube-scheduler.
MESSAGE
  exit 2
fi

key=$(cat "$module/go.mod" "$module/go.sum" "${BASH_SOURCE[0]}" | sha256sum | cut -c1-12)
cache=${LEASEHOLD_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/leasehold}
out="$cache/controlplane/v$version-$key"
mkdir -p "$out"

minor=${version#*.}
minor=${minor%%.*}
# Without these the server calls itself v0.0.0-master, and feature gates and `kubectl version` go wrong.
info=k8s.io/component-base/version
stamp="-X $info.gitVersion=v$version -X $info.gitMajor=1 -X $info.gitMinor=$minor"
stamp="$stamp -X k8s.io/client-go/pkg/version.gitVersion=v$version"

build() { # binary package
  if [ -x "$out/$1" ]; then return; fi
  local started=$SECONDS
  echo "building $1 v$version (the first time only: minutes) ..." >&2
  (cd "$module" && CGO_ENABLED=0 GOFLAGS=-mod=readonly go build -trimpath -ldflags "-s -w $stamp" -o "$out/$1.partial" "$2")
  mv "$out/$1.partial" "$out/$1"
  echo "built $1 in $((SECONDS - started)) s" >&2
}
build etcd go.etcd.io/etcd/server/v3
build kube-apiserver k8s.io/kubernetes/cmd/kube-apiserver
build kubectl k8s.io/kubernetes/cmd/kubectl
build kube-scheduler k8s.io/kubernetes/cmd/kube-scheduler
build kube-controller-manager k8s.io/kubernetes/cmd/kube-controller-manager
echo "$out"
