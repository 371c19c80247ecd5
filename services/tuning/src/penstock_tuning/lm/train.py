"""Trains the language model in pieces of any length: first on everything, then on answers. Needs the extra `train`.

The hidden matrices use Muon, embeddings and norms AdamW. A run that was cut and resumed reads the same batches as one
that was not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from penstock_tuning.lm.batches import IGNORED, Batch, Batches, labelled
from penstock_tuning.lm.config import LmConfig, Shape
from penstock_tuning.lm.prepare import ANSWERED, Prepared, Rows
from penstock_tuning.lm.vocabulary import SPECIAL_TOKENS
from penstock_tuning.training.checkpoints import CHECKPOINT, load_checkpoint
from penstock_tuning.training.hardware import uses_bf16
from penstock_tuning.training.muon import muon
from penstock_tuning.training.pieces import Pieces

_VALIDATED_AT_ONCE = 8


def build_model(shape: Shape) -> LlamaForCausalLM:
    """The network with random weights of torch's generator, in fp32."""
    special = {f"{name}_token_id": SPECIAL_TOKENS.index(f"<|{name}|>") for name in ("pad", "bos")}
    wanted = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        max_position_embeddings=shape.context,
        rope_theta=shape.rope_theta,
        tie_word_embeddings=True,
        **special,
        eos_token_id=SPECIAL_TOKENS.index("<|end|>"),
        attn_implementation="sdpa",
        use_cache=False,
    )
    return LlamaForCausalLM(wanted).float()


def load_model(work: Path, config: LmConfig) -> LlamaForCausalLM:
    """The network with the weights of a work folder's checkpoint.

    Raises:
        CheckpointMissingError: nothing was trained in this work folder.
    """
    weights = load_checkpoint(work)["weights"]
    model = build_model(config.shape)
    _take(model, weights)
    return model.eval()


def _take(model: LlamaForCausalLM, weights: dict[str, torch.Tensor]) -> None:
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(weights[name])


class Training(Pieces):
    """One run: the network, optimizers and where it stands."""

    def __init__(
        self, config: LmConfig, prepared: Prepared, work: Path, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin, or go on from the work folder's checkpoint."""
        super().__init__(
            "lm", config.steps, work, checkpoint_every=config.checkpoint_every, log_every=config.log_every, clock=clock
        )
        self._config = config
        self._batches = Batches(prepared, config)
        text = prepared.held_out_text
        self._held_out = {
            "text_loss": Rows(text, np.full(text.shape, ANSWERED, np.uint8)),
            "answers_loss": prepared.held_out_conversations,
        }
        machine = config.machine
        if machine.threads is not None:
            torch.set_num_threads(machine.threads)
        torch.manual_seed(config.seed)
        self._model = build_model(config.shape)
        state = load_checkpoint(work) if (work / CHECKPOINT).exists() else None
        if state:
            _take(self._model, state["weights"])
        self._model.to(machine.device)
        self.weights = dict(self._model.named_parameters())
        self.optimizers = _optimizers(self.weights, config)
        if state:
            self.resume(state)
        self._compiled: Callable[..., torch.Tensor] = (
            torch.compile(self._loss, dynamic=False) if machine.compiled else self._loss
        )

    def _loss(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logits = self._model.lm_head(self._model.model(input_ids=ids).last_hidden_state)
        flat = logits.flatten(0, 1).float()
        return torch.nn.functional.cross_entropy(flat, labels.flatten(), ignore_index=IGNORED)

    def _learn(self) -> torch.Tensor:
        loss = self._loss_of(self._batches.at(self.step), self._compiled)
        loss.backward()  # type: ignore[no-untyped-call,unused-ignore]  # torch is not installed where types are checked
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self._config.rate(self.step)
        self._update(self._config.optimizer.clip_norm)
        return loss.detach()

    def _loss_of(self, batch: Batch, loss: Callable[..., torch.Tensor]) -> torch.Tensor:
        machine = self._config.machine
        ids, labels = (torch.from_numpy(array).to(machine.device) for array in batch)
        with torch.autocast(machine.device, torch.bfloat16, enabled=uses_bf16(machine)):
            return loss(ids, labels)

    def _rate(self) -> float:
        return self._config.rate(self.step - 1)

    def _tokens(self, step: int) -> int:
        return step * self._config.batch_tokens

    def _validate(self) -> dict[str, float]:
        """Nats a token: of held-out texts, and of the answers in held-out conversations."""
        found = {}
        for name, rows in self._held_out.items():
            total, count, most = 0.0, 0, min(self._config.validation_rows, len(rows.tokens))
            for start in range(0, most, _VALIDATED_AT_ONCE):
                part = slice(start, min(start + _VALIDATED_AT_ONCE, most))
                batch = labelled(Rows(rows.tokens[part], rows.marks[part]), answers=True)
                learned = int((batch.labels != IGNORED).sum())
                with torch.no_grad():
                    total += float(self._loss_of(batch, self._loss)) * learned
                count += learned
            found[name] = total / max(1, count)
        return found


def _optimizers(weights: dict[str, torch.nn.Parameter], config: LmConfig) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for the rest."""
    hidden = [one for name, one in weights.items() if one.ndim == 2 and "embed" not in name]
    others = [one for name, one in weights.items() if one.ndim != 2 or "embed" in name]
    rate = config.optimizer.learning_rate
    return [
        muon(hidden, rate, config.optimizer.weight_decay, bf16=uses_bf16(config.machine)),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]
