{{- define "mass-serve.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* What tells the pods of this release from others. It can never change. */ -}}
{{- define "mass-serve.selector" -}}
app.kubernetes.io/name: mass-serve
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "mass-serve.labels" -}}
{{ include "mass-serve.selector" . }}
app.kubernetes.io/part-of: mass-serve
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "mass-serve.metadata" -}}
name: {{ include "mass-serve.fullname" . }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "mass-serve.labels" . | nindent 2 }}
{{- end -}}

{{- define "mass-serve.claim" -}}
{{ .Values.store.claim | default (printf "%s-store" (include "mass-serve.fullname" .)) }}
{{- end -}}

{{- /* Helm reads all numbers as floating point, and would write large ones as 1e+06. */ -}}
{{- define "mass-serve.value" -}}
{{- if and (kindIs "float64" .) (eq . (floor .)) }}{{ printf "%.0f" . }}{{ else }}{{ . }}{{ end -}}
{{- end -}}
