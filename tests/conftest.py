"""Fixtures of every suite: the real broker, and a topic prefix of each test's own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from tests.support.otlp import OtlpReceiver
from tests.support.stack import Stack

from penstock.local import broker_for_tests
from penstock.runtime import topics

# a busy machine draws slowly: time says nothing of what is tested
settings.register_profile("penstock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("penstock")


# the same examples in every run, however slow the machine: what Hypothesis finds belongs in a test of its own
settings.register_profile(
    "penstock",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("penstock")


@pytest.fixture(scope="session")
def bootstrap() -> Iterator[str]:
    """A real broker: KAFKA_BOOTSTRAP_SERVERS where set, else Docker, else Kafka from its jars."""
    with broker_for_tests() as broker:
        yield broker.bootstrap_servers


@pytest.fixture
def prefix(bootstrap: str) -> str:
    """A topic prefix of the test's own, with all topics made under it."""
    prefix = f"t{uuid.uuid4().hex[:10]}."
    topics.apply(bootstrap, prefix, replication=1, partitions=2)
    return prefix


@pytest.fixture(scope="session")
def otlp() -> Iterator[OtlpReceiver]:
    """Takes the spans of the session's stack."""
    with OtlpReceiver() as receiver:
        yield receiver


@pytest.fixture(scope="session")
def stack(bootstrap: str, otlp: OtlpReceiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The five services as processes, one set for all suites that only send requests and read what comes."""
    folder = tmp_path_factory.mktemp("stack")
    environment = {**otlp.environment, "PENSTOCK_INFERENCE_CACHE_MIB": "16"}
    with Stack(bootstrap, f"s{uuid.uuid4().hex[:10]}.", folder, environment=environment) as stack:
        yield stack
