{{/*
Names are the same for every release: a cluster has one Conch, and Helm refuses a second one, because the cluster-wide
objects belong to the first.
*/}}
{{- define "conch.operator" -}}conch-operator{{- end }}

{{- define "conch.selectorLabels" -}}
app.kubernetes.io/name: conch
app.kubernetes.io/component: operator
{{- end }}

{{- define "conch.labels" -}}
{{ include "conch.selectorLabels" . }}
{{ include "conch.releaseLabels" . }}
{{- end }}

{{- define "conch.gateway" -}}conch-gateway{{- end }}

{{/* The operator finds the gateways by these: conch.api.names.GATEWAY_LABELS. */}}
{{- define "conch.gatewaySelectorLabels" -}}
app.kubernetes.io/name: conch
app.kubernetes.io/component: gateway
{{- end }}

{{- define "conch.gatewayLabels" -}}
{{ include "conch.gatewaySelectorLabels" . }}
{{ include "conch.releaseLabels" . }}
{{- end }}

{{- define "conch.releaseLabels" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "conch.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- define "conch.installationKeySecret" -}}
{{ .Values.installationKey.existingSecret | default "conch-installation-key" }}
{{- end }}

{{- define "conch.gatewayTokenSecret" -}}
{{ .Values.gateway.existingTokenSecret | default "conch-gateway-token" }}
{{- end }}

{{/*
How long a gateway that leaves may take: it waits until no Service names it any more (at most 60 s), then until it has
answered what it has; the rest is for the ends of the processes.
*/}}
{{- define "conch.gatewayGraceSeconds" -}}
{{ add 60 (int .Values.gateway.drainSeconds) 10 }}
{{- end }}

{{/* Models' ports as settings. The schema knows the bounds of each port, and cannot compare the two. */}}
{{- define "conch.gatewayPorts" -}}
{{- $first := int .Values.gateway.ports.first }}
{{- $last := int .Values.gateway.ports.last }}
{{- if gt $first $last }}
{{- fail (printf "gateway.ports: first (%d) is above last (%d)" $first $last) }}
{{- end }}
{{- range list (include "conch.gatewayReportPort" . | int) 9901 9902 }}
{{- if and (le $first .) (ge $last .) }}
{{- fail (printf "gateway.ports: %d-%d holds %d, which the gateways use themselves" $first $last .) }}
{{- end }}
{{- end -}}
portsFirst: {{ $first }}
portsLast: {{ $last }}
{{- end }}

{{/* conch.api.gateway_pod.REPORT_PORT */}}
{{- define "conch.gatewayReportPort" -}}8080{{- end }}

{{/* conch.api.gateway_pod.CONFIG_FOLDER */}}
{{- define "conch.gatewayConfigFolder" -}}/var/lib/conch-gateway{{- end }}

{{/* conch.api.gateway_pod.TLS_FOLDER */}}
{{- define "conch.gatewayTlsFolder" -}}/etc/conch/gateway-tls{{- end }}

{{/* conch.api.gateway_pod.API_KEYS_FOLDER */}}
{{- define "conch.gatewayApiKeysFolder" -}}/etc/conch/gateway-api-keys{{- end }}

{{/* conch.api.gateway_pod.AUTHORIZATION_FOLDER */}}
{{- define "conch.gatewayAuthorizationFolder" -}}/etc/conch/gateway-authorization{{- end }}

{{/* Name of the Secret with the authority of the authorisation service; empty without one. */}}
{{- define "conch.gatewayAuthorizationCa" -}}
{{- $service := .Values.gateway.externalAuthorization }}
{{- if $service.caSecretName }}
{{- if not (and $service.address $service.tls) }}
{{- fail "gateway.externalAuthorization.caSecretName: says whom to trust over TLS, so address and tls: true are needed too" }}
{{- end }}
{{- $service.caSecretName }}
{{- end }}
{{- end }}

{{/* The operator's settings file: the keys are those of conch.settings.OperatorSettings. */}}
{{- define "conch.settings" -}}
images:
  triton: {{ .Values.triton.image | quote }}
  agent: {{ include "conch.image" . | quote }}
  pullPolicy: {{ .Values.image.pullPolicy }}
modelPods:
  {{- toYaml .Values.modelPods | nindent 2 }}
modelCache:
  {{- toYaml .Values.modelCache | nindent 2 }}
sourcePolicy:
  {{- toYaml .Values.policy.sources | nindent 2 }}
  {{- toYaml .Values.policy.models | nindent 2 }}
networkPolicy:
  {{- toYaml (omit .Values.networkPolicy "portRanges") | nindent 2 }}
gateway:
  {{- include "conch.gatewayPorts" . | nindent 2 }}
  tls: {{ ne .Values.gateway.tls.secretName "" }}
workers: {{ .Values.workers }}
resyncMinutes: {{ .Values.resyncMinutes }}
healthPort: {{ include "conch.healthPort" . }}
logFormat: {{ .Values.log.format }}
logLevel: {{ .Values.log.level }}
{{- end }}

{{- define "conch.healthPort" -}}8080{{- end }}

{{/* Allowed images as a CEL list; exactly triton.image when the values name none. */}}
{{- define "conch.allowedImages" -}}
{{- .Values.policy.images.allowed | default (list .Values.triton.image) | toJson -}}
{{- end }}
