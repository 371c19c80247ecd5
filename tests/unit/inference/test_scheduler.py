"""Plan and take, over a cache of the test's own that knows what each row must hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_inference.scheduler import GRID, Generation, Plan, Scheduler, Space

EOS = 3


@dataclass
class Cache:
    """Does what plans ask for; a pass checks that its row holds exactly what it should."""

    space: Space
    held: list[list[int]] = field(default_factory=list)
    row_length: int = 0

    def run(self, plan: Plan) -> None:
        for source, target, length in plan.moves:
            assert len(self.held[source]) >= length
            self.held[target] = self.held[source][:length]
        if plan.row_length is not None:
            assert plan.row_length != self.row_length
            self.row_length = plan.row_length
            kept = [row[:length] for row, length in zip(self.held, plan.kept, strict=False)]
            assert all(len(row) == length for row, length in zip(kept, plan.kept, strict=True))
            rows = self.space.rows_of(self.row_length)
            assert len(kept) < rows
            self.held = [*kept, *([] for _ in range(rows - len(kept)))]
        if plan.kind == "prefill":
            (going,) = plan.generations
            if plan.reused:
                self.held[plan.row] = list(going.prompt[: plan.reused])
            assert self.held[plan.row][: plan.start] == list(going.prompt[: plan.start])
            self.held[plan.row] = list(going.prompt[: plan.stop])
        else:
            for row, each in enumerate(plan.generations):
                whole = [*going_tokens(each)]
                assert self.held[row][: each.cached] == whole[:-1]
                self.held[row] = whole
        assert all(len(row) <= self.row_length for row in self.held)
        assert self.row_length * len(self.held) <= self.space.tokens


def going_tokens(generation: Generation) -> list[int]:
    return [*generation.prompt, *generation.tokens]


def answer(generation: Generation) -> int:
    """A token that hangs on the whole sequence; now and then the end token."""
    return hash(tuple(going_tokens(generation))) % 40


def drive(scheduler: Scheduler, cache: Cache, most: int = 100_000) -> list[Plan]:
    plans = []
    for _ in range(most):
        plan = scheduler.plan()
        if plan is None:
            return plans
        cache.run(plan)
        tokens = [answer(each) for each in plan.generations] if plan.chooses else []
        scheduler.take(plan, tokens, 0.001)
        plans.append(plan)
    return plans


def alone(generation: Generation) -> list[int]:
    copy = Generation(generation.key, generation.prompt, generation.max_tokens, generation.eos_ids)
    space = Space(1, 1024, 1024)
    scheduler = Scheduler(space, step_tokens=4096)
    scheduler.add(copy)
    drive(scheduler, Cache(space))
    return copy.tokens


def of(key: int, length: int, tokens: int, eos: frozenset[int] = frozenset()) -> Generation:
    return Generation(key, tuple((key * 31 + at) % 97 for at in range(length)), tokens, eos)


@dataclass(frozen=True)
class Case:
    """Prompts and answers by length, what a step may hold, what is known of prompts, and who comes late or leaves."""

    work: list[tuple[int, int]]
    rows: int
    tokens: int
    spare: int
    seconds: float
    known: dict[int, int]
    late: set[int]
    cancelled: dict[int, int]
    """Key -> before which plan."""

    @property
    def step_tokens(self) -> int:
        return self.rows + GRID + self.spare

    def reusable(self, generation: Generation) -> int:
        return min(self.known.get(generation.key, 0), max(0, len(generation.prompt) - 2) // GRID) * GRID


CASES = st.builds(
    Case,
    work=st.lists(st.tuples(st.integers(1, 150), st.integers(1, 60)), min_size=1, max_size=14),
    rows=st.integers(1, 6),
    tokens=st.integers(256, 1200),
    spare=st.integers(1, 120),
    seconds=st.floats(1e-6, 0.2),
    known=st.dictionaries(st.integers(0, 13), st.integers(0, 8), max_size=5),
    late=st.sets(st.integers(0, 13), max_size=4),
    cancelled=st.dictionaries(st.integers(0, 13), st.integers(0, 60), max_size=4),
)
LATE = 60
"""Plans after which the late ones come."""


class Watch:
    """What must hold of every plan, one after the other."""

    def __init__(self, step_tokens: int) -> None:
        self.started: list[int] = []
        self._step_tokens = step_tokens
        self._in_round = 0

    def see(self, plan: Plan) -> None:
        assert all(each.finished is None for each in plan.generations)
        if plan.kind == "decode":
            assert plan.row_length is None
            self._in_round = 0
            return
        (going,) = plan.generations
        stretch = plan.stop - plan.start
        self._in_round = stretch + (self._in_round if plan.row else 0)
        assert self._in_round + plan.row <= self._step_tokens
        if plan.start == plan.reused:
            self.started.append(going.key)
        assert plan.stop == len(going.prompt) or plan.stop % GRID == 0
        assert len(going.prompt) - plan.stop != 1
        assert stretch >= min(2, len(going.prompt))


@settings(max_examples=60, deadline=None)
@given(CASES)
def test_every_plan_is_sound_and_all_work_ends(case: Case) -> None:
    space = Space(case.rows, case.tokens, 256)
    generations = [of(key, *each, frozenset({EOS})) for key, each in enumerate(case.work)]
    reuse = {tuple(each.prompt): case.reusable(each) for each in generations}
    scheduler = Scheduler(space, step_tokens=case.step_tokens, reusable=lambda each: reuse[tuple(each.prompt)])
    cache, watch = Cache(space), Watch(case.step_tokens)
    for each in generations:
        if each.key not in case.late:
            scheduler.add(each)
    for count in range(20_000):
        for each in generations:
            if case.cancelled.get(each.key) == count:
                scheduler.cancel(each)
            if count == LATE and each.key in case.late:
                scheduler.add(each)
        plan = scheduler.plan()
        if plan is None:
            if count > LATE:
                break
            continue
        cache.run(plan)
        watch.see(plan)
        scheduler.take(plan, [answer(each) for each in plan.generations] if plan.chooses else [], case.seconds)
    else:
        raise AssertionError("the work does not end")
    for each in generations:
        assert each.finished is not None
        assert each.tokens == alone(each)[: len(each.tokens) if each.finished == "cancelled" else None]
    first = [key for key in watch.started if key not in case.late]
    assert first == sorted(first), "nothing overtakes"


def test_a_long_prompt_goes_in_stretches_between_which_the_others_go_on() -> None:
    space = Space(4, 1024, 256)
    scheduler = Scheduler(space, step_tokens=512, stall_s=0.002)
    short, long = of(1, 10, 50), of(2, 200, 5)
    scheduler.add(short)
    cache = Cache(space)
    drive(scheduler, cache, 2)
    scheduler.add(long)
    plans = drive(scheduler, cache)
    kinds = [plan.kind for plan in plans]
    at = [index for index, plan in enumerate(plans) if plan.kind == "prefill" and plan.generations[0] is long]
    assert len(at) > 3
    assert all(kinds[index + 1] == "decode" for index in at)


@pytest.mark.parametrize(("seconds", "longest"), [(0.0001, 199), (0.016, 16), (10.0, 16)])
def test_stretches_are_sized_by_time_while_others_wait(seconds: float, longest: int) -> None:
    """`seconds` is what 16 tokens take; the stall allowed is 0.02."""
    scheduler = Scheduler(Space(4, 4096, 1024), step_tokens=201, stall_s=0.02)
    scheduler.add(of(1, 32, 900))
    scheduler.add(of(2, 900, 2))
    widths = []
    while len(widths) < 5:
        plan = scheduler.plan()
        assert plan is not None
        if plan.kind == "prefill" and plan.row == 1:
            widths.append(plan.stop - plan.start)
        tokens = [50 for _ in plan.generations] if plan.chooses else []
        scheduler.take(plan, tokens, (plan.stop - plan.start) * seconds / 16)
    assert max(widths) == longest // GRID * GRID


def test_without_rows_that_wait_a_stretch_is_as_long_as_a_step_may_be() -> None:
    scheduler = Scheduler(Space(2, 4096, 1024), step_tokens=129, stall_s=0.000_001)
    scheduler.add(of(1, 300, 1))
    widths = [plan.stop - plan.start for plan in drive(scheduler, Cache(Space(2, 4096, 1024)))]
    assert widths == [128, 128, 44]


def test_a_single_token_is_never_left_over() -> None:
    space = Space(1, 1024, 512)
    scheduler = Scheduler(space, step_tokens=33)
    scheduler.add(of(1, 65, 1))
    assert [plan.stop for plan in drive(scheduler, Cache(space))] == [32, 65]


def test_what_has_no_room_waits_and_the_next_does_not_overtake_it() -> None:
    space = Space(4, 512, 512)
    scheduler, cache = Scheduler(space), Cache(space)
    first, long, short = of(1, 60, 60), of(2, 300, 100), of(3, 20, 5)
    for each in (first, long, short):
        scheduler.add(each)
    started = [plan.generations[0].key for plan in drive(scheduler, cache) if plan.kind == "prefill" and not plan.start]
    assert started == [1, 2, 3]
    assert first.finished == long.finished == short.finished == "length"


def test_rows_are_as_long_as_needed_and_are_cut_anew_while_others_run() -> None:
    space = Space(8, 1024, 1024)
    scheduler, cache = Scheduler(space), Cache(space)
    early = [of(key, 20, 40) for key in range(3)]
    for each in early:
        scheduler.add(each)
    drive(scheduler, cache, 6)
    assert (cache.row_length, len(cache.held)) == (64, 8)
    scheduler.add(of(9, 150, 50))
    drive(scheduler, cache, 3)
    assert (cache.row_length, len(cache.held)) == (256, 4)
    drive(scheduler, cache)
    assert [each.tokens for each in early] == [alone(each) for each in early]


def test_eight_short_ones_run_together_after_a_long_one_has_gone() -> None:
    space = Space(8, 1024, 1024)
    scheduler, cache = Scheduler(space), Cache(space)
    scheduler.add(of(0, 600, 10))
    for key in range(1, 9):
        scheduler.add(of(key, 20, 30))
    widths = [len(plan.generations) for plan in drive(scheduler, cache) if plan.kind == "decode"]
    assert max(widths) == 8


@pytest.mark.parametrize(("length", "tokens"), [(0, 5), (64, 1), (60, 5), (10, 0)])
def test_refuses_what_can_never_fit(length: int, tokens: int) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        Scheduler(Space(2, 128, 64)).add(of(1, length, tokens))


def test_refuses_what_is_longer_than_the_whole_cache() -> None:
    with pytest.raises(ValueError, match="200 tokens in all"):
        Scheduler(Space(2, 200, 512)).add(of(1, 190, 20))


def test_refuses_a_step_without_room_for_its_rows_and_a_piece_of_a_prompt() -> None:
    with pytest.raises(ValueError, match="too short for 16 rows"):
        Scheduler(Space(16, 1024, 64), step_tokens=32)


def test_a_failed_choice_ends_that_generation_alone() -> None:
    space = Space(2, 1024, 512)
    scheduler, cache = Scheduler(space), Cache(space)
    one, two = of(1, 5, 9), of(2, 5, 9)
    scheduler.add(one)
    scheduler.add(two)
    drive(scheduler, cache, 3)
    plan = scheduler.plan()
    assert plan is not None
    assert plan.kind == "decode"
    cache.run(plan)
    scheduler.take(plan, [None, 7], 0.001)
    drive(scheduler, cache)
    assert one.finished == "cancelled"
    assert len(two.tokens) == 9


def test_clear_forgets_all_and_cuts_the_pool_anew() -> None:
    space = Space(1, 1024, 512)
    scheduler = Scheduler(space)
    for key in range(3):
        scheduler.add(of(key, 4, 5))
    assert scheduler.plan() is not None
    scheduler.clear()
    assert scheduler.plan() is None
    scheduler.add(of(7, 4, 5))
    plan = scheduler.plan()
    assert plan is not None
    assert plan.row_length == 64


def test_what_may_not_join_yet_waits_and_nothing_overtakes_it() -> None:
    asked: list[tuple[int, list[int]]] = []

    def admits(generation: Generation, running: Sequence[Generation]) -> bool:
        asked.append((generation.key, [each.key for each in running]))
        return generation.key != 1 or not running

    scheduler = Scheduler(Space(4, 1024, 256), admits=admits)
    generations = [Generation(key, [7] * 5, 3) for key in range(3)]
    for generation in generations:
        scheduler.add(generation)
    plans = drive(scheduler, Cache(Space(4, 1024, 256)))
    assert [[each.key for each in plan.generations] for plan in plans if plan.kind == "prefill"] == [[0], [1], [2]]
    assert (1, [0]) in asked
    assert (2, [0]) not in asked
    assert all(len(each.tokens) == 3 for each in generations)


def test_what_is_ended_when_it_is_asked_about_is_passed_over() -> None:
    def admits(generation: Generation, running: Sequence[Generation]) -> bool:
        if generation.key == 0:
            generation.finished = "cancelled"
        return generation.key != 0

    scheduler = Scheduler(Space(2, 512, 256), admits=admits)
    generations = [Generation(key, [7] * 5, 3) for key in range(2)]
    for generation in generations:
        scheduler.add(generation)
    assert scheduler.plan() is None
    assert [plan.generations for plan in drive(scheduler, Cache(Space(2, 512, 256)))] == [(generations[1],)] * 3
