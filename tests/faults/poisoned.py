"""The services of the poison suite: `python -m tests.faults.poisoned follow|swallow`.

`follow` ends every event of preprocess as completed. `swallow` is preprocess itself but for one thing, for a
control: what it refuses leaves no trace.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import ClassVar

from penstock.contracts import topics
from penstock.contracts.errors import PenstockError
from penstock.contracts.events import RequestPreprocessed
from penstock.contracts.terminal import finish
from penstock.runtime import processor
from penstock.runtime.app import serve
from penstock.runtime.outcomes import Settled, Settler
from penstock.runtime.settings import ServiceSettings, load
from penstock.runtime.stage import Inbound, Outcome
from penstock_preprocess.app import run
from penstock_preprocess.settings import Settings


class Follower:
    """One event in, its result out."""

    name = "follow"
    versions: ClassVar[Mapping[str, str]] = {"follow": "1"}

    def process(self, batch: Sequence[Inbound]) -> Sequence[Outcome]:
        return [finish(i.expect(RequestPreprocessed), status="completed", now_ms=i.now_ms) for i in batch]


class Swallowing(Settler):
    """Loses what ends in an error."""

    def settle(self, inbound: Inbound, outcome: Outcome, *, finished_ms: int, attempts: int = 1) -> Settled:
        settled = super().settle(inbound, outcome, finished_ms=finished_ms, attempts=attempts)
        return Settled(inbound) if isinstance(outcome, PenstockError) else settled


def main() -> int:
    """Serve until stopped; the exit status."""
    if sys.argv[1] == "follow":
        consumes = (topics.PREPROCESSED,)
        return serve(load(ServiceSettings), name="follow", consumes=consumes, build=lambda _: Follower())
    processor.Settler = Swallowing  # type: ignore[misc]  # the control breaks it on purpose
    return run(load(Settings))


if __name__ == "__main__":
    sys.exit(main())
