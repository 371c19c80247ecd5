"""Trains the language model on a CPU: pretraining on everything, tuning on answers, polishing on generated tasks.

One step counter runs through the three phases, and `learning_rate` says how the rate follows it.
Hidden matrices use Muon, embeddings and norms AdamW. A checkpoint holds everything that a resumed run needs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import structlog

from penstock_tuning.lm.config import LmConfig
from penstock_tuning.lm.errors import CheckpointMissingError, PreparedDataMissingError
from penstock_tuning.training.checkpoints import CHECKPOINT, save_checkpoint
from penstock_tuning.training.hardware import has_bf16

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM

_log = structlog.get_logger()
_IGNORED = -100


def learning_rate(step: int, config: LmConfig) -> float:
    """Warm-up, constant while pretraining and tuning, a linear fall at the end of tuning, another while polishing."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if step < config.pretrain_steps:
        return config.learning_rate
    tuned = config.pretrain_steps + config.tune_steps
    if step >= tuned:
        left = (tuned + config.polish_steps - step) / config.polish_steps
        return config.polish_learning_rate * max(left, config.final_lr_fraction)
    left = (tuned - step) / config.decay_steps
    return config.tune_learning_rate * min(1.0, max(left, config.final_lr_fraction))


def build_model(config: LmConfig) -> LlamaForCausalLM:
    """A Llama-shaped model with tied embeddings and random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = LlamaConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        max_position_embeddings=config.context,
        rope_theta=config.rope_theta,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        attn_implementation="sdpa",
        use_cache=False,
    )
    return LlamaForCausalLM(shape).float()


class Batches:
    """Rows of all phases in a seeded order; batch `step` is the same however often training was resumed."""

    def __init__(self, work: Path, config: LmConfig) -> None:
        if not (work / "polish_mask.npy").exists():
            raise PreparedDataMissingError(f"nothing prepared in {work}: run `prepare` first")
        self._config = config
        self._pretrain = np.load(work / "pretrain.npy", mmap_mode="r")
        self._packed = [
            (np.load(work / f"{name}.npy", mmap_mode="r"), np.load(work / f"{name}_mask.npy", mmap_mode="r"))
            for name in ("tune", "polish")
        ]

    def _rows(self, step: int, total: int, phase: int) -> np.ndarray:
        count = self._config.batch_rows
        start = step * count
        epoch, offset = divmod(start, total // count * count)
        order = np.random.default_rng((self._config.seed, phase, epoch)).permutation(total)
        return order[offset : offset + count]

    def at(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Input ids and labels of a step, each `[rows, train_length]`."""
        import torch

        if step < self._config.pretrain_steps:
            rows = self._rows(step, len(self._pretrain), 0)
            tokens = torch.from_numpy(self._pretrain[rows].astype(np.int64))
            return tokens[:, :-1], tokens[:, 1:]
        step -= self._config.pretrain_steps
        phase = int(step >= self._config.tune_steps)
        packed, mask = self._packed[phase]
        rows = self._rows(step - phase * self._config.tune_steps, len(packed), phase + 1)
        tokens = torch.from_numpy(packed[rows].astype(np.int64))
        learned = torch.from_numpy(mask[rows])
        return tokens[:, :-1], tokens[:, 1:].masked_fill(~learned[:, 1:], _IGNORED)


def _optimizers(model: LlamaForCausalLM, config: LmConfig) -> list[torch.optim.Optimizer]:
    import torch

    from penstock_tuning.training.muon import muon

    hidden = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        muon(hidden, config.learning_rate, config.weight_decay, bf16=has_bf16()),
        torch.optim.AdamW(others, lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def _loss_function(model: LlamaForCausalLM, compiled: bool) -> Callable[[Any, Any], Any]:
    import torch

    def loss(ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=has_bf16()):
            logits = model.lm_head(model.model(input_ids=ids).last_hidden_state)
        flat = logits.flatten(0, 1).float()
        return torch.nn.functional.cross_entropy(flat, labels.flatten(), ignore_index=_IGNORED)

    return torch.compile(loss, dynamic=False) if compiled else loss


def load_model(work: Path, config: LmConfig) -> tuple[LlamaForCausalLM, int]:
    """The model of the newest checkpoint and its step.

    Raises:
        CheckpointMissingError: nothing was trained in this work folder.
    """
    import torch

    path = work / CHECKPOINT
    if not path.exists():
        raise CheckpointMissingError(f"no checkpoint in {work}: run `train` first")
    state = torch.load(path, map_location="cpu", weights_only=True)
    model = build_model(config)
    model.load_state_dict(state["model"])
    return model.eval(), int(state["step"])


def train(work: Path, config: LmConfig, *, resume: bool = False, compiled: bool = True) -> None:
    """Train to the last step of the recipe, or go on from the newest checkpoint with `resume`."""
    import torch

    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    batches = Batches(work, config)
    model = build_model(config)
    optimizers = _optimizers(model, config)
    step = 0
    if resume and (work / CHECKPOINT).exists():
        state = torch.load(work / CHECKPOINT, map_location="cpu", weights_only=True)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        step = int(state["step"])
    total = config.pretrain_steps + config.tune_steps + config.polish_steps
    _log.info("lm.train.started", step=step, total=total, parameters=sum(p.numel() for p in model.parameters()))
    loss_of = _loss_function(model, compiled)
    model.train()
    losses: list[float] = []
    started = time.monotonic()
    while step < total:
        rate = learning_rate(step, config)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        loss = loss_of(*batches.at(step))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        step += 1
        if step % 10 == 0 or step == total:
            seconds = time.monotonic() - started
            rows = len(losses) * config.batch_rows * config.train_length
            _log.info(
                "lm.train.step",
                step=step,
                loss=round(sum(losses) / len(losses), 4),
                lr=round(rate, 6),
                tokens_per_second=round(rows / seconds),
            )
            losses, started = [], time.monotonic()
        if step % config.checkpoint_every == 0 or step == total:
            save_checkpoint(
                work / CHECKPOINT,
                {
                    "model": model.state_dict(),
                    "optimizers": [o.state_dict() for o in optimizers],
                    "step": step,
                },
            )
    _log.info("lm.train.done", step=step)
