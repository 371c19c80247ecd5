"""The soak's load: single requests at random moments, bulk lines in lots, deadlines and cancellations among them.

Results are watched as a read_committed consumer sees them. A request is *lost* when the broker has
acknowledged it and it has no result, a *duplicate* is each result beyond the first of its request.
"""

from __future__ import annotations

import heapq
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import TracebackType

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from tests.faults.mix import BULK_SHARE, mixed
from tests.faults.mix import ENDS as MIXED_ENDS
from tests.support.background import Task
from tests.support.kafka import Publishing, Slot, settings

from penstock.contracts import headers as header_names
from penstock.contracts import topics
from penstock.contracts.control import Cancel
from penstock.runtime import kafka

TENANTS = ("acme", "globex", "initech", "umbrella")
CANCELLED, DEADLINE = 0.05, 0.05
"""Shares of the requests that are well formed."""
CANCEL_WITHIN_S = 1.5
DEADLINE_MS = (50, 3_000)
LOT = 40
"""Bulk lines are published so many at once."""
BACKLOG_S = 90.0
"""With requests of so many seconds without a result, no new ones are sent: the machine is too slow for the rate."""
OVERDUE_S = 180.0
ANSWERED = {"completed", "blocked"}
ENDS = {**MIXED_ENDS, "deadline": ANSWERED | {"expired"}, "cancelled": ANSWERED | {"cancelled"}}
"""How a request of each kind may end."""
TIMED = {"ordinary", "personal", "injection", "streamed"}
"""Kinds whose latency counts, in the interactive lane."""


@dataclass(frozen=True)
class Wanted:
    """A request to be sent: `deadline_ms` and `cancel_s` are from its sending, None where it has none."""

    kind: str
    publishing: Publishing
    deadline_ms: int | None = None
    cancel_s: float | None = None


def wanted(seed: int) -> Iterator[Wanted]:
    """Requests without end, the same for the same seed; bulk ones come in lots."""
    chosen = random.Random(f"soak {seed}")
    lot: list[Wanted] = []
    for number, one in enumerate(mixed(10**9, seed)):
        tenant = ("tenant", chosen.choice(TENANTS).encode())
        request = Wanted(one.kind, replace(one.publishing, headers=[*one.publishing.headers, tenant]))
        draw = chosen.random()
        if one.kind == "ordinary" and draw < CANCELLED / 0.5:
            headers = [("request-id", f"s{seed}-{number}".encode()), tenant]
            request = Wanted(
                "cancelled", replace(one.publishing, headers=headers), cancel_s=chosen.uniform(0, CANCEL_WITHIN_S)
            )
        elif one.kind == "ordinary" and draw < (CANCELLED + DEADLINE) / 0.5:
            request = replace(request, kind="deadline", deadline_ms=chosen.randint(*DEADLINE_MS))
        if one.publishing.lane == "interactive":
            yield request
            continue
        lot.append(request)
        if len(lot) == LOT:
            yield from lot
            lot.clear()


@dataclass(frozen=True)
class Sent:
    """A request that the broker holds."""

    kind: str
    timed: bool
    at: float
    """When it was handed to the client, by `time.monotonic`."""


@dataclass(frozen=True)
class Tally:
    """What has come of the requests so far."""

    sent: int
    acknowledged: int
    refused: int
    """Requests the broker did not take."""
    ended: int
    waiting: int
    oldest_s: float
    """How long the oldest one waits for its result."""
    overdue: int
    """Requests that have waited for longer than `OVERDUE_S`: as good as lost."""
    duplicates: int
    wrong_end: int
    """Requests that ended in a way their kind cannot."""
    unpublished: int
    """Results of requests that nobody sent."""
    held_s: float
    """How long no requests were sent, because too many waited."""
    statuses: dict[str, int]


class Traffic:
    """Sends and watches from two threads of its own while it runs."""

    def __init__(self, bootstrap: str, prefix: str, *, rate: float, seed: int) -> None:
        client = settings(bootstrap, prefix)
        self._names = kafka.Names(prefix)
        quiet = {"log_level": 0}  # that the broker goes down is meant
        self._producer = Producer({**kafka.producer(client, None), **quiet})
        self._consumer = Consumer({**kafka.reader(client, f"{prefix}watch"), **quiet})
        results = self._names.topic(topics.RESULTS)
        partitions = self._consumer.list_topics(results, timeout=30).topics[results].partitions
        self._consumer.assign([TopicPartition(results, number, 0) for number in partitions])
        self._rate = rate
        self._seed = seed
        self._lock = threading.Lock()
        self._sent: dict[Slot, Sent] = {}
        self._seen: dict[Slot, tuple[str, float]] = {}
        self._open: dict[Slot, Sent] = {}
        self._latencies: list[int] = []
        self._statuses: Counter[str] = Counter()
        self._produced = self._refused = self._duplicates = self._wrong = 0
        self._held_s = 0.0
        self._abandoned = False
        self._sender, self._watch = Task("traffic", self._send), Task("watch", self._follow)

    def tally(self) -> Tally:
        """Where things stand; raises what ended one of the threads."""
        self._sender.check()
        self._watch.check()
        with self._lock:
            now = time.monotonic()
            return Tally(
                sent=self._produced,
                acknowledged=len(self._sent),
                refused=self._refused,
                ended=len(self._sent) - len(self._open),
                waiting=len(self._open),
                oldest_s=max((now - one.at for one in self._open.values()), default=0.0),
                overdue=sum(now - one.at > OVERDUE_S for one in self._open.values()),
                duplicates=self._duplicates,
                wrong_end=self._wrong,
                unpublished=len(self._seen) - (len(self._sent) - len(self._open)),
                held_s=self._held_s,
                statuses=dict(self._statuses),
            )

    def latencies(self) -> list[int]:
        """Milliseconds from sending to seeing the result, of timed requests whose results came since the last call."""
        with self._lock:
            taken, self._latencies = self._latencies, []
        return taken

    def finish(self) -> None:
        """Send no more and wait for the broker's word on what was sent."""
        self._sender.stop()

    def __enter__(self) -> Traffic:
        self._watch.__enter__()
        self._sender.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._abandoned = True
        self._producer.purge()
        self._sender.stop()
        self._watch.stop()
        self._consumer.close()

    def _send(self, ending: threading.Event) -> None:
        chosen = random.Random(f"moments {self._seed}")
        cancels: list[tuple[float, str]] = []
        due = time.monotonic()
        for one in wanted(self._seed):
            while (now := time.monotonic()) < due or (full := self._full()):
                if now >= due and full:
                    self._held_s += 0.01
                self._producer.poll(0.01)
                while cancels and cancels[0][0] <= now:
                    self._cancel(heapq.heappop(cancels)[1])
                if ending.is_set():
                    break
            if ending.is_set():
                break
            self._publish(one)
            if one.cancel_s is not None:
                heapq.heappush(cancels, (now + one.cancel_s, self._id_of(one)))
            if one.publishing.lane == "interactive":  # a lot of bulk lines goes out between two of these
                due = max(due, now - 1.0) + chosen.expovariate(self._rate * (1 - BULK_SHARE))
        left = self._producer.flush(300)
        if left and not self._abandoned:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"{left} records without the broker's word"))

    def _full(self) -> bool:
        with self._lock:
            return len(self._open) > self._rate * BACKLOG_S

    @staticmethod
    def _id_of(one: Wanted) -> str:
        value = dict(one.publishing.headers)["request-id"]
        assert value is not None
        return value.decode()

    def _publish(self, one: Wanted) -> None:
        headers = list(one.publishing.headers)
        if one.deadline_ms is not None:
            headers.append(("deadline", str(time.time_ns() // 1_000_000 + one.deadline_ms).encode()))
        lane = one.publishing.lane
        sent = Sent(one.kind, one.kind in TIMED and lane == "interactive", time.monotonic())

        def delivered(error: KafkaError | None, message: Message) -> None:
            with self._lock:
                if error is not None:
                    self._refused += 1
                    return
                place = Slot(message.topic(), message.partition(), message.offset())
                self._sent[place] = self._open[place] = sent
                if place in self._seen:
                    self._settle(place)

        with self._lock:
            self._produced += 1
        kafka.enqueue(
            self._producer,
            self._names.topic(topics.in_lane(topics.REQUESTS, lane)),
            one.publishing.value,
            one.publishing.key,
            headers=headers,
            on_delivery=delivered,
        )

    def _cancel(self, request_id: str) -> None:
        command = Cancel(request_id=request_id, issued_ms=time.time_ns() // 1_000_000)
        kafka.enqueue(
            self._producer,
            self._names.topic(topics.CONTROL),
            command.encode(),
            command.key.encode(),
            headers=[(header_names.SCHEMA, Cancel.schema_ref().encode())],
            on_delivery=None,
        )

    def _follow(self, ending: threading.Event) -> None:
        while not ending.is_set():
            # an error is the client's word that the broker is away: it goes on by itself
            found = [message for message in self._consumer.consume(1_000, 0.1) if message.error() is None]
            now = time.monotonic()
            with self._lock:
                for message in found:
                    self._result(json.loads(message.value()), now)

    def _result(self, result: dict[str, object], now: float) -> None:
        source = result["source"]
        assert isinstance(source, dict)
        place = Slot(source["topic"], source["partition"], source["offset"])
        if place in self._seen:
            self._duplicates += 1
            return
        self._seen[place] = (str(result["status"]), now)
        self._statuses[str(result["status"])] += 1
        if place in self._sent:
            self._settle(place)

    def _settle(self, place: Slot) -> None:
        sent = self._open.pop(place)
        status, seen = self._seen[place]
        self._wrong += status not in ENDS[sent.kind]
        if sent.timed:
            self._latencies.append(round(1_000 * (seen - sent.at)))
