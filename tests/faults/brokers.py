"""Conservation while brokers die: `python -m tests.faults.brokers`.

Three brokers (three replicas, two in sync), a chain of three passing services on the real runtime, and a steady load.
One broker after another is ended with SIGKILL and started again; then two at once, while more requests are
sent. What a read_committed consumer sees is counted against what the brokers acknowledged. A control that
asks the leader alone for its word (acks=1) loses requests the same count finds. Prints a table; the last
line is JSON. Exit status 1 where a request was lost or doubled, where two missing brokers did not stop
acknowledgements, or where the control lost nothing.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from tests.faults.chain import Chain
from tests.faults.load import STUCK_S, Borne, Load, Sums, Watch, count, wait_for_all
from tests.faults.suite import Say, Suite, end
from tests.support.cluster import BROKERS, Cluster
from tests.support.stack import wait_until

from penstock.contracts import topics

MOVED = 25
"""So many new results after a kill show that work has gone on without the broker."""
FIRST, LOST = 20, 200
"""The control's records: the first answer a fetch that already waits at the leader, the others are lost."""


@dataclass(frozen=True, kw_only=True)
class Report(Borne):
    """What came of a run."""

    broker_kills: int
    sent_while_two_down: int
    acknowledged_while_two_down: int
    results_while_two_down: int
    two_down_s: float
    recovered_s: float
    """From the second start of the two brokers to the last result."""
    stuck: int
    """Calls into the client that did not return, for which a service ended itself."""

    @property
    def held(self) -> bool:
        """Everything acknowledged came out once, and nothing was acknowledged by a single broker."""
        stopped = not self.acknowledged_while_two_down and not self.results_while_two_down
        return self.sums.conserved and stopped and self.sums.acknowledged > self.sent_while_two_down


def run(
    cluster: Cluster,
    folder: Path,
    *,
    requests: int,
    held_back: int,
    rate: float,
    kills: int,
    two_down_s: float,
    say: Say = lambda _: None,
) -> Report:
    """Send `requests`, the last `held_back` of them while two brokers are down.

    At least `kills` brokers are killed one after another, and on until the others are all sent.
    """
    began = time.monotonic()
    cluster.mend()
    prefix = f"b{uuid.uuid4().hex[:10]}."
    steady = requests - held_back
    with (
        Chain(cluster.bootstrap, prefix, folder, replication=BROKERS) as chain,
        Watch(cluster.bootstrap, prefix) as watch,
        Load(cluster.bootstrap, prefix, rate=rate, total=steady) as load,
    ):
        say(f"three brokers and three services up after {time.monotonic() - began:.0f} s")
        wait_until(lambda: watch.count() > 0, "a first result", 120)
        killed = 0
        for node in itertools.cycle(range(1, BROKERS + 1)):
            if killed >= kills and load.done:
                break
            _kill_and_restart(cluster, node, watch, load, prefix)
            killed += 1
            say(f"kill {killed}: broker {node}; {watch.count()} of {load.sent} results, "
                f"longest stall {watch.longest_gap_s:.1f} s, services started again: {chain.restarts}")  # fmt: skip
        wait_for_all(load, watch, chain.tails)
        longest = watch.longest_gap_s

        say("two brokers down")
        cluster.kill(1, 2)
        acknowledged, seen = len(load.acknowledged), watch.count()
        down = time.monotonic()
        load.send(held_back)
        while time.monotonic() - down < two_down_s:
            time.sleep(0.2)
        acknowledged_then, seen_then = len(load.acknowledged) - acknowledged, watch.count() - seen
        outage = time.monotonic() - down
        back = time.monotonic()
        cluster.restart([1, 2])
        watch.rest()
        wait_for_all(load, watch, chain.tails)
        recovered = time.monotonic() - back
        say(f"all there {recovered:.1f} s after the two came back")
        cluster.wait_whole()
        load.finish()
        sums = count(cluster.bootstrap, prefix, load.acknowledged)
        return Report(
            sums=sums,
            broker_kills=killed + 2,
            longest_stall_s=round(longest, 1),
            sent_while_two_down=held_back,
            acknowledged_while_two_down=acknowledged_then,
            results_while_two_down=seen_then,
            two_down_s=round(outage, 1),
            recovered_s=round(recovered, 1),
            service_restarts=chain.restarts,
            stuck=chain.stuck(),
            seconds=round(time.monotonic() - began, 1),
        )


def _kill_and_restart(cluster: Cluster, node: int, watch: Watch, load: Load, prefix: str) -> None:
    """Kill one broker, let the others take over, and bring it back into every partition."""
    cluster.kill(node)
    results = f"{prefix}{topics.RESULTS}"
    wait_until(lambda: node not in cluster.leaders(results).values(), f"other leaders than broker {node}", 120)
    before = watch.count()
    wait_until(
        lambda: watch.count() >= before + MOVED or (load.done and watch.count() == load.sent),
        f"results without broker {node}",
        STUCK_S,
    )
    cluster.restart([node])
    cluster.wait_whole()


def control(cluster: Cluster, folder: Path, *, say: Say = lambda _: None) -> Sums:
    """The same count where the leader's word alone is asked for: it dies before the others have copied.

    The two others are halted (SIGSTOP) while it acknowledges, so that the loss is certain, and it stays away: that
    one of them leads has made it final.
    """
    cluster.mend()
    prefix = f"k{uuid.uuid4().hex[:10]}."
    careless = {"acks": "1", "enable.idempotence": False}
    with (
        Chain(cluster.bootstrap, prefix, folder, replication=BROKERS) as chain,
        Watch(cluster.bootstrap, prefix) as watch,
        Load(cluster.bootstrap, prefix, rate=50, total=100, config=careless) as load,
    ):
        wait_until(lambda: load.done and watch.count() == load.sent, "the results before the fault", STUCK_S)
        victim = cluster.leaders(f"{prefix}{topics.PREPROCESSED}")[0]
        others = [node for node in range(1, BROKERS + 1) if node != victim]
        for node in others:
            os.kill(cluster.pid(node), signal.SIGSTOP)
        try:
            for number in (FIRST, LOST):
                load.send(number, partition=0)
                wait_until(lambda: load.waiting == 0, "the leader's word", 60)
            cluster.kill(victim)
        finally:
            for node in others:
                os.kill(cluster.pid(node), signal.SIGCONT)
        say(f"broker {victim} killed with {FIRST + LOST} requests that it alone acknowledged")
        wait_until(
            lambda: cluster.leaders(f"{prefix}{topics.PREPROCESSED}")[0] not in (victim, -1), "another leader", 120
        )
        before = load.acknowledged
        load.send(100)  # behind all that is left in each partition

        def through() -> bool:
            return load.waiting == 0 and load.acknowledged - before <= watch.seen

        wait_until(through, "the last results", STUCK_S, tails=chain.tails)
        load.finish()
        return count(cluster.bootstrap, prefix, load.acknowledged)


def main() -> int:
    """Parse the command line, run, print; 1 where something is lost, doubled or unproven."""
    suite = Suite("brokers", __doc__)
    suite.option("requests", 20_000)
    suite.option("held-back", 1_000, "of these, sent while two brokers are down")
    suite.option("rate", 60.0, "requests per second")
    suite.option("kills", 6, "fewest kills one after another")
    suite.option("two-down", 25.0, "seconds")
    with suite.running() as running, Cluster() as cluster:
        options, say = running.options, running.say
        say(f"brokers' logs in {cluster.folder}")
        report = run(
            cluster,
            running.folder / "main",
            requests=options.requests,
            held_back=options.held_back,
            rate=options.rate,
            kills=options.kills,
            two_down_s=options.two_down,
            say=say,
        )
        say("control: acks=1")
        careless = control(cluster, running.folder / "control", say=say)
    return end(report.summary(careless), held=report.held and careless.lost > 0)


if __name__ == "__main__":
    sys.exit(main())
