"""Peers take turns at the same work: all of it at once, as a Poisson process, and each size alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Protocol

from tests.benchmarks.inference.serving import Run
from tests.benchmarks.inference.workload import Request, alone, poisson, requests

PROMPT = 512
"""Tokens of the prompt whose prefill is timed."""
STEPS = 64
"""Tokens whose decoding is timed, one row and all rows."""
SHORT_PROMPT = 16


class Sitting(Protocol):
    """A peer in its process: `seats.Seat`."""

    def call(self, method: str, *args: object) -> Run:
        """Run a method of the peer."""
        ...


@dataclass
class Measured:
    """One peer: a run for each repeat."""

    burst: list[Run] = field(default_factory=list)
    poisson: list[Run] = field(default_factory=list)
    prompt: list[Run] = field(default_factory=list)
    """One long prompt and one token."""
    one: list[Run] = field(default_factory=list)
    """One row that decodes."""
    full: list[Run] = field(default_factory=list)
    """All rows, decoding."""

    def rate(self) -> float:
        """Tokens of answers a second, all requests at once."""
        return median(run.rate for run in self.burst)

    def prefill(self) -> float:
        """Tokens of a prompt a second, alone."""
        return median(PROMPT / run.served[0].first for run in self.prompt)

    def decode(self, *, full: bool = False) -> float:
        """Passes a second over one row, or over all rows while all of them decode."""
        return median(passes(run) for run in (self.full if full else self.one))


def passes(run: Run) -> float:
    """Passes a second from when the last row had its first token until the first row had its last."""
    start = max(each.times[0] for each in run.served)
    end = min(each.times[-1] for each in run.served)
    return sum(start < at <= end for at in run.served[0].times) / (end - start)


@dataclass(frozen=True)
class Work:
    """What is asked of each peer."""

    burst: Sequence[Request]
    vocabulary: int
    rows: int
    repeats: int
    load: float
    """Of the Poisson process: requests a second, as a share of what static batches serve of the burst."""


def take_turns(
    seats: Mapping[str, Sitting], work: Work, reference: str, say: Callable[[str], None]
) -> tuple[dict[str, Measured], float]:
    """Name -> what was measured, and the rate of the Poisson process, requests a second."""
    measured = {name: Measured() for name in seats}
    for seat in seats.values():
        seat.call("serve", requests(2, work.vocabulary, prompts=(SHORT_PROMPT, PROMPT), answers=(4, 8), seed=9))
    rate = 0.0
    for repeat in range(work.repeats):
        for kind, made in _small(work, repeat):
            for name, seat in seats.items():
                getattr(measured[name], kind).append(seat.call("serve", made))
        for name, seat in seats.items():
            run = seat.call("serve", work.burst)
            measured[name].burst.append(run)
            say(f"repeat {repeat + 1} of {work.repeats}: {name} {run.rate:,.1f} tokens/s, all at once")
        if not rate:
            rate = work.load * len(work.burst) / measured[reference].burst[0].seconds
        coming = poisson(work.burst, rate, seed=2 + repeat)
        for name, seat in seats.items():
            run = seat.call("serve", coming)
            measured[name].poisson.append(run)
            say(f"repeat {repeat + 1} of {work.repeats}: {name} {run.seconds:,.0f} s, Poisson at {rate:.2f}/s")
    return measured, rate


def _small(work: Work, repeat: int) -> Iterator[tuple[str, list[Request]]]:
    """The sizes alone, three times in the first repeat: they are short, and a median of one says little."""
    for turn in range(3 if repeat == 0 else 1):
        seed = 100 * repeat + turn
        yield "prompt", alone(work.vocabulary, PROMPT, 1, seed=seed)
        yield "one", alone(work.vocabulary, SHORT_PROMPT, STEPS, seed=seed)
        yield "full", alone(work.vocabulary, SHORT_PROMPT, STEPS, count=work.rows, seed=seed)
