{{- define "microfin-data.labels" -}}
app.kubernetes.io/part-of: microfin
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- /* Annotations of what holds money: neither an uninstallation nor a value that is left out deletes it. */ -}}
{{- define "microfin-data.keep" -}}
{{- if .Values.keep -}}
helm.sh/resource-policy: keep
argocd.argoproj.io/sync-options: Prune=false,Delete=false
{{- end -}}
{{- end -}}

{{- /* The families of a Service's addresses. If nothing is set, the cluster's default. */ -}}
{{- define "microfin-data.families" -}}
{{- with .Values.ipFamilyPolicy }}
ipFamilyPolicy: {{ . }}
{{- end }}
{{- with .Values.ipFamilies }}
ipFamilies: {{ toJson . }}
{{- end }}
{{- end -}}

{{- define "microfin-data.container-security" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
readOnlyRootFilesystem: true
{{- end -}}

{{- define "microfin-data.pod-security" -}}
runAsNonRoot: true
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- /* Rules that spread pods over nodes, as .Values.spread says, and over zones if possible. The
argument is a dict of root and labels. */ -}}
{{- define "microfin-data.spread" -}}
- topologyKey: kubernetes.io/hostname
  maxSkew: 1
  whenUnsatisfiable: {{ eq .root.Values.spread "required" | ternary "DoNotSchedule" "ScheduleAnyway" }}
  labelSelector:
    matchLabels: {{- toYaml .labels | nindent 6 }}
- topologyKey: topology.kubernetes.io/zone
  maxSkew: 1
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels: {{- toYaml .labels | nindent 6 }}
{{- end -}}

{{- /* The number of copies of a record, and how many must be written before Kafka acknowledges it. */ -}}
{{- define "microfin-data.kafka.copies" -}}
{{- ge (int .Values.kafka.brokers.replicas) 3 | ternary 3 1 -}}
{{- end -}}
{{- define "microfin-data.kafka.in-sync" -}}
{{- ge (int .Values.kafka.brokers.replicas) 3 | ternary 2 1 -}}
{{- end -}}

{{- /* The names of a shard. The argument is a dict of root and shard. */ -}}
{{- define "microfin-data.postgres.cluster" -}}
{{ .root.Values.name }}-postgres-{{ .shard }}
{{- end -}}
{{- define "microfin-data.postgres.pooler" -}}
{{ .root.Values.name }}-pooler-{{ .shard }}
{{- end -}}

{{- /* A pooler's pod holds up to poolSize connections for each of the three roles. */ -}}
{{- define "microfin-data.postgres.pooled" -}}
{{- mul 3 (int .Values.postgres.pooler.poolSize) -}}
{{- end -}}

{{- define "microfin-data.redis.name" -}}
{{ .Values.name }}-redis
{{- end -}}
{{- define "microfin-data.redis.selector" -}}
app.kubernetes.io/name: microfin-redis
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}
{{- /* The Secret with the certificate of Redis' nodes. */ -}}
{{- define "microfin-data.redis.certificate" -}}
{{ .Values.redis.tls.secret | default (printf "%s-tls" (include "microfin-data.redis.name" .)) }}
{{- end -}}
{{- define "microfin-data.redis.nodes" -}}
{{- mul 3 (add 1 (int .Values.redis.replicas)) -}}
{{- end -}}
{{- define "microfin-data.redis.image" -}}
{{- $image := .Values.redis.image -}}
{{- $version := $image.digest | empty | ternary (printf ":%s" $image.tag) (printf "@%s" $image.digest) -}}
{{- include "microfin-data.image" (dict "root" . "name" (printf "%s%s" $image.repository $version)) -}}
{{- end -}}

{{- /* microfin's own pods of some components, and networkPolicy.clients, as NetworkPolicyPeers. The
argument is a dict of root and components. */ -}}
{{- define "microfin-data.clients" -}}
- podSelector:
    matchLabels:
      app.kubernetes.io/name: microfin
    matchExpressions:
      - key: app.kubernetes.io/component
        operator: In
        values: {{ toJson .components }}
{{- with .root.Values.networkPolicy.clients }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "microfin-data.dns" -}}
- ports:
    {{- range .Values.networkPolicy.dns.ports }}
    - port: {{ . }}
      protocol: UDP
    - port: {{ . }}
      protocol: TCP
    {{- end }}
  {{- with .Values.networkPolicy.dns.to }}
  to: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{- /* The namespaces of an operator. Without them, its label in any namespace would open the port. */ -}}
{{- define "microfin-data.namespaces" -}}
matchExpressions:
  - key: kubernetes.io/metadata.name
    operator: In
    values: {{ toJson . }}
{{- end -}}
{{- define "microfin-data.api-server" -}}
- ports:
    {{- range .Values.networkPolicy.apiServerPorts }}
    - port: {{ . }}
    {{- end }}
{{- end -}}

{{- /* An image, in the registry that has copies of all images if there is one. The argument is a dict of
root and name. The first part of a name is a registry if it contains a dot or a colon. */ -}}
{{- define "microfin-data.image" -}}
{{- with .root.Values.global.imageRegistry -}}
{{ . }}/{{ regexReplaceAll "^([^/]*[.:][^/]*|localhost)/" $.name "" }}
{{- else -}}
{{ .name }}
{{- end -}}
{{- end -}}

{{- /* Where pods of a part run, as JSON: the part's own values, or those of all pods. The argument is a
dict of root and pod (the values of the part). */ -}}
{{- define "microfin-data.placement" -}}
{{- $place := dict -}}
{{- range $field := list "nodeSelector" "tolerations" "affinity" "priorityClassName" -}}
{{- with get $.pod $field | default (get $.root.Values $field) -}}
{{- $_ := set $place $field . -}}
{{- end -}}
{{- end -}}
{{- with $.root.Values.imagePullSecrets -}}
{{- $_ := set $place "imagePullSecrets" . -}}
{{- end -}}
{{- toJson $place -}}
{{- end -}}

{{- /* The same for Strimzi, whose pods have no nodeSelector: node affinity says the same. The terms of
an affinity are alternatives, so each of them needs the labels. */ -}}
{{- define "microfin-data.kafka.placement" -}}
{{- $place := include "microfin-data.placement" . | fromJson -}}
{{- with $place.nodeSelector -}}
{{- $labels := list -}}
{{- range $key, $value := . -}}
{{- $labels = append $labels (dict "key" $key "operator" "In" "values" (list $value)) -}}
{{- end -}}
{{- $affinity := $place.affinity | default dict -}}
{{- $node := $affinity.nodeAffinity | default dict -}}
{{- $required := $node.requiredDuringSchedulingIgnoredDuringExecution | default dict -}}
{{- $terms := list -}}
{{- range $required.nodeSelectorTerms | default (list dict) -}}
{{- $terms = append $terms (merge (dict "matchExpressions" (concat (.matchExpressions | default list) $labels)) .) -}}
{{- end -}}
{{- $_ := set $node "requiredDuringSchedulingIgnoredDuringExecution" (dict "nodeSelectorTerms" $terms) -}}
{{- $_ := set $affinity "nodeAffinity" $node -}}
{{- $_ := set $place "affinity" $affinity -}}
{{- end -}}
{{- with omit $place "nodeSelector" -}}
{{- toYaml . -}}
{{- end -}}
{{- end -}}

{{- /* The data of the ConfigMap, also for the checksum that replaces pods when it changes. */ -}}
{{- define "microfin-data.redis.configuration" -}}
redis.conf: |
  {{- .Files.Get "files/redis.conf" | replace "MAX_MEMORY" .Values.redis.maxMemory | nindent 2 }}
{{- range list "common.sh" "start.sh" "run.sh" "keep.sh" "ready.sh" "leave.sh" }}
{{ . }}: |
  {{- $.Files.Get (printf "files/redis-%s" .) | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* Fails with a sentence if the cluster does not know the kinds of the Prometheus operator. Without a
cluster, as `helm template` and GitOps render, nobody knows; `lookup` of a list then finds not even an
empty one. */}}
{{- define "microfin-data.needsPrometheusOperator" -}}
{{- if not (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1") -}}
{{- if lookup "v1" "Secret" .Release.Namespace "" -}}
{{- fail "monitors and rules need the Prometheus operator, and this cluster does not have it (monitoring.coreos.com/v1): install it first, or switch them off (--set metrics.podMonitors.enabled=false,metrics.rules.enabled=false)" -}}
{{- end -}}
{{- end -}}
{{- end -}}
