{{- define "microfin-operator.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* Fails with a message unless the values say which namespaces the operator may touch. */}}
{{- define "microfin-operator.checkScope" -}}
{{- if and .Values.namespaces .Values.watchAllNamespaces -}}
{{- fail "namespaces and watchAllNamespaces contradict each other: name namespaces, or set watchAllNamespaces=true, not both" -}}
{{- else if not (or .Values.namespaces .Values.watchAllNamespaces) -}}
{{- fail "namespaces is empty: name those of your MicrofinClusters and of their Kafka, such as --set 'namespaces={microfin}'. To let the operator change workers and topics in every namespace, use --set watchAllNamespaces=true" -}}
{{- end -}}
{{- end -}}

{{- define "microfin-operator.selector" -}}
app.kubernetes.io/name: microfin-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "microfin-operator.labels" -}}
{{ include "microfin-operator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "microfin-operator.image" -}}
{{- $image := .Values.image -}}
{{- $name := $image.repository -}}
{{- with .Values.global.imageRegistry -}}
{{- $name = printf "%s/%s" . (regexReplaceAll "^([^/]*[.:][^/]*|localhost)/" $name "") -}}
{{- end -}}
{{- if $image.digest -}}
{{ $name }}@{{ $image.digest }}
{{- else -}}
{{ $name }}:{{ $image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- /* Fails with a sentence if the cluster does not know the kinds of the Prometheus operator. Without a
cluster, as `helm template` and GitOps render, nobody knows; `lookup` of a list then finds not even an
empty one. */}}
{{- define "microfin-operator.needsPrometheusOperator" -}}
{{- if not (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1") -}}
{{- if lookup "v1" "Secret" .Release.Namespace "" -}}
{{- fail "monitors need the Prometheus operator, and this cluster does not have it (monitoring.coreos.com/v1): install it first, or switch them off (--set metrics.podMonitor.enabled=false)" -}}
{{- end -}}
{{- end -}}
{{- end -}}
