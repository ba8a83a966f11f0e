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

{{/* The operator's settings file: the keys are those of conch.settings.OperatorSettings. */}}
{{- define "conch.settings" -}}
images:
  triton: {{ .Values.triton.image | quote }}
  agent: {{ include "conch.image" . | quote }}
  pullPolicy: {{ .Values.image.pullPolicy }}
modelPods:
  {{- toYaml .Values.modelPods | nindent 2 }}
sourcePolicy:
  {{- toYaml .Values.policy.sources | nindent 2 }}
  {{- toYaml .Values.policy.models | nindent 2 }}
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
