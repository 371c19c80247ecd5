"""The short form of `make faults-overload`. How much is completed in time depends on the machine: see the long form."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.faults.overload import run

pytestmark = [pytest.mark.broker, pytest.mark.faults, pytest.mark.timeout(600)]


def test_ten_times_too_many_requests_end_once_each_in_bounded_memory(bootstrap: str, tmp_path: Path) -> None:
    report = run(bootstrap, tmp_path, times=10, seconds=8, saturated_s=2, seed=1, say=print)
    assert (report.lost, report.duplicates, report.failed) == (0, 0, 0), report
    assert report.bounded, report
    assert report.expired > 0, report
    assert report.completed > 0, report
    assert report.completed + report.expired == report.requests, report
