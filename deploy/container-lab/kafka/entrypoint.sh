#!/bin/bash
# KAFKA_MESSAGE_MAX_BYTES=1 becomes message.max.bytes=1, as the public image does it.
set -euo pipefail
config=/opt/kafka/config/server.properties
class_path=$(printf '%s:' /opt/kafka/libs/*.jar)
java_options=(-XX:+UseSerialGC -XX:+ExitOnOutOfMemoryError -Dlog4j2.configurationFile=/opt/kafka/log4j2.properties)

: >"$config"
while IFS='=' read -r name value; do
  case "$name" in
    KAFKA_HEAP_OPTS | KAFKA_OPTS) ;;
    KAFKA_*)
      key=${name#KAFKA_}
      key=${key//_/.}
      echo "${key,,}=$value" >>"$config" ;;
  esac
done < <(env)
grep -q '^log.dirs=' "$config" || echo "log.dirs=/var/lib/kafka/data" >>"$config"

java "${java_options[@]}" -XX:TieredStopAtLevel=1 -cp "$class_path" kafka.tools.StorageTool format \
  --ignore-formatted -t "${CLUSTER_ID:-5L6g3nShT-eMCtK--X86sw}" -c "$config"
# shellcheck disable=SC2086  # several options in one variable
exec java ${KAFKA_HEAP_OPTS:-} "${java_options[@]}" -cp "$class_path" kafka.Kafka "$config"
