"""Asking a service how it is: readiness and the figures of its metrics page. Loopback only."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from penstock.cli.errors import CommandError
from penstock.cli.viewer import get
from penstock.contracts.lanes import lane_of
from penstock.local.ports import LOOPBACK

_LIMIT_S = 2.0


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a service takes work and, where not, why."""

    ready: bool
    why: str = ""


@dataclass(frozen=True, slots=True)
class Figures:
    """A service's records so far."""

    lag: int = 0
    lag_bulk: int = 0
    """Of that, the bulk lane's."""
    taken_in: int = 0
    put_out: int = 0
    failed: int = 0
    in_flight: int = 0


def readiness(port: int) -> Readiness:
    """What /readyz says; not ready where nobody answers."""
    try:
        status, body = get(f"http://{LOOPBACK}:{port}/readyz", _LIMIT_S)
    except CommandError:
        return Readiness(False, "does not answer")
    if status == 200:
        return Readiness(True)
    try:
        why = json.loads(body).get("why", "")
    except (ValueError, AttributeError):
        why = f"/readyz answered {status}"
    return Readiness(False, str(why))


def figures(port: int) -> Figures | None:
    """The figures of /metrics, None where nobody answers."""
    try:
        status, body = get(f"http://{LOOPBACK}:{port}/metrics", _LIMIT_S)
    except CommandError:
        return None
    return parse_figures(body.decode("utf-8", "replace")) if status == 200 else None


def parse_figures(exposition: str) -> Figures:
    """Sums over all labels of the metrics that `status` shows."""
    wanted = {
        "penstock_consumer_lag_records": "lag",
        "penstock_records_in_total": "taken_in",
        "penstock_records_out_total": "put_out",
        "penstock_records_failed_total": "failed",
        "penstock_records_in_flight": "in_flight",
    }
    sums: dict[str, float] = {}
    for name, topic, value in _samples(exposition):
        if name in wanted:
            sums[wanted[name]] = sums.get(wanted[name], 0.0) + value
        if name == "penstock_consumer_lag_records" and lane_of(topic) == "bulk":
            sums["lag_bulk"] = sums.get("lag_bulk", 0.0) + value
    return Figures(**{field: int(value) for field, value in sums.items()})


def _samples(exposition: str) -> Iterable[tuple[str, str, float]]:
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            yield sample.name, sample.labels.get("topic", ""), sample.value
