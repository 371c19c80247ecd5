"""One broker for a test session, from wherever one can be had: a named one, Docker, or the local launcher.

The same settings hold for a container as for the local launcher: both come from
deploy/kafka/server.properties.template. Leaves clusters and broker faults to tests that start
LocalKafka themselves.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Literal, cast

from penstock.local.docker import docker_answers
from penstock.local.errors import MissingToolError, StartError
from penstock.local.kafka import LocalKafka, metadata_answers
from penstock.local.ports import LOOPBACK, free_port
from penstock.local.root import project_root

DEFAULT_IMAGE = "apache/kafka:4.3.1"
_CONTAINER_LIMIT_S = 120.0
_PATIENT = {"broker.session.timeout.ms": "60000"}
"""On a busy machine the only broker may stand still for longer than its session with its own controller lasts.

It is then taken for dead, and clients of transactions and groups that were at work do not find it again for minutes.
"""


@dataclass(frozen=True)
class TestBroker:
    """Where a broker for tests answers, and what brought it up."""

    __test__ = False  # pytest collects classes of this name otherwise

    bootstrap_servers: str
    origin: Literal["environment", "docker", "local"]


@contextmanager
def broker_for_tests() -> Iterator[TestBroker]:
    """A broker that answers, ended with the context unless it was named.

    `KAFKA_BOOTSTRAP_SERVERS` wins where it is set; else a container where Docker answers; else Apache
    Kafka from its jars. Raises a LocalStackError that names what is missing; it never skips.
    """
    named = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if named:
        if not metadata_answers(named, timeout_s=15.0):
            raise StartError(f"no broker answers at KAFKA_BOOTSTRAP_SERVERS={named}; start it or unset the variable")
        yield TestBroker(named, "environment")
    elif docker_answers():
        with _container() as bootstrap_servers:
            yield TestBroker(bootstrap_servers, "docker")
    else:
        broker = LocalKafka(properties=_PATIENT)
        try:
            broker.start()
        except MissingToolError as error:
            raise MissingToolError(
                f"no broker for tests: KAFKA_BOOTSTRAP_SERVERS is not set, no Docker engine answers, and {error}"
            ) from error
        try:
            yield TestBroker(broker.bootstrap_servers, "local")
        finally:
            broker.stop()


@contextmanager
def _container() -> Iterator[str]:
    try:
        from testcontainers.core.container import DockerContainer  # noqa: PLC0415 - a dependency of tests alone
    except ImportError as error:
        raise MissingToolError(
            "a Docker engine answers, but the package testcontainers is not installed; "
            "install the development dependencies, or set KAFKA_BOOTSTRAP_SERVERS"
        ) from error
    # the same port inside and outside: the broker also reaches itself by its advertised address
    port = free_port()
    container = DockerContainer(os.environ.get("PENSTOCK_KAFKA_IMAGE", DEFAULT_IMAGE))
    patient = {f"KAFKA_{name.upper().replace('.', '_')}": value for name, value in _PATIENT.items()}
    for name, value in (container_environment(project_root(), port) | patient).items():
        container.with_env(name, value)
    # published on loopback alone, which `with_bind_ports` has no argument for
    cast(dict[str, object], container.ports)[f"{port}/tcp"] = (LOOPBACK, port)
    with container:
        address = f"{LOOPBACK}:{port}"
        deadline = time.monotonic() + _CONTAINER_LIMIT_S
        while not metadata_answers(address):
            if time.monotonic() > deadline:
                out, err = container.get_logs()
                tail = (out + err).decode("utf-8", errors="replace")[-2000:]
                raise StartError(f"the Kafka container did not answer within {_CONTAINER_LIMIT_S:.0f} s:\n{tail}")
            time.sleep(0.2)
        yield address


def container_environment(root: Path, port: int) -> dict[str, str]:
    """The template's settings as the environment that the public Kafka image reads (KAFKA_MESSAGE_MAX_BYTES)."""
    template = (root / "deploy" / "kafka" / "server.properties.template").read_text(encoding="utf-8")
    controller_port = free_port(excluding=frozenset({port}))
    rendered = Template(template).substitute(
        port=port, controller_port=controller_port, log_dir="/tmp/kraft-combined-logs"
    )
    pairs = (line.partition("=") for line in rendered.splitlines() if line and not line.startswith("#"))
    settings = {name: value for name, _, value in pairs}
    settings["listeners"] = f"PLAINTEXT://0.0.0.0:{port},CONTROLLER://{LOOPBACK}:{controller_port}"
    return {f"KAFKA_{name.upper().replace('.', '_')}": value for name, value in settings.items()}
