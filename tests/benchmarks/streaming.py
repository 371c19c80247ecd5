"""Time to first token: of the stream that was screened and restored, beside the raw one that inference writes.

All five services as processes on one broker, the embedded model, and one reader of `llm.tokens`, `llm.result-tokens`
and `llm.results` that notes when it gets each record. What the checked stream adds is taken apart: waiting until the
model has completed the first sentence, and passing safety, postprocess and two topics.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, TopicPartition
from rich.console import Console
from rich.table import Table
from tests.support.kafka import Publishing, settings
from tests.support.stack import Stack, StackError, saying

from penstock.contracts import topics
from penstock.contracts.events import TokensGenerated
from penstock.contracts.results import RequestFinished
from penstock.contracts.streams import TokensRestored
from penstock.local import broker_for_tests
from penstock.runtime import kafka

PARTITIONS = 4
PATIENCE_S = 300.0
_QUESTIONS = (
    "What is a topic?",
    "What is a consumer group?",
    "Who are you?",
    "What is a partition?",
    "Explain an offset.",
    "What is Kafka?",
    "Was ist ein Thema?",
    "What is a broker?",
)


@dataclass
class Timed:
    """When the reader got what of one request, by the monotonic clock in seconds."""

    sent: float
    raw: list[tuple[float, str]] = field(default_factory=list)
    checked: list[tuple[float, str]] = field(default_factory=list)
    state: str | None = None
    result: float | None = None

    @property
    def whole(self) -> bool:
        """Whether everything has come."""
        return self.state is not None and self.result is not None

    def sentence(self) -> float:
        """When the raw pieces went beyond what the checked stream told first."""
        told, length = len(self.checked[0][1]), 0
        for at, text in self.raw:
            length += len(text)
            if length > told:
                return at
        return self.raw[-1][0]


@dataclass(frozen=True)
class Figures:
    """Milliseconds from sending a request, but for the last three rows: medians, and 95th percentiles."""

    raw_ms: float
    checked_ms: float
    result_ms: float
    added_ms: float
    added_p95_ms: float
    sentence_ms: float
    passing_ms: float


class Reader:
    """Reads the three topics from now on."""

    def __init__(self, bootstrap: str, prefix: str) -> None:
        self._prefix = prefix
        config = {**kafka.reader(settings(bootstrap, prefix), f"{prefix}bench"), "enable.partition.eof": False}
        self._consumer = Consumer({**config, "fetch.wait.max.ms": 5})
        names = (topics.TOKENS, topics.RESULT_TOKENS, topics.RESULTS)
        parts = [TopicPartition(f"{prefix}{name}", number, 0) for name in names for number in range(PARTITIONS)]
        self._consumer.assign(parts)

    def read(self, into: dict[str, Timed]) -> None:
        """What has come, noted."""
        message = self._consumer.poll(0.05)
        if message is None:
            return
        if message.error() is not None:
            raise KafkaException(message.error())
        now, name, value = time.monotonic(), message.topic().removeprefix(self._prefix), message.value()
        if name == topics.TOKENS:
            raw = TokensGenerated.model_validate_json(value)
            if raw.text and raw.request_id in into:
                into[raw.request_id].raw.append((now, raw.text))
        elif name == topics.RESULT_TOKENS:
            checked = TokensRestored.model_validate_json(value)
            if checked.request_id in into:
                if checked.text:
                    into[checked.request_id].checked.append((now, checked.text))
                into[checked.request_id].state = checked.state
        else:
            result = RequestFinished.model_validate_json(value)
            if result.id in into:
                into[result.id].result = now

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()


def measure(stack: Stack, reader: Reader, requests: int, at_once: int) -> Figures:
    """So many requests, so many of them under way at a time; raises StackError where one does not come to its end."""
    timed: dict[str, Timed] = {}
    run, sent = uuid.uuid4().hex[:8], 0
    until = time.monotonic() + PATIENCE_S
    while sent < requests or not all(one.whole for one in timed.values()):
        if sent < requests and sum(not one.whole for one in timed.values()) < at_once:
            request_id = f"{run}-{sent}"
            body = {"prompt": _QUESTIONS[sent % len(_QUESTIONS)], "stream": True, "max_tokens": 64}
            timed[request_id] = Timed(time.monotonic())
            stack.send([Publishing(json.dumps(body).encode(), [("request-id", request_id.encode())])])
            sent += 1
        reader.read(timed)
        if time.monotonic() > until:
            raise StackError(f"{sum(not one.whole for one in timed.values())} of {sent} did not end\n{stack.tails()}")
    answered = [one for one in timed.values() if one.checked and one.raw and one.result is not None]
    if len(answered) < requests or any(one.state != "completed" for one in answered):
        raise StackError(f"{len(answered)} of {requests} streams were told to their end")
    added = [(one.checked[0][0] - one.raw[0][0]) * 1000 for one in answered]
    return Figures(
        raw_ms=_median([one.raw[0][0] - one.sent for one in answered]),
        checked_ms=_median([one.checked[0][0] - one.sent for one in answered]),
        result_ms=_median([(one.result or 0.0) - one.sent for one in answered]),
        added_ms=round(statistics.median(added), 1),
        added_p95_ms=round(statistics.quantiles(added, n=20)[-1], 1),
        sentence_ms=_median([one.sentence() - one.raw[0][0] for one in answered]),
        passing_ms=_median([one.checked[0][0] - one.sentence() for one in answered]),
    )


def _median(seconds: Sequence[float]) -> float:
    return round(statistics.median(seconds) * 1000, 1)


def main() -> None:
    """Measure, print a table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--requests", type=int, default=60, help="for each number at once")
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 8], help="how many requests are under way")
    options = parser.parse_args()
    console = Console()
    say = saying(console)
    found: dict[int, Figures] = {}
    with broker_for_tests() as broker, tempfile.TemporaryDirectory() as folder:
        stack = Stack(broker.bootstrap_servers, f"b{uuid.uuid4().hex[:10]}.", Path(folder), partitions=PARTITIONS)
        with stack:
            reader = Reader(broker.bootstrap_servers, stack.prefix)
            say("services are up; warming up")
            measure(stack, reader, 8, 2)
            for at_once in options.at_once:
                say(f"{options.requests} requests, {at_once} at once")
                found[at_once] = measure(stack, reader, options.requests, at_once)
            reader.close()
    table = Table("milliseconds", *(f"{at_once} at once" for at_once in found))
    rows = {
        "raw_ms": "sent to first raw text, median",
        "checked_ms": "sent to first checked text, median",
        "result_ms": "sent to the result, median",
        "added_ms": "added to the first text, median",
        "added_p95_ms": "added to the first text, 95th percentile",
        "sentence_ms": "of that, until the sentence was complete, median",
        "passing_ms": "of that, safety, postprocess and two topics, median",
    }
    for name, what in rows.items():
        table.add_row(what, *(f"{getattr(figures, name):.1f}" for figures in found.values()))
    console.print(table)
    lines = {str(at_once): vars(figures) for at_once, figures in found.items()}
    print(json.dumps({"requests": options.requests, "at_once": lines}))


if __name__ == "__main__":
    main()
