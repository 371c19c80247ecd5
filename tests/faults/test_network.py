"""The short form of `make faults-network`: each kind of trouble once, and the control."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.network import behind_a_proxy, control, run
from tests.support.proxy import Proxy

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Proxy]]:
    with behind_a_proxy(tmp_path_factory.mktemp("broker")) as found:
        yield found


def test_nothing_is_lost_or_doubled_on_a_bad_network(proxied: tuple[str, Proxy], tmp_path: Path) -> None:
    report = run(*proxied, tmp_path, seconds=10, rate=20, seed=1, phase_s=(1.5, 3.0), calm=20)
    assert report.sums.acknowledged > 100
    assert report.sums.conserved, report
    assert {
        "spells of latency",
        "connections cut",
        "spells half-open",
        "answers swallowed",
    } <= report.faults_by_kind.keys()


def test_without_transactions_and_idempotence_swallowed_answers_double(
    proxied: tuple[str, Proxy], tmp_path: Path
) -> None:
    assert control(*proxied, tmp_path).duplicates > 0
