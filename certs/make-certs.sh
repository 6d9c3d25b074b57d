#!/usr/bin/env bash
# Makes a CA and Leasehold's serving certificate with openssl, where neither Leasehold itself nor cert-manager is to: the
# overlay names the component certs/files, or else Leasehold would put its own CA back.
#
#   certs/make-certs.sh --apply            puts them into the cluster that kubectl points at: the Secret, and the CA into
#                                          the webhook's caBundle. Nothing is left on this machine.
#   certs/make-certs.sh --output DIR       writes ca.crt, tls.crt and tls.key to DIR, and a kustomize component around
#                                          them: `components: [DIR]` in an overlay adds the Secret and the caBundle.
#
# Options:
#   --namespace NAME     where Leasehold runs                       (leasehold-system)
#   --service NAME       its Service                                (leasehold)
#   --secret NAME        the Secret that its Deployment mounts      (leasehold-tls)
#   --webhook NAME       its ValidatingWebhookConfiguration         (leasehold)
#   --days N             how long the certificate is valid, 1..3650 (365)
#
# Run it again to renew: each run makes a new CA, whose key is thrown away. With --apply the caBundle keeps the CA
# before it too, and is patched before the Secret is, so that no handshake fails while the replicas still serve the
# old certificate; let a few minutes pass between two runs. KUBECTL names another kubectl.
set -euo pipefail
umask 077

fail() {
  echo "make-certs.sh: $*" >&2
  exit 2
}

namespace=leasehold-system service=leasehold secret=leasehold-tls webhook=leasehold days=365
apply=false output=''
usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; }
while [ $# -gt 0 ]; do
  case $1 in
    --apply) apply=true; shift; continue ;;
    -h | --help) usage; exit 0 ;;
    --namespace | --service | --secret | --webhook | --days | --output) ;;
    *) fail "unknown option '$1'; see --help" ;;
  esac
  [ -n "${2:-}" ] || fail "$1 needs a value; see --help"
  case $1 in
    --namespace) namespace=$2 ;;
    --service) service=$2 ;;
    --secret) secret=$2 ;;
    --webhook) webhook=$2 ;;
    --days) days=$2 ;;
    --output) output=$2 ;;
  esac
  shift 2
done
if [ "$apply" = false ] && [ -z "$output" ]; then fail "say where to: --apply or --output DIR; see --help"; fi
if [ "$apply" = true ] && [ -n "$output" ]; then fail "--apply and --output exclude each other"; fi
[[ $days =~ ^[1-9][0-9]{0,3}$ ]] && [ "$days" -le 3650 ] || fail "--days takes a number from 1 to 3650, not '$days'"
for name in "$namespace" "$service" "$secret" "$webhook"; do
  [[ $name =~ ^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$ ]] || fail "'$name' cannot be the name of a Kubernetes object"
done
command -v openssl >/dev/null || fail "'openssl' is not on the PATH: install it"
kubectl=${KUBECTL:-kubectl}
if [ "$apply" = true ]; then
  command -v "$kubectl" >/dev/null || fail "'$kubectl' is not on the PATH: install it, set KUBECTL, or use --output DIR"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Runs openssl, and shows what it said only if it failed.
quietly() {
  local said
  said=$(openssl "$@" 2>&1) || fail "openssl $1 failed: $said"
}

# The subject tells CAs of different runs apart: a verifier looks an issuer up by its subject.
quietly ecparam -name prime256v1 -genkey -noout -out "$work/ca.key"
quietly req -x509 -new -sha256 -key "$work/ca.key" -days "$days" -out "$work/ca.crt" \
  -subj "/O=Leasehold/CN=Leasehold webhook CA $(openssl rand -hex 4)" \
  -addext 'basicConstraints=critical,CA:TRUE,pathlen:0' -addext 'keyUsage=critical,keyCertSign,cRLSign'
quietly ecparam -name prime256v1 -genkey -noout -out "$work/ec.key"
# PKCS#8, which every reader of PEM keys knows.
quietly pkcs8 -topk8 -nocrypt -in "$work/ec.key" -out "$work/tls.key"
quietly req -new -sha256 -key "$work/tls.key" -out "$work/tls.csr" -subj "/O=Leasehold/CN=$service.$namespace.svc"
# The API server dials SERVICE.NAMESPACE.svc (k8s.io/apiserver/pkg/util/webhook/client.go); the others are for people.
cat >"$work/tls.ext" <<EXTENSIONS
basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=serverAuth
subjectAltName=DNS:$service.$namespace.svc,DNS:$service.$namespace.svc.cluster.local,DNS:$service.$namespace
EXTENSIONS
quietly x509 -req -sha256 -in "$work/tls.csr" -CA "$work/ca.crt" -CAkey "$work/ca.key" -set_serial "0x$(openssl rand -hex 16)" \
  -days "$days" -extfile "$work/tls.ext" -out "$work/tls.crt"
quietly verify -CAfile "$work/ca.crt" -verify_hostname "$service.$namespace.svc" "$work/tls.crt"
rm "$work/ca.key"

if [ -n "$output" ]; then
  mkdir -p "$output"
  cp "$work/ca.crt" "$work/tls.crt" "$work/tls.key" "$output/"
  # No key in git, whatever the folder.
  echo '*' >"$output/.gitignore"
  cat >"$output/kustomization.yaml" <<KUSTOMIZATION
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component

secretGenerator:
  - name: $secret
    namespace: $namespace
    type: kubernetes.io/tls
    files: [tls.crt, tls.key, ca.crt]
    options:
      disableNameSuffixHash: true

# All webhooks go to the same Service.
replacements:
  - source: {kind: Secret, name: $secret, fieldPath: 'data.[ca.crt]'}
    targets:
      - select: {kind: ValidatingWebhookConfiguration, name: $webhook}
        fieldPaths: ['webhooks.*.clientConfig.caBundle']
        options: {create: true}
KUSTOMIZATION
  echo "wrote $output/ (valid for $days days): add 'components: [PATH-TO-IT]' to an overlay; keep tls.key out of git"
  exit 0
fi

# Every webhook of the configuration goes to the same Service, and so gets the same bundle.
webhooks=$("$kubectl" get validatingwebhookconfiguration "$webhook" \
  -o 'jsonpath={range .webhooks[*]}{.name} {.clientConfig.caBundle}{"\n"}{end}') ||
  fail "apply the manifests first: kubectl apply -k manifests/overlays/audit"
# The newest CA of the bundle that is there, if there is one.
read -r _ before <<<"$webhooks"
before=$(base64 -d <<<"$before" | awk '{print} /END CERTIFICATE/ {exit}')
{ cat "$work/ca.crt"; [ -z "$before" ] || echo "$before"; } >"$work/bundle.crt"
bundle=$(base64 <"$work/bundle.crt" | tr -d '\n')
patch='' index=0
while read -r _ _; do
  patch="$patch,{\"op\":\"add\",\"path\":\"/webhooks/$index/clientConfig/caBundle\",\"value\":\"$bundle\"}"
  index=$((index + 1))
done <<<"$webhooks"
"$kubectl" patch validatingwebhookconfiguration "$webhook" --type=json --patch "[${patch#,}]"
"$kubectl" create secret tls "$secret" --namespace "$namespace" --cert "$work/tls.crt" --key "$work/tls.key" \
  --dry-run=client --output yaml | "$kubectl" apply --server-side --force-conflicts --field-manager leasehold-make-certs --filename -
echo "valid for $days days; running replicas read the new certificate without a restart, within two minutes or so"
