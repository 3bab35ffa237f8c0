{{- /* The MicrofinCluster has the release's name, and all other names begin with it. */}}
{{- define "microfin.name" -}}
{{- if gt (len .Release.Name) 40 -}}
{{- fail "the release's name must have at most 40 characters, because the names of worker pods contain it: use a shorter one" -}}
{{- end -}}
{{- .Release.Name -}}
{{- end -}}

{{- /* The labels that select a component's pods. The operator gives workers the same labels. */}}
{{- define "microfin.selector" -}}
app.kubernetes.io/name: microfin
app.kubernetes.io/instance: {{ include "microfin.name" .root }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "microfin.labels" -}}
{{ include "microfin.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- /* An image's name, in the registry that has copies of all images if there is one. The argument is a
dict: root, name. The first part of a name is a registry if it contains a dot or a colon. */}}
{{- define "microfin.copied" -}}
{{- with .root.Values.global.imageRegistry -}}
{{ . }}/{{ regexReplaceAll "^([^/]*[.:][^/]*|localhost)/" $.name "" }}
{{- else -}}
{{ .name }}
{{- end -}}
{{- end -}}

{{- define "microfin.image" -}}
{{- $image := .root.Values.image -}}
{{- $name := include "microfin.copied" (dict "root" .root "name" (get $image .which)) -}}
{{- $digest := get $image (printf "%sDigest" .which) -}}
{{- if $digest -}}
{{ $name }}@{{ $digest }}
{{- else -}}
{{ $name }}:{{ get $image (printf "%sTag" .which) | default $image.tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "microfin.podSecurity" -}}
runAsNonRoot: true
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "microfin.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
readOnlyRootFilesystem: true
{{- end -}}

{{- /* Where pods run. The argument is a dict: pod (the values of this part), all (those of all parts). */}}
{{- define "microfin.placement" -}}
{{- range $field := list "nodeSelector" "tolerations" "affinity" "priorityClassName" }}
{{- with get $.pod $field | default (get $.all $field) }}
{{ toYaml (dict $field .) }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* The fields that every pod of the chart has. The argument is a dict: root, serviceAccount, pod
(the values of this part) and token (whether it uses the API server). */}}
{{- define "microfin.podCommon" -}}
serviceAccountName: {{ .serviceAccount }}
automountServiceAccountToken: {{ .token | default false }}
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- include "microfin.placement" (dict "pod" .pod "all" .root.Values) }}
securityContext: {{- include "microfin.podSecurity" . | nindent 2 }}
{{- end -}}

{{- define "microfin.secretVariable" -}}
- name: {{ .name }}
  valueFrom:
    secretKeyRef:
      name: {{ .secret }}
      key: {{ .key }}
{{- end -}}

{{- /* Variables for the databases of all shards: names and passwords from Secrets, and URLs that the
kubelet builds from them. */}}
{{- define "microfin.databases" -}}
{{ include "microfin.urls" (dict "root" .root "place" .root.Values.postgres "part" "postgres" "secret" .secret "host" .host "variables" (list .variable)) }}
{{- end -}}

{{- /* The same for the shards' archives, if there are any. The argument is a dict: root, archive (the
Secret with the role's name and password) and variables (their names). */}}
{{- define "microfin.archives" -}}
{{- $archive := .root.Values.archive -}}
{{- if and .archive $archive.host }}
{{ include "microfin.urls" (dict "root" .root "place" $archive "part" "archive" "secret" .archive "host" $archive.host "variables" .variables) }}
{{- end }}
{{- end -}}

{{- /* The argument is a dict: root, place (the values of these databases), part (how names of variables
and of files begin), secret, host and variables (each gets all URLs). */}}
{{- define "microfin.urls" -}}
{{- $prefix := upper .part -}}
{{- $urls := list -}}
{{- range $shard := until (int .root.Values.postgres.shards) }}
{{- $secret := replace "{shard}" (toString $shard) $.secret }}
{{ include "microfin.secretVariable" (dict "name" (printf "%s_%d_USERNAME" $prefix $shard) "secret" $secret "key" "username") }}
{{ include "microfin.secretVariable" (dict "name" (printf "%s_%d_PASSWORD" $prefix $shard) "secret" $secret "key" "password") }}
{{- $host := replace "{shard}" (toString $shard) $.host }}
{{- $database := replace "{shard}" (toString $shard) $.place.database }}
{{- $tls := printf "sslmode=%s" $.place.sslMode }}
{{- if and (hasPrefix "verify" $.place.sslMode) $.place.caSecret }}
{{- $tls = printf "%s&sslrootcert=/run/microfin/%s-%d.crt" $tls $.part $shard }}
{{- end }}
{{- $urls = append $urls (printf "postgresql://$(%s_%d_USERNAME):$(%s_%d_PASSWORD)@%s:%d/%s?%s" $prefix $shard $prefix $shard $host (int $.place.port) $database $tls) }}
{{- end }}
{{- range .variables }}
- name: {{ . }}
  value: {{ join " " $urls | quote }}
{{- end }}
{{- end -}}

{{- define "microfin.redis" -}}
{{- $redis := .root.Values.redis -}}
{{- $scheme := ternary "rediss" "redis" $redis.tls -}}
{{- $login := "" -}}
{{- if $redis.secret }}
{{- $login = printf "%s:$(REDIS_PASSWORD)@" (get $redis (printf "%sUser" .role)) }}
{{ include "microfin.secretVariable" (dict "name" "REDIS_PASSWORD" "secret" $redis.secret "key" (get $redis (printf "%sKey" .role))) }}
{{- end }}
{{- $urls := list -}}
{{- range $redis.nodes }}
{{- $urls = append $urls (printf "%s://%s%s" $scheme $login .) }}
{{- end }}
- name: MICROFIN_REDIS
  value: {{ join " " $urls | quote }}
{{- if and $redis.tls $redis.caSecret }}
- name: MICROFIN_REDIS_CA_FILE
  value: /run/microfin/redis.crt
{{- end }}
{{- end -}}

{{- /* The variable that names the folder with the brokers' CAs; kafka is as in microfin.certificates.
It is beside the volume, and not in the ConfigMap, which pods of another release read, too. */}}
{{- define "microfin.kafkaAuthorities" -}}
{{- if and .root.Values.kafka.tls .kafka }}
- name: MICROFIN_KAFKA_CA_FILE
  value: /run/kafka-ca
{{- end }}
{{- end -}}

{{- /* Settings for Kafka that are not secret. They are the same for all processes that use Kafka. */}}
{{- define "microfin.commonSettings" -}}
MICROFIN_DATABASE_STATEMENT_CACHE: {{ .Values.postgres.statementCache | quote }}
MICROFIN_KAFKA: {{ .Values.kafka.bootstrap | quote }}
{{- if .Values.kafka.tls }}
# For pods of the last release; others have another value beside the volume.
MICROFIN_KAFKA_CA_FILE: /run/microfin/kafka.crt
MICROFIN_KAFKA_CERTIFICATE_FILE: /run/microfin/kafka-user.crt
MICROFIN_KAFKA_KEY_FILE: /run/microfin/kafka-user.key
{{- end }}
MICROFIN_LOG_LEVEL: {{ .Values.log.level }}
{{- end -}}

{{- define "microfin.workerSettings" -}}
{{ include "microfin.commonSettings" . }}
{{- with .Values.worker.settings }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "microfin.apiSettings" -}}
{{ include "microfin.commonSettings" . }}
MICROFIN_TOPIC: {{ .Values.topic.name | quote }}
MICROFIN_API_HOST: ""
MICROFIN_API_PORT: "8080"
MICROFIN_ANSWER: {{ .Values.api.answer }}
MICROFIN_DEFAULT_CURRENCY: {{ .Values.api.defaultCurrency }}
MICROFIN_TRUSTED_PROXIES: {{ .Values.api.trustedProxies | quote }}
MICROFIN_ALLOWED_ORIGINS: {{ .Values.api.allowedOrigins | quote }}
MICROFIN_COOKIE_SECURE: {{ .Values.api.cookieSecure }}
MICROFIN_DRAIN_SECONDS: {{ .Values.api.drainSeconds | quote }}
{{- with .Values.api.settings }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* The files below /run/microfin, and the folder with the brokers' CAs. kafka is the Secret of the
KafkaUser, or empty; redis says whether the process uses Redis, archive (not empty) that it uses the
archives. While Strimzi replaces its CA, its
Secret has the old one, too, by a name that nobody knows before: so this Secret is mounted whole. */}}
{{- define "microfin.certificates" -}}
{{- $values := .root.Values -}}
{{- $kafka := and $values.kafka.tls .kafka -}}
{{- $verified := hasPrefix "verify" $values.postgres.sslMode -}}
{{- $redis := and .redis $values.redis.tls $values.redis.caSecret -}}
{{- $archive := include "microfin.archiveAuthority" . -}}
- name: temporary
  emptyDir: {}
{{- if or $verified $kafka $redis $archive }}
- name: certificates
  projected:
    sources:
      {{- if $verified }}
      {{- range $shard := until (int $values.postgres.shards) }}
      - secret:
          name: {{ replace "{shard}" (toString $shard) $values.postgres.caSecret }}
          items:
            - key: {{ $values.postgres.caKey }}
              path: postgres-{{ $shard }}.crt
      {{- end }}
      {{- end }}
      {{- if $archive }}
      {{- range $shard := until (int $values.postgres.shards) }}
      - secret:
          name: {{ replace "{shard}" (toString $shard) $archive }}
          items:
            - key: {{ $values.archive.caKey }}
              path: archive-{{ $shard }}.crt
      {{- end }}
      {{- end }}
      {{- if $redis }}
      - secret:
          name: {{ $redis }}
          items:
            - key: {{ $values.redis.caKey }}
              path: redis.crt
      {{- end }}
      {{- if $kafka }}
      - secret:
          name: {{ $kafka }}
          items:
            - key: user.crt
              path: kafka-user.crt
            - key: user.key
              path: kafka-user.key
      {{- end }}
{{- end }}
{{- if $kafka }}
- name: kafka-ca
  secret:
    secretName: {{ $values.kafka.caSecret }}
    {{- with $values.kafka.caKey }}
    items:
      - key: {{ . }}
        path: ca.crt
    {{- end }}
{{- end }}
{{- end -}}

{{- /* The Secret with the CA of the archives, empty for a pod that does not need it. */}}
{{- define "microfin.archiveAuthority" -}}
{{- $archive := .root.Values.archive -}}
{{- if and .archive $archive.host (hasPrefix "verify" $archive.sslMode) -}}
{{- $archive.caSecret -}}
{{- end -}}
{{- end -}}

{{- define "microfin.mounts" -}}
{{- $values := .root.Values -}}
- name: temporary
  mountPath: /tmp
{{- if and $values.kafka.tls .kafka }}
- name: kafka-ca
  mountPath: /run/kafka-ca
  readOnly: true
{{- end }}
{{- if or (hasPrefix "verify" $values.postgres.sslMode) (and $values.kafka.tls .kafka) (and .redis $values.redis.tls $values.redis.caSecret) (include "microfin.archiveAuthority" .) }}
- name: certificates
  mountPath: /run/microfin
  readOnly: true
{{- end }}
{{- end -}}

{{- define "microfin.sessionSecret" -}}
{{- .Values.session.existingSecret | default (printf "%s-session" (include "microfin.name" .)) -}}
{{- end -}}

{{- /* Optional: your own Secret may lack this key; answers are then slower. */}}
{{- define "microfin.cacheSecret" -}}
- name: MICROFIN_CACHE_SECRET
  valueFrom:
    secretKeyRef:
      name: {{ include "microfin.sessionSecret" . }}
      key: {{ .Values.session.cacheKey }}
      optional: true
{{- end -}}

{{- /* Fails with a sentence if the cluster does not know the kinds of the Prometheus operator. Without a
cluster, as `helm template` and GitOps render, nobody knows; `lookup` of a list then finds not even an
empty one. */}}
{{- define "microfin.needsPrometheusOperator" -}}
{{- if not (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1") -}}
{{- if lookup "v1" "Secret" .Release.Namespace "" -}}
{{- fail "monitors and rules need the Prometheus operator, and this cluster does not have it (monitoring.coreos.com/v1): install it first, or switch them off (--set monitoring.serviceMonitor.enabled=false,monitoring.podMonitor.enabled=false,monitoring.rules.enabled=false)" -}}
{{- end -}}
{{- end -}}
{{- end -}}
