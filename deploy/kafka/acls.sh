#!/usr/bin/env bash
# Gives a user of Kafka the rights of one of evalsink's roles, and no other; or takes them away again.
#
#   EVALSINK_BROKERS=kafka:9093 COMMAND_CONFIG=admin.properties deploy/kafka/acls.sh add worker User:evalsink
#
# usage: acls.sh add|remove|print ROLE PRINCIPAL
#
#   add       grants; what is granted already stays
#   remove    takes away all that the role has, also where another role of the same user has it too
#   print     shows the calls of `add`, and makes none
#
#   producer  sends events
#   worker    does all that `evalsink worker` does
#   topics    makes and checks the topics: `evalsink topics`
#   operator  `evalsink dead-letters` and `evalsink rebuild`
#   monitor   sees the lag: autoscalers, exporters
#
#   PRINCIPAL is User:NAME for a user of SASL, User:CN=…,OU=…,O=… for a certificate.
#
# Names come from the variables that evalsink itself reads (docs/SETTINGS.md): EVALSINK_BROKERS, EVALSINK_GROUP,
# EVALSINK_TOPICS_SAMPLES, …_AGGREGATES, …_RECEIPTS, …_DEAD_LETTERS. COMMAND_CONFIG is a properties file for a user who
# may alter ACLs (admin.properties beside this script), KAFKA_ACLS the command if it is not kafka-acls.sh.
#
# Nobody gets the right to delete or alter a topic, none on the cluster, and none by prefix or wildcard. Describe comes
# with Read and Write. Idempotent producers need no right of their own since Kafka 2.8.
set -euo pipefail

samples=${EVALSINK_TOPICS_SAMPLES:-eval.samples}
aggregates=${EVALSINK_TOPICS_AGGREGATES:-eval.aggregates}
receipts=${EVALSINK_TOPICS_RECEIPTS:-eval.receipts}
dead_letters=${EVALSINK_TOPICS_DEAD_LETTERS:-eval.dead-letters}
group=${EVALSINK_GROUP:-evalsink}
command=("${KAFKA_ACLS:-kafka-acls.sh}" --bootstrap-server "${EVALSINK_BROKERS:-127.0.0.1:9092}")
[ -z "${COMMAND_CONFIG:-}" ] || command+=(--command-config "$COMMAND_CONFIG")

usage() {
  sed -n '/^# usage/,/^set /{/^set /d;s/^# \{0,1\}//p}' "$0" >&2
  exit 2
}

[ $# -eq 3 ] || usage
verb=$1 role=$2 principal=$3

case $principal in
  User:?*) ;;
  *)
    echo "acls.sh: PRINCIPAL is User:NAME, not $principal" >&2
    usage
    ;;
esac

# allow "OPERATION …" RESOURCE…: one call; kafka-acls grants every operation on every resource.
allow() {
  local call=("${command[@]}") operation
  if [ "$verb" = remove ]; then call+=(--remove --force); else call+=(--add); fi
  call+=(--allow-principal "$principal")
  for operation in $1; do call+=(--operation "$operation"); done
  shift
  call+=("$@")
  if [ "$verb" = print ]; then
    printf '%q ' "${call[@]}"
    echo
  else
    "${call[@]}"
  fi
}

case $verb in add | remove | print) ;; *) usage ;; esac

inputs=(--topic "$samples" --topic "$aggregates")
every=("${inputs[@]}" --topic "$receipts" --topic "$dead_letters")

case $role in
  producer)
    allow Write "${inputs[@]}"
    ;;
  worker)
    # It writes to the inputs too: that a silent run is given up is said there. DescribeConfigs is for refusing topics
    # that would lose something.
    allow Read "${inputs[@]}" --topic "$receipts" --group "$group"
    allow "Write DescribeConfigs" "${every[@]}"
    ;;
  topics)
    allow "Create Describe DescribeConfigs" "${every[@]}"
    ;;
  operator)
    # Redriving sends records to the inputs again, and takes the dead letters away.
    allow "Read Write" "${inputs[@]}" --topic "$dead_letters"
    ;;
  monitor)
    allow Describe "${inputs[@]}" --group "$group"
    ;;
  *)
    echo "acls.sh: no role $role" >&2
    usage
    ;;
esac
