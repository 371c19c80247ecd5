"""Infrastructure on one machine: a Kafka broker and a trace viewer, in containers or from their jars.

    LocalKafka             Apache Kafka from its jars, on loopback
    LocalZipkin            the Zipkin server from its jar, on loopback
    ComposeInfrastructure  Kafka and Jaeger from docker-compose.yml
    broker_for_tests       a broker from wherever one can be had
    docker_answers         whether a Docker engine is there
    project_root           the folder with docker-compose.yml and deploy/

For the `penstock` command and the tests; services never import it. Needs nothing beyond the
standard library and confluent-kafka.
"""

from penstock.local.broker import TestBroker, broker_for_tests
from penstock.local.docker import ComposeInfrastructure, docker_answers
from penstock.local.errors import (
    AlreadyRunningError,
    LocalStackError,
    MissingToolError,
    PortInUseError,
    ProjectRootError,
    ResolveError,
    StartError,
    StopError,
)
from penstock.local.kafka import LocalKafka
from penstock.local.ports import free_port
from penstock.local.process import ProcessIdentity, start_detached
from penstock.local.root import project_root
from penstock.local.zipkin import LocalZipkin

__all__ = [
    "AlreadyRunningError",
    "ComposeInfrastructure",
    "LocalKafka",
    "LocalStackError",
    "LocalZipkin",
    "MissingToolError",
    "PortInUseError",
    "ProcessIdentity",
    "ProjectRootError",
    "ResolveError",
    "StartError",
    "StopError",
    "TestBroker",
    "broker_for_tests",
    "docker_answers",
    "free_port",
    "project_root",
    "start_detached",
]
