"""The encoder's configuration: one YAML file per preset (`cpu.yaml`, `gpu.yaml`), or one of the user's own.

Where the data lies and where files go is not part of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from penstock_tuning.encoder.errors import EncoderConfigError
from penstock_tuning.training.recipe import Count, Machine, Part, Share, read_recipe, trapezoid


class Shape(Part):
    """The network. Head size is `width / heads`, and even, because rotary positions turn pairs."""

    vocabulary: Annotated[int, Field(ge=300, le=65_535)]
    """Tokens, special ones included."""
    width: Count
    layers: Count
    heads: Count
    feed_forward: Count
    """Width between the gated unit's two halves and its way back."""
    context: Count
    """Tokens of the longest input, the special ones included."""
    rope_theta: float = 10_000.0

    @model_validator(mode="after")
    def _heads_divide(self) -> Shape:
        if self.width % (2 * self.heads):
            raise ValueError(f"a width of {self.width} does not make {self.heads} heads of an even size")
        return self

    @property
    def head_size(self) -> int:
        """Width of one head."""
        return self.width // self.heads

    @property
    def parameters(self) -> int:
        """Of the encoder as it is exported, without the head of pretraining."""
        layer = 4 * self.width**2 + 3 * self.width * self.feed_forward + 2 * self.width
        norms = self.width  # two outside the layers, less the one that the first layer lacks
        return self.vocabulary * self.width + self.layers * layer + norms


class Phase(Part):
    """A stretch of pretraining with rows of one length."""

    tokens: Count
    """Read in it, rounded down to whole batches."""
    length: Count
    """Tokens of a row; rows are filled by texts one after the other, which do not see each other."""
    batch_tokens: Count
    """Tokens of one optimizer step."""
    micro_rows: Count | None = None
    """Rows that go through the network at once; the others' gradients are added. None: the whole batch."""

    @property
    def rows(self) -> int:
        """Rows of one step."""
        return self.batch_tokens // self.length

    @property
    def steps(self) -> int:
        """Optimizer steps of the phase."""
        return self.tokens // (self.rows * self.length)

    @model_validator(mode="after")
    def _batches_fit(self) -> Phase:
        if not self.rows or self.batch_tokens % self.length:
            raise ValueError(f"a batch of {self.batch_tokens} tokens is not made of rows of {self.length}")
        if not self.steps:
            raise ValueError(f"{self.tokens} tokens are less than one batch of {self.batch_tokens}")
        if self.micro_rows is not None and self.rows % self.micro_rows:
            raise ValueError(f"{self.rows} rows of a step are not divisible by {self.micro_rows}")
        return self


class Masking(Part):
    """Which tokens must be guessed."""

    share: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Of the tokens of a row. 0.3 rather than 0.15: Wettig et al., 2023, https://arxiv.org/abs/2202.08005"""
    kept: Share = 0.1
    """Of those: left as they are."""
    random: Share = 0.1
    """Of those: replaced by any token. The rest becomes the mask token."""

    @model_validator(mode="after")
    def _some_are_masked(self) -> Masking:
        if self.kept + self.random >= 1:
            raise ValueError("no token would become the mask token")
        return self


class Optimizer(Part):
    """Muon for the matrices of the layers, AdamW for embeddings and norms, one rate for both."""

    learning_rate: Annotated[float, Field(gt=0)]
    warmup_steps: int = Field(ge=0)
    decay_share: Share
    """Of all steps: the linear fall to zero at the end."""
    weight_decay: float = Field(default=0.02, ge=0)
    clip_norm: float = Field(default=1.0, gt=0)


class EncoderConfig(Part):
    """The whole recipe."""

    name: str
    seed: int
    shape: Shape
    phases: tuple[Phase, ...] = Field(min_length=1)
    masking: Masking = Masking()
    optimizer: Optimizer
    machine: Machine = Machine()
    tokenizer_megabytes: float = Field(gt=0)
    """Of text that the tokenizer is trained on, drawn evenly over the sources."""
    validation_rows: Count
    """Rows of held-out text that the loss is measured on."""
    checkpoint_every: Count
    log_every: Count
    max_onnx_megabytes: float = Field(gt=0)
    """Of the int8 graph, in millions of bytes; a larger one is not put in place."""
    min_cosine: float = Field(gt=0, le=1)
    """Mean cosine of int8 with fp32 hidden states below which an export is refused."""

    @model_validator(mode="after")
    def _rows_fit(self) -> EncoderConfig:
        if longest := [phase.length for phase in self.phases if phase.length > self.shape.context]:
            raise ValueError(f"rows of {longest[0]} tokens are longer than the context of {self.shape.context}")
        if self.optimizer.warmup_steps >= self.steps:
            raise ValueError(f"{self.optimizer.warmup_steps} steps of warm-up leave none of {self.steps}")
        return self

    @property
    def steps(self) -> int:
        """Optimizer steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    @property
    def tokens(self) -> int:
        """Tokens read in all phases."""
        return sum(phase.steps * phase.rows * phase.length for phase in self.phases)

    def phase_at(self, step: int) -> tuple[int, int]:
        """The phase of a step and the step within it.

        Raises:
            IndexError: the step is beyond the last phase.
        """
        for index, phase in enumerate(self.phases):
            if step < phase.steps:
                return index, step
            step -= phase.steps
        raise IndexError("beyond the last phase")

    def digest(self) -> str:
        """16 hex digits over everything that decides the weights, the hardware aside."""
        said = self.model_dump_json(
            exclude={"machine", "log_every", "checkpoint_every", "max_onnx_megabytes", "min_cosine"}
        )
        return hashlib.sha256(said.encode()).hexdigest()[:16]


def learning_rate(step: int, config: EncoderConfig) -> float:
    """Of one step: a linear warm-up, then constant, then a linear fall to zero."""
    optimizer = config.optimizer
    return optimizer.learning_rate * trapezoid(step, config.steps, optimizer.warmup_steps, optimizer.decay_share)


def load_config(preset: str, path: Path | None = None, changes: Sequence[str] = ()) -> EncoderConfig:
    """The configuration of a preset or of a file, as `read_recipe` reads it.

    Raises:
        EncoderConfigError: there is no such preset or file, or its values contradict each other.
    """
    return read_recipe(EncoderConfig, "penstock_tuning.encoder", preset, path, changes, error=EncoderConfigError)
