{{- define "estudio.name" -}}
{{- printf "%s-%s" .Release.Name "estudio" | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- define "estudio.labels" -}}
app.kubernetes.io/name: estudio
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{- define "estudio.meta" -}}
name: {{ include "estudio.name" .root }}-{{ .part }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "estudio.labels" . | nindent 2 }}
  app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
  app.kubernetes.io/managed-by: {{ .root.Release.Service }}
  helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{- define "estudio.secret" -}}
{{- .Values.existingSecret | default (printf "%s-secrets" (include "estudio.name" .)) -}}
{{- end }}

{{- define "estudio.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "estudio.postgres" -}}
{{- if .Values.postgres.enabled -}}
{{ include "estudio.name" . }}-postgres:{{ .Values.postgres.port }}
{{- else -}}
{{ required "postgres.host: name your server, or set postgres.enabled" .Values.postgres.host }}:{{ .Values.postgres.port }}
{{- end -}}
{{- end }}

{{- define "estudio.storageUrl" -}}
{{- if .Values.storage.enabled -}}http://{{ include "estudio.name" . }}-storage:8333{{- else -}}{{ .Values.storage.url }}{{- end -}}
{{- end }}

{{/* One variable from the Secret: dict root, name, and key where it is another one. */}}
{{- define "estudio.fromSecret" -}}
- name: {{ .name }}
  valueFrom: {secretKeyRef: {name: {{ include "estudio.secret" .root }}, key: {{ .key | default .name }}}}
{{- end }}

{{- define "estudio.env.search" -}}
- {name: ESTUDIO_HOME, value: /opt/estudio/state}
- {name: ESTUDIO_TRITON_REPOSITORY, value: /opt/estudio/triton_repo}
- {name: ESTUDIO_PLUGINS_PATH, value: /opt/estudio/plugins}
- {name: ESTUDIO_INFERENCE, value: {{ ternary "triton" "embedded" .Values.triton.enabled }}}
- {name: ESTUDIO_INFERENCE_HOST, value: {{ include "estudio.name" . }}-triton}
- {name: ESTUDIO_INFERENCE_GRPC_PORT, value: "8001"}
{{- end }}

{{- define "estudio.env.tasks" -}}
{{ include "estudio.env.search" . }}
{{ include "estudio.fromSecret" (dict "root" . "name" "DATABASE_PASSWORD") }}
- {name: ESTUDIO_DATABASE_URL, value: "postgresql://estudio_tasks:$(DATABASE_PASSWORD)@{{ include "estudio.postgres" . }}/estudio"}
- {name: ESTUDIO_ARTIFACTS, value: "s3://estudio-artifacts"}
- {name: ESTUDIO_MLFLOW_TRACKING_URI, value: "http://{{ include "estudio.name" . }}-mlflow:5000"}
- {name: ESTUDIO_MLFLOW_URL, value: {{ .Values.mlflow.url | quote }}}
- {name: ESTUDIO_TRAINING_THREADS, value: {{ .Values.workers.threads | quote }}}
- {name: ESTUDIO_TRITON_THREADS, value: {{ .Values.triton.threads | quote }}}
- {name: ESTUDIO_TRITON_INSTANCES, value: {{ .Values.triton.instances | quote }}}
- {name: ESTUDIO_KEEP_RELEASES, value: {{ .Values.keepReleases | quote }}}
- {name: ESTUDIO_RAY_ADDRESS, value: {{ ternary (printf "%s-ray-head:6379" (include "estudio.name" .)) "" .Values.ray.enabled | quote }}}
- {name: RAY_AUTH_MODE, value: token}
{{ include "estudio.fromSecret" (dict "root" . "name" "RAY_AUTH_TOKEN") }}
{{ include "estudio.env.storage" (dict "root" . "login" "estudio" "key" "STORAGE_PASSWORD") }}
- {name: MLFLOW_DISABLE_TELEMETRY, value: "true"}
{{- end }}

{{- define "estudio.env.storage" -}}
{{- $variable := .endpoint | default "AWS_ENDPOINT_URL_S3" }}
{{- with include "estudio.storageUrl" .root }}
- {name: {{ $variable }}, value: {{ . | quote }}}
{{- end }}
- {name: AWS_ACCESS_KEY_ID, value: {{ .login }}}
{{ include "estudio.fromSecret" (dict "root" .root "name" "AWS_SECRET_ACCESS_KEY" "key" .key) }}
- {name: AWS_DEFAULT_REGION, value: us-east-1}
{{- end }}

{{- define "estudio.env.airflow" -}}
{{ include "estudio.env.tasks" . }}
{{- range list "BROKER_PASSWORD" "AIRFLOW_DATABASE_PASSWORD" }}
{{ include "estudio.fromSecret" (dict "root" $ "name" .) }}
{{- end }}
{{ include "estudio.fromSecret" (dict "root" . "name" "AIRFLOW__CORE__FERNET_KEY" "key" "AIRFLOW_FERNET_KEY") }}
{{ include "estudio.fromSecret" (dict "root" . "name" "AIRFLOW__API__SECRET_KEY" "key" "AIRFLOW_API_SECRET_KEY") }}
{{ include "estudio.fromSecret" (dict "root" . "name" "AIRFLOW__API_AUTH__JWT_SECRET" "key" "AIRFLOW_JWT_SECRET") }}
- {name: AIRFLOW__CORE__PLUGINS_FOLDER, value: /opt/airflow/ui_plugins}
- {name: AIRFLOW__CORE__DAGS_FOLDER, value: /opt/estudio/dags}
- {name: AIRFLOW__CORE__LOAD_EXAMPLES, value: "False"}
- {name: AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL, value: "30"}
- {name: AIRFLOW__CORE__EXECUTOR, value: CeleryExecutor}
- {name: AIRFLOW__CORE__PARALLELISM, value: {{ .Values.airflow.parallelism | quote }}}
- {name: AIRFLOW__CELERY__BROKER_URL, value: "redis://:$(BROKER_PASSWORD)@{{ include "estudio.name" . }}-broker:6379/0"}
- {name: AIRFLOW__CELERY__WORKER_CONCURRENCY, value: {{ .Values.airflow.parallelism | quote }}}
- {name: AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION, value: "False"}
- {name: AIRFLOW__CORE__AUTH_MANAGER, value: {{ .Values.airflow.authManager }}}
- {name: AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS, value: "admin:admin"}
- {name: AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE, value: /opt/airflow/state/passwords.json}
- {name: AIRFLOW__CORE__EXECUTION_API_SERVER_URL, value: "http://{{ include "estudio.name" . }}-airflow-api-server:8080/execution/"}
- {name: AIRFLOW__DATABASE__SQL_ALCHEMY_CONN, value: "postgresql+psycopg://airflow:$(AIRFLOW_DATABASE_PASSWORD)@{{ include "estudio.postgres" . }}/airflow"}
- {name: AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC, value: $(AIRFLOW__DATABASE__SQL_ALCHEMY_CONN)}
- {name: AIRFLOW__API__HOST, value: 0.0.0.0}
- {name: AIRFLOW__API__PORT, value: "8080"}
- {name: AIRFLOW__API__WORKERS, value: "1"}
- {name: AIRFLOW__API__INSTANCE_NAME, value: Estudio}
- {name: AIRFLOW__API__BASE_URL, value: {{ .Values.airflow.url | quote }}}
- {name: AIRFLOW__DAG_PROCESSOR__DAG_VERSION_INFLATION_CHECK_LEVEL, value: error}
- {name: AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK, value: "True"}
- {name: AIRFLOW__LOGGING__JSON_LOGS, value: "True"}
- {name: AIRFLOW__METRICS__OTEL_ON, value: {{ ternary "True" "False" .Values.telemetry.airflowOtel | quote }}}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ .Values.telemetry.otlpEndpoint | quote }}}
{{- end }}

{{/* Containers of the image: nothing as root, no token of the cluster. */}}
{{- define "estudio.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
securityContext: {runAsNonRoot: true, runAsUser: 50000, runAsGroup: 50000, fsGroup: 50000, seccompProfile: {type: RuntimeDefault}}
{{- end }}

{{- define "estudio.container" -}}
image: {{ include "estudio.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
{{- end }}

{{- define "estudio.mounts.code" -}}
{{- if .Values.code.claim }}
- {name: code, mountPath: /opt/estudio/plugins, subPath: plugins, readOnly: true}
- {name: code, mountPath: /opt/estudio/dags, subPath: dags, readOnly: true}
{{- end }}
{{- end }}

{{- define "estudio.mounts.tasks" -}}
- {name: state, mountPath: /opt/estudio/state}
- {name: models, mountPath: /opt/estudio/triton_repo}
{{- include "estudio.mounts.code" . }}
{{- end }}

{{- define "estudio.mounts.airflow" -}}
{{ include "estudio.mounts.tasks" . }}
- {name: airflow-logs, mountPath: /opt/airflow/logs}
- {name: airflow-state, mountPath: /opt/airflow/state}
{{- end }}

{{/* Volumes of the chart's own claims: dict root, names. */}}
{{- define "estudio.claims" -}}
{{- $name := include "estudio.name" .root -}}
{{- range .names }}
- {name: {{ . }}, persistentVolumeClaim: {claimName: {{ $name }}-{{ . }}}}
{{- end }}
{{- end }}

{{/* The same, and the plugins' own claim where there is one. */}}
{{- define "estudio.volumes" -}}
{{- include "estudio.claims" . }}
{{- if .root.Values.code.claim }}
- {name: code, persistentVolumeClaim: {claimName: {{ .root.Values.code.claim }}, readOnly: true}}
{{- end }}
{{- end }}

{{/* A Service of one port: dict root, part, port. */}}
{{- define "estudio.service" -}}
apiVersion: v1
kind: Service
metadata:
  {{- include "estudio.meta" . | nindent 2 }}
spec:
  selector:
    {{- include "estudio.labels" . | nindent 4 }}
  ports:
    {{- range .ports }}
    - {name: {{ .name }}, port: {{ .port }}, targetPort: {{ .port }}}
    {{- end }}
{{- end }}

{{/* A claim: dict root, part, size, class, mode. */}}
{{- define "estudio.claim" -}}
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  {{- include "estudio.meta" . | nindent 2 }}
  annotations: {helm.sh/resource-policy: keep}
spec:
  accessModes: [{{ .mode }}]
  {{- with .class }}
  storageClassName: {{ . }}
  {{- end }}
  resources: {requests: {storage: {{ .size }}}}
{{- end }}
