"""The short form of `make faults-unordered`, and its control."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.faults.unordered import run

pytestmark = [pytest.mark.broker, pytest.mark.faults, pytest.mark.timeout(600)]


# 2 x 50 calls of a second each: the work lasts for many seconds after the last kill
LOAD = {"requests": 1_500, "delays": (0.01, 2.0), "capacity": 50, "seed": 1, "pause": (2.0, 3.0)}


def test_each_request_is_answered_once_in_any_order_while_instances_are_killed(bootstrap: str, tmp_path: Path) -> None:
    report = run(bootstrap, tmp_path, kills=2, **LOAD)
    assert report.kills == 2
    assert (report.lost, report.duplicates, report.repeated_completions) == (0, 0, 0), report


def test_without_the_bitmap_the_same_count_finds_duplicates(bootstrap: str, tmp_path: Path) -> None:
    report = run(bootstrap, tmp_path, kills=2, bitmap=False, **LOAD)
    assert report.lost == 0
    assert report.duplicates > 0
