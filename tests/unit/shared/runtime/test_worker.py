"""`penstock.runtime.worker`: which offsets a batch commits; the loop is tested on a real broker."""

from __future__ import annotations

import pytest

from penstock.runtime.lag import lag_of
from penstock.runtime.stage import Record
from penstock.runtime.worker import Batch


def record(topic: str, partition: int, offset: int) -> Record:
    return Record(topic, partition, offset, 0, None, None)


def test_a_batch_commits_the_offset_after_its_last_record_of_each_partition() -> None:
    batch = Batch([record("a", 0, 5), record("a", 1, 9), record("a", 0, 8), record("b", 0, 1)])
    committed = {(part.topic, part.partition): part.offset for part in batch.offsets()}
    assert committed == {("a", 0): 9, ("a", 1): 10, ("b", 0): 2}


def test_a_batch_is_rewound_to_its_first_record_of_each_partition() -> None:
    batch = Batch([record("a", 0, 5), record("a", 0, 8), record("a", 1, 9)])
    assert batch.first == {("a", 0): 5, ("a", 1): 9}
    assert not batch.committed
    assert not batch.abandoned


UNKNOWN = -1001


@pytest.mark.parametrize(
    ("end", "fetched", "taken", "committed", "idle", "lag"),
    [
        (UNKNOWN, UNKNOWN, UNKNOWN, None, True, None),
        (100, 40, UNKNOWN, None, False, None),
        (100, 100, 40, None, False, 60),
        (100, 100, 40, 30, False, 70),
        (100, 60, 40, 40, True, 60),
        (101, 101, 100, 100, True, 0),  # a transaction's marker stands at 100
        (100, 101, 101, 101, False, 0),
    ],
)
def test_lag_is_from_the_committed_offset_to_the_stable_end(
    *, end: int, fetched: int, taken: int, committed: int | None, idle: bool, lag: int | None
) -> None:
    partition = {"ls_offset": end, "next_offset": fetched, "app_offset": taken, "consumer_lag": -1}
    assert lag_of(partition, committed, idle=idle) == lag
