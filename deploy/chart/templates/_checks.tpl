{{- /*
What values.schema.json cannot see, since it takes several values to see it. All that is wrong is told at once, each with
the value's name and what to do. Included by the StatefulSet, so nothing is ever rendered without it.
*/ -}}
{{- define "evalsink.checks" -}}
{{- $wrong := list -}}
{{- $v := .Values -}}
{{- $security := default dict $v.settings.security -}}
{{- $hub := default dict $v.settings.hub -}}
{{- $protocol := default "PLAINTEXT" $security.protocol -}}
{{- $sasl := hasPrefix "SASL" $protocol -}}
{{- $tls := hasSuffix "SSL" $protocol -}}
{{- $max := include "evalsink.workersMax" . | int -}}
{{- $partitions := int $v.partitions -}}

{{- if $v.keda.enabled -}}
{{- if gt $max $partitions -}}
{{- $wrong = append $wrong (printf "keda.maxReplicas is %d, but the topics have %d partitions (partitions): the workers beyond that would do nothing" $max $partitions) -}}
{{- end -}}
{{- if gt (int $v.keda.minReplicas) $max -}}
{{- $wrong = append $wrong (printf "keda.minReplicas is %d, more than keda.maxReplicas, which is %d" (int $v.keda.minReplicas) $max) -}}
{{- end -}}
{{- else if gt $max $partitions -}}
{{- $wrong = append $wrong (printf "replicas is %d, but the topics have %d partitions (partitions): the workers beyond that would do nothing" $max $partitions) -}}
{{- end -}}

{{- if eq $v.settings.durable "hub" -}}
{{- if not $hub.repo -}}
{{- $wrong = append $wrong "settings.durable is hub, which needs settings.hub.repo" -}}
{{- end -}}
{{- if $v.output.existingClaim -}}
{{- $wrong = append $wrong "output.existingClaim is given, but with settings.durable hub the output lies beside the state: set one of the two" -}}
{{- end -}}
{{- else if and (gt $max 1) (has $v.output.accessMode (list "ReadWriteOnce" "ReadWriteOncePod")) (not $v.output.existingClaim) -}}
{{- $wrong = append $wrong (printf "output.accessMode is %s, but %d workers share the output: it takes ReadWriteMany, or settings.durable hub" $v.output.accessMode $max) -}}
{{- end -}}
{{- if and $hub.repo (not $v.secrets.hubToken.name) -}}
{{- $wrong = append $wrong "settings.hub.repo is given, but no token: secrets.hubToken.name names the Secret that holds it" -}}
{{- end -}}
{{- if and $v.secrets.hubToken.name (not $hub.repo) -}}
{{- $wrong = append $wrong "secrets.hubToken.name is given, but no settings.hub.repo: nothing would be archived" -}}
{{- end -}}
{{- if and $hub.samples_repo (not $hub.repo) -}}
{{- $wrong = append $wrong "settings.hub.samples_repo needs settings.hub.repo" -}}
{{- end -}}
{{- if and $hub.repo (hasKey $hub "commits_per_hour") (gt (mul (int $hub.commits_per_hour) $max) 128) -}}
{{- $wrong = append $wrong (printf "settings.hub.commits_per_hour is %d for each of %d workers, but the Hub takes about 128 from all together: leave it out, and the chart divides them" (int $hub.commits_per_hour) $max) -}}
{{- end -}}

{{- if and $sasl (not (and $security.username $v.secrets.kafkaPassword.name)) -}}
{{- $wrong = append $wrong (printf "settings.security.protocol is %s, which needs settings.security.username and secrets.kafkaPassword.name" $protocol) -}}
{{- end -}}
{{- if and (not $sasl) (or $security.username $v.secrets.kafkaPassword.name) -}}
{{- $wrong = append $wrong (printf "settings.security.username or secrets.kafkaPassword.name is given, but settings.security.protocol is %s: SASL_SSL is meant?" $protocol) -}}
{{- end -}}
{{- if and (not $tls) (or $v.secrets.kafkaCa.name $v.secrets.kafkaCertificate.name $v.secrets.kafkaKeyPassword.name) -}}
{{- $wrong = append $wrong (printf "secrets.kafkaCa, secrets.kafkaCertificate or secrets.kafkaKeyPassword is given, but settings.security.protocol is %s: SSL or SASL_SSL is meant?" $protocol) -}}
{{- end -}}
{{- if and $v.secrets.kafkaKeyPassword.name (not $v.secrets.kafkaCertificate.name) -}}
{{- $wrong = append $wrong "secrets.kafkaKeyPassword.name needs secrets.kafkaCertificate.name" -}}
{{- end -}}

{{- if gt (int $v.topicsJob.minInsyncReplicas) (int $v.topicsJob.replication) -}}
{{- $wrong = append $wrong (printf "topicsJob.minInsyncReplicas is %d, more than topicsJob.replication, which is %d: nothing could be written" (int $v.topicsJob.minInsyncReplicas) (int $v.topicsJob.replication)) -}}
{{- end -}}

{{- range $v.extraEnv -}}
{{- if hasPrefix "EVALSINK_" .name -}}
{{- $wrong = append $wrong (printf "extraEnv: %s would win over the settings file: use settings" .name) -}}
{{- else if has .name (list "HF_TOKEN" "KAFKA_BOOTSTRAP_SERVERS") -}}
{{- $wrong = append $wrong (printf "extraEnv: %s has a value of its own: %s" .name (ternary "secrets.hubToken" "settings.brokers" (eq .name "HF_TOKEN"))) -}}
{{- end -}}
{{- end -}}

{{- if $wrong -}}
{{- fail (printf "\nvalues refused:\n  - %s\n" (join "\n  - " $wrong)) -}}
{{- end -}}
{{- end -}}
