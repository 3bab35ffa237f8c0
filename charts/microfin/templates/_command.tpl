{{- /* The spec of a pod that runs `microfin …` and ends. The argument is a dict: root,
serviceAccount, name (of the container), command, settings (the ConfigMap with the settings for Kafka, or
empty), kafka (the Secret of the KafkaUser, or empty), variable, secret and host (of the databases),
archive (the Secret for the archives, or nothing) and archiveVariables, pod (the values of this part). */}}
{{- define "microfin.command" -}}
{{ include "microfin.podCommon" . }}
restartPolicy: Never
containers:
  - name: {{ .name }}
    image: {{ include "microfin.image" (dict "root" .root "which" "worker") }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    command: {{- toYaml .command | nindent 6 }}
    {{- with .settings }}
    envFrom:
      - configMapRef:
          name: {{ . }}
    {{- end }}
    env:
      {{- include "microfin.databases" . | trim | nindent 6 }}
      {{- with include "microfin.archives" (dict "root" .root "archive" .archive "variables" .archiveVariables) | trim }}
      {{- . | nindent 6 }}
      {{- end }}
      {{- with include "microfin.kafkaAuthorities" . | trim }}
      {{- . | nindent 6 }}
      {{- end }}
    terminationMessagePolicy: FallbackToLogsOnError
    resources: {{- toYaml .pod.resources | nindent 6 }}
    securityContext: {{- include "microfin.containerSecurity" . | nindent 6 }}
    volumeMounts: {{- include "microfin.mounts" . | nindent 6 }}
volumes: {{- include "microfin.certificates" . | nindent 2 }}
{{- end -}}
