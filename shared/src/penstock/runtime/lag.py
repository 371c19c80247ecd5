"""How far a group is behind, from the client's own statistics."""

from __future__ import annotations

import json
from collections.abc import Mapping

from penstock.runtime.metrics import StageMetrics

Slot = tuple[str, int]


def show_lag(
    metrics: StageMetrics, stage: str, statistics: str, positions: Mapping[Slot, int | None], *, idle: bool
) -> None:
    """Set the gauge of each partition that is ours: `positions` says what is committed, None where not known yet."""
    for topic, facts in json.loads(statistics)["topics"].items():
        for number, partition in facts["partitions"].items():
            slot = (topic, int(number))
            if slot in positions and (lag := lag_of(partition, positions[slot], idle=idle)) is not None:
                metrics.lag.labels(stage, topic, number).set(lag)


def lag_of(partition: Mapping[str, int], committed: int | None, *, idle: bool) -> int | None:
    """Offsets from where we stand to the stable end, by the client's statistics; None where that is not known yet.

    The client's own figure stays unknown where offsets are committed in a transaction. Transaction markers
    take up offsets too: with everything fetched and nothing left to take (`idle`), there is no lag.
    """
    end = partition["ls_offset"]
    if end < 0:
        return None
    if idle and partition["next_offset"] >= end:
        return 0
    position = partition["app_offset"] if committed is None else committed
    return max(0, end - position) if position >= 0 else None
