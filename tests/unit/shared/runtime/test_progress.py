"""Offsets that finish in any order: the watermark, the bitmap and its bound."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.runtime.progress import MAX_METADATA_CHARACTERS, MAX_SPAN, BadMetadata, Progress, decode, encode


def test_the_watermark_is_the_lowest_unfinished_record() -> None:
    progress = Progress(10)
    for offset in (10, 11, 14):  # 12 and 13 are transaction markers
        assert progress.deliver(offset)
    progress.finish(11)
    progress.finish(14)
    assert (progress.watermark, progress.span) == (10, 5)
    checkpoint = progress.checkpoint()
    assert (checkpoint.offset, decode(10, checkpoint.metadata)) == (10, {11, 14})
    progress.finish(10)
    assert (progress.watermark, progress.span, progress.checkpoint().metadata) == (15, 0, "")


def test_the_next_owner_skips_what_is_finished() -> None:
    first = Progress(0)
    for offset in range(4):
        first.deliver(offset)
    first.finish(1)
    first.finish(3)
    checkpoint = first.checkpoint()
    second = Progress(checkpoint.offset, decode(checkpoint.offset, checkpoint.metadata))
    assert [second.deliver(offset) for offset in range(5)] == [True, False, True, False, True]


def test_a_partition_says_whether_the_broker_knows_where_it_stands() -> None:
    progress = Progress(5)
    progress.deliver(5)
    assert not progress.moved
    progress.finish(5)
    assert progress.moved
    progress.committed(progress.checkpoint())
    assert not progress.moved


def test_a_record_that_comes_again_is_not_taken_again() -> None:
    progress = Progress(5)
    assert progress.deliver(7)
    assert not progress.deliver(7)
    assert not progress.deliver(6)
    assert progress.span == 1


@given(st.integers(0, 2**62), st.sets(st.integers(1, MAX_SPAN - 1), max_size=300))
def test_a_bitmap_says_what_was_written_and_fits(base: int, distances: set[int]) -> None:
    finished = {base + distance for distance in distances}
    text = encode(base, finished | {base - 1})
    assert len(text) <= MAX_METADATA_CHARACTERS
    assert decode(base, text) == finished


def test_the_longest_bitmap_fits_the_broker() -> None:
    assert len(encode(2**63 - 1, {2**63 - 1 + distance for distance in range(1, MAX_SPAN)})) <= MAX_METADATA_CHARACTERS
    with pytest.raises(ValueError, match="more than"):
        encode(0, {MAX_SPAN})


@pytest.mark.parametrize("metadata", ["hello", "2:7:AA==", "1:8:AA==", "1:7:A", "1:7:\u00e4"])
def test_metadata_of_another_program_or_offset_is_refused(metadata: str) -> None:
    with pytest.raises(BadMetadata):
        decode(7, metadata)


@given(st.lists(st.booleans(), max_size=200), st.randoms(use_true_random=False))
def test_nothing_is_done_twice_or_left_out_however_often_the_owner_changes(
    deaths: list[bool], chosen: random.Random
) -> None:
    """Each record is finished once, with a crash (uncommitted work lost) after any commit."""
    log = sorted(chosen.sample(range(400), 150))
    done: list[int] = []
    offset, metadata = 0, ""
    for dies in [*deaths, *[False] * 400]:
        progress = Progress(offset, decode(offset, metadata))
        todo = [at for at in log if at >= offset and progress.deliver(at)]
        if not todo:
            break
        for at in chosen.sample(todo, min(len(todo), 7)):
            progress.finish(at)
            if not dies:
                done.append(at)
        if not dies:
            checkpoint = progress.checkpoint()
            offset, metadata = checkpoint.offset, checkpoint.metadata
    assert sorted(done) == log
