"""A broker for the suites that kill and halt processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from penstock.local.kafka import LocalKafka


@pytest.fixture(scope="package")
def impatient() -> Iterator[str]:
    """A broker that misses a member of a group after three seconds: what is killed is replaced the sooner.

    For suites whose sums hold however often partitions move: a machine that stands still for as long moves them.
    """
    properties = {
        "group.consumer.session.timeout.ms": "3000",
        "group.consumer.heartbeat.interval.ms": "500",
        "broker.session.timeout.ms": "60000",  # the broker itself is not to be missed
    }
    with LocalKafka(properties=properties, start_limit_s=180) as broker:
        yield broker.bootstrap_servers
