"""From one instance to four and back to one while work goes on: nothing lost, nothing repeated.

By hand it fails where `Worker._on_revoke` neither waits nor gives its batch up; for unordered work the
control leaves the bitmap out.
"""

from __future__ import annotations

import itertools
import time
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest
from confluent_kafka import Message
from tests.support.slow import Slow
from tests.support.stack import wait_until
from tests.support.toy import Harness, Toy, ids_of
from tests.support.unordered import UnorderedHarness

from penstock.contracts.events import RequestScreened
from penstock.contracts.topics import ANONYMIZED, COMPLETIONS
from penstock.runtime import progress, topics
from penstock.runtime.stage import Inbound, Job

pytestmark = [pytest.mark.broker, pytest.mark.faults, pytest.mark.timeout(600)]

MOST = 4
PARTITIONS = 8
STEP = 500
"""So many records wait at each step."""
TRICKLE = 5 * PARTITIONS
"""What is published now and then for an instance that has its partitions after the rest is done."""
GRACE_S, LONGEST_S = 0.3, 1.5
"""Calls outlast what a rebalance waits for them."""

Start = Callable[[str, Counter[str]], AbstractContextManager[object]]


@pytest.fixture
def wide(bootstrap: str) -> str:
    """A prefix whose topics have partitions for all instances."""
    prefix = f"w{uuid.uuid4().hex[:10]}."
    topics.apply(bootstrap, prefix, replication=1, partitions=PARTITIONS)
    return prefix


def scale(
    start: Start, publish: Callable[[list[str]], None], read: Callable[[int], list[Message]]
) -> tuple[int, Counter[str]]:
    """Scale up and down with work waiting at each step; how many were sent, and the ids of all outputs.

    Asserts that each instance did work.
    """
    worked: Counter[str] = Counter()
    numbers, sent = itertools.count(), 0

    def more(count: int = STEP) -> None:
        nonlocal sent
        publish([f"r{next(numbers)}" for _ in range(count)])
        sent += count

    running: dict[int, ExitStack] = {}

    def launch(number: int) -> None:
        running[number] = ExitStack()
        running[number].enter_context(start(str(number), worked))

    try:
        more()
        launch(0)
        wait_until(lambda: worked["0"] > 0, "the first at work")
        for number in range(1, MOST):
            more()
            launch(number)

            def at_work(name: str = str(number)) -> bool:
                if not worked[name]:
                    more(TRICKLE)
                    time.sleep(0.2)
                return worked[name] > 0

            wait_until(at_work, f"instance {number} at work")
        for number in range(MOST - 1):  # the one that is left is not the one that began
            more()
            running.pop(number).close()
        more()
        return sent, ids_of(read(sent))
    finally:
        for one in running.values():
            one.close()


def test_ordered_work_is_done_once(bootstrap: str, wide: str) -> None:
    harness = Harness(bootstrap, wide)

    def start(name: str, worked: Counter[str]) -> AbstractContextManager[object]:
        def act(_: Inbound) -> None:
            worked[name] += 1
            time.sleep(0.001)

        return harness.working(Toy(act), name)

    sent, ids = scale(start, harness.publish, lambda count: harness.read(ANONYMIZED, count))
    assert {number: count for number, count in ids.items() if count != 1} == {}
    assert len(ids) == sent


def unordered(bootstrap: str, prefix: str, folder: Path) -> tuple[int, Counter[str]]:
    harness = UnorderedHarness(bootstrap, prefix, folder, rebalance_grace_s=GRACE_S)

    def start(name: str, worked: Counter[str]) -> AbstractContextManager[object]:
        class Counted(Slow):
            def start(self, job: Job) -> None:
                job.inbound.expect(RequestScreened)
                worked[name] += 1
                super().start(job)

        stage = Counted(harness.log, shortest_s=0.0, longest_s=LONGEST_S, capacity=400, seed=int(name))
        return harness.calling(stage, name)

    return scale(start, harness.screened, lambda count: harness.read(COMPLETIONS, count))


def test_unordered_work_is_done_once(bootstrap: str, wide: str, tmp_path: Path) -> None:
    sent, ids = unordered(bootstrap, wide, tmp_path)
    assert {number: count for number, count in ids.items() if count != 1} == {}
    assert len(ids) == sent


def test_without_the_bitmap_the_same_count_finds_repeats(
    bootstrap: str, wide: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "encode", lambda base, finished: "")  # the signature of what it replaces
    _, ids = unordered(bootstrap, wide, tmp_path)
    assert max(ids.values()) > 1
