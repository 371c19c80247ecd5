"""Conservation as a state machine: whatever the order of deliveries, crashes, rebalances, aborts and time.

The worker is the real one, over an in-memory log; each request ends exactly once, within the bounds.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections import Counter
from typing import ClassVar

import pytest
import structlog
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.support.memory_log import MemoryConsumer, MemoryLedger, MemoryLog, MemoryMessage, MemoryPublisher
from tests.support.slow import answer_to

from penstock.contracts import headers as names_of
from penstock.contracts.errors import BackendUnavailable
from penstock.contracts.events import GenerationParameters, RequestContext, RequestScreened, Source
from penstock.contracts.results import Status
from penstock.contracts.topics import COMPLETIONS, DEAD_LETTERS, RESULTS, SCREENED
from penstock.runtime import unordered
from penstock.runtime.health import Health
from penstock.runtime.intake import Lane
from penstock.runtime.kafka import Names
from penstock.runtime.metrics import StageMetrics
from penstock.runtime.processor import Boundary
from penstock.runtime.settings import UnorderedSettings
from penstock.runtime.stage import Inbound, Job
from penstock.runtime.unordered import UnorderedWorker

SLOTS = [(SCREENED, number) for number in range(3)]
BOUNDS = UnorderedSettings(
    calls_max_running=6,
    calls_max_waiting=8,
    calls_max_span=12,
    batch_max_records=4,
    rebalance_grace_s=0,
    retry_attempts=3,
    calls_first_output_ms=3_600_000,
)


class Held:
    """A stage whose calls end when the machine says so."""

    name = "inference"
    versions: ClassVar[dict[str, str]] = {}

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def room(self) -> int:
        return 5 - len(self.jobs)

    def start(self, job: Job) -> None:
        self.jobs.append(job)

    def cancel(self, job: Job) -> None:
        if job in self.jobs:  # it may have finished meanwhile
            self.jobs.remove(job)

    def ended(self, inbound: Inbound, status: Status) -> None:
        """Nothing was streamed."""

    def close(self) -> None:
        self.jobs.clear()


class Process:
    """One instance of the service."""

    def __init__(self, log: MemoryLog, clock: Clock) -> None:
        self.stage = Held()
        self.consumer = MemoryConsumer(log)
        self.metrics = StageMetrics("inference")
        self.worker = UnorderedWorker(
            lanes=[Lane("interactive", (SCREENED,), "g")],
            stage=self.stage,
            settings=BOUNDS,
            boundary=Boundary(self.stage, names=Names("")),
            publisher=MemoryPublisher(log),
            ledger=MemoryLedger(log),
            metrics=self.metrics,
            health=Health(),
            stopping=threading.Event(),
            clock_ns=clock.wall_ns,
            monotonic=clock.monotonic,
            client=lambda _: self.consumer,
        )
        self.worker.subscribe()


class Clock:
    """Time that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now

    def wall_ns(self) -> int:
        return int(self.now * 1e9)


class Conservation(RuleBasedStateMachine):
    """Publish, deliver, finish, crash, rebalance, abort, let time pass."""

    @initialize()
    def begin(self) -> None:
        self.clock = Clock()
        self.log = MemoryLog(SLOTS)
        self.processes = [Process(self.log, self.clock), Process(self.log, self.clock)]
        self.sent: list[str] = []
        self.answered: Counter[str] = Counter()
        """Answers that the stage gave, to calls that were not cancelled."""
        self.numbers = itertools.count()
        for slot in SLOTS:
            self._assign(slot, self.processes[0])

    def _assign(self, slot: tuple[str, int], process: Process) -> None:
        self.log.owners[slot] = process.consumer
        process.consumer.tell("on_assign", [slot])

    @rule(slot=st.sampled_from(SLOTS), key=st.sampled_from("abc"), deadline_s=st.none() | st.integers(1, 60))
    def publish(self, slot: tuple[str, int], key: str, deadline_s: int | None) -> None:
        request_id = f"r{next(self.numbers)}"
        context = RequestContext(
            request_id=request_id,
            conversation_id=f"{key}{slot[1]}",
            deadline_ms=None if deadline_s is None else int((self.clock.now + deadline_s) * 1000),
            submitted_ms=1,
            source=Source(topic="llm.requests", partition=slot[1], offset=len(self.sent)),
        )
        event = RequestScreened(context=context, prompt=(), parameters=GenerationParameters(model="m", max_tokens=1))
        made_ms = int(self.clock.now * 1000)
        message = MemoryMessage(
            slot,
            self.log.next_offset(slot),
            made_ms,
            context.conversation_id.encode(),
            event.encode(),
            names_of.of_context(context, event.schema_ref()),
        )
        self.log.append(slot, message)
        self.sent.append(request_id)

    @rule(which=st.integers(0, 1))
    def turn(self, which: int) -> None:
        self.processes[which].worker.turn()

    @rule(which=st.integers(0, 1))
    def deliver_again(self, which: int) -> None:
        self.processes[which].consumer.repeat = True
        self.processes[which].worker.turn()

    @rule(which=st.integers(0, 1), job=st.integers(0, 4), how=st.sampled_from(["answer", "answer", "fail", "twice"]))
    def finish(self, which: int, job: int, how: str) -> None:
        stage = self.processes[which].stage
        if job >= len(stage.jobs):
            return
        one = stage.jobs.pop(job)
        if how == "fail":
            one.finish(BackendUnavailable("busy"))
            return
        event = one.inbound.expect(RequestScreened)
        for _ in range(2 if how == "twice" else 1):
            one.finish(answer_to(event))

    @rule(which=st.integers(0, 1))
    def crash(self, which: int) -> None:
        """What the process held in memory is gone; its partitions go to the other one, or to its successor."""
        dead = self.processes[which]
        self.processes[which] = Process(self.log, self.clock)
        orphans = [slot for slot in SLOTS if self.log.owners[slot] is dead.consumer]
        for number, slot in enumerate(orphans):
            self._assign(slot, self.processes[(which + number) % 2])

    @rule(slot=st.sampled_from(SLOTS))
    def rebalance(self, slot: tuple[str, int]) -> None:
        """The group moves a partition: its owner hears of it first, and may still commit."""
        owner = self._owner(slot)
        owner.consumer.tell("on_revoke", [slot])
        owner.worker.turn()
        other = next(process for process in self.processes if process is not owner)
        self._assign(slot, other)

    @rule(slot=st.sampled_from(SLOTS))
    def lose(self, slot: tuple[str, int]) -> None:
        """A member that did not answer: another owns the partition before it hears of it."""
        owner = self._owner(slot)
        owner.consumer.tell("on_lost", [slot])
        other = next(process for process in self.processes if process is not owner)
        self._assign(slot, other)

    @rule(which=st.integers(0, 1))
    def zombie(self, which: int) -> None:
        """It goes on with partitions that are another's: its transaction must be refused."""
        process = self.processes[which]
        stolen = [slot for slot in SLOTS if self.log.owners[slot] is process.consumer]
        for slot in stolen:
            self._assign(slot, self.processes[1 - which])
        process.worker._collect(0)
        process.worker._uncommitted.commit()
        for slot in stolen:
            process.consumer.tell("on_lost", [slot])

    @rule()
    def abort(self) -> None:
        self.log.aborts += 1

    @rule(seconds=st.integers(1, 30))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds

    def _owner(self, slot: tuple[str, int]) -> Process:
        return next(process for process in self.processes if self.log.owners[slot] is process.consumer)

    def _ends(self) -> Counter[str]:
        return Counter(
            dict(output.headers)["request-id"].decode()
            for output in self.log.visible
            if output.topic in (COMPLETIONS, RESULTS)
        )

    @invariant()
    def nothing_ends_twice(self) -> None:
        if hasattr(self, "log"):
            assert max(self._ends().values(), default=0) <= 1

    @invariant()
    def bounds_hold(self) -> None:
        for process in getattr(self, "processes", []):
            worker = process.worker
            assert len(worker._running) <= BOUNDS.calls_max_running
            assert len(worker._backlog) <= BOUNDS.calls_max_waiting + BOUNDS.calls_max_running
            for part in worker._intakes[0]._parts.values():
                # a gap lies before each record
                assert part.span <= BOUNDS.calls_max_span + 2 * BOUNDS.batch_max_records

    def teardown(self) -> None:
        """With nothing going wrong any more, all that was sent ends."""
        if not hasattr(self, "log"):
            return
        self.log.aborts = 0
        for _ in range(60 + 8 * len(self.sent)):
            if len(self._ends()) == len(self.sent):
                break
            self.clock.now += 3
            for process in self.processes:
                process.worker.turn()
                while process.stage.jobs:
                    one = process.stage.jobs.pop()
                    one.finish(answer_to(one.inbound.expect(RequestScreened)))
                process.worker.turn()
        assert self._ends() == Counter(self.sent)
        failed = [o for o in self.log.visible if o.topic == DEAD_LETTERS]
        assert len(failed) == sum(
            b'"status":"failed"' in (o.value or b"") for o in self.log.visible if o.topic == RESULTS
        )


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unordered, "BUSY_S", 0.0)
    quiet = structlog.make_filtering_bound_logger(logging.CRITICAL)
    structlog.configure(wrapper_class=quiet)


TestConservation = Conservation.TestCase
TestConservation.settings = settings(
    max_examples=100,
    stateful_step_count=100,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],  # a failure has a hundred steps, and shrinking it takes minutes
)
TestConservation = pytest.mark.timeout(600)(TestConservation)
