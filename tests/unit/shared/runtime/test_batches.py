"""`penstock.runtime.batches` and `lag`: offsets, sizes and what is left; the loop is tested on a real broker."""

from __future__ import annotations

import pytest

from penstock.runtime.batches import FULL_BATCH, Batch, BatchSize, patience_s
from penstock.runtime.lag import lag_of
from penstock.runtime.settings import ServiceSettings


class At:
    """Stands for a consumed message: where it was."""

    def __init__(self, topic: str, partition: int, offset: int) -> None:
        self.topic, self.partition, self.offset = (lambda: topic), (lambda: partition), (lambda: offset)


def batch_of(*places: tuple[str, int, int]) -> Batch:
    return Batch([At(*place) for place in places])  # type: ignore[misc]  # all that it asks a message for


def test_a_batch_commits_the_offset_after_its_last_record_of_each_partition() -> None:
    batch = batch_of(("a", 0, 5), ("a", 1, 9), ("a", 0, 8), ("b", 0, 1))
    committed = {(part.topic, part.partition): part.offset for part in batch.offsets()}
    assert committed == {("a", 0): 9, ("a", 1): 10, ("b", 0): 2}


def test_a_batch_is_rewound_to_its_first_record_of_each_partition() -> None:
    batch = batch_of(("a", 0, 5), ("a", 0, 8), ("a", 1, 9))
    assert batch.first == {("a", 0): 5, ("a", 1): 9}
    assert not batch.committed
    assert not batch.abandoned


def test_batches_grow_while_they_are_quick_and_shrink_at_once_where_they_are_slow() -> None:
    size = BatchSize(5_000, target_s=0.5)
    sizes = []
    for _ in range(5):
        sizes.append(size.records)
        size.took(size.records * 50e-6, size.records)
    assert sizes == [500, 1_000, 2_000, 4_000, 5_000]
    size.took(10, 5_000)
    assert size.records == 250
    size.took(10, 1)
    assert size.records == 1  # one record may take as long as it likes
    size.took(0.01, 1)
    assert size.records == 2


def test_batches_are_never_larger_than_the_setting() -> None:
    size = BatchSize(20, target_s=0.5)
    assert size.records == 20
    size.took(0.0, 20)
    assert size.records == 20


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


def test_interactive_work_waits_for_a_fuller_batch_only_under_load_and_bulk_as_soon_as_records_come_by_twos() -> None:
    settings = ServiceSettings(batch_wait_ms=50, lane_bulk_wait_ms=200)
    assert patience_s(settings, "interactive", FULL_BATCH - 1) == 0.0
    assert patience_s(settings, "interactive", FULL_BATCH) == 0.05
    assert patience_s(settings, "bulk", 1) == 0.0
    assert patience_s(settings, "bulk", 2) == 0.2
