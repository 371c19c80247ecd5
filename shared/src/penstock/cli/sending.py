"""Publishing records to `llm.requests` or its bulk sibling, each under a root span, and waiting for their results.

One thread does both: results are taken in while records are still going out, so that they can be shown as they
arrive and nothing piles up. Showing is left to the caller's callbacks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from types import TracebackType

from confluent_kafka import KafkaError, KafkaException, Message
from opentelemetry import trace

from penstock.cli.errors import CommandError
from penstock.cli.reading import LiveResults, result_of
from penstock.cli.records import Line, Outgoing, Stamp, compose, hard_limit
from penstock.cli.sent import Refused, Sent
from penstock.cli.streams import LiveStreams, OnPiece
from penstock.cli.target import Target
from penstock.contracts.errors import BackendUnavailable, LimitExceeded
from penstock.contracts.headers import REQUEST_ID
from penstock.contracts.results import RequestFinished
from penstock.contracts.topics import REQUESTS, in_lane
from penstock.runtime import telemetry
from penstock.runtime.kafka import enqueue

_TAKE_IN_EVERY_S = 0.05
_FLUSH_LIMIT_S = 60.0
_STREAM_TURN_S = 0.02
_STREAM_ENDS_S = 5.0
"""How much longer than its result a stream may take to end."""

OnResult = Callable[[RequestFinished, int], None]
"""Called with each first result and the line that it belongs to."""


def wall_ms() -> int:
    """The clock: milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class Sending:
    """One run of `send`. Results are read, from before the first record on, only where `wait` is set.

    Streamed pieces, likewise, only where `on_piece` is given.
    """

    def __init__(
        self,
        target: Target,
        stamp: Stamp,
        *,
        wait: bool,
        on_result: OnResult | None = None,
        on_line: Callable[[Line], None] | None = None,
        on_piece: OnPiece | None = None,
    ) -> None:
        self._plain = in_lane(REQUESTS, stamp.priority or "interactive")
        target.partitions(self._plain)  # a missing topic is told before anything is sent
        self.sent = Sent()
        self._claims = target.claims
        self.limit = hard_limit() if self._claims.store is None else self._claims.limit(self._plain)
        """The most bytes that a request may have."""
        self._topic = target.topic(self._plain)
        self._stamp = stamp
        self._on_result = on_result
        self._on_line = on_line
        self._live = LiveResults(target) if wait else None
        self._streams = LiveStreams(target, on_piece) if on_piece is not None else None
        self._answered_at = 0.0
        self._producer = target.producer()
        self._taken_in = time.monotonic()

    def send(self, lines: Iterable[Line]) -> None:
        """Publish all lines and wait until each was delivered or refused.

        Raises CommandError where the broker acknowledges nothing any more, KafkaException for a fatal error.
        """
        for line in lines:
            self.sent.lines += 1
            try:
                self._publish(self._checked_in(compose(line, self._stamp, wall_ms(), limit=self.limit)))
            except (LimitExceeded, BackendUnavailable) as error:
                self.sent.refuse(Refused(line.number, error.code, error.message))
            if self._on_line is not None:
                self._on_line(line)
            self._producer.poll(0)
            self._take_in_at_times()
        until = time.monotonic() + _FLUSH_LIMIT_S
        while self._producer.flush(0.1):
            self._take_in_at_times()
            if time.monotonic() > until:
                raise CommandError(
                    f"{len(self._producer)} records were not acknowledged within {_FLUSH_LIMIT_S:.0f} s; "
                    "the broker may be down: look at `penstock status`"
                )

    def wait(self, timeout_s: float) -> None:
        """Take results in until none is missing or `timeout_s` passed; `sent.missing` names what is."""
        until = time.monotonic() + timeout_s
        while self.waiting and (left := until - time.monotonic()) > 0:
            self._take_in(min(left, 0.5))

    @property
    def waiting(self) -> bool:
        """Whether a result is still to come, or the end of a stream whose result has come."""
        if self.sent.waiting:
            return True
        if self._streams is None or time.monotonic() - self._answered_at > _STREAM_ENDS_S:
            return False
        return any(
            not self._streams.ended(name, index)
            for name, result in self.sent.results.items()
            if result.status in ("completed", "blocked") and result.usage is not None
            for index in range(max(1, len(result.choices)))
        )

    def __enter__(self) -> Sending:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, traceback)
        if self._streams is not None:
            self._streams.close()

    def _checked_in(self, outgoing: Outgoing) -> Outgoing:
        if self._claims.store is None:
            return outgoing
        kept = self._claims.check_in(self._plain, outgoing.value, wall_ms())
        return replace(outgoing, value=kept.value, headers=(*outgoing.headers, *kept.headers))

    def _publish(self, outgoing: Outgoing) -> None:
        span = telemetry.start_send(trace.INVALID_SPAN, self._plain, self._topic)
        span.set_attribute(telemetry.REQUEST_ID, outgoing.request_id)

        def delivered(error: KafkaError | None, _: Message | None) -> None:
            if error is None:
                self.sent.delivered += 1
            else:
                telemetry.failed(span, error.name())
                self.sent.refuse(Refused(outgoing.line, error.name(), error.str()), outgoing.request_id)
            span.end()

        self.sent.published(outgoing.request_id, outgoing.line)
        headers: list[tuple[str, str | bytes | None]] = [*outgoing.headers, *telemetry.inject(span)]
        try:
            enqueue(
                self._producer,
                self._topic,
                outgoing.value,
                outgoing.key,
                headers=headers,
                on_delivery=delivered,
                waiting=self._take_in_at_times,
            )
        except KafkaException as error:
            delivered(error.args[0], None)
            if error.args[0].fatal():
                raise

    def _take_in_at_times(self) -> None:
        now = time.monotonic()
        if now - self._taken_in >= _TAKE_IN_EVERY_S:
            self._taken_in = now
            self._take_in(0)

    def _take_in(self, timeout_s: float) -> None:
        if self._live is None:
            return
        if self._streams is not None:
            self._streams.take_in(self.sent.line_of, min(timeout_s, _STREAM_TURN_S))
            timeout_s = min(timeout_s, _STREAM_TURN_S)
        for record in self._live.records(timeout_s):
            if (record.header(REQUEST_ID) or b"").decode("utf-8", "replace") not in self.sent.line_of:
                continue  # another's, whose value may be in a store that is none of ours
            result = result_of(record, self._claims)
            self._answered_at = time.monotonic()
            if self.sent.answered(result) and self._on_result is not None:
                self._on_result(result, self.sent.line_of[result.id])
