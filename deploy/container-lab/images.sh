#!/usr/bin/env bash
# Build the stand-in images of the try-out from published jars, with the Maven of this machine.
# Needs a Docker engine that answers and the base image eclipse-temurin:17-jre.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
deploy=$(dirname "$here")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

jars() { # jars POM FOLDER
  mvn -B -q -ntp -C -f "$1" dependency:copy-dependencies -DincludeScope=runtime "-DoutputDirectory=$2"
}

cp -r "$here/kafka" "$here/zipkin" "$work/"
jars "$deploy/kafka/pom.xml" "$work/kafka/libs"
cp "$deploy/kafka/log4j2.properties" "$work/kafka/"
docker build --quiet -t penstock-lab/kafka:4.4.0 "$work/kafka"

jars "$deploy/zipkin/pom.xml" "$work/zipkin/libs"
mv "$work"/zipkin/libs/zipkin-server-*-exec.jar "$work/zipkin/zipkin.jar"
docker build --quiet -t penstock-lab/zipkin:3.6.1 "$work/zipkin"
docker image ls --filter 'reference=penstock-lab/*'
