"""The heads' training in pieces: one task a step, encoder and heads together.

Needs the extra `train`. A run that was cut and resumed reads the same batches as one that was not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from penstock_tuning.encoder.config import Shape
from penstock_tuning.encoder.model import Weights, rotary
from penstock_tuning.heads.batches import Batch, Batches, fixed
from penstock_tuning.heads.config import HeadsConfig
from penstock_tuning.heads.model import initial_heads, loss_of, rates, states_of
from penstock_tuning.heads.prepare import Prepared
from penstock_tuning.training.checkpoints import CHECKPOINT, load_checkpoint
from penstock_tuning.training.hardware import uses_bf16
from penstock_tuning.training.pieces import Pieces

_UNUSED = ("head.dense.weight", "head.norm.weight", "decoder.bias")
"""Of the encoder's checkpoint: the head of pretraining."""


class HeadsTraining(Pieces):
    """One run: weights, optimizer and where it stands."""

    def __init__(
        self,
        config: HeadsConfig,
        shape: Shape,
        encoder: Mapping[str, torch.Tensor],
        prepared: Prepared,
        work: Path,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin from an encoder's weights, or go on from the work folder's checkpoint."""
        super().__init__(
            "heads",
            config.steps,
            work,
            checkpoint_every=config.checkpoint_every,
            log_every=config.log_every,
            clock=clock,
        )
        self._config = config
        self._shape = shape
        self._batches = Batches(prepared.train, config)
        self._held_out = {task: list(fixed(task, prepared.held_out[task], config)) for task in config.tasks}
        self._ahead = ThreadPoolExecutor(max_workers=1)
        self._coming: Future[Batch] | None = None
        machine = config.machine
        if machine.threads is not None:
            torch.set_num_threads(machine.threads)
        state = load_checkpoint(work) if (work / CHECKPOINT).exists() else None
        weights = state["weights"] if state else begun(config, shape, encoder)
        self.weights = {name: tensor.to(machine.device).requires_grad_() for name, tensor in weights.items()}
        self.optimizers = [_optimizer(self.weights, config)]
        self._full = [group["lr"] for group in self.optimizers[0].param_groups]
        if state:
            self.resume(state)
        self._states: Callable[..., torch.Tensor] = (
            torch.compile(states_of, dynamic=False) if machine.compiled else states_of
        )
        self._turned = rotary(shape, config.windows.tokens, machine.device)

    def _learn(self) -> torch.Tensor:
        loss = self._loss(self._next(), self._states)
        loss.backward()  # type: ignore[no-untyped-call,unused-ignore]  # torch is not installed where types are checked
        share = self._config.rate(self.step)
        for group, full in zip(self.optimizers[0].param_groups, self._full, strict=True):
            group["lr"] = full * share
        self._update(self._config.optimizer.clip_norm)
        return loss.detach()

    def _next(self) -> Batch:
        """The batch of this step; that of the next one is made while this one is learned from."""
        made = self._coming.result() if self._coming else self._batches.at(self.step)
        more = self.step + 1 < self._config.steps
        self._coming = self._ahead.submit(self._batches.at, self.step + 1) if more else None
        return made

    def _validate(self) -> dict[str, float]:
        """The mean loss of each task's batches on texts kept apart."""
        found = {}
        with torch.no_grad():
            for task, batches in self._held_out.items():
                losses = [float(self._loss(batch, states_of)) for batch in batches]
                found[f"{task}_loss"] = sum(losses) / max(1, len(losses))
        return found

    def _loss(self, batch: Batch, states: Callable[..., torch.Tensor]) -> torch.Tensor:
        machine = self._config.machine
        tensors: dict[str, Any] = {
            name: torch.from_numpy(value).to(machine.device) for name, value in vars(batch).items() if name != "task"
        }
        with torch.autocast(machine.device, torch.bfloat16, enabled=uses_bf16(machine)):
            found = states(self.weights, self._shape, tensors["ids"], tensors["segments"], self._turned)
        return loss_of(batch.task, self.weights, found, tensors, self._config.losses)

    def _tokens(self, step: int) -> int:
        return step * self._config.batch_tokens

    def _rate(self) -> float:
        return self._config.optimizer.encoder_rate * self._config.rate(self.step - 1)


def begun(config: HeadsConfig, shape: Shape, encoder: Mapping[str, torch.Tensor]) -> Weights:
    """The weights that a run begins with: the encoder's without the head of pretraining, and random heads."""
    kept = {name: tensor.detach().clone() for name, tensor in encoder.items() if name not in _UNUSED}
    return kept | initial_heads(shape.width, config.dimensions, config.seed)


def _optimizer(weights: Weights, config: HeadsConfig) -> torch.optim.Optimizer:
    optimizer = config.optimizer
    full = {
        "heads": optimizer.heads_rate,
        "embeddings": optimizer.embeddings_rate,
        "encoder": optimizer.encoder_rate,
    }
    groups = []
    for kind, names in rates(sorted(weights)).items():
        for matrices in (True, False):
            own = [weights[name] for name in names if (weights[name].ndim == 2) == matrices]
            if own:
                decay = optimizer.weight_decay if matrices and kind == "encoder" else 0.0
                groups.append({"params": own, "lr": full[kind], "weight_decay": decay})
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)
