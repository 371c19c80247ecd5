"""Pretraining on masked tokens, in pieces of any length: a checkpoint holds all that the next piece needs.

Needs the extra `train`. A run that was cut and resumed reads the same batches with the same masks as one that was not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch

from penstock_tuning.encoder.batches import Batches
from penstock_tuning.encoder.config import EncoderConfig, learning_rate
from penstock_tuning.encoder.masking import Masked
from penstock_tuning.encoder.model import EMBEDDINGS, Weights, initial_weights, masked_loss, rotary
from penstock_tuning.encoder.prepare import Prepared
from penstock_tuning.training.checkpoints import CHECKPOINT, load_checkpoint
from penstock_tuning.training.hardware import uses_bf16
from penstock_tuning.training.muon import muon
from penstock_tuning.training.pieces import Pieces

_VALIDATED_AT_ONCE = 8


class Pretraining(Pieces):
    """One run: weights, optimizers and where it stands."""

    def __init__(
        self, config: EncoderConfig, prepared: Prepared, work: Path, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin, or go on from the work folder's checkpoint."""
        super().__init__(
            "encoder",
            config.steps,
            work,
            checkpoint_every=config.checkpoint_every,
            log_every=config.log_every,
            clock=clock,
        )
        self._config = config
        self._batches = Batches(prepared.train, prepared.starts_word, config)
        length = min(config.shape.context, len(prepared.validation))
        self._ahead = ThreadPoolExecutor(max_workers=1)
        self._coming: Future[Masked] | None = None
        self._held_out = self._batches.fixed(prepared.validation, length)
        machine = config.machine
        if machine.threads is not None:
            torch.set_num_threads(machine.threads)
        state = load_checkpoint(work) if (work / CHECKPOINT).exists() else None
        weights = state["weights"] if state else initial_weights(config.shape, config.seed)
        self.weights = {name: tensor.to(machine.device).requires_grad_() for name, tensor in weights.items()}
        self.optimizers = _optimizers(self.weights, config)
        if state:
            self.resume(state)
        self._loss: Callable[..., torch.Tensor] = (
            torch.compile(masked_loss, dynamic=False) if machine.compiled else masked_loss
        )
        self._turns = {
            size: rotary(config.shape, size, machine.device) for size in {length, *(p.length for p in config.phases)}
        }

    def validation_loss(self) -> float:
        """Mean cross-entropy in nats over the masked tokens of held-out text, masked the same way every time."""
        total, rows = 0.0, len(self._held_out.ids)
        for start in range(0, rows, _VALIDATED_AT_ONCE):
            part = slice(start, start + _VALIDATED_AT_ONCE)
            batch = Masked(self._held_out.ids[part], self._held_out.places[part], self._held_out.labels[part])
            with torch.no_grad():
                total += float(self._loss_of(batch, masked_loss)) * len(batch.ids)
        return total / rows

    def _validate(self) -> dict[str, float]:
        return {"validation_loss": self.validation_loss()}

    def _rate(self) -> float:
        return learning_rate(self.step - 1, self._config)

    def _tokens(self, step: int) -> int:
        left, tokens = step, 0
        for phase in self._config.phases:
            tokens += min(left, phase.steps) * phase.rows * phase.length
            left = max(0, left - phase.steps)
        return tokens

    def _next(self) -> Masked:
        """The batch of this step; that of the next one is made while this one is learned from."""
        made = self._coming.result() if self._coming else self._batches.at(self.step)
        more = self.step + 1 < self._config.steps
        self._coming = self._ahead.submit(self._batches.at, self.step + 1) if more else None
        return made

    def _learn(self) -> torch.Tensor:
        config, batch = self._config, self._next()
        rate = learning_rate(self.step, config)
        phase = config.phases[config.phase_at(self.step)[0]]
        at_once = phase.micro_rows or phase.rows
        total = torch.zeros((), device=config.machine.device)
        for start in range(0, phase.rows, at_once):
            part = slice(start, start + at_once)
            micro = Masked(batch.ids[part], batch.places[part], batch.labels[part])
            loss = self._loss_of(micro, self._loss) * (at_once / phase.rows)
            loss.backward()  # type: ignore[no-untyped-call,unused-ignore]  # torch is not installed where types are checked
            total += loss.detach()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        self._update(config.optimizer.clip_norm)
        return total

    def _loss_of(self, batch: Masked, loss: Callable[..., torch.Tensor]) -> torch.Tensor:
        machine = self._config.machine
        ids, places, labels = (
            torch.from_numpy(array).to(machine.device) for array in (batch.ids, batch.places, batch.labels)
        )
        with torch.autocast(machine.device, torch.bfloat16, enabled=uses_bf16(machine)):
            return loss(
                self.weights,
                self._config.shape,
                ids=ids,
                places=places,
                labels=labels,
                turns=self._turns[ids.shape[1]],
            )


def _optimizers(weights: Weights, config: EncoderConfig) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for the rest."""
    matrices = [tensor for name, tensor in weights.items() if tensor.ndim == 2 and name != EMBEDDINGS]
    others = [tensor for name, tensor in weights.items() if tensor.ndim != 2 or name == EMBEDDINGS]
    rate, decay = config.optimizer.learning_rate, config.optimizer.weight_decay
    return [
        muon(matrices, rate, decay, bf16=uses_bf16(config.machine)),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]
