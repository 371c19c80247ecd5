"""Overload: `python -m tests.faults.overload`.

The inference service with the embedded model gets ten times the requests that it can do, most of them with deadlines
of a few seconds, each with a prompt of its own. What it can do is measured in the same run, before and after, with
more requests waiting than run. Counted are ends: each request has exactly one, a completion or a terminal result.
Goodput is completions within their deadlines. Prints a table; the last line is JSON. Exit status 1 where a request is
lost or ends twice, memory grows, or goodput falls below 90% of the mean of before and after.
"""

from __future__ import annotations

import sys
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.faults.overloading import Endings, Offer, Service, Shape
from tests.faults.suite import Say, Suite, end
from tests.support.stack import wait_until

LOWEST_GOODPUT = 0.9
MOST_GROWTH_MB = 200.0
"""Above what it held at saturation: what is taken ahead, and what the client fetches ahead, has limits in settings."""
WAITING = 64
"""At saturation so many requests more than have ended, at least; half of them wait at any time."""
STUCK_S = 120.0


@dataclass(frozen=True)
class Report:
    """What came of a run."""

    requests: int
    offered_per_s: float
    peak_per_s: float
    """The mean of before and after."""
    peak_before_per_s: float
    peak_after_per_s: float
    goodput_per_s: float
    goodput_ratio: float
    completed: int
    completed_late: int
    """After their deadlines, by the time of the record: generation ended within."""
    expired: int
    told_early: int
    """Expired before the deadline, because no answer could have come in time."""
    told_early_ms_p50: int
    failed: int
    """Ended in any other way."""
    lost: int
    duplicates: int
    rss_saturated_mb: float
    rss_highest_mb: float
    seconds: float

    @property
    def conserved(self) -> bool:
        return not (self.lost or self.duplicates or self.failed)

    @property
    def bounded(self) -> bool:
        return self.rss_highest_mb - self.rss_saturated_mb <= MOST_GROWTH_MB

    @property
    def held(self) -> bool:
        return self.conserved and self.bounded and self.expired > 0 and self.goodput_ratio >= LOWEST_GOODPUT


def run(
    bootstrap: str,
    folder: Path,
    *,
    times: float,
    seconds: float,
    saturated_s: float,
    seed: int,
    say: Say,
    shape: Shape = Shape(),  # noqa: B008  # frozen
) -> Report:
    """Saturate, overload, saturate again, drain, count."""
    began = time.monotonic()
    prefix = f"o{uuid.uuid4().hex[:10]}."
    with Service(bootstrap, prefix, folder) as service, Endings(bootstrap, prefix) as endings:
        offer = Offer(bootstrap, prefix, shape, seed)
        offer.send(WAITING, patient=True)
        wait_until(lambda: endings.count() >= WAITING // 2, "first answers", STUCK_S)
        before = _saturated(service, offer, endings, saturated_s)
        saturated_mb = service.rss_mb()
        say(f"{before:.1f} a second at most")
        first = len(offer.deadlines)
        highest_mb, from_ms = saturated_mb, time.time_ns() // 1_000_000
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            offer.at_rate(times * before, min(1.0, left))
            highest_mb = max(highest_mb, service.rss_mb())
            if int(left) % 10 == 0:
                say(f"{len(offer.deadlines)} sent, {endings.count()} ended, {highest_mb:.0f} MiB")
        to_ms = time.time_ns() // 1_000_000
        offered = list(offer.deadlines)[first:]
        _drain(service, offer, endings)
        after = _saturated(service, offer, endings, saturated_s)
        say(f"{after:.1f} a second at most, afterwards")
        highest_mb = max(highest_mb, service.rss_mb())
        _drain(service, offer, endings)
        ends = endings.all()
        duplicates = endings.duplicates
        if len(ends) < len(offer.deadlines):
            say(f"{len(offer.deadlines) - len(ends)} have not ended; the service's log:\n{service.tail()}")
    peak = (before + after) / 2
    # what was still waiting at the beginning counts too: it took its part of the time
    good = [
        request
        for request, one in ends.items()
        if one.status == "completed"
        and from_ms <= one.at_ms < to_ms
        and one.at_ms <= (offer.deadlines[request] or to_ms)
    ]
    goodput = len(good) / (to_ms - from_ms) * 1000
    statuses = [ends[request].status for request in offer.deadlines if request in ends]
    early = sorted(
        (offer.deadlines[request] or 0) - one.at_ms
        for request, one in ends.items()
        if one.status == "expired" and one.at_ms < (offer.deadlines[request] or 0)
    )
    return Report(
        requests=len(offer.deadlines),
        offered_per_s=round(len(offered) / seconds, 1),
        peak_per_s=round(peak, 2),
        peak_before_per_s=round(before, 2),
        peak_after_per_s=round(after, 2),
        goodput_per_s=round(goodput, 2),
        goodput_ratio=round(goodput / peak, 3),
        completed=statuses.count("completed"),
        completed_late=sum(
            one.status == "completed" and one.at_ms > (offer.deadlines[request] or one.at_ms)
            for request, one in ends.items()
        ),
        expired=statuses.count("expired"),
        told_early=len(early),
        told_early_ms_p50=early[len(early) // 2] if early else 0,
        failed=len(statuses) - statuses.count("completed") - statuses.count("expired"),
        lost=len(offer.deadlines.keys() - ends.keys()),
        duplicates=duplicates,
        rss_saturated_mb=round(saturated_mb, 1),
        rss_highest_mb=round(highest_mb, 1),
        seconds=round(time.monotonic() - began, 1),
    )


def _saturated(service: Service, offer: Offer, endings: Endings, seconds: float) -> float:
    """Answers a second while more requests wait than run, none of them with a deadline."""

    def fill() -> None:
        offer.send(max(0, WAITING - (len(offer.deadlines) - endings.count())), patient=True)

    fill()
    start = endings.count()
    wait_until(lambda: endings.count() > start, "an answer", STUCK_S)
    start, began = endings.count(), time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        fill()
        time.sleep(0.05)
        service.rss_mb()
    return (endings.count() - start) / passed


def _drain(service: Service, offer: Offer, endings: Endings) -> None:
    """Until all have ended, or nothing has for long: what is missing is counted as lost."""
    offer.flush()
    while endings.count() < len(offer.deadlines) and endings.since_last_s() < STUCK_S:
        service.rss_mb()
        time.sleep(0.1)
    time.sleep(1.0)  # a second end of a request would come now


def main() -> int:
    """Parse the command line, run, print."""
    suite = Suite("overload", __doc__)
    suite.option("seconds", 300, "of overload")
    suite.option("times", 10.0, "the rate, beside what the service can do")
    suite.option("saturated-s", 30, "seconds of each measurement of what it can do")
    suite.option("seed", 1)
    report = suite.once(run)
    return end(asdict(report), held=report.held)


if __name__ == "__main__":
    sys.exit(main())
