{{- /* Names, labels, and what follows from several values. Refuses nothing: that is _checks.tpl's. */ -}}

{{- define "evalsink.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- /* A StatefulSet's name may have 52 characters: its pods bear it in a label, with a hash. */ -}}
{{- define "evalsink.fullname" -}}
{{- $name := include "evalsink.name" . -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $full .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- /* Never changes for a release: a StatefulSet's selector and claims cannot be changed. */ -}}
{{- define "evalsink.selectorLabels" -}}
app.kubernetes.io/name: {{ include "evalsink.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- /* Those of the workers' pods alone. */ -}}
{{- define "evalsink.workerLabels" -}}
{{ include "evalsink.selectorLabels" . }}
app.kubernetes.io/component: worker
{{- end -}}

{{- define "evalsink.labels" -}}
{{ include "evalsink.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- /* A list of two: YAML of ours, and a map of the user's. Ours wins where both have a key. */ -}}
{{- define "evalsink.joined" -}}
{{- merge (first . | fromYaml) (last .) | toYaml -}}
{{- end -}}

{{- define "evalsink.serviceAccountName" -}}
{{- $made := default (include "evalsink.fullname" .) .Values.serviceAccount.name -}}
{{- ternary $made (default "default" .Values.serviceAccount.name) .Values.serviceAccount.create -}}
{{- end -}}

{{- define "evalsink.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* The largest number of workers there can be. */ -}}
{{- define "evalsink.workersMax" -}}
{{- ternary .Values.keda.maxReplicas .Values.replicas .Values.keda.enabled | int -}}
{{- end -}}

{{- /* The name of the claim that all workers share; empty where there is none. */ -}}
{{- define "evalsink.outputClaim" -}}
{{- if ne .Values.settings.durable "hub" -}}
{{- default (printf "%s-output" (include "evalsink.fullname" .)) .Values.output.existingClaim -}}
{{- end -}}
{{- end -}}

{{- /* The settings in force, as JSON: those of the values, the secrets' files, and what follows from the size. */ -}}
{{- define "evalsink.settings" -}}
{{- $settings := deepCopy .Values.settings -}}
{{- $security := dict -}}
{{- range $setting, $file := include "evalsink.secretFiles" . | fromYaml -}}
{{- if hasPrefix "security." $setting -}}
{{- $_ := set $security (trimPrefix "security." $setting) $file -}}
{{- end -}}
{{- end -}}
{{- $_ := set $settings "security" (merge $security (default dict $settings.security)) -}}
{{- $hub := default dict $settings.hub -}}
{{- if $hub.repo -}}
{{- with .Values.secrets.hubToken.name -}}
{{- $_ := set $hub "token_file" "/run/secrets/evalsink/hub-token" -}}
{{- end -}}
{{- if not (hasKey $hub "commits_per_hour") -}}
{{- $share := div 120 (include "evalsink.workersMax" . | int) | int -}}
{{- $_ := set $hub "commits_per_hour" (max 1 (min 60 $share)) -}}
{{- end -}}
{{- if and (eq $settings.durable "hub") (not (hasKey $hub "keep_files")) -}}
{{- $_ := set $hub "keep_files" false -}}
{{- end -}}
{{- end -}}
{{- $_ := set $settings "hub" $hub -}}
{{- toJson $settings -}}
{{- end -}}

{{- /* Setting to file, for each secret of Kafka's that is used. */ -}}
{{- define "evalsink.secretFiles" -}}
{{- with .Values.secrets -}}
{{- if .kafkaPassword.name }}
security.password_file: /run/secrets/evalsink/kafka-password
{{- end }}
{{- if .kafkaCa.name }}
security.ca_file: /run/secrets/evalsink/kafka-ca.crt
{{- end }}
{{- if .kafkaCertificate.name }}
security.certificate_file: /run/secrets/evalsink/kafka.crt
security.key_file: /run/secrets/evalsink/kafka.key
{{- end }}
{{- if .kafkaKeyPassword.name }}
security.key_password_file: /run/secrets/evalsink/kafka-key-password
{{- end }}
{{- end -}}
{{- end -}}

{{- /* The settings file. JSON's texts and numbers are TOML's too, and unlike toToml's its integers stay integers. */ -}}
{{- define "evalsink.toml" -}}
{{- $settings := include "evalsink.settings" . | fromJson -}}
{{- range $name, $value := $settings -}}
{{- if not (kindIs "map" $value) }}
{{ $name }} = {{ toJson $value }}
{{- end -}}
{{- end -}}
{{- range $part, $table := $settings -}}
{{- if and (kindIs "map" $table) $table }}

[{{ $part }}]
{{- range $name, $value := $table -}}
{{- if not (kindIs "slice" $value) }}
{{ $name }} = {{ toJson $value }}
{{- end -}}
{{- end -}}
{{- range $name, $value := $table -}}
{{- if kindIs "slice" $value -}}
{{- range $value }}

[[{{ $part }}.{{ $name }}]]
{{- range $key, $one := . }}
{{ $key }} = {{ toJson $one }}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* The ConfigMap's content, which the workers and the topics Job each have one of. */ -}}
{{- define "evalsink.settingsData" -}}
settings.toml: |
  # Made by the chart from `settings`; what is not here has evalsink's default.
  {{- include "evalsink.toml" . | nindent 2 }}
{{- end -}}

{{- define "evalsink.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "evalsink.podSecurityContext" -}}
runAsNonRoot: true
seccompProfile:
  type: RuntimeDefault
{{- with .Values.podSecurityContext }}
{{- range $name, $value := . }}
{{- if not (kindIs "invalid" $value) }}
{{- if not (and (kindIs "slice" $value) (empty $value)) }}
{{ $name }}: {{ toJson $value }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* Whether any secret is mounted. */ -}}
{{- define "evalsink.hasSecrets" -}}
{{- range .Values.secrets -}}{{- .name -}}{{- end -}}
{{- end -}}

{{- /* One folder of files. Kubernetes replaces them all at once when a Secret changes; a subPath it would not. */ -}}
{{- define "evalsink.secretsVolume" -}}
- name: secrets
  projected:
    # 0440; YAML's readers do not agree on how to write that.
    defaultMode: 288
    sources:
      {{- with .Values.secrets.kafkaPassword }}{{ if .name }}
      - secret:
          name: {{ quote .name }}
          items:
            - key: {{ quote .key }}
              path: kafka-password
      {{- end }}{{ end }}
      {{- with .Values.secrets.kafkaCa }}{{ if .name }}
      - secret:
          name: {{ quote .name }}
          items:
            - key: {{ quote .key }}
              path: kafka-ca.crt
      {{- end }}{{ end }}
      {{- with .Values.secrets.kafkaCertificate }}{{ if .name }}
      - secret:
          name: {{ quote .name }}
          items:
            - key: {{ quote .certificateKey }}
              path: kafka.crt
            - key: {{ quote .keyKey }}
              path: kafka.key
      {{- end }}{{ end }}
      {{- with .Values.secrets.kafkaKeyPassword }}{{ if .name }}
      - secret:
          name: {{ quote .name }}
          items:
            - key: {{ quote .key }}
              path: kafka-key-password
      {{- end }}{{ end }}
      {{- with .Values.secrets.hubToken }}{{ if .name }}
      - secret:
          name: {{ quote .name }}
          items:
            - key: {{ quote .key }}
              path: hub-token
      {{- end }}{{ end }}
{{- end -}}

{{- /* What the worker's container and the topics Job's have in common. */ -}}
{{- define "evalsink.container" -}}
image: {{ include "evalsink.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  {{- include "evalsink.securityContext" . | nindent 2 }}
{{- end -}}

{{- define "evalsink.pod" -}}
automountServiceAccountToken: false
# A Service called evalsink would put EVALSINK_PORT and the like into the environment.
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "evalsink.podSecurityContext" . | nindent 2 }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ quote . }}
{{- end }}
{{- end -}}

{{- define "evalsink.mounts" -}}
- name: settings
  mountPath: /etc/evalsink
  readOnly: true
{{- if include "evalsink.hasSecrets" . }}
- name: secrets
  mountPath: /run/secrets/evalsink
  readOnly: true
{{- end }}
- name: tmp
  mountPath: /tmp
{{- end -}}
