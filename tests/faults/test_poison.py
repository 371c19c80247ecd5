"""The short form of `make faults-poison`, and the control that can fail."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.faults.badinput import bad_inputs
from tests.faults.poison import Sent, good_requests, mixed, run

pytestmark = [pytest.mark.broker, pytest.mark.faults, pytest.mark.timeout(600)]


def test_each_bad_input_ends_typed_and_good_ones_are_unharmed(bootstrap: str, tmp_path: Path) -> None:
    report = run(bootstrap, tmp_path, mixed(good_requests(250, 3), 600, 3))
    assert report.wrong == []
    assert (report.bad_typed, report.good_ok, report.restless) == (600, 250, 0)
    assert report.codes["duplicate_request"] > 0
    assert report.codes["deadline_exceeded"] > 0


def test_where_preprocess_swallows_what_it_refuses_the_same_count_finds_it(bootstrap: str, tmp_path: Path) -> None:
    good = [Sent(one) for one in good_requests(20, 5)]
    bad = [Sent(one.publishing, one) for one in bad_inputs(20, 5)]
    report = run(bootstrap, tmp_path, [*good, *bad], swallow=True)
    assert (report.bad_typed, report.bad) == (0, 20)
    assert report.good_ok == report.good


def test_the_same_seed_draws_the_same() -> None:
    assert bad_inputs(50, 7) == bad_inputs(50, 7) != bad_inputs(50, 8)
