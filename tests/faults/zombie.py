"""A process that was taken for dead and goes on: `python -m tests.faults.zombie`.

Two instances of a service, one partition: one owns it, the other stands by. The owner is halted (SIGSTOP),
within a batch or with a transaction open, for longer than its session lasts; the other takes over and does the
work; then the first goes on (SIGCONT) where it stood. What it writes and a read_committed consumer sees is a
result beyond the first of its request. A control without transactions shows such results. Prints a table;
the last line is JSON. Exit status 1 where one was seen, a request was lost, or the control showed none.
"""

from __future__ import annotations

import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from tests.faults.chain import Chain, Slot
from tests.faults.killing import SETTLE_S
from tests.faults.load import STUCK_S, Load, Sums, Watch, count, wait_for_all
from tests.faults.suite import Say, Suite, end
from tests.support.kafka import Ends
from tests.support.stack import StackError, wait_until

from penstock.contracts import topics

SLOTS = (Slot("first", "0"), Slot("first", "1"))
BATCH_MS = 100
"""A batch takes this long, so that there is something to be halted within."""
RATE = 60.0
AIM_S = 60.0
AWAKE = ("runtime.partitions.lost", "runtime.partitions.revoked", "runtime.transaction.aborted",
         "runtime.process.fenced", "runtime.process.failed")  # fmt: skip
"""What a process logs once it has noticed that it was taken for dead."""
REFUSED = ("runtime.transaction.aborted", "runtime.process.fenced", "runtime.process.failed")
"""What it logs where it tried to write all the same."""


@dataclass(frozen=True)
class Report:
    """What came of a run."""

    sums: Sums
    in_batch: int
    in_transaction: int
    """Zombies by where they had been halted."""
    refused: int
    """Zombies whose writing was refused."""
    service_restarts: int
    seconds: float

    @property
    def visible(self) -> int:
        """Results that a zombie wrote and a read_committed consumer sees."""
        return self.sums.duplicates


def run(bootstrap: str, folder: Path, *, rounds: int, exactly_once: bool = True, say: Say = lambda _: None) -> Report:
    """Make `rounds` zombies, in turn halted within a batch and with a transaction open.

    Without transactions all are halted within a batch, and the first that shows ends it.
    """
    began = time.monotonic()
    prefix = f"z{uuid.uuid4().hex[:10]}."
    environment = {"PASSING_PAUSE_MS": str(BATCH_MS), "PENSTOCK_EXACTLY_ONCE": str(exactly_once).lower()}
    halted = {"batch": 0, "transaction": 0}
    refused = 0
    with (
        Chain(bootstrap, prefix, folder, partitions=1, slots=SLOTS, environment=environment, wait=False) as chain,
        Watch(bootstrap, prefix, topics.ANONYMIZED) as watch,
        Load(bootstrap, prefix, rate=RATE, total=10**9) as load,
    ):
        ends = Ends(bootstrap, prefix, [topics.ANONYMIZED])
        for number in range(rounds):
            zombie = _owner(chain)
            where = "transaction" if exactly_once and number % 2 else "batch"
            _halt(chain, zombie, ends if where == "transaction" else None)
            halted[where] += 1
            _wait_for_the_other(chain, zombie, load.acknowledged, watch)
            before, tried = _said(chain, zombie, AWAKE), _said(chain, zombie, REFUSED)
            chain.thaw(zombie)
            wait_until(
                lambda zombie=zombie, before=before: _said(chain, zombie, AWAKE) > before,  # type: ignore[misc]  # as above
                "the zombie to notice",
                STUCK_S,
                tails=chain.tails,
            )
            refused += _said(chain, zombie, REFUSED) > tried
            say(f"zombie {number + 1} of {rounds}, halted in a {where}: {watch.count()} requests done")
            if not exactly_once and count(bootstrap, prefix, load.acknowledged, topics.ANONYMIZED).duplicates:
                break
        load.finish()
        wait_for_all(load, watch, chain.tails)
        return Report(
            sums=count(bootstrap, prefix, load.acknowledged, topics.ANONYMIZED),
            in_batch=halted["batch"],
            in_transaction=halted["transaction"],
            refused=refused,
            service_restarts=chain.restarts,
            seconds=round(time.monotonic() - began, 1),
        )


def _owner(chain: Chain) -> Slot:
    """The one instance that is at work; a zombie may go on for a while before it hears that it is one."""
    before = {slot: len(chain.journal(slot)) for slot in SLOTS}
    working: list[Slot] = []

    def found() -> bool:
        lines = {slot: len(chain.journal(slot)) for slot in SLOTS}
        grown = [slot for slot in SLOTS if lines[slot] > before[slot]]
        if len(grown) > 1:
            before.update(lines)
            return False
        working[:] = [slot for slot in grown if lines[slot] > before[slot] + 2]
        return bool(working)

    wait_until(found, "an instance at work", STUCK_S, tails=chain.tails)
    return working[0]


def _halt(chain: Chain, slot: Slot, ends: Ends | None) -> None:
    """Halt a process within a batch, or, given where its output ends, with records of an open transaction there."""
    until = time.monotonic() + AIM_S
    while time.monotonic() < until:
        if ends is not None and not ends.open():
            continue
        chain.freeze(slot)
        time.sleep(SETTLE_S)
        if ends.open() if ends is not None else chain.journal(slot)[-1] == "begin":
            return
        chain.thaw(slot)
        time.sleep(0.03)
    raise StackError(f"{slot} was never halted where it should be\n{chain.tails()}")


def _wait_for_the_other(chain: Chain, zombie: Slot, due: set[str], watch: Watch) -> None:
    """Until another instance is at work and all that is due is done.

    What is due alone would not show it: on a busy machine the broker may yet commit what the zombie had asked for.
    """
    others = {slot: len(chain.journal(slot)) for slot in SLOTS if slot != zombie}

    def taken_over() -> bool:
        return due <= watch.seen and any(len(chain.journal(slot)) > lines for slot, lines in others.items())

    wait_until(taken_over, "the other to take over", STUCK_S, tails=chain.tails)


def _said(chain: Chain, slot: Slot, names: tuple[str, ...]) -> int:
    return sum(len(chain.events(slot, name)) for name in names)


def summary(report: Report, careless: Report) -> dict[str, object]:
    """The last line."""
    return {
        "zombies": report.in_batch + report.in_transaction,
        "halted_in_a_batch": report.in_batch,
        "halted_in_a_transaction": report.in_transaction,
        "refused": report.refused,
        "zombie_visible": report.visible,
        "lost": report.sums.lost,
        "state_wrong": report.sums.state_wrong,
        "requests": report.sums.acknowledged,
        "service_restarts": report.service_restarts,
        "control_zombies": careless.in_batch,
        "control_visible": careless.visible,
        "seconds": report.seconds,
    }


def main() -> int:
    """Parse the command line, run, print; 1 where a zombie was seen or nothing is proven."""
    suite = Suite("zombie", __doc__)
    suite.option("rounds", 10)
    with suite.running() as running, running.broker() as bootstrap:
        rounds, say = running.options.rounds, running.say
        report = run(bootstrap, running.folder / "main", rounds=rounds, say=say)
        say("control: the same without transactions")
        careless = run(bootstrap, running.folder / "control", rounds=rounds, exactly_once=False, say=say)
    return end(summary(report, careless), held=report.sums.conserved and careless.visible > 0)


if __name__ == "__main__":
    sys.exit(main())
