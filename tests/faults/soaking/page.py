"""The page of a run: `soak.md` and its plots, made of nothing but the samples."""

from __future__ import annotations

import textwrap
from pathlib import Path

from tests.faults.soaking.faults import LONG_PAUSE_S, PAUSED_S, TRANSACTION_TIMEOUT_S
from tests.faults.soaking.flatness import LAG_S, LIMITS, MIN_LIFE_S
from tests.faults.soaking.outcome import Outcome
from tests.faults.soaking.plots import draw
from tests.support.stack import SERVICES

_UNITS = {"rss_mb": "memory, MB", "fds": "descriptors", "threads": "threads", "lag": "lag, records"}
_ALLOWED = (
    f"{LIMITS['rss_mb'][0]:g} MB, {LIMITS['fds'][0]:g} descriptors, {LIMITS['threads'][0]:g} threads (or 5 % of the "
    "former where that is more)"
)


def write_page(run: Outcome, folder: Path) -> Path:
    """Write the page and the plots into a folder; the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    draw(run, folder)
    page = folder / "soak.md"
    page.write_text("\n\n".join(_blocks(run)) + "\n", encoding="utf-8")
    return page


def _broker(run: Outcome) -> str:
    if run.run.get("kill_broker", True):
        return "The broker is killed twice."
    return (
        "The broker stays up: one that is alone and comes back under load may itself leave transactions and groups "
        "hanging ([operations](../operations.md#a-transaction-that-hangs)), and brokers that fail have "
        "[a suite of their own](faults-kafka.md#three-brokers)."
    )


def _blocks(run: Outcome) -> list[str]:
    facts = run.run
    cut = "" if run.end else " **The run was cut off: these are the figures until then.**"
    return [
        f"# {facts['minutes']:g} minutes of mixed load and faults",
        _wrapped(
            f"`make soak` (`python -m tests.faults.soak --minutes {facts['minutes']:g} --rate {facts['rate']:g} "
            f"--seed {facts['seed']}`; `--from SAMPLES` makes this page again). The five services, one broker and "
            f"{facts['partitions']} partitions on loopback. Single interactive requests at random moments, streams, "
            "bulk lines in lots, conversations, four tenants, deadlines, cancellations, bad inputs, a fifth with "
            f"personal data. About every {facts['fault_every_s']:g} seconds a service, each in turn, is killed "
            f"(SIGKILL), terminated (SIGTERM) and started again, or halted (SIGSTOP) for {PAUSED_S[0]:g} to "
            f"{PAUSED_S[1]:g} seconds, now and then {LONG_PAUSE_S[0]:g} to {LONG_PAUSE_S[1]:g}, past the end of its "
            f"transactions, which may stand open for {TRANSACTION_TIMEOUT_S} s. In each half of the run some services "
            f"are only halted, so that every service has a process that lives for half of it. {_broker(run)} "
            f"`PENSTOCK_STATE_MAX_ENTRIES` is {facts['state_max_entries']:,}, a bound that the warm-up reaches."
        ),
        _wrapped(
            f"{facts['date']}, {facts['cores']} cores, {facts['machine']}, Python {facts['python']}; "
            f"{run.busy_percent():.0f} % of the cores at work, {run.cores_used():.2f} cores by services and broker."
            + cut
        ),
        "## Nothing lost, nothing twice",
        _sums(run),
        _faults(run),
        "## Flat",
        _wrapped(
            "A figure is the median over the last quarter of a span against that over its second quarter; the first "
            "quarter is warm-up. For memory (resident), descriptors and threads the span is the longest life of one "
            "process of the service, for lag the run. Allowed are "
            f"{_ALLOWED}; of lag, what is sent in {LAG_S:g} s. A life under {MIN_LIFE_S / 60:g} minutes is shown and "
            "not judged."
        ),
        _flatness(run),
        "![Resident memory of each process](soak-memory.svg)",
        "![File descriptors and threads](soak-handles.svg)",
        _wrapped(
            "Lag is by offsets, which the markers of transactions take up too: an idle group is a few behind. The "
            "end's is the services' own, which leaves markers out."
        ),
        "![Records behind](soak-lag.svg)",
        "## Latency",
        "From sending an interactive request to seeing its result, bad inputs, deadlines and cancellations left out.",
        _latencies(run),
        "![Latency by minute](soak-latency.svg)",
    ]


def _sums(run: Outcome) -> str:
    totals = run.totals
    statuses = ", ".join(f"{count:,} {status}" for status, count in sorted(totals["statuses"].items()))
    letters = run.end["dead_letters"] if run.end else "-"
    lag = "-" if run.lag_end is None else run.lag_end
    table = _table(
        ["minutes", "requests", "ended", "lost", "duplicates", "ended wrongly", "dead letters", "lag at the end"],
        [[f"{run.seconds / 60:.0f}", f"{totals['acknowledged']:,}", f"{totals['ended']:,}", run.lost,
          totals["duplicates"], totals["wrong_end"], letters, lag]],
    )  # fmt: skip
    held = f" For {totals['held_s']:.0f} s nothing was sent, since too much waited." if totals["held_s"] else ""
    return f"{table}\n\nEnds: {statuses}.{held}"


def _faults(run: Outcome) -> str:
    rows = []
    for service in (*SERVICES, "broker"):
        mine = [fault for fault in run.faults if fault["service"] == service]
        count = {what: sum(fault["fault"].endswith(what) for fault in mine) for what in ("kill", "terminate", "pause")}
        ended = sum(one["service"] == service for one in run.ended)
        rows.append([service, count["kill"], count["terminate"], count["pause"], ended])
    table = _table(["process", "killed", "terminated", "halted", "ended by itself"], rows)
    forced = sum(not fault["well"] for fault in run.faults_of("terminate"))
    text = (
        "A service ends by itself, with status 1, when a transaction of its has stood open past its time-out or a call "
        "into the client hangs, as where the broker goes away; it was started again, as a supervisor would. "
        f"Terminations that took SIGKILL in the end: {forced}."
    )
    return f"{table}\n\n{_wrapped(text)}"


def _flatness(run: Outcome) -> str:
    rows = [
        [one.service, _UNITS[one.measure], f"{one.span_s / 60:.1f}", f"{one.before:.1f}", f"{one.after:.1f}",
         f"{one.growth:+.1f}", f"{one.limit:.1f}", _verdict(one.judged, one.broken)]
        for one in run.growths
    ]  # fmt: skip
    return _table(["service", "what", "minutes", "second quarter", "last quarter", "growth", "allowed", ""], rows)


def _verdict(judged: bool, broken: bool) -> str:
    if not judged:
        return "too short"
    return "**grew**" if broken else "flat"


def _latencies(run: Outcome) -> str:
    rows = []
    for name, first, last in (("first quarter", 0, 0.25), ("last quarter", 0.75, 1), ("whole run", 0, 1)):
        found = run.latency(first, last)
        rows.append([name, found["p50_ms"], found["p95_ms"]])
    return _table(["", "p50, ms", "p95, ms"], rows)


def _table(head: list[str], rows: list[list[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 118, break_long_words=False, break_on_hyphens=False)
