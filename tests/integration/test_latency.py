"""A worker of a lane that is delivered at least once: which thread settles a batch, with nothing lost or repeated."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest
from tests.support.stack import wait_until
from tests.support.toy import Harness, Toy, ids_of

from penstock.contracts.errors import BackendUnavailable
from penstock.contracts.topics import ANONYMIZED
from penstock.runtime.stage import Inbound

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]

STAGE = "stage-interactive"
SLOW_S = 0.03


@pytest.fixture
def harness(bootstrap: str, prefix: str) -> Harness:
    return Harness(bootstrap, prefix, interactive_delivery="at_least_once")


def test_what_is_known_to_be_quick_is_settled_where_polling_is_done_and_what_is_slow_is_not(harness: Harness) -> None:
    """On a machine so busy that nothing is quick for long, more is sent until something was."""
    where: list[tuple[str, bool]] = []
    slow = threading.Event()

    def act(_: Inbound) -> None:
        where.append((threading.current_thread().name, slow.is_set()))
        if slow.is_set():
            time.sleep(SLOW_S)

    sent = 0

    def more() -> None:
        nonlocal sent
        harness.publish([f"r{sent}"])
        sent += 1
        wait_until(lambda: len(where) == sent, "the record to be settled", 60)

    with harness.working(Toy(act)):
        more()
        assert where[0][0].startswith(STAGE), "nothing is known of it yet"
        until = time.monotonic() + 120
        while where[-1][0].startswith(STAGE) and time.monotonic() < until:
            more()
        assert not where[-1][0].startswith(STAGE)
        slow.set()
        more()  # taken for a quick one
        for _ in range(3):
            more()
            assert where[-1][0].startswith(STAGE)
    assert ids_of(harness.read(ANONYMIZED, sent)) == Counter(f"r{number}" for number in range(sent))


def test_a_quick_record_that_has_to_be_tried_again_waits_elsewhere(harness: Harness) -> None:
    where: list[str] = []
    failing = threading.Event()

    def act(_: Inbound) -> None:
        where.append(threading.current_thread().name)
        if failing.is_set() and not where[-1].startswith(STAGE):
            raise BackendUnavailable("away")

    sent = 0

    def more() -> None:
        nonlocal sent
        before = len(where)
        harness.publish([f"r{sent}"])
        sent += 1
        wait_until(lambda: len(where) > before, "the record to be settled", 60)

    with harness.working(Toy(act)):
        more()
        until = time.monotonic() + 120
        while where[-1].startswith(STAGE) and time.monotonic() < until:
            more()
        before = len(where)
        failing.set()
        while all(thread.startswith(STAGE) for thread in where[before:]) and time.monotonic() < until + 60:
            more()
        wait_until(lambda: where[-1].startswith(STAGE), "the other thread", 60)
        assert not all(thread.startswith(STAGE) for thread in where[before:])
    assert ids_of(harness.read(ANONYMIZED, sent)) == Counter(f"r{number}" for number in range(sent))
