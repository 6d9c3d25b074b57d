#!/usr/bin/env bash
# Checks what is released: that the binary is static and names no path of the machine that built it, and that the image
# of the Containerfile is small, holds nothing else, runs as nobody and comes out the same when built again. Where
# cargo-auditable and cargo-cyclonedx are installed, also that both bills of materials name every crate: the one within
# the binary, and the one that is released beside it.
#
#   tests/image/check.sh             builds the binary once
#   tests/image/check.sh --twice     builds it a second time, of a copy of the sources elsewhere: the same bytes?
#
# The image is built by buildah, which needs no daemon, and of its last stage only, which needs no registry. Without
# buildah, or without root, the binary alone is checked.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly LARGEST_IMAGE=20000000
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
  echo "check.sh: $*" >&2
  exit 1
}

binary=$(.ci/static-binary | tail -1)
[ -x "$binary" ] || fail "$binary was not built"
echo "binary: $(stat --format=%s "$binary") bytes, sha256 $(sha256sum "$binary" | cut -d' ' -f1)"
# A static binary asks for no loader and for no library.
headers=$(readelf --wide --program-headers "$binary")
! grep --quiet INTERP <<<"$headers" || fail "the binary asks for a loader: $(grep --after-context=1 INTERP <<<"$headers")"
dynamic=$(readelf --wide --dynamic "$binary")
! grep --quiet NEEDED <<<"$dynamic" || fail "the binary needs libraries: $(grep NEEDED <<<"$dynamic")"
for path in "$PWD/" "${CARGO_HOME:-$HOME/.cargo}/"; do
  ! grep --quiet --fixed-strings "$path" "$binary" || fail "the binary names $path, a path of this machine"
done
echo "binary: static, names no path of this machine"

# Every crate that the binary is made of, as name@version.
crates() {
  cargo tree --locked --edges normal --prefix none --no-dedupe --format '{p}' |
    sed --quiet --regexp-extended 's/^([^ ]+) v([^ ]+).*/\1@\2/p' | sort --unique
}
# Fails unless all of them are among those of standard input.
names_every_crate() { # what
  local missing
  missing=$(comm -23 <(crates) <(sort --unique) | tr '\n' ' ')
  [ -z "$missing" ] || fail "$1 does not name $missing"
  echo "$1: names all of $(crates | wc -l) crates"
}
if cargo auditable --version >/dev/null 2>&1; then
  objcopy --dump-section .dep-v0="$work/dep-v0" "$binary" "$work/copy" 2>/dev/null || true
  [ -s "$work/dep-v0" ] || fail "the binary has no section .dep-v0, where its crates should be named"
  # Zlib's header is of two bytes; behind gzip's, gzip unpacks the rest, and misses nothing but its own checksum.
  { printf '\x1f\x8b\x08\0\0\0\0\0\0\0' && tail --bytes=+3 "$work/dep-v0"; } | gzip --decompress --quiet 2>/dev/null >"$work/dep-v0.json" || true
  grep --only-matching '"name":"[^"]*","version":"[^"]*"' "$work/dep-v0.json" |
    sed --regexp-extended 's/"name":"([^"]*)","version":"([^"]*)"/\1@\2/' |
    names_every_crate "the bill of materials within the binary"
else
  echo "NOTICE: the bill of materials within the binary was not checked: that needs cargo-auditable"
fi
if cargo cyclonedx --version >/dev/null 2>&1; then
  # It writes beside Cargo.toml and nowhere else.
  cargo cyclonedx --quiet --format json --spec-version 1.5 --override-filename "check-$$.cdx"
  mv "check-$$.cdx.json" "$work/leasehold.cdx.json"
  grep --only-matching '"purl": "pkg:cargo/[^"?]*' "$work/leasehold.cdx.json" | cut --delimiter=/ --fields=2 |
    names_every_crate "the bill of materials beside the binary"
else
  echo "NOTICE: the bill of materials beside the binary was not checked: that needs cargo-cyclonedx"
fi

if [ "${1:-}" = --twice ]; then
  mkdir "$work/elsewhere"
  git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents --target-directory="$work/elsewhere"
  again=$(CARGO_TARGET_DIR="$work/elsewhere/target" "$work/elsewhere/.ci/static-binary" | tail -1)
  cmp "$binary" "$again" || fail "built elsewhere, the binary is another: sha256 $(sha256sum "$again" | cut -d' ' -f1)"
  echo "binary: the same bytes when built elsewhere"
fi

if ! command -v buildah >/dev/null || [ "$(id -u)" -ne 0 ]; then
  echo "NOTICE: the image was not built: that needs buildah and root"
  exit 0
fi

# Storage of its own, and no overlay file system: both work within a container, too.
buildah() {
  command buildah --storage-driver vfs --root "$work/storage" --runroot "$work/run" "$@"
}
# A container without the right to mount is no place to build an image in; it says nothing about this one.
if ! said=$(buildah mount "$(buildah from scratch)" 2>&1); then
  echo "NOTICE: the image was not built: buildah cannot work here: $said"
  exit 0
fi
mkdir -p "$work/build/out"
cp "$binary" "$work/build/out/leasehold"
image() { # archive
  buildah build --quiet --isolation chroot --build-context build="$work/build" --timestamp 0 \
    --file Containerfile --tag "leasehold:$1" . >/dev/null
  buildah push --quiet "leasehold:$1" "oci-archive:$work/$1.tar"
}
image first
touch "$work/build/out/leasehold"
image second
digest() { tar --extract --to-stdout --file "$work/$1.tar" index.json | grep --only-matching 'sha256:[0-9a-f]*'; }
[ "$(digest first)" = "$(digest second)" ] || fail "built again, the image is another: $(digest first) and $(digest second)"

container=$(buildah from "leasehold:first")
root=$(buildah mount "$container")
size=$(du --summarize --bytes "$root" | cut -f1)
[ "$size" -lt "$LARGEST_IMAGE" ] || fail "the image has $size bytes, $LARGEST_IMAGE are the limit"
files=$(cd "$root" && find . -type f | sort | tr '\n' ' ')
[ "$files" = './usr/local/bin/leasehold ./usr/share/doc/leasehold/LICENSE ' ] || fail "the image holds $files"
config=$(buildah inspect --type image --format '{{.OCIv1.Config.User}} {{.OCIv1.Config.Entrypoint}}' "leasehold:first")
[ "$config" = '65532:65532 [/usr/local/bin/leasehold]' ] || fail "the image runs $config"
version=$(chroot --userspec=65532:65532 "$root" /usr/local/bin/leasehold version)
grep --quiet leasehold <<<"$version" || fail "in the image, 'leasehold version' printed: $version"
echo "image: $size bytes, $(stat --format=%s "$work/first.tar") packed, $(digest first), the same when built again"
