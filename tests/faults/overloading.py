"""The inference service by itself between its topics: its process, requests at a rate, and how each one ends."""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import psutil
from confluent_kafka import Message, Producer
from tests.support.background import Background
from tests.support.kafka import Follower, header, settings
from tests.support.stack import StackError

from penstock.contracts import headers as header_names
from penstock.contracts.events import GenerationParameters, PromptPart, RequestContext, RequestScreened, Source
from penstock.contracts.headers import REQUEST_ID
from penstock.contracts.results import RequestFinished
from penstock.contracts.topics import COMPLETIONS, REQUESTS, RESULTS, SCREENED
from penstock.local.ports import LOOPBACK, free_port
from penstock.local.process import ProcessIdentity, kill, log_tail, start_detached, stop
from penstock.local.root import project_root
from penstock.runtime import kafka, topics

MIB = 1 << 20
TICK_S = 0.02
_WORDS = [
    "river",
    "tower",
    "seven",
    "copper",
    "window",
    "garden",
    "silver",
    "market",
    "winter",
    "letter",
    "orange",
    "harbour",
]


class Service:
    """The process, while the context lasts, and the memory that it held at most."""

    def __init__(self, bootstrap: str, prefix: str, folder: Path) -> None:
        topics.apply(bootstrap, prefix, replication=1, partitions=4)
        self._log = folder / f"{prefix}inference.log"
        base = {name: value for name, value in os.environ.items() if not name.startswith(("PENSTOCK_", "OTEL_"))}
        self._environment = {
            **base,
            "PENSTOCK_KAFKA_BOOTSTRAP_SERVERS": bootstrap,
            "PENSTOCK_TOPIC_PREFIX": prefix,
            "PENSTOCK_HTTP_PORT": str(free_port()),
            "PENSTOCK_HTTP_HOST": LOOPBACK,
            "PENSTOCK_MODELS_DIR": str(folder / "models"),
        }
        self._identity: ProcessIdentity | None = None

    def __enter__(self) -> Service:
        self.launch()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._identity is not None:
            stop(self._identity, grace_s=20)

    def launch(self) -> None:
        """Start it."""
        command = [sys.executable, "-m", "penstock_inference"]
        self._identity = start_detached(command, log_file=self._log, cwd=project_root(), env=self._environment)

    def kill(self) -> None:
        """SIGKILL."""
        assert self._identity is not None
        kill(self._identity)

    def tail(self) -> str:
        """The end of its log."""
        return log_tail(self._log)

    def rss_mb(self) -> float:
        """What it holds now; raises StackError where it has ended."""
        if self._identity is None or not self._identity.alive():
            raise StackError(f"the service has ended; its log:\n{log_tail(self._log)}")
        return float(psutil.Process(self._identity.pid).memory_info().rss / MIB)


@dataclass(frozen=True)
class Shape:
    """What requests are like."""

    prompt_words: int = 120
    max_tokens: int = 32
    patient: float = 0.04
    """Share of those without a deadline."""
    patience_s: tuple[float, float] = (3.0, 8.0)
    """How long the others give, drawn evenly."""


class Offer:
    """Publishes requests to the service's input; each one's text is its own, so that no prompt is kept from another."""

    def __init__(self, bootstrap: str, prefix: str, shape: Shape, seed: int = 1, *, stream: bool = False) -> None:
        self._producer = Producer({**kafka.producer(settings(bootstrap, prefix), None), "linger.ms": 5})
        self._topic = kafka.Names(prefix).topic(SCREENED)
        self._shape = shape
        self._stream = stream
        self._chosen = random.Random(seed)
        self.deadlines: dict[str, int | None] = {}
        """Of every request sent, in milliseconds since the epoch."""

    def send(self, count: int, *, patient: bool) -> None:
        """Some at once; without deadlines where they are patient."""
        for _ in range(count):
            self._publish(patient=patient or self._chosen.random() < self._shape.patient)
        self._producer.poll(0)

    def at_rate(self, rate: float, seconds: float) -> None:
        """So many a second, whatever comes of them."""
        began, sent = time.monotonic(), 0
        while (passed := time.monotonic() - began) < seconds:
            due = int(rate * passed) - sent
            self.send(due, patient=False)
            sent += due
            time.sleep(TICK_S)

    def flush(self) -> None:
        """Wait for the broker's word on each; raises StackError where it has none."""
        left = self._producer.flush(60)
        if left:
            raise StackError(f"{left} requests were not delivered")

    def _publish(self, *, patient: bool) -> None:
        number = len(self.deadlines)
        now_ms = time.time_ns() // 1_000_000
        deadline_ms = None if patient else now_ms + int(1000 * self._chosen.uniform(*self._shape.patience_s))
        request_id = f"r{number}"
        context = RequestContext(
            request_id=request_id,
            conversation_id=request_id,
            submitted_ms=now_ms,
            deadline_ms=deadline_ms,
            source=Source(topic=REQUESTS, partition=0, offset=number),
        )
        text = " ".join([request_id, *self._chosen.choices(_WORDS, k=self._shape.prompt_words)])
        parameters = GenerationParameters(
            model="m", max_tokens=self._shape.max_tokens, temperature=1.0, stream=self._stream
        )
        event = RequestScreened(context=context, prompt=(PromptPart(kind="text", text=text),), parameters=parameters)
        headers = header_names.of_context(context, event.schema_ref())
        self.deadlines[request_id] = deadline_ms
        kafka.enqueue(
            self._producer, self._topic, event.encode(), request_id.encode(), headers=headers, on_delivery=None
        )


@dataclass(frozen=True)
class End:
    """How a request ended, and when, in milliseconds since the epoch."""

    status: str
    at_ms: int


class Endings(Background):
    """Follows what the service writes from a thread of its own: completions, and terminal results of other kinds."""

    def __init__(self, bootstrap: str, prefix: str) -> None:
        super().__init__("endings")
        self._follower = Follower(bootstrap, prefix, [COMPLETIONS, RESULTS])
        self._completions = f"{prefix}{COMPLETIONS}"
        self._lock = threading.Lock()
        self._ended: dict[str, End] = {}
        self._last = time.monotonic()
        self.duplicates = 0

    def count(self) -> int:
        """How many requests have ended."""
        self._check()
        with self._lock:
            return len(self._ended)

    def since_last_s(self) -> float:
        """Seconds since the last end."""
        with self._lock:
            return time.monotonic() - self._last

    def all(self) -> dict[str, End]:
        """How every request has ended so far, by id."""
        with self._lock:
            return dict(self._ended)

    def statuses(self, ids: Iterable[str]) -> Counter[str]:
        """How many of these ended in which way."""
        ended = self.all()
        return Counter(ended[each].status for each in ids if each in ended)

    def _run(self) -> None:
        while not self._ending.is_set():
            found = self._follower.poll(0.1)
            with self._lock:
                for message in found:
                    self._note(message)

    def _close(self) -> None:
        self._follower.close()

    def _note(self, message: Message) -> None:
        request_id = (header(message, REQUEST_ID) or b"").decode()
        completed = message.topic() == self._completions
        status = "completed" if completed else RequestFinished.model_validate_json(message.value()).status
        self.duplicates += request_id in self._ended
        self._ended.setdefault(request_id, End(status, message.timestamp()[1]))
        self._last = time.monotonic()
