{{- /* The ports in a list of host:port, each once, as JSON. */}}
{{- define "microfin.ports" -}}
{{- $ports := list -}}
{{- range . -}}
{{- $ports = append $ports (regexFind "[0-9]+$" . | int) -}}
{{- end -}}
{{- uniq $ports | toJson -}}
{{- end -}}

{{- define "microfin.policyPorts" -}}
{{- $ports := list -}}
{{- range . -}}
{{- $ports = append $ports (dict "port" (int .) "protocol" "TCP") -}}
{{- end -}}
{{- toYaml $ports -}}
{{- end -}}

{{- /* The connections that a component's pods may accept and make. DNS is always allowed. */}}
{{- define "microfin.policy" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "microfin.name" .root }}-{{ .component }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "microfin.labels" . | nindent 4 }}
  {{- with .annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  podSelector:
    matchLabels: {{- include "microfin.selector" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
  {{- with .from }}
  ingress:
    {{- range . }}
    - from: {{- toYaml .peers | nindent 8 }}
      ports: {{- include "microfin.policyPorts" .ports | nindent 8 }}
    {{- end }}
  {{- end }}
  egress:
    - ports:
        {{- range .root.Values.networkPolicy.dns.ports }}
        - port: {{ . }}
          protocol: UDP
        - port: {{ . }}
          protocol: TCP
        {{- end }}
      {{- with .root.Values.networkPolicy.dns.to }}
      to: {{- toYaml . | nindent 8 }}
      {{- end }}
    {{- range .to }}
    - ports: {{- include "microfin.policyPorts" .ports | nindent 8 }}
      {{- with .peers }}
      to: {{- toYaml . | nindent 8 }}
      {{- end }}
    {{- end }}
{{- end -}}
