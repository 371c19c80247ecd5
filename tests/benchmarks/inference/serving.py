"""How a peer is given requests and what is noted of them: the same for all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tests.benchmarks.inference.workload import Request


@dataclass(slots=True)
class Served:
    """One request: its tokens and, for each, seconds after the start."""

    at: float
    times: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)

    @property
    def first(self) -> float:
        """Time to the first token, seconds."""
        return self.times[0] - self.at

    @property
    def latency(self) -> float:
        """Time to the last token, seconds."""
        return self.times[-1] - self.at

    @property
    def per_token(self) -> float | None:
        """Mean time between tokens, seconds; None of a single one."""
        if len(self.times) < 2:
            return None
        return (self.times[-1] - self.times[0]) / (len(self.times) - 1)


@dataclass(slots=True)
class Run:
    """All requests of one workload, served."""

    served: list[Served]
    seconds: float
    """From the start to the last token."""
    cpu: float
    """Processor seconds of the peer's process."""

    @property
    def tokens(self) -> int:
        """Tokens of all answers."""
        return sum(len(each.tokens) for each in self.served)

    @property
    def rate(self) -> float:
        """Tokens of answers a second."""
        return self.tokens / self.seconds


class Peer(Protocol):
    """What is measured: something that answers requests of token ids, greedily."""

    def serve(self, requests: Sequence[Request]) -> Run:
        """Answer all of them, each from when it comes."""
        ...


class Desk:
    """Hands out requests as their time comes, and notes each token. The clock starts when it is made."""

    def __init__(
        self,
        requests: Sequence[Request],
        *,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._coming = sorted(requests, key=lambda request: request.at)
        self._taken = 0
        self._clock = clock
        self._sleep = sleep
        self._requests = {request.key: request for request in requests}
        self._served = {request.key: Served(request.at) for request in requests}
        self._cpu = time.process_time()
        self._start = clock()

    def due(self, most: int | None = None) -> list[Request]:
        """Those whose time has come and that were not handed out, in order, at most so many."""
        now = self._clock() - self._start
        end = self._taken
        while end < len(self._coming) and self._coming[end].at <= now and (most is None or end - self._taken < most):
            end += 1
        due = self._coming[self._taken : end]
        self._taken = end
        return due

    def wait(self) -> bool:
        """Sleep until the next request's time; False where none is left."""
        if self._taken == len(self._coming):
            return False
        left = self._coming[self._taken].at - (self._clock() - self._start)
        if left > 0:
            self._sleep(left)
        return True

    def batch(self, most: int) -> list[Request]:
        """What is due, at most so many, waiting for the first; empty when all have been handed out."""
        while not (due := self.due(most)):
            if not self.wait():
                return []
        return due

    def note(self, tokens: dict[int, int]) -> None:
        """A pass has ended: key -> its next token. What is beyond an answer's length is not counted."""
        now = self._clock() - self._start
        for key, token in tokens.items():
            served = self._served[key]
            if len(served.tokens) < self._requests[key].tokens:
                served.times.append(now)
                served.tokens.append(token)

    def run(self) -> Run:
        """What was noted. Raises RuntimeError where an answer is not whole."""
        short = [key for key, each in self._served.items() if len(each.tokens) != self._requests[key].tokens]
        if short:
            raise RuntimeError(f"{len(short)} of {len(self._served)} requests have no whole answer, first {short[0]}")
        seconds = max(each.times[-1] for each in self._served.values())
        return Run(list(self._served.values()), seconds, time.process_time() - self._cpu)


def in_static_batches(requests: Sequence[Request], rows: int, serve: Callable[[Sequence[Request], Desk], None]) -> Run:
    """Answer all, up to `rows` at a time. A row's tokens count until its answer is whole, though the batch goes on."""
    desk = Desk(requests)
    while batch := desk.batch(rows):
        serve(batch, desk)
    return desk.run()
