"""`penstock.runtime.gate`: interactive work goes first, bulk keeps its share and waits for nothing else."""

from __future__ import annotations

import threading

import pytest

from penstock.runtime.gate import LONGEST_REST_S, Gate


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def gate_of(clock: Clock, *, share: float = 0.1, quiet_s: float = 0.02, slice_s: float = 0.005) -> Gate:
    return Gate(share=share, quiet_s=quiet_s, slice_s=slice_s, stopping=threading.Event(), clock=clock)


def work(gate: Gate, clock: Clock, records: int, seconds_each: float) -> list[int]:
    """Bulk records through the gate with nothing to wait for; the sizes of the slices."""
    sizes = []
    for piece in gate.slices(range(records)):
        sizes.append(len(piece))
        clock.now += len(piece) * seconds_each
    return sizes


def test_without_interactive_records_bulk_waits_for_nothing(clock: Clock) -> None:
    gate = gate_of(clock)
    assert gate.due_in() <= 0
    work(gate, clock, 100, 0.001)
    assert gate.due_in() <= 0


def test_every_record_comes_once_and_in_order(clock: Clock) -> None:
    gate = gate_of(clock)
    assert [number for piece in gate.slices(range(57)) for number in piece] == list(range(57))


def test_slices_grow_and_shrink_to_the_time_they_may_take(clock: Clock) -> None:
    gate = gate_of(clock, slice_s=0.005)
    assert work(gate, clock, 2_000, 0.0001)[-2] == pytest.approx(50, abs=2)
    assert work(gate, clock, 200, 0.1)[-1] == 1


def test_while_interactive_records_are_in_work_bulk_waits_until_its_share_is_due(clock: Clock) -> None:
    gate = gate_of(clock, share=0.1)
    work(gate, clock, 1, 0.004)
    with gate.interactive():
        assert gate.due_in() == pytest.approx(0.036)
        clock.now += 0.0361
        assert gate.due_in() <= 0


def test_the_share_holds_over_time(clock: Clock) -> None:
    gate = gate_of(clock, share=0.2)
    began, worked = clock.now, 0.0
    with gate.interactive():
        for _ in range(500):
            worked += sum(work(gate, clock, 1, 0.003)) * 0.003
            clock.now += max(0.0, gate.due_in())
    assert worked / (clock.now - began) == pytest.approx(0.2, rel=0.02)


def test_bulk_waits_a_moment_longer_for_the_next_interactive_record_and_then_goes_on(clock: Clock) -> None:
    gate = gate_of(clock, quiet_s=0.02)
    work(gate, clock, 1, 1.0)
    with gate.interactive():
        clock.now += 0.001
    assert gate.due_in() == pytest.approx(0.02)
    clock.now += 0.02
    assert gate.due_in() <= 0


def test_after_a_long_slice_the_rest_is_bounded(clock: Clock) -> None:
    gate = gate_of(clock, share=0.01)
    work(gate, clock, 1, 60.0)
    with gate.interactive():
        assert gate.due_in() == pytest.approx(LONGEST_REST_S)


def test_the_whole_time_as_a_share_opens_the_gate(clock: Clock) -> None:
    gate = gate_of(clock, share=1)
    work(gate, clock, 1, 1.0)
    with gate.interactive():
        assert gate.due_in() <= 0


def test_a_batch_in_a_hurry_waits_for_nothing(clock: Clock) -> None:
    gate = gate_of(clock, share=0.01)
    work(gate, clock, 1, 60.0)
    with gate.interactive():
        assert gate.due_in() > 0
        assert [number for piece in gate.slices(range(9), lambda: True) for number in piece] == list(range(9))


def test_bulk_goes_on_at_once_when_interactive_work_ends_or_the_process_stops() -> None:
    stopping = threading.Event()
    gate = Gate(share=0.01, quiet_s=0, slice_s=0.001, stopping=stopping)
    taken: list[int] = []
    first = threading.Event()

    def bulk() -> None:
        for number in (1, 2, 3):
            for piece in gate.slices([number]):
                taken.extend(piece)
                threading.Event().wait(0.5)  # so long that the share alone would make the next wait for seconds
                first.set()

    thread = threading.Thread(target=bulk)
    with gate.interactive():
        thread.start()
        assert first.wait(30)
        assert taken == [1]
    while len(taken) < 2 and thread.is_alive():
        thread.join(0.01)
    with gate.interactive():
        stopping.set()
        thread.join(30)
    assert taken == [1, 2, 3]
