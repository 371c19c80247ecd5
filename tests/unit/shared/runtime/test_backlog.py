"""`penstock.runtime.backlog`: how much may wait, what is started next, and what leaves without being started."""

from __future__ import annotations

from collections.abc import Iterable

from penstock.contracts.events import GenerationParameters, Priority, RequestContext, RequestScreened, Source
from penstock.runtime.backlog import ENDED_KEPT, Backlog
from penstock.runtime.calls import Work
from penstock.runtime.intake import Fresh
from penstock.runtime.progress import Progress
from penstock.runtime.settings import UnorderedSettings
from penstock.runtime.stage import Inbound, Record

HERE, THERE = Progress(0), Progress(0)


class Bench:
    """A backlog and records by name; a name's first letter is its key."""

    def __init__(self, lanes: int = 1, waiting: int = 8) -> None:
        self.backlog = Backlog(
            UnorderedSettings(calls_max_waiting=waiting, calls_interactive_share=0.25, calls_in_key_order=True),
            lanes=lanes,
        )

    def put(
        self, name: str, lane: Priority = "interactive", *, deadline_ms: int | None = None, of: Progress = HERE
    ) -> Work:
        context = RequestContext(
            request_id=name,
            conversation_id=name[0],
            deadline_ms=deadline_ms,
            submitted_ms=1,
            source=Source(topic="llm.requests", partition=0, offset=0),
        )
        event = RequestScreened(context=context, prompt=(), parameters=GenerationParameters(model="m", max_tokens=1))
        record = Record("t", 0, 0, 1, name[:1].encode(), event.encode())
        work = Work(Inbound(record, 1, event), Fresh(record, of), name)
        self.backlog.put(work, lane, context, running=0)
        return work

    def take(self, room: int = 100, running: int = 0) -> str | None:
        work = self.backlog.take(room, running=running)
        return None if work is None else work.ledger_key


def names(works: Iterable[Work]) -> list[str]:
    return [work.ledger_key for work in works]


def test_a_full_backlog_takes_nothing_until_a_quarter_of_it_has_gone() -> None:
    bench = Bench(waiting=8)
    works = [bench.put(name) for name in "abcdefg"]
    assert bench.backlog.room("interactive") == 1
    works.append(bench.put("h"))
    assert bench.backlog.room("interactive") == 0
    bench.backlog.remove(works[0])
    assert bench.backlog.room("interactive") == 0, "a place alone is not worth pausing and resuming for"
    bench.backlog.remove(works[1])
    assert bench.backlog.room("interactive") == 2


def test_what_waits_for_another_call_counts_as_waiting() -> None:
    bench = Bench(waiting=2)
    works = [bench.put("a"), bench.put("b")]
    bench.backlog.put_aside(bench.backlog.take(1, running=0) or works[1], 10.0)
    assert (len(bench.backlog), bench.backlog.unstarted, bench.backlog.room("interactive")) == (2, 1, 0)


def test_bulk_leaves_a_share_of_the_backlog_to_interactive_records() -> None:
    bench = Bench(lanes=2, waiting=8)
    for name in "abcdef":
        bench.put(name, "bulk")
    assert (bench.backlog.room("bulk"), bench.backlog.room("interactive")) == (0, 2)


def test_bulk_leaves_a_share_of_the_places_to_interactive_records_where_there_are_two_lanes() -> None:
    both, alone = Bench(lanes=2), Bench(lanes=1)
    for bench in (both, alone):
        bench.put("a", "bulk")
    assert both.take(room=1, running=3) is None
    assert alone.take(room=1, running=3) == "a"
    assert both.take(room=2, running=2) == "a"


def test_the_next_of_a_key_waits_until_the_one_before_has_ended() -> None:
    bench = Bench()
    first = bench.put("a1")
    bench.put("a2")
    assert (bench.take(), bench.take()) == ("a1", None)
    bench.backlog.put_aside(first, 5.0)
    assert bench.take() is None, "one that is to be tried again has not ended"
    assert names(bench.backlog.due(4.9)) == []
    assert names(bench.backlog.due(5.0)) == ["a1"]
    bench.backlog.done(first)
    assert (first.ticket, bench.take()) == (None, "a2")


def test_one_that_is_removed_while_it_waits_frees_its_key() -> None:
    bench = Bench()
    for retried in (False, True):
        first, second = bench.put("a1"), bench.put("a2")
        if retried:
            assert bench.take() == "a1"
            bench.backlog.put_aside(first, 5.0)
        bench.backlog.remove(first)
        assert first.ticket is None
        assert bench.take() == "a2"
        bench.backlog.done(second)
        assert len(bench.backlog) == 0
        assert names(bench.backlog.due(9.0)) == []


def test_deadlines_are_told_once_in_their_order_and_forgotten_with_their_records() -> None:
    bench = Bench(waiting=1)
    bench.put("a", deadline_ms=30)
    late = bench.put("b", deadline_ms=20)
    assert [(work.ledger_key, deadline) for work, deadline in bench.backlog.expired(20)] == []
    assert [(work.ledger_key, deadline) for work, deadline in bench.backlog.expired(21)] == [("b", 20)]
    assert names(work for work, _ in bench.backlog.expired(29)) == []
    bench.backlog.remove(late)
    for number in range(500):
        bench.backlog.remove(bench.put(f"c{number}", deadline_ms=40))
    # bounded, however long the deadlines: those that have ended are gone from it, records and all
    assert len(list(bench.backlog.expired(41))) <= ENDED_KEPT + 2


def test_partitions_that_go_take_their_records_along() -> None:
    bench = Bench()
    gone, aside, stays = bench.put("a1", of=THERE), bench.put("b", of=THERE), bench.put("a2", of=HERE)
    assert bench.take() == "a1"
    bench.backlog.put_aside(gone, 5.0)
    bench.backlog.drop({THERE})
    assert (gone.ticket, aside.ticket, len(bench.backlog)) == (None, None, 1)
    assert names(bench.backlog.due(9.0)) == []
    assert bench.take() == "a2"
    assert stays.ticket is not None
