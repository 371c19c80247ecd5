"""The heads' configuration: one YAML file per preset (`cpu.yaml`, `gpu.yaml`), or one of the user's own.

The encoder's shape is not part of it: it comes with the encoder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from penstock_tuning.heads.errors import HeadsConfigError
from penstock_tuning.heads.ingredients import Ingredient
from penstock_tuning.training.recipe import Count, Machine, Part, Share, read_recipe, trapezoid

Task = Literal["safety", "pii", "entailment", "similarity"]
TASKS: tuple[Task, ...] = ("safety", "pii", "entailment", "similarity")
Positive = Annotated[float, Field(gt=0)]


class Windows(Part):
    """How long texts are cut, in training and in use."""

    tokens: Annotated[int, Field(ge=16)]
    """Of a window, and of a row of a batch, special tokens included."""
    overlap: Count
    """Tokens that two windows of a text share."""
    most: Count
    """Windows of one text that an epoch of training reads."""

    @model_validator(mode="after")
    def _windows_advance(self) -> Windows:
        if self.overlap > self.tokens // 2:
            raise ValueError(f"windows of {self.tokens} tokens that share {self.overlap} hardly advance")
        return self


class Optimizer(Part):
    """AdamW with three rates that rise and fall together."""

    encoder_rate: Positive
    embeddings_rate: Annotated[float, Field(ge=0)]
    """Of the token embeddings: lower, because training sees few of them often and use sees all."""
    heads_rate: Positive
    warmup_share: Share
    decay_share: Share
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    clip_norm: Positive = 1.0


class Losses(Part):
    """What a loss counts beside the others of its task, and what makes training harder."""

    safety_tokens: Annotated[float, Field(ge=0)] = 0.5
    """Of the tokens' loss beside the windows'."""
    temperature: Positive = 0.05
    """Of the cosines of sentence pairs (SimCSE's)."""
    masked: Share = 0.08
    """Of the tokens that are read as the mask token: no single word may decide."""
    smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.02
    """What a label says instead of 0 and 1: public labels are wrong here and there."""


class Calibration(Part):
    """What probabilities and thresholds are made from."""

    sources: tuple[str, ...]
    """Of the training side: kept from training. The sources of the validation split are added to them."""
    rows: Count
    """Of a source at most."""
    flag_rate: Annotated[float, Field(gt=0, lt=0.5)]
    """Share of ordinary texts that any safety label may flag."""
    shares: Mapping[str, Positive]
    """How labels divide that share among them; 1 where a label is not named."""
    block_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Of `flag_rate`: what the threshold for blocking allows."""


class HeadsConfig(Part):
    """The whole recipe."""

    name: str
    seed: int
    pretrained: bool = True
    """False: the same network from random weights, to compare with."""
    without: tuple[Ingredient, ...] = ()
    """Ingredients of the data that are left out, to see what each gains."""
    dimensions: Count
    """Of a sentence's embedding."""
    windows: Windows
    tokens: Count
    """Read in all, rounded down to whole steps."""
    batch_tokens: Count
    """Of one step, padding included; a step has texts of one task."""
    shares: Mapping[Task, Positive]
    """Of the tokens, by task. Where a task is left out its head is not trained, and not exported."""
    source_balance: Share
    """The power of `Example.weight` that decides how often an example is read; the rest weighs its loss."""
    optimizer: Optimizer
    losses: Losses = Losses()
    calibration: Calibration
    machine: Machine = Machine()
    checkpoint_every: Count
    log_every: Count
    validation_rows: Count
    """Texts of each task that are kept apart to watch the loss on."""
    max_onnx_megabytes: Positive
    """Of the int8 graph, in millions of bytes; a larger one is not put in place."""
    max_change: Positive
    """Mean difference between a probability in int8 and in fp32 above which an export is refused."""

    @model_validator(mode="after")
    def _steps_fit(self) -> HeadsConfig:
        if self.batch_tokens % self.windows.tokens:
            raise ValueError(f"a batch of {self.batch_tokens} tokens is not made of rows of {self.windows.tokens}")
        if not self.shares:
            raise ValueError("no task is to be trained")
        if self.steps < len(self.shares):
            raise ValueError(f"{self.tokens} tokens are less than one step for each task")
        return self

    @property
    def rows(self) -> int:
        """Rows of one step."""
        return self.batch_tokens // self.windows.tokens

    @property
    def steps(self) -> int:
        """Optimizer steps of all tasks."""
        return self.tokens // self.batch_tokens

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks of the run, in a fixed order."""
        return tuple(task for task in TASKS if task in self.shares)

    def digest(self) -> str:
        """16 hex digits over everything that decides the weights, the hardware aside."""
        said = self.model_dump_json(
            exclude={
                "machine", "log_every", "checkpoint_every", "max_onnx_megabytes", "max_change", "validation_rows",
                "calibration",
            }
        )  # fmt: skip
        kept = ",".join(self.calibration.sources)
        return hashlib.sha256(f"{said}\n{kept}".encode()).hexdigest()[:16]

    def rate(self, step: int) -> float:
        """The share of the full learning rates at a step."""
        warmup = round(self.optimizer.warmup_share * self.steps)
        return trapezoid(step, self.steps, warmup, self.optimizer.decay_share)


def load_config(preset: str, path: Path | None = None, changes: Sequence[str] = ()) -> HeadsConfig:
    """The configuration of a preset or of a file, as `read_recipe` reads it.

    Raises:
        HeadsConfigError: there is no such preset or file, or its values contradict each other.
    """
    return read_recipe(HeadsConfig, "penstock_tuning.heads", preset, path, changes, error=HeadsConfigError)
