"""The short form of `make canary`, on the session's stack."""

from __future__ import annotations

import pytest
from tests.canary.canary import WITHOUT_PERSONAL_DATA, run
from tests.support.otlp import OtlpReceiver
from tests.support.stack import Stack

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]


def test_no_value_is_in_the_clear_where_it_must_not_be(stack: Stack, otlp: OtlpReceiver) -> None:
    report = run(stack, otlp, requests=25, seed=25)
    assert report.leaks == {}
    assert report.control_found == report.canaries
    assert report.restored == report.quoted > 0
    assert report.given_back == report.completed > 0
    assert report.foreign == 0
    searched = {kind.split()[0] for kind in report.places}
    assert searched == {*WITHOUT_PERSONAL_DATA, "spans", "metrics", "logs"}
