"""A run's plots, as SVG of a few tens of kilobytes: memory, descriptors and threads, lag, latency."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from tests.faults.soaking.flatness import Series, lives
from tests.faults.soaking.outcome import Line, Outcome, percentile
from tests.support.stack import SERVICES

POINTS = 180
"""At most so many for a line: each the greatest value of its part of the time."""
COLOURS = {
    "preprocess": "#1b6ca8",
    "anonymize": "#d1711f",
    "safety": "#3a8f4d",
    "inference": "#a8324a",
    "postprocess": "#6d4fa3",
    "broker": "#777777",
}
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "soak", "font.family": "sans-serif", "font.size": 8}
NAMES = ("memory", "handles", "lag", "latency")


def draw(run: Outcome, folder: Path) -> list[Path]:
    """Write soak-NAME.svg for each of `NAMES`."""
    with mpl.rc_context(STYLE):
        return [
            _figure(run, folder, "memory", [(_of_processes("rss_mb", (*SERVICES, "broker")), "resident MB")]),
            _figure(
                run, folder, "handles",
                [(_of_processes("fds", SERVICES), "file descriptors"), (_of_processes("threads", SERVICES), "threads")],
            ),
            _figure(run, folder, "lag", [(_lag, "records behind")], log=True),
            _figure(run, folder, "latency", [(_latency, "milliseconds")], log=True),
        ]  # fmt: skip


def thinned(series: Series, seconds: float) -> tuple[list[float], list[float]]:
    """Minutes and values: the greatest of each of `POINTS` equal parts of the run that has any."""
    bins: dict[int, tuple[float, float]] = {}
    for at, value in series:
        number = int(at / seconds * POINTS)
        if number not in bins or value > bins[number][1]:
            bins[number] = (at, value)
    kept = [bins[number] for number in sorted(bins)]
    return [round(at / 60, 2) for at, _ in kept], [value for _, value in kept]


def _of_processes(measure: str, names: Sequence[str]) -> Callable[[Axes, Outcome], None]:
    def drawn(axes: Axes, run: Outcome) -> None:
        for name in names:
            first = True
            for life in lives(run.samples, name):  # a line of its own for each process: a gap is a restart
                series = [(facts["t"], facts[measure]) for facts in life]
                axes.plot(*thinned(series, run.seconds), color=COLOURS[name], label=name if first else None)
                first = False

    return drawn


def _lag(axes: Axes, run: Outcome) -> None:
    for name in SERVICES:
        series = [(sample["t"], sample["lag"][name]) for sample in run.samples if sample["lag"] is not None]
        axes.plot(*thinned(series, run.seconds), color=COLOURS[name], label=name)


def _latency(axes: Axes, run: Outcome) -> None:
    for label, share, colour in (("p50", 0.5, COLOURS["preprocess"]), ("p95", 0.95, COLOURS["inference"])):
        points = [(minute["number"] - 0.5, percentile(minute["latencies_ms"], share)) for minute in run.minutes]
        kept = [(at, value) for at, value in points if value is not None]
        axes.plot([at for at, _ in kept], [value for _, value in kept], color=colour, label=label)


def _figure(
    run: Outcome,
    folder: Path,
    name: str,
    panels: Sequence[tuple[Callable[[Axes, Outcome], None], str]],
    *,
    log: bool = False,
) -> Path:
    figure = Figure(figsize=(8, 2.6 * len(panels)), layout="constrained")
    FigureCanvasSVG(figure)
    for number, (drawn, label) in enumerate(panels, start=1):
        axes = figure.add_subplot(len(panels), 1, number)
        drawn(axes, run)
        if log:
            axes.set_yscale("symlog", linthresh=10)
        _mark(axes, run.faults)
        axes.set_ylim(bottom=0)
        axes.set_xlim(0, math.ceil(run.seconds / 60))
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        if number == 1:
            axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    axes.set_xlabel("minutes; ticks below: a service killed, terminated or halted; dashed: the broker down")
    path = folder / f"soak-{name}.svg"
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    return path


def _mark(axes: Axes, faults: Sequence[dict[str, Any] | Line]) -> None:
    for fault in faults:
        if fault["service"] == "broker":
            axes.axvline(fault["began"] / 60, color=COLOURS["broker"], linestyle="--", linewidth=0.8)
    services = [fault for fault in faults if fault["service"] != "broker"]
    axes.plot(
        [fault["began"] / 60 for fault in services], [0.02] * len(services), "|", color="black", markersize=5,
        transform=axes.get_xaxis_transform(), label=None,
    )  # fmt: skip
