"""`penstock.runtime.waiting`: the soonest first, nothing twice, the bytes counted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.contracts.delays import Delayed
from penstock.contracts.events import Source
from penstock.runtime.stage import Record
from penstock.runtime.waiting import Waiting, WaitingRoom


def waiting(offset: int, not_before_ms: int, *, partition: int = 0, size: int = 1) -> Waiting:
    record = Record(
        topic="llm.retry.toy",
        partition=partition,
        offset=offset,
        timestamp_ms=1_000 + offset,
        key=None,
        value=b"x" * size,
    )
    known = Delayed(1, not_before_ms, Source(topic="llm.screened", partition=0, offset=0), "rate_limited")
    return Waiting(record, known)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 3), st.integers(0, 9)), max_size=40), st.integers(0, 60))
def test_what_is_due_leaves_once_and_the_rest_stays(times: list[tuple[int, int, int]], now_ms: int) -> None:
    room = WaitingRoom()
    for offset, (not_before, partition, size) in enumerate(times):
        room.add(waiting(offset, not_before, partition=partition, size=size))
    due = room.due(now_ms, 1_000)
    assert [one.known.not_before_ms for one in due] == sorted(time for time, _, _ in times if time <= now_ms)
    assert len({one.record.offset for one in due}) == len(due)
    assert room.due(now_ms, 1_000) == []
    assert room.next_ms() == min((time for time, _, _ in times if time > now_ms), default=None)
    assert room.size == sum(size for time, _, size in times if time > now_ms)
    room.drop([("llm.retry.toy", 0), ("llm.retry.toy", 1)])
    left = [(offset, one) for offset, one in enumerate(times) if one[0] > now_ms and one[1] > 1]
    assert len(room) == len(left)
    assert room.size == sum(one[2] for _, one in left)
    assert room.oldest_ms() == min((1_000 + offset for offset, _ in left), default=None)


def test_no_more_than_asked_for_leaves_and_equals_keep_their_order() -> None:
    room = WaitingRoom()
    for offset in range(5):
        room.add(waiting(offset, 7))
    assert [one.record.offset for one in room.due(7, 3)] == [0, 1, 2]
    assert [one.record.offset for one in room.due(7, 3)] == [3, 4]
