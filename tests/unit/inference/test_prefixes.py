"""The prefix cache: exact matches, what is left to compute, what goes first."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_inference.prefixes import Block, PrefixCache
from penstock_inference.scheduler import GRID

BLOCK = np.zeros(GRID, np.int64)
SIZE = BLOCK.nbytes


def reader(prompt: list[int], read: list[int] | None = None) -> Callable[[int, int], Block]:
    """Blocks that hold the tokens they stand for."""

    def block(start: int, stop: int) -> Block:
        if read is not None:
            read.append(start)
        return np.array(prompt[start:stop], dtype=np.int64)

    return block


def tokens(cache: PrefixCache, prompt: list[int]) -> list[int]:
    """What the cache gives for a prompt's beginning."""
    found = cache.fetch(prompt, cache.reusable(prompt))
    return [int(token) for block in found for token in block]


def test_a_beginning_is_found_and_the_last_two_tokens_are_always_computed() -> None:
    cache, prompt = PrefixCache(1 << 20, BLOCK), list(range(50))
    assert cache.reusable(prompt) == 0
    cache.store(prompt, reader(prompt))
    assert tokens(cache, [*prompt[:40], 7, 7]) == prompt[:32]
    assert [cache.reusable(prompt[:length]) for length in (1, 17, 18, 33, 34, 50)] == [0, 0, 16, 16, 32, 48]
    assert (cache.reused_tokens, cache.computed_tokens) == (32, 10)


def test_a_block_counts_only_behind_the_same_beginning() -> None:
    cache = PrefixCache(1 << 20, BLOCK)
    first, other = [1] * GRID + [5] * GRID + [9] * 4, [2] * GRID + [5] * GRID + [9] * 4
    cache.store(first, reader(first))
    assert cache.reusable(other) == 0
    cache.store(other, reader(other))
    assert tokens(cache, other) == other[: 2 * GRID]


def test_only_what_is_new_is_read() -> None:
    cache, read = PrefixCache(1 << 20, BLOCK), []
    one, two = list(range(40)), [*range(32), *range(90, 120)]
    cache.store(one, reader(one, read))
    cache.store(two, reader(two, read))
    assert read == [0, 16, 32]


def test_the_least_recently_used_goes_first_and_ends_before_beginnings() -> None:
    cache = PrefixCache(4 * SIZE, BLOCK)
    old, used, new = ([key] * (2 * GRID + 2) for key in (1, 2, 3))
    cache.store(old, reader(old))
    cache.store(used, reader(used))
    cache.fetch(old, cache.reusable(old))
    cache.store(new[: GRID + 2], reader(new))
    assert [cache.reusable(each) for each in (old, used, new)] == [2 * GRID, GRID, GRID]
    assert cache.bytes == 4 * SIZE
    newest = [4] * (2 * GRID + 2)
    cache.store(newest, reader(newest))
    assert [cache.reusable(each) for each in (old, used, new, newest)] == [GRID, 0, GRID, 2 * GRID]


def test_a_prompt_longer_than_the_cache_keeps_its_beginning() -> None:
    cache, prompt = PrefixCache(3 * SIZE, BLOCK), list(range(10 * GRID))
    cache.store(prompt, reader(prompt))
    assert cache.reusable(prompt) == 3 * GRID
    assert cache.bytes <= 3 * SIZE


def test_memory_is_taken_whole_before_the_first_prompt(resident: Callable[[], int]) -> None:
    wide = np.zeros((64, GRID, 64), np.float32)
    before = resident()
    cache = PrefixCache(32 << 20, wide)
    taken = resident() - before
    assert taken >= 30 << 20
    for prompt in range(200):
        cache.store([prompt] * 40, lambda start, stop: wide)
    assert cache.bytes == 32 << 20
    assert resident() - before - taken < 4 << 20


def test_clear_forgets() -> None:
    cache, prompt = PrefixCache(1 << 20, BLOCK), list(range(50))
    cache.store(prompt, reader(prompt))
    cache.clear()
    assert (cache.reusable(prompt), cache.bytes) == (0, 0)


@settings(max_examples=60, deadline=None)
@given(
    prompts=st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=6), min_size=1, max_size=30),
    blocks=st.integers(0, 8),
)
def test_what_is_found_is_always_what_was_asked_for_within_the_limit(prompts: list[list[int]], blocks: int) -> None:
    cache = PrefixCache(blocks * SIZE, BLOCK)
    for each in prompts:
        prompt = [token for token in each for _ in range(GRID)] + [7, 8]
        found = tokens(cache, prompt)
        assert found == prompt[: len(found)]
        cache.store(prompt, reader(prompt))
        assert cache.bytes <= blocks * SIZE
        assert cache.reusable(prompt) == GRID * min(len(each), blocks)
