"""Latency mode under kills: `python -m tests.faults.latency`.

A chain whose interactive lane is delivered at least once, its hops killed with SIGKILL: some at any moment, some
between an output and the commit of its input, which is then read again. Each request must have exactly one result
on `llm.results`, however often and in whatever ways it ended on the way. A control reads the same ends without
dropping repeats. Prints a table; the last line is JSON. Exit status 1 where a request was lost or ended twice, or
where the control shows no repeats.
"""

from __future__ import annotations

import random
import sys
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.faults.chain import Chain, Slot
from tests.faults.ending import CONTROL, READS
from tests.faults.load import STUCK_S, Load, Watch, id_of
from tests.faults.suite import Say, Suite, end
from tests.support.kafka import Ends, committed_offsets, read_all
from tests.support.stack import wait_until

from penstock.contracts import topics
from penstock.contracts.results import RequestFinished

HASTY = ("first", "second", "third")
RATE = 40.0


@dataclass(frozen=True)
class Report:
    """What came of a run."""

    requests: int
    lost: int
    duplicates: int
    kills: int
    between: int
    """Kills between an output and its input's commit."""
    zombies: int
    """Processes halted beyond their session that went on."""
    ends: int
    """What was written to the topic that the last hop reads."""
    statuses: dict[str, int]
    control_duplicates: int
    seconds: float

    @property
    def clean(self) -> bool:
        """Each request ended exactly once, and some would have ended twice."""
        return not (self.lost or self.duplicates) and self.control_duplicates > 0


class Faults:
    """What is done to the hops of one chain, one thing after another."""

    def __init__(self, chain: Chain, folder: Path, instances: int, chosen: random.Random) -> None:
        self._chain = chain
        self._folder = folder
        self._instances = instances
        self._chosen = chosen
        self.kills = self.between = self.zombies = 0

    def _slot(self, name: str) -> Slot:
        return Slot(name, str(self._chosen.randrange(self._instances)))

    def kill(self, name: str) -> None:
        """At any moment."""
        time.sleep(self._chosen.uniform(0, 0.3))
        self._chain.kill(self._slot(name))
        self.kills += 1

    def kill_between(self, name: str) -> None:
        """Between an output and the commit of its input, whichever instance comes to it first."""
        flag = flag_of(self._folder, name)
        flag.touch()
        wait_until(lambda: not flag.exists(), f"{name} at work", STUCK_S, tails=self._chain.tails)
        self.kills += 1
        self.between += 1

    def halt(self, name: str, seconds: float) -> None:
        """For longer than the session lasts; another instance takes over meanwhile."""
        self._chain.wait_ready()
        slot = self._slot(name)
        self._chain.freeze(slot)
        time.sleep(seconds)
        self._chain.thaw(slot)
        self.zombies += 1


def flag_of(folder: Path, name: str) -> Path:
    """The file that tells a hop to end itself."""
    return folder / f"{name}.kill"


def run(
    bootstrap: str,
    folder: Path,
    *,
    requests: int,
    rounds: int,
    zombies: int = 0,
    instances: int = 1,
    seed: int,
    say: Say = lambda _: None,
) -> Report:
    """Send at least so many requests while the hops are killed: in each round the first three and the last."""
    began = time.monotonic()
    chosen = random.Random(seed)
    folder.mkdir(exist_ok=True)
    prefix = f"l{uuid.uuid4().hex[:10]}."
    slots = [Slot(name, str(number)) for name in READS for number in range(instances if name != "careless" else 1)]
    chain = Chain(
        bootstrap,
        prefix,
        folder,
        slots=slots,
        module="tests.faults.ending",
        environment={"PENSTOCK_INTERACTIVE_DELIVERY": "at_least_once", "PENSTOCK_LANES": "interactive"},
        own=lambda slot: {"ENDING_KILL": str(flag_of(folder, slot.name))},
    )
    with (
        chain,
        Watch(bootstrap, prefix) as watch,
        Watch(bootstrap, prefix, CONTROL) as control,
        Load(bootstrap, prefix, rate=RATE, total=10**9) as load,
    ):
        say(f"chain up after {time.monotonic() - began:.0f} s")
        wait_until(lambda: watch.count() > 0, "the first result", STUCK_S, tails=chain.tails)
        faults = Faults(chain, folder, instances, chosen)
        for number in range(rounds):
            for name in chosen.sample([*HASTY, "last"], 4):
                if name == "last":
                    faults.kill(name)
                else:
                    faults.kill_between(name)
            if number < zombies:
                faults.halt(chosen.choice([*HASTY, "last"]), 9)
            say(f"round {number + 1} of {rounds}: {watch.count()} of {load.sent} requests have a result")
        wait_until(lambda: load.sent >= requests, "all requests sent", STUCK_S + requests / RATE)
        load.finish()
        sent = load.acknowledged
        _come_to_rest(chain, watch, control, sent)
        seen = Counter(id_of(one) for one in read_all(bootstrap, prefix, topics.RESULTS))
        shown = Counter(id_of(one) for one in read_all(bootstrap, prefix, CONTROL))
        statuses = Counter(_status(one.value()) for one in read_all(bootstrap, prefix, topics.RESULTS))
        return Report(
            requests=len(sent),
            lost=len(sent - seen.keys()),
            duplicates=sum(seen.values()) - len(seen),
            kills=faults.kills,
            between=faults.between,
            zombies=faults.zombies,
            ends=len(read_all(bootstrap, prefix, topics.SCREENED_COMPLETIONS)),
            statuses=dict(statuses),
            control_duplicates=sum(shown.values()) - len(shown),
            seconds=round(time.monotonic() - began, 1),
        )


def _come_to_rest(chain: Chain, watch: Watch, control: Watch, sent: set[str]) -> None:
    """Every request has its result, and every hop, back from its last kill, has committed all that it can read."""
    ends = {name: Ends(chain.bootstrap, chain.prefix, [topic]) for name, topic in READS.items()}

    def at_rest() -> bool:
        for name, topic in READS.items():
            read = committed_offsets(chain.bootstrap, chain.prefix, name, topic)
            if sum(max(0, offset) for offset in read.values()) < ends[name].written():
                return False
        return sent <= watch.seen and sent <= control.seen

    until = time.monotonic() + STUCK_S
    while not at_rest() and time.monotonic() < until:
        time.sleep(0.2)  # what is missing after that long is counted as lost


def _status(value: bytes | None) -> str:
    return RequestFinished.model_validate_json(value or b"").status


def summary(report: Report) -> dict[str, object]:
    """The last line."""
    return {
        "requests": report.requests,
        "lost": report.lost,
        "duplicates": report.duplicates,
        "kills": report.kills,
        "kills_between_output_and_commit": report.between,
        "zombies": report.zombies,
        "ends": report.ends,
        "statuses": report.statuses,
        "control_duplicates": report.control_duplicates,
        "seconds": report.seconds,
    }


def main() -> int:
    """Parse the command line, run, print; 1 where something is lost, doubled or unproven."""
    suite = Suite("latency", __doc__)
    suite.option("requests", 5_000)
    suite.option("rounds", 5, "four kills in each")
    suite.option("zombies", 3)
    suite.option("seed", 1)
    report = suite.once(run, instances=2)
    return end(summary(report), held=report.clean)


if __name__ == "__main__":
    sys.exit(main())
