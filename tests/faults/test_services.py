"""The short form of `make faults-services`: every service killed once, and the control that can fail."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.faults.services import FURTHER, proven, run
from tests.support.stack import SERVICES

pytestmark = [pytest.mark.broker, pytest.mark.faults, pytest.mark.timeout(900)]


def test_each_request_ends_exactly_once_while_every_service_is_killed(impatient: str, tmp_path: Path) -> None:
    report = run(impatient, tmp_path, requests=180, kills=5, further=FURTHER, seed=3, patience_s=10)
    assert {kill.service for kill in report.kills} == set(SERVICES)
    assert report.conserved, report
    assert proven(report, exactly_once=True), "no kill hit an open transaction"


def test_without_transactions_the_same_count_finds_duplicates(impatient: str, tmp_path: Path) -> None:
    report = run(
        impatient,
        tmp_path,
        requests=120,
        kills=2,
        further=FURTHER,
        seed=5,
        exactly_once=False,
        victims=("anonymize", "inference"),
        patience_s=10,
    )
    assert report.lost == 0
    assert proven(report, exactly_once=False), "no kill came between an output and its input's commit"
    assert not report.conserved
