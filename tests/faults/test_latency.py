"""The short form of `make faults-latency`, its control inside."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.faults.latency import run

pytestmark = [pytest.mark.broker, pytest.mark.faults, pytest.mark.timeout(600)]


def test_each_request_has_one_result_however_often_its_hops_repeat_it(impatient: str, tmp_path: Path) -> None:
    report = run(impatient, tmp_path, requests=200, rounds=1, seed=1)
    assert report.kills == 4
    assert (report.lost, report.duplicates) == (0, 0), report
    assert report.control_duplicates > 0, report
    assert set(report.statuses) == {"completed", "failed"}
