"""A run that is cut again and again, beside one that is not."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock_tuning.training.pieces import Pieces


class Begin(Protocol):
    """Begins a run, or goes on with that of the work folder."""

    def __call__(self, work: Path, *, clock: Callable[[], float] = ...) -> Pieces: ...


def assert_pieces_end_where_a_whole_run_does(begin: Begin, folder: Path, steps: int) -> dict[str, Any]:
    """Train in one go and in pieces of a few steps, each from the work folder alone; the uncut run's checkpoint.

    Both runs must end after `steps` with the same weights.
    """
    import torch

    from penstock_tuning.training.checkpoints import load_checkpoint

    works = {name: folder / name for name in ("whole", "pieces")}
    for work in works.values():
        work.mkdir()
    assert begin(works["whole"]).run()
    pieces, finished = 0, False
    while not finished:
        ticks = itertools.count()
        finished = begin(works["pieces"], clock=lambda ticks=ticks: float(next(ticks))).run(deadline=6.0)
        pieces += 1
        assert pieces <= steps, "a piece takes no step"
    assert pieces > 3
    whole, other = (load_checkpoint(work) for work in works.values())
    assert whole["step"] == other["step"] == steps
    assert whole["weights"].keys() == other["weights"].keys()
    for name, tensor in whole["weights"].items():
        torch.testing.assert_close(other["weights"][name], tensor, atol=1e-6, rtol=1e-5)
    return whole
