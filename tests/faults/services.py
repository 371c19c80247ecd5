"""Conservation under kills: `python -m tests.faults.services`.

Mixed requests are published while every service in turn is killed with SIGKILL and started again; then
what a read_committed consumer sees on `llm.results` is counted against what was published. Records of
transactions that died are counted in the logs, to show that kills hit open ones; and a control without
transactions shows that the count can fail. Prints a table; the last line is JSON. Exit status 1 where a
request was lost or ended twice, or where either proof is missing.
"""

from __future__ import annotations

import random
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from rich.table import Table
from tests.faults.killing import Kill, Killer
from tests.faults.mix import ENDS, Mixed, mixed
from tests.faults.suite import Say, Suite, end
from tests.support.kafka import Follower, Publishing, Slot, aborted_records, place_of, results
from tests.support.stack import SERVICES, Stack, StackError

from penstock.contracts import topics

STUCK_S = 180.0
"""No new result for this long, with all services up, is a loss."""
WAVE_S = 3.0
"""How long a wave of requests takes to be published."""
FURTHER = 12
"""Most kills beyond those asked for, until one did harm."""
LAST_SIZE, LAST_S = 60, 6.0
"""A wave for a further kill: it goes on while the moment is waited for, whatever the load."""


@dataclass
class Report:
    """What came of a run."""

    requests: int
    kills: list[Kill]
    statuses: dict[str, int]
    terminal: int
    """Requests with at least one terminal result."""
    duplicates: int
    """Terminal results beyond the first of their request."""
    lost: int
    wrong_end: int
    """Requests that ended in a way their kind cannot."""
    unpublished: int
    """Results of requests that nobody sent."""
    dead_letters: int
    errors: dict[str, int]
    """Stage and code of each error -> results that carry it."""
    aborted: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def conserved(self) -> bool:
        """Each request ended exactly once, as its kind may, and each failed one has its dead letter."""
        wrong = self.duplicates or self.lost or self.wrong_end or self.unpublished
        return not wrong and self.terminal == self.requests and self.dead_letters == self.statuses.get("failed", 0)


def run(
    bootstrap: str,
    folder: Path,
    *,
    requests: int,
    kills: int,
    seed: int,
    further: int = 0,
    exactly_once: bool = True,
    victims: Sequence[str] = SERVICES,
    patience_s: float = 20.0,
    say: Say = lambda _: None,
) -> Report:
    """Send `requests` in as many waves as there are kills, kill one service in each, and count.

    No aimed kill is sure to hit: load can hide the moment. Where none did (see `proven`), up to `further`
    services more are killed, one at a time, each under a wave of its own besides `requests`.
    """
    chosen = random.Random(seed)
    began = time.monotonic()
    environment = {} if exactly_once else {"PENSTOCK_EXACTLY_ONCE": "false"}
    prefix = f"f{uuid.uuid4().hex[:10]}."
    with Stack(bootstrap, prefix, folder, environment=environment) as stack, ThreadPoolExecutor(1) as feeder:
        say(f"five services up after {time.monotonic() - began:.0f} s")
        killer = Killer(stack, chosen, transactional=exactly_once)
        lot = mixed(requests + further * LAST_SIZE, seed)
        sent: dict[Slot, str] = {}
        killed: list[Kill] = []

        def strike(service: str, wave: list[Mixed], seconds: float, *, aimed: bool) -> None:
            stack.wait_ready([service])
            feed = feeder.submit(stack.send, _paced(wave, seconds))
            killed.append(killer.kill(service, aimed=aimed, patience_s=patience_s))
            sent.update(zip(feed.result(), [one.kind for one in wave], strict=True))
            time.sleep(chosen.uniform(0, 1))
            stack.launch(service)
            say(f"kill {len(killed)}: {service}, halfway: {killed[-1].halfway}")

        def settle() -> Report:
            stack.wait_ready()
            _wait_for_all(stack, sent, say)
            time.sleep(3)  # a second result of a request would come now
            report = _count(stack, sent, killed)
            report.aborted = aborted_records(bootstrap, prefix) if exactly_once else {}
            return report

        for number, service in enumerate(_order(kills, victims, chosen)):
            strike(service, list(islice(lot, requests // (kills + 1))), WAVE_S, aimed=number % 3 != 2)
            time.sleep(chosen.uniform(0, 2))
        rest = list(islice(lot, requests - len(sent)))
        sent |= dict(zip(stack.send(one.publishing for one in rest), [one.kind for one in rest], strict=True))
        report = settle()
        for service in _order(further, victims, chosen):
            if proven(report, exactly_once=exactly_once):
                break
            say("no kill hit what it was aimed at: one more")
            strike(service, list(islice(lot, LAST_SIZE)), LAST_S, aimed=True)
            report = settle()
    report.seconds = round(time.monotonic() - began, 1)
    return report


def proven(report: Report, *, exactly_once: bool) -> bool:
    """Whether a kill did harm: with transactions some of its records were aborted, without some came twice."""
    return sum(report.aborted.values()) > 0 if exactly_once else report.duplicates > 0


def _paced(wave: Sequence[Mixed], seconds: float) -> Iterator[Publishing]:
    """A wave spread over some seconds, so that every stage is at work when its time comes."""
    for one in wave:
        yield one.publishing
        time.sleep(seconds / len(wave))


def _order(kills: int, victims: Sequence[str], chosen: random.Random) -> list[str]:
    """Every service in turn, in another order each round."""
    order: list[str] = []
    while len(order) < kills:
        order += chosen.sample(list(victims), len(victims))
    return order[:kills]


def _wait_for_all(stack: Stack, sent: dict[Slot, str], say: Say) -> None:
    waiting = set(sent)
    last = time.monotonic()
    with Follower(stack.bootstrap, stack.prefix, [topics.RESULTS]) as follower:
        while waiting:
            found = {place_of(result) for result in results(follower.poll(1.0))}
            if found & waiting:
                waiting -= found
                last = time.monotonic()
                say(f"{len(sent) - len(waiting)} of {len(sent)} requests have a result")
            if time.monotonic() - last > STUCK_S:
                return  # what is missing is counted as lost
            for name in SERVICES:
                if not stack.alive(name):
                    raise StackError(f"{name} ended by itself\n{stack.tails([name])}")


def _count(stack: Stack, sent: dict[Slot, str], killed: list[Kill]) -> Report:
    finished = stack.results()
    seen = Counter(place_of(result) for result in finished)
    known = {place: count for place, count in seen.items() if place in sent}
    first = {place_of(result): result.status for result in reversed(finished)}
    return Report(
        requests=len(sent),
        kills=killed,
        statuses=dict(Counter(first.values())),
        terminal=len(known),
        duplicates=sum(count - 1 for count in seen.values()),
        lost=len(sent) - len(known),
        wrong_end=sum(first[place] not in ENDS[sent[place]] for place in known),
        unpublished=len(seen) - len(known),
        dead_letters=len(stack.read(topics.DEAD_LETTERS)),
        errors=dict(Counter(f"{one.error.stage} {one.error.code}" for one in finished if one.error is not None)),
    )


def summary(report: Report, control: Report) -> dict[str, object]:
    """The last line."""
    return {
        "requests": report.requests,
        "terminal": report.terminal,
        "duplicates": report.duplicates,
        "lost": report.lost,
        "kills": len(report.kills),
        "open_transactions_hit": sum(kill.halfway for kill in report.kills),
        "aborted_records": sum(report.aborted.values()),
        "control_requests": control.requests,
        "control_kills": len(control.kills),
        "control_duplicates": control.duplicates,
        "control_lost": control.lost,
        "statuses": report.statuses,
        "dead_letters": report.dead_letters,
        "errors": report.errors,
        "wrong_end": report.wrong_end,
        "seconds": report.seconds,
    }


def tables(report: Report) -> tuple[Table, Table]:
    """Kills by service, aborted records by topic."""
    kills = Table("service", "kills", "at work", "in an open transaction")
    for service in SERVICES:
        mine = [kill for kill in report.kills if kill.service == service]
        hits = sum(kill.halfway for kill in mine)
        kills.add_row(service, str(len(mine)), str(sum(kill.at_work for kill in mine)), str(hits))
    aborted = Table("topic", "aborted records")
    for topic, count in report.aborted.items():
        aborted.add_row(topic, str(count))
    return kills, aborted


def main() -> int:
    """Parse the command line, run, print; 1 where something is lost, doubled or unproven."""
    suite = Suite("services", __doc__)
    suite.option("requests", 5_000)
    suite.option("kills", 25)
    suite.option("control-requests", 800)
    suite.option("control-kills", 8)
    suite.option("seed", 1)
    with suite.running() as running, running.broker() as bootstrap:
        options, say = running.options, running.say
        report = run(
            bootstrap,
            running.folder / "main",
            requests=options.requests,
            kills=options.kills,
            further=FURTHER,
            seed=options.seed,
            say=say,
        )
        say("control: the same without transactions")
        control = run(
            bootstrap,
            running.folder / "control",
            requests=options.control_requests,
            kills=options.control_kills,
            further=FURTHER,
            seed=options.seed,
            exactly_once=False,
            victims=("anonymize", "safety", "inference", "postprocess"),
            say=say,
        )
    shown = proven(report, exactly_once=True) and proven(control, exactly_once=False)
    return end(summary(report, control), *tables(report), held=report.conserved and shown)


if __name__ == "__main__":
    sys.exit(main())
