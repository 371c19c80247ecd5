"""Pretraining on masked tokens, in pieces of any length: a checkpoint holds all that the next piece needs.

Needs the extra `train`. A run that was cut and resumed reads the same batches with the same masks as one that was not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import structlog
import torch

from penstock_tuning.encoder.batches import Batches
from penstock_tuning.encoder.config import EncoderConfig, Machine, learning_rate
from penstock_tuning.encoder.masking import Masked
from penstock_tuning.encoder.model import EMBEDDINGS, Weights, initial_weights, masked_loss, rotary
from penstock_tuning.encoder.prepare import Prepared
from penstock_tuning.encoder.progress import Pace
from penstock_tuning.lm.errors import CheckpointMissingError
from penstock_tuning.lm.train import save_checkpoint

_log = structlog.get_logger()
CHECKPOINT = "checkpoint.pt"
_VALIDATED_AT_ONCE = 8


def uses_bf16(machine: Machine) -> bool:
    """Whether matrices are multiplied in bf16; on a CPU `auto` asks whether it has instructions for that."""
    if machine.precision == "auto":
        return machine.device == "cuda" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return machine.precision == "bf16"


def load_checkpoint(work: Path) -> dict[str, Any]:
    """The state of the newest checkpoint, on the CPU: `weights`, `optimizers`, `step`, `seconds`, `history`.

    Raises:
        CheckpointMissingError: nothing was trained in this work folder.
    """
    if not (work / CHECKPOINT).exists():
        raise CheckpointMissingError(f"no checkpoint in {work}: pretraining has not begun")
    state: dict[str, Any] = torch.load(work / CHECKPOINT, map_location="cpu", weights_only=True)
    return state


class Pretraining:
    """One run: weights, optimizers and where it stands."""

    def __init__(
        self, config: EncoderConfig, prepared: Prepared, work: Path, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin, or go on from the work folder's checkpoint."""
        self._config = config
        self._work = work
        self._clock = clock
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
        self.weights: Weights = {name: tensor.to(machine.device).requires_grad_() for name, tensor in weights.items()}
        self._optimizers = _optimizers(self.weights, config)
        self.step, self.seconds = 0, 0.0
        self.history: list[dict[str, float]] = []
        if state:
            for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
            self.step, self.seconds, self.history = state["step"], state["seconds"], state["history"]
        self._loss: Callable[..., torch.Tensor] = (
            torch.compile(masked_loss, dynamic=False) if machine.compiled else masked_loss
        )
        self._turns = {
            size: rotary(config.shape, size, machine.device) for size in {length, *(p.length for p in config.phases)}
        }

    @property
    def done(self) -> bool:
        """Whether the last step was taken."""
        return self.step >= self._config.steps

    def run(self, deadline: float | None = None) -> bool:
        """Train to the end, or until `deadline` (of the clock) has passed; whether it is the end.

        The step under way is finished and saved: a piece is longer than asked for by one step and one checkpoint.
        """
        config = self._config
        pace = Pace(self._tokens(), config.tokens, self._clock)
        _log.info("encoder.train.started", step=self.step, total=config.steps, parameters=config.shape.parameters)
        losses: list[torch.Tensor] = []
        saved, began = self.step, self._clock()
        while not self.done and (deadline is None or self._clock() < deadline):
            losses.append(self._learn(self._next()))
            self.step += 1
            if self.step % config.log_every == 0 or self.done:
                loss = float(torch.stack(losses).mean())
                losses = []
                rate = learning_rate(self.step - 1, config)
                _log.info(
                    "encoder.train.step",
                    step=self.step,
                    loss=round(loss, 4),
                    lr=round(rate, 6),
                    **pace.report(self._tokens()),
                )
                self.history.append({"step": self.step, "loss": round(loss, 4)})
            if self.step % config.checkpoint_every == 0 or self.done:
                held_out = self.validation_loss()
                self.history.append({"step": self.step, "validation_loss": round(held_out, 4)})
                _log.info("encoder.train.validated", step=self.step, loss=round(held_out, 4))
                began = self._save(began)
                saved = self.step
        if saved != self.step:
            self._save(began)
        _log.info("encoder.train.stopped", step=self.step, finished=self.done)
        return self.done

    def validation_loss(self) -> float:
        """Mean cross-entropy in nats over the masked tokens of held-out text, masked the same way every time."""
        total, rows = 0.0, len(self._held_out.ids)
        for start in range(0, rows, _VALIDATED_AT_ONCE):
            part = slice(start, start + _VALIDATED_AT_ONCE)
            batch = Masked(self._held_out.ids[part], self._held_out.places[part], self._held_out.labels[part])
            with torch.no_grad():
                total += float(self._loss_of(batch, masked_loss)) * len(batch.ids)
        return total / rows

    def _tokens(self) -> int:
        left, tokens = self.step, 0
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

    def _learn(self, batch: Masked) -> torch.Tensor:
        config = self._config
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
        torch.nn.utils.clip_grad_norm_(self.weights.values(), config.optimizer.clip_norm)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
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

    def _save(self, began: float) -> float:
        """Write a checkpoint; `began` is the time that the seconds were last counted at, the result the new one."""
        now = self._clock()
        self.seconds += now - began
        state = {
            "weights": {name: tensor.detach() for name, tensor in self.weights.items()},
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "step": self.step,
            "seconds": self.seconds,
            "history": self.history,
        }
        save_checkpoint(self._work / CHECKPOINT, state)
        return now


def _optimizers(weights: Weights, config: EncoderConfig) -> list[torch.optim.Optimizer]:
    """Muon (https://kellerjordan.github.io/posts/muon/) for the layers' matrices, AdamW for the rest."""
    matrices = [tensor for name, tensor in weights.items() if tensor.ndim == 2 and name != EMBEDDINGS]
    others = [tensor for name, tensor in weights.items() if tensor.ndim != 2 or name == EMBEDDINGS]
    rate, decay = config.optimizer.learning_rate, config.optimizer.weight_decay
    return [
        torch.optim.Muon(matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]
