"""A run in pieces of any length: the loop, its log, its checkpoints. What a step learns is the recipe's matter.

A checkpoint holds all that the next piece needs, so a run that was cut ends where an uncut one does as long as a
recipe's batches depend on the seed and the step alone. Needs the extra `train`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog
import torch

from penstock_tuning.training.checkpoints import CHECKPOINT, save_checkpoint
from penstock_tuning.training.progress import Pace

_log = structlog.get_logger()


class Pieces(ABC):
    """Where a run stands: weights, optimizers, steps taken, seconds they took, losses by step."""

    def __init__(
        self, name: str, steps: int, work: Path, *, checkpoint_every: int, log_every: int, clock: Callable[[], float]
    ) -> None:
        """`name` begins the log events: `NAME.train.step`."""
        self._name = name
        self.steps = steps
        self._work = work
        self._checkpoint_every = checkpoint_every
        self._log_every = log_every
        self._clock = clock
        self.weights: dict[str, torch.Tensor] = {}
        self.optimizers: Sequence[torch.optim.Optimizer] = ()
        self.step, self.seconds = 0, 0.0
        self.history: list[dict[str, float]] = []

    @abstractmethod
    def _learn(self) -> torch.Tensor:
        """Take one step, of number `self.step`; its loss."""

    @abstractmethod
    def _tokens(self, step: int) -> int:
        """Tokens read before a step."""

    @abstractmethod
    def _rate(self) -> float:
        """The learning rate of the last step."""

    @abstractmethod
    def _validate(self) -> dict[str, float]:
        """Figures on held-out text, for the history and the log."""

    @property
    def done(self) -> bool:
        """Whether the last step was taken."""
        return self.step >= self.steps

    def resume(self, state: dict[str, object]) -> None:
        """Take over a checkpoint's optimizers and counters; the weights were made from it already."""
        saved = state["optimizers"]
        assert isinstance(saved, list)
        for optimizer, own in zip(self.optimizers, saved, strict=True):
            optimizer.load_state_dict(own)
        self.step, self.seconds, self.history = state["step"], state["seconds"], state["history"]  # type: ignore[assignment]  # what `_save` wrote

    def run(self, deadline: float | None = None) -> bool:
        """Train to the end, or until `deadline` (of the clock) has passed; whether it is the end.

        The step under way is finished and saved: a piece is longer than asked for by one step and one checkpoint.
        """
        pace = Pace(self._tokens(self.step), self._tokens(self.steps), self._clock)
        count = sum(one.numel() for one in self.weights.values())
        _log.info(f"{self._name}.train.started", step=self.step, total=self.steps, parameters=count)
        losses: list[torch.Tensor] = []
        saved, began = self.step, self._clock()
        while not self.done and (deadline is None or self._clock() < deadline):
            losses.append(self._learn())
            self.step += 1
            if self.step % self._log_every == 0 or self.done:
                loss = round(float(torch.stack(losses).mean()), 4)
                losses = []
                said = pace.report(self._tokens(self.step))
                _log.info(f"{self._name}.train.step", step=self.step, loss=loss, lr=round(self._rate(), 6), **said)
                self.history.append({"step": self.step, "loss": loss})
            if self.step % self._checkpoint_every == 0 or self.done:
                figures = {name: round(value, 4) for name, value in self._validate().items()}
                self.history.append({"step": self.step, **figures})
                _log.info(f"{self._name}.train.validated", step=self.step, **figures)
                began = self._save(began)
                saved = self.step
        if saved != self.step:
            self._save(began)
        _log.info(f"{self._name}.train.stopped", step=self.step, finished=self.done)
        return self.done

    def _update(self, clip_norm: float) -> None:
        """Let the optimizers take the gradients, of a norm of at most `clip_norm`."""
        torch.nn.utils.clip_grad_norm_(self.weights.values(), clip_norm)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def _save(self, began: float) -> float:
        """Write a checkpoint; `began` is the time that the seconds were last counted at, the result the new one."""
        now = self._clock()
        self.seconds += now - began
        state = {
            "weights": {name: tensor.detach() for name, tensor in self.weights.items()},
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "seconds": self.seconds,
            "history": self.history,
        }
        save_checkpoint(self._work / CHECKPOINT, state)
        return now
