"""The short form of `make faults-unordered`, and its control."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.faults.unordered import run

pytestmark = [pytest.mark.broker, pytest.mark.faults, pytest.mark.timeout(300)]


def test_each_request_is_answered_once_in_any_order_while_instances_are_killed(bootstrap: str, tmp_path: Path) -> None:
    report = run(bootstrap, tmp_path, requests=1_500, kills=2, delays=(0.01, 1.0), seed=1, pause=(0.5, 1.0))
    assert report.kills == 2
    assert (report.lost, report.duplicates, report.repeated_completions) == (0, 0, 0), report


def test_without_the_bitmap_the_same_count_finds_duplicates(bootstrap: str, tmp_path: Path) -> None:
    report = run(
        bootstrap, tmp_path, requests=1_500, kills=1, delays=(0.01, 1.0), seed=1, bitmap=False, pause=(0.5, 1.0)
    )
    assert report.lost == 0
    assert report.duplicates > 0
