"""`penstock.runtime.lanes`: a thread for each lane, one fate for all."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from penstock.contracts.events import Priority
from penstock.runtime import lanes
from penstock.runtime.settings import ServiceSettings, lanes_of


def test_each_lane_runs_in_a_thread_that_knows_it() -> None:
    seen: dict[Priority, Priority] = {}

    def of(lane: Priority) -> bool:
        seen[lane] = lanes.CURRENT.get()
        return True

    ended = lanes.run({lane: lambda lane=lane: of(lane) for lane in ("interactive", "bulk")}, threading.Event())  # type: ignore[misc]  # a lambda with a default has no inferred type
    assert seen == {"interactive": "interactive", "bulk": "bulk"}
    assert all(end.clean and end.error is None for end in ended.values())
    assert lanes.CURRENT.get() == "interactive"


def test_where_one_lane_fails_the_other_is_told_to_stop_and_the_error_is_kept() -> None:
    stopping = threading.Event()

    def fails() -> bool:
        raise LookupError("gone")

    ended = lanes.run({"interactive": lambda: stopping.wait(30), "bulk": fails}, stopping)
    assert ended["interactive"].clean
    assert isinstance(ended["bulk"].error, LookupError)
    assert not ended["bulk"].clean


def priority() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux alone")
def test_bulk_threads_and_those_that_they_start_are_nicer() -> None:
    seen: dict[Priority, int] = {}

    def started() -> int:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(priority).result()

    def of(lane: Priority) -> bool:
        seen[lane] = started()
        return True

    mine = priority()
    lanes.run({"interactive": lambda: of("interactive"), "bulk": lambda: of("bulk")}, threading.Event(), 3)
    assert seen == {"interactive": mine, "bulk": min(19, mine + 3)}
    assert lanes.yielding("bulk", 3, started) == min(19, mine + 3)
    assert lanes.yielding("interactive", 3, started) == mine
    assert priority() == mine


@pytest.mark.parametrize(
    ("value", "expected"),
    [("interactive,bulk", ("interactive", "bulk")), ("bulk", ("bulk",)), ("interactive", ("interactive",))],
)
def test_lanes_by_the_setting(value: str, expected: tuple[str, ...]) -> None:
    assert lanes_of(ServiceSettings.model_validate({"lanes": value})) == expected
