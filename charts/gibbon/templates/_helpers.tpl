{{- /* Names are those of Services, which have no dots. */}}
{{- define "gibbon.name" -}}
{{- default .Chart.Name .Values.nameOverride | replace "." "-" | trunc 63 | trimAll "-" }}
{{- end }}

{{- /* Leaves room for "-metrics" within 63 characters. */}}
{{- define "gibbon.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- $full := .Values.fullnameOverride }}
{{- if not $full }}
{{- $full = contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) }}
{{- end }}
{{- $full | replace "." "-" | trunc 55 | trimAll "-" }}
{{- end }}

{{- /* Cluster-wide objects carry the namespace, so that releases of one name do not meet. */}}
{{- define "gibbon.clusterName" -}}
{{- printf "%s.%s" (include "gibbon.fullname" .) .Release.Namespace }}
{{- end }}

{{- define "gibbon.selectorLabels" -}}
app.kubernetes.io/name: {{ include "gibbon.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: proxy
{{- end }}

{{- /* Labels of objects; (list . more…) merges more labels, of which none can replace the chart's own. */}}
{{- define "gibbon.labels" -}}
{{- $root := first . }}
{{- $own := include "gibbon.selectorLabels" $root | fromYaml }}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") }}
{{- $_ := set $own "app.kubernetes.io/version" ($root.Chart.AppVersion | replace "+" "_") }}
{{- $_ := set $own "app.kubernetes.io/managed-by" $root.Release.Service }}
{{- range rest . }}{{ $own = merge $own (deepCopy (default dict .)) }}{{ end }}
{{- toYaml (merge $own (deepCopy $root.Values.commonLabels)) }}
{{- end }}

{{- /* Without the chart's version, which must not replace Pods. */}}
{{- define "gibbon.podLabels" -}}
{{- $own := include "gibbon.selectorLabels" . | fromYaml }}
{{- $_ := set $own "app.kubernetes.io/version" (.Chart.AppVersion | replace "+" "_") }}
{{- toYaml (merge $own (deepCopy .Values.podLabels) (deepCopy .Values.commonLabels)) }}
{{- end }}

{{- define "gibbon.serviceAccountName" -}}
{{- default (.Values.serviceAccount.create | ternary (include "gibbon.fullname" .) "default") .Values.serviceAccount.name }}
{{- end }}

{{- define "gibbon.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ default $.Chart.AppVersion .tag }}{{ end }}
{{- end }}
{{- end }}

{{- define "gibbon.address" -}}
{{- contains ":" .Values.listenAddress | ternary (printf "[%s]" .Values.listenAddress) .Values.listenAddress }}
{{- end }}

{{- /* One for each release: two in a namespace serve different Balancers. */}}
{{- define "gibbon.lease" -}}
{{- include "gibbon.fullname" . }}
{{- end }}

{{- /* namespace/name of the Service whose address is published, or nothing. */}}
{{- define "gibbon.published" -}}
{{- if and .Values.publishService.enabled (not .Values.publishAddresses) }}
{{- if .Values.publishService.name }}
{{- .Values.publishService.name }}
{{- else if .Values.service.enabled }}
{{- printf "%s/%s" .Release.Namespace (include "gibbon.fullname" .) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "gibbon.args" -}}
- serve
- {{ printf "--listen=%s:%d" (include "gibbon.address" .) (int .Values.ports.http) | quote }}
{{- if .Values.tls.enabled }}
- {{ printf "--listen-tls=%s:%d" (include "gibbon.address" .) (int .Values.ports.https) | quote }}
- {{ printf "--public-https-port=%d" (int .Values.service.httpsPort) | quote }}
{{- with .Values.tls.defaultCertificate }}
- {{ printf "--default-certificate=%s" . | quote }}
{{- end }}
{{- end }}
- {{ printf "--admin=%s:%d" (include "gibbon.address" .) (int .Values.ports.admin) | quote }}
- {{ printf "--log=%s" .Values.log.level | quote }}
- {{ printf "--log-format=%s" .Values.log.format | quote }}
- {{ printf "--access-log=%s" .Values.log.access | quote }}
- {{ printf "--max-connections=%d" (int .Values.maxConnections) | quote }}
- {{ printf "--max-handshakes=%d" (int .Values.maxHandshakes) | quote }}
{{- if .Values.workers }}
- {{ printf "--workers=%d" (int .Values.workers) | quote }}
{{- end }}
- {{ printf "--shutdown-delay=%ds" (int .Values.shutdown.delaySeconds) | quote }}
- {{ printf "--shutdown-grace=%ds" (int .Values.shutdown.graceSeconds) | quote }}
- {{ printf "--lease-namespace=%s" .Release.Namespace | quote }}
- {{ printf "--lease-name=%s" (include "gibbon.lease" .) | quote }}
{{- with .Values.className }}
- {{ printf "--class=%s" . | quote }}
{{- end }}
{{- with .Values.watchNamespaces }}
- {{ printf "--namespaces=%s" (join "," .) | quote }}
{{- end }}
{{- if .Values.shareHosts }}
- "--share-hosts"
{{- end }}
{{- with .Values.anyHost }}
- {{ printf "--any-host=%s" (join "," .) | quote }}
{{- end }}
{{- with .Values.urlMembers }}
- {{ printf "--url-members=%s" (join "," .) | quote }}
{{- end }}
{{- with .Values.denyMembers }}
- {{ printf "--deny-members=%s" (join "," .) | quote }}
{{- end }}
{{- with .Values.proxyProtocol }}
- {{ printf "--proxy-protocol=%s" (join "," .) | quote }}
{{- end }}
{{- with .Values.trustedProxies }}
- {{ printf "--trusted-proxies=%s" (join "," .) | quote }}
{{- end }}
{{- with include "gibbon.published" . }}
- {{ printf "--publish-service=%s" . | quote }}
{{- end }}
{{- with .Values.publishAddresses }}
- {{ printf "--publish-address=%s" (join "," .) | quote }}
{{- end }}
{{- end }}

{{- /* What no schema can say. */}}
{{- define "gibbon.check" -}}
{{- $set := list }}
{{- range include "gibbon.args" . | fromYamlArray }}{{ $set = append $set (splitList "=" . | first) }}{{ end }}
{{- range .Values.extraArgs }}
{{- $flag := splitList "=" . | first }}
{{- if has $flag $set }}
{{- fail (printf "extraArgs: %s is set already, by another value of this chart" $flag) }}
{{- end }}
{{- end }}
{{- if and (eq .Values.kind "DaemonSet") .Values.autoscaling.enabled }}
{{- fail "autoscaling.enabled: a DaemonSet cannot be scaled; set kind to Deployment" }}
{{- end }}
{{- if or (eq (int .Values.ports.http) (int .Values.ports.admin)) (and .Values.tls.enabled (eq (int .Values.ports.https) (int .Values.ports.admin))) }}
{{- fail "ports.admin must differ from ports.http and ports.https" }}
{{- end }}
{{- if and .Values.tls.enabled (eq (int .Values.ports.http) (int .Values.ports.https)) }}
{{- fail "ports.https must differ from ports.http" }}
{{- end }}
{{- if and .Values.hostNetwork .Values.hostPort.enabled (ne (int .Values.hostPort.http) (int .Values.ports.http)) }}
{{- fail "hostPort.http must be equal to ports.http with hostNetwork, which needs no hostPort" }}
{{- end }}
{{- if and .Values.tls.enabled .Values.hostNetwork .Values.hostPort.enabled (ne (int .Values.hostPort.https) (int .Values.ports.https)) }}
{{- fail "hostPort.https must be equal to ports.https with hostNetwork, which needs no hostPort" }}
{{- end }}
{{- if and .Values.publishService.name (not .Values.publishService.enabled) }}
{{- fail "publishService.name is without effect while publishService.enabled is false" }}
{{- end }}
{{- with .Values.autoscaling }}
{{- if and .enabled (gt (int .minReplicas) (int .maxReplicas)) }}
{{- fail "autoscaling.minReplicas must not be greater than autoscaling.maxReplicas" }}
{{- end }}
{{- if and .enabled (not .targetCPUUtilizationPercentage) (not .targetMemoryUtilizationPercentage) }}
{{- fail "autoscaling needs targetCPUUtilizationPercentage or targetMemoryUtilizationPercentage" }}
{{- end }}
{{- end }}
{{- with .Values.podDisruptionBudget }}
{{- if and .enabled (kindIs "invalid" .maxUnavailable | not) (kindIs "invalid" .minAvailable | not) }}
{{- fail "podDisruptionBudget: set one of maxUnavailable and minAvailable, and the other to null" }}
{{- end }}
{{- end }}
{{- if and .Values.metrics.serviceMonitor.enabled (not .Values.metrics.service.enabled) }}
{{- fail "metrics.serviceMonitor needs metrics.service.enabled; use metrics.podMonitor without it" }}
{{- end }}
{{- end }}
