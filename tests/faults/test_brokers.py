"""The short form of `make faults-brokers`: one of three brokers killed, then two at once, and the control."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.brokers import control, run
from tests.support.cluster import Cluster

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


def test_nothing_is_lost_or_doubled_while_brokers_die(cluster: Cluster, tmp_path: Path) -> None:
    report = run(cluster, tmp_path, requests=460, held_back=60, rate=40, kills=1, two_down_s=5)
    assert report.broker_kills >= 3
    assert report.sums.acknowledged == 460
    assert report.held, report
    assert report.stuck == 0, report


def test_the_word_of_one_broker_is_not_enough(cluster: Cluster, tmp_path: Path) -> None:
    careless = control(cluster, tmp_path)
    assert careless.lost > 0
    assert not careless.conserved
