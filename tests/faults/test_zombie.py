"""The short form of `make faults-zombie`: one halted in a batch, one in an open transaction, and the control."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.faults.zombie import run

pytestmark = [pytest.mark.broker, pytest.mark.faults, pytest.mark.timeout(900)]


def test_a_zombie_writes_nothing_that_is_seen(impatient: str, tmp_path: Path) -> None:
    report = run(impatient, tmp_path, rounds=2)
    assert (report.in_batch, report.in_transaction) == (1, 1)
    assert report.visible == 0
    assert report.sums.conserved, report


def test_without_transactions_it_is_seen(impatient: str, tmp_path: Path) -> None:
    report = run(impatient, tmp_path, rounds=8, exactly_once=False)
    assert report.visible > 0
