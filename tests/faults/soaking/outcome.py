"""What a file of samples says of its run, whole or cut off."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.soaking.flatness import Growth, growths

Line = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """One run."""

    run: Line
    samples: list[Line]
    minutes: list[Line]
    faults: list[Line]
    ended: list[Line]
    """Services that ended by themselves and were started again."""
    end: Line | None
    """None where the run was cut off."""
    growths: list[Growth]

    @property
    def totals(self) -> Line:
        """The last figures there are of the requests."""
        return self.end or (self.minutes[-1] if self.minutes else {})

    @property
    def lost(self) -> int:
        """Requests without a result: at the end all, of a run cut off those that had waited for too long."""
        return int(self.end["lost"] if self.end else self.totals.get("overdue", 0))

    @property
    def seconds(self) -> float:
        """How long there was load."""
        return float(min(self.run["minutes"] * 60, self.samples[-1]["t"] if self.samples else 0.0))

    @property
    def conserved(self) -> bool:
        """Every request ended once, as its kind may, and each failed one has its dead letter."""
        totals = self.totals
        wrong = self.lost or any(totals[name] for name in ("refused", "duplicates", "wrong_end", "unpublished"))
        return not wrong and (self.end is None or self.end["dead_letters"] == self.end["statuses"].get("failed", 0))

    @property
    def good(self) -> bool:
        """Whole, conserved and flat, with no lag left."""
        return (
            self.end is not None
            and self.lag_end == 0
            and self.conserved
            and not any(one.broken for one in self.growths)
        )

    @property
    def lag_end(self) -> int | None:
        """What all services together are behind at the end; None where one of them does not say."""
        lags = list(self.end["lag_end"].values()) if self.end else [None]
        return None if None in lags else sum(lags)

    def faults_of(self, what: str) -> list[Line]:
        """Faults of one kind."""
        return [fault for fault in self.faults if fault["fault"].startswith(what)]

    def latency(self, first: float, last: float) -> dict[str, int | None]:
        """p50 and p95 over a part of the load's minutes, given as shares of it."""
        count = len(self.minutes)
        chosen = self.minutes[int(first * count) : max(int(last * count), int(first * count) + 1)]
        pooled = [value for minute in chosen for value in minute["latencies_ms"]]
        return {"p50_ms": percentile(pooled, 0.5), "p95_ms": percentile(pooled, 0.95)}

    def busy_percent(self) -> float:
        """Mean share of the machine's cores at work, by whatever."""
        busy = [sample["busy"] for sample in self.samples]
        return round(sum(busy) / len(busy), 1) if busy else 0.0

    def cores_used(self) -> float:
        """Mean cores that the services and the broker used by themselves."""
        used: Counter[int] = Counter()
        first: dict[int, float] = {}
        for sample in self.samples:
            for facts in sample["processes"].values():
                before = facts["cpu_s"] if facts["age_s"] > sample["t"] else 0.0  # what it used before the load
                used[facts["pid"]] = facts["cpu_s"] - first.setdefault(facts["pid"], before)
        return round(used.total() / self.seconds, 2) if self.samples else 0.0

    def summary(self) -> dict[str, object]:
        """The last line."""
        totals = self.totals
        measured = {measure: [one for one in self.growths if one.measure == measure] for measure in _MEASURES}
        return {
            "minutes": round(self.seconds / 60, 1),
            "whole": self.end is not None,
            "requests": totals.get("acknowledged", 0),
            "ended": totals.get("ended", 0),
            "lost": self.lost,
            "duplicates": totals.get("duplicates", 0),
            "wrong_end": totals.get("wrong_end", 0),
            "dead_letters": self.end["dead_letters"] if self.end else None,
            "statuses": totals.get("statuses", {}),
            "kills": len(self.faults_of("kill")),
            "terminations": len(self.faults_of("terminate")),
            "terminations_forced": sum(not fault["well"] for fault in self.faults_of("terminate")),
            "pauses": len(self.faults_of("pause")),
            "broker_restarts": len(self.faults_of("broker")),
            "ended_by_themselves": len(self.ended),
            "rss_growth_mb": {one.service: round(one.growth, 2) for one in measured["rss_mb"]},
            "fd_growth": _worst(measured["fds"]),
            "thread_growth": _worst(measured["threads"]),
            "lag_growth": _worst(measured["lag"]),
            "lag_end": self.lag_end,
            "growth_judged": bool(self.growths) and all(one.judged for one in self.growths),
            "flat": not any(one.broken for one in self.growths),
            "p95_first_quarter_ms": self.latency(0, 0.25)["p95_ms"],
            "p95_last_quarter_ms": self.latency(0.75, 1)["p95_ms"],
            "p50_ms": self.latency(0, 1)["p50_ms"],
            "p95_ms": self.latency(0, 1)["p95_ms"],
            "held_s": totals.get("held_s", 0),
            "busy_percent": self.busy_percent(),
            "cores_used": self.cores_used(),
        }


_MEASURES = ("rss_mb", "fds", "threads", "lag")


def _worst(found: Sequence[Growth]) -> float | None:
    return max((one.growth for one in found), default=None)


def outcome(path: Path) -> Outcome:
    """Read a file of samples; a last line cut short is left out."""
    lines: list[Line] = []
    for text in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if text.endswith("\n"):
            lines.append(json.loads(text))
    of = {what: [line for line in lines if line["what"] == what] for what in _KINDS}
    (run,) = of["run"]
    during = [sample for sample in of["sample"] if sample["t"] <= run["minutes"] * 60]
    return Outcome(
        run=run,
        samples=during,
        minutes=of["minute"],
        faults=of["fault"],
        ended=of["ended"],
        end=of["end"][0] if of["end"] else None,
        growths=growths(during, run["rate"]),
    )


_KINDS = ("run", "sample", "minute", "fault", "ended", "end")


def percentile(values: Sequence[int], share: float) -> int | None:
    """The value that this share of the others does not exceed; None of nothing."""
    return sorted(values)[int(share * (len(values) - 1))] if values else None
