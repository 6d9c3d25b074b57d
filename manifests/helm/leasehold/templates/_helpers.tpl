{{- /*
The labels that Helm's own conventions ask for, beside those that the kustomize base gives. On objects only, never on
pods and never in a selector: an upgrade of the chart alone restarts nothing, and an installation by kustomize can be
taken over.
*/ -}}
{{- define "leasehold.labels" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "leasehold.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "leasehold.priorityClassName" -}}
{{ .Values.priorityClassName | default "leasehold" }}
{{- end -}}

{{- /* What no webhook but that of kube-system is asked about. */ -}}
{{- define "leasehold.excluded" -}}
key: kubernetes.io/metadata.name
operator: NotIn
values: {{ concat (list "kube-system" "kube-node-lease" .Release.Namespace) .Values.excludedNamespaces | uniq | toJson }}
{{- end -}}

{{- /* Refuses, with words, what a schema cannot tell: the namespaces in which a choice would do harm. */ -}}
{{- define "leasehold.check" -}}
{{- $excluded := concat (list "kube-system" "kube-node-lease" .Release.Namespace) .Values.excludedNamespaces -}}
{{- if and .Values.certificates.caBundle (ne .Values.certificates.source "secret") -}}
{{- fail (printf "certificates.caBundle is for certificates.source secret: with %s somebody else writes it" .Values.certificates.source) -}}
{{- end -}}
{{- $set := list "--tls-secret" "--tls-cert-file" "--tls-private-key-file" "--webhook-configuration" "--service" "--policy-configmap" "--policy-file" "--bind-address" "--secure-port" "--admin-bind-address" "--admin-port" "--audit-log" "--shutdown-delay" "--repair-registration" -}}
{{- range .Values.extraArgs -}}
{{- if has (splitList "=" . | first) $set -}}
{{- fail (printf "extraArgs names %s, which the chart sets itself: a flag that is given twice ends every pod with exit code 2; use the value that there is for it, or kustomize" .) -}}
{{- end -}}
{{- end -}}
{{- range $component := list "watchFull" "failClosed" -}}
{{- range (index $.Values.components $component).namespaces -}}
{{- if has . $excluded -}}
{{- fail (printf "components.%s.namespaces names %q, which is left out of everything: remove it there, or from excludedNamespaces. kube-system, kube-node-lease and the release's own namespace are always left out; components.kubeSystem takes kube-system in" $component .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* So that it is told when somebody deletes the webhook of a component, or changes which namespaces it takes in. */ -}}
{{- define "leasehold.registeredWebhook" -}}
{{- $name := .name -}}
{{- range $index, $namespace := .namespaces -}}
{{- if $index }}
{{ end -}}
- --registered-webhook={{ $name }}={{ $namespace }}
{{- else -}}
- --registered-webhook={{ $name }}
{{- end -}}
{{- end -}}

{{- define "leasehold.clientConfig" -}}
service:
  namespace: {{ .Release.Namespace }}
  name: leasehold
  path: {{ .path | default "/validate" }}
  port: 443
{{- with .Values.certificates.caBundle }}
caBundle: {{ b64enc . }}
{{- end }}
{{- end -}}

{{- define "leasehold.rules" -}}
- apiGroups: [coordination.k8s.io]
  apiVersions: [v1]
  resources: [leases]
  operations: [CREATE, UPDATE, DELETE]
  scope: Namespaced
{{- end -}}

{{- /* The words are those of manifests/base/webhook.yaml, where they are explained. */ -}}
{{- define "leasehold.notAPureRenewal" -}}
request.operation != 'UPDATE'
|| object.?spec.?holderIdentity != oldObject.?spec.?holderIdentity
|| object.?spec.?renewTime == oldObject.?spec.?renewTime
|| object.?spec.?leaseTransitions != oldObject.?spec.?leaseTransitions
|| object.?spec.?leaseDurationSeconds != oldObject.?spec.?leaseDurationSeconds
|| object.?spec.?acquireTime != oldObject.?spec.?acquireTime
|| object.?spec.?strategy != oldObject.?spec.?strategy
|| object.?spec.?preferredHolder != oldObject.?spec.?preferredHolder
|| !object.metadata.?managedFields.orValue([]).exists(entry,
entry.?fieldsV1[?'f:spec'][?'f:renewTime'].hasValue())
{{- end -}}
