{{- define "firnline.name" -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- define "firnline.selector" -}}
app.kubernetes.io/name: firnline
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "firnline.labels" -}}
{{ include "firnline.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- with .root.Values.common.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "firnline.image" -}}
{{- $i := .Values.image -}}
{{- if $i.digest }}{{ $i.repository }}@{{ $i.digest }}{{ else }}{{ $i.repository }}:{{ $i.tag | default (printf "v%s" .Chart.AppVersion) }}{{ end -}}
{{- end }}

{{- define "firnline.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "firnline.name" .) "default" .Values.serviceAccount.create) -}}
{{- end }}

{{- /* The Secret with bucket.yml; empty where there is no bucket. */ -}}
{{- define "firnline.bucketSecret" -}}
{{- if .Values.bucket.existingSecret }}{{ .Values.bucket.existingSecret }}{{ else if .Values.bucket.config }}{{ include "firnline.name" . }}-bucket{{ end -}}
{{- end }}

{{- define "firnline.scheme" -}}
{{- ternary "HTTPS" "HTTP" (ne .Values.tls.existingSecret "") -}}
{{- end }}

{{- /* TLS of the calls that a component makes to others; prefix is that of its flags. */ -}}
{{- define "firnline.clientTLS" -}}
{{- if .root.Values.tls.existingSecret }}
- --{{ .prefix }}-tls-secure
- --{{ .prefix }}-tls-ca=/etc/firnline/tls/ca.crt
- --{{ .prefix }}-tls-cert=/etc/firnline/tls/tls.crt
- --{{ .prefix }}-tls-key=/etc/firnline/tls/tls.key
{{- end }}
{{- end }}

{{- /*
firnline.workload is a component's StatefulSet or Deployment. It takes root, component,
kind, replicas, values (those of the component), args (a YAML list), and optionally
mount (where its volume goes), ports, writes (it takes writes, so has limits), grpc.
*/ -}}
{{- define "firnline.workload" -}}
{{- $root := .root -}}
{{- $tls := $root.Values.tls -}}
{{- $bucket := include "firnline.bucketSecret" $root -}}
{{- $name := printf "%s-%s" (include "firnline.name" $root) .component -}}
apiVersion: apps/v1
kind: {{ .kind }}
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{- include "firnline.labels" . | nindent 4 }}
  {{- with $root.Values.common.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- if not .scaled }}
  replicas: {{ .replicas }}
  {{- end }}
  selector:
    matchLabels: {{- include "firnline.selector" . | nindent 6 }}
  {{- if eq .kind "StatefulSet" }}
  serviceName: {{ $name }}
  podManagementPolicy: Parallel
  {{- end }}
  template:
    metadata:
      labels: {{- include "firnline.labels" . | nindent 8 }}
      annotations:
        checksum/config: {{ toYaml (list $root.Values.bucket.config $tls) | sha256sum }}
        {{- with $root.Values.common.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      serviceAccountName: {{ include "firnline.serviceAccount" $root }}
      automountServiceAccountToken: false
      enableServiceLinks: false
      terminationGracePeriodSeconds: {{ .values.terminationGracePeriodSeconds | default 120 }}
      {{- with $root.Values.image.pullSecrets }}
      imagePullSecrets: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $root.Values.common.priorityClassName }}
      priorityClassName: {{ . }}
      {{- end }}
      securityContext:
        runAsNonRoot: true
        runAsUser: 65532
        runAsGroup: 65532
        fsGroup: 65532
        fsGroupChangePolicy: OnRootMismatch
        seccompProfile: {type: RuntimeDefault}
      topologySpreadConstraints:
        {{- if $root.Values.common.topologySpreadConstraints }}
        {{- toYaml $root.Values.common.topologySpreadConstraints | nindent 8 }}
        {{- else }}
        {{- $spread := . }}
        {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
        - maxSkew: 1
          topologyKey: {{ . }}
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels: {{- include "firnline.selector" $spread | nindent 14 }}
        {{- end }}
        {{- end }}
      {{- with $root.Values.common.nodeSelector }}
      nodeSelector: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $root.Values.common.tolerations }}
      tolerations: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $root.Values.common.affinity }}
      affinity: {{- toYaml . | nindent 8 }}
      {{- end }}
      containers:
        - name: {{ .component }}
          image: {{ include "firnline.image" $root }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          args:
            - {{ .component }}
            {{- if $bucket }}
            - --objstore.config-file=/etc/firnline/bucket/bucket.yml
            {{- end }}
            {{- if $tls.existingSecret }}
            - --http.config=/etc/firnline/web/web.yml
            {{- if ne .component "compact" }}
            - --grpc-server-tls-cert=/etc/firnline/tls/tls.crt
            - --grpc-server-tls-key=/etc/firnline/tls/tls.key
            {{- if $tls.clientAuth }}
            - --grpc-server-tls-client-ca=/etc/firnline/tls/ca.crt
            {{- end }}
            {{- end }}
            {{- end }}
            {{- if .writes }}
            {{- with $root.Values.tenancy.header }}
            - --receive.tenant-header={{ . }}
            {{- end }}
            {{- if $root.Values.tenancy.limits }}
            - --receive.limits-config-file=/etc/firnline/limits/limits.yml
            {{- end }}
            {{- end }}
            {{- with .args }}
            {{- . | trim | nindent 12 }}
            {{- end }}
            {{- range concat $root.Values.common.args .values.args }}
            - {{ . | quote }}
            {{- end }}
          env:
            - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
            {{- with $root.Values.common.env }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          ports:
            - {name: http, containerPort: 10902}
            {{- if ne .component "compact" }}
            - {name: grpc, containerPort: 10901}
            {{- end }}
            {{- range .ports }}
            - {{ toJson . }}
            {{- end }}
          # Reading a log or building index headers takes its time at the first start.
          startupProbe:
            httpGet: {path: /-/ready, port: http, scheme: {{ include "firnline.scheme" $root }}}
            periodSeconds: 5
            failureThreshold: 360
          readinessProbe:
            httpGet: {path: /-/ready, port: http, scheme: {{ include "firnline.scheme" $root }}}
            periodSeconds: 5
          livenessProbe:
            httpGet: {path: /-/healthy, port: http, scheme: {{ include "firnline.scheme" $root }}}
            periodSeconds: 30
            timeoutSeconds: 10
            failureThreshold: 4
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {drop: [ALL]}
          resources: {{- toYaml .values.resources | nindent 12 }}
          volumeMounts:
            {{- if $bucket }}
            - {name: bucket, mountPath: /etc/firnline/bucket, readOnly: true}
            {{- end }}
            {{- if $tls.existingSecret }}
            - {name: tls, mountPath: /etc/firnline/tls, readOnly: true}
            - {name: web, mountPath: /etc/firnline/web, readOnly: true}
            {{- end }}
            {{- if and .writes $root.Values.tenancy.limits }}
            - {name: limits, mountPath: /etc/firnline/limits, readOnly: true}
            {{- end }}
            - {name: data, mountPath: /data}
      volumes:
        {{- if $bucket }}
        - name: bucket
          secret: {secretName: {{ $bucket }}, defaultMode: 0440}
        {{- end }}
        {{- if $tls.existingSecret }}
        - name: tls
          secret: {secretName: {{ $tls.existingSecret }}, defaultMode: 0440}
        - name: web
          configMap: {name: {{ include "firnline.name" $root }}-web}
        {{- end }}
        {{- if and .writes $root.Values.tenancy.limits }}
        - name: limits
          configMap: {name: {{ include "firnline.name" $root }}-limits}
        {{- end }}
        {{- if not .values.persistence }}
        - {name: data, emptyDir: {}}
        {{- end }}
  {{- with .values.persistence }}
  volumeClaimTemplates:
    - metadata: {name: data}
      spec:
        accessModes: {{ toJson .accessModes }}
        {{- with .storageClass }}
        storageClassName: {{ . }}
        {{- end }}
        resources: {requests: {storage: {{ .size }}}}
  {{- end }}
{{- end }}

{{- /* firnline.service takes root, component, and optionally headless, ports. */ -}}
{{- define "firnline.service" -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ include "firnline.name" .root }}-{{ .component }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "firnline.labels" . | nindent 4 }}
spec:
  {{- if .headless }}
  clusterIP: None
  publishNotReadyAddresses: {{ .notReady | default false }}
  {{- end }}
  selector: {{- include "firnline.selector" . | nindent 4 }}
  ports:
    - {name: http, port: 10902, targetPort: http}
    {{- if ne .component "compact" }}
    - {name: grpc, port: 10901, targetPort: grpc}
    {{- end }}
    {{- range .ports }}
    - {name: {{ .name }}, port: {{ .containerPort }}, targetPort: {{ .name }}}
    {{- end }}
{{- end }}

{{- /* firnline.disruption lets one pod of a component go at a time. */ -}}
{{- define "firnline.disruption" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "firnline.name" .root }}-{{ .component }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "firnline.labels" . | nindent 4 }}
spec:
  maxUnavailable: 1
  selector:
    matchLabels: {{- include "firnline.selector" . | nindent 6 }}
{{- end }}
