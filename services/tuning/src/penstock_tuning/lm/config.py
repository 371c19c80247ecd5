"""The language model's configuration: one YAML file per preset (`cpu.yaml`, `gpu.yaml`), or one of the user's own.

Where the data lies and where files go is not part of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from penstock_tuning.encoder.config import Optimizer
from penstock_tuning.lm.errors import LmConfigError
from penstock_tuning.training.recipe import Count, Machine, Part, read_recipe, trapezoid

Kind = Literal["text", "conversations", "generated"]
KINDS: tuple[Kind, ...] = ("text", "conversations", "generated")
Positive = Annotated[float, Field(gt=0)]


class Shape(Part):
    """The network: Llama's, with embeddings that are the output's matrix too."""

    vocabulary: Annotated[int, Field(ge=372, le=65_535)]
    """Tokens, special ones, bytes and placeholders included."""
    width: Count
    layers: Count
    heads: Count
    key_value_heads: Count
    feed_forward: Count
    context: Annotated[int, Field(ge=640)]
    """Tokens; fewer have no room for what the export is measured on."""
    rope_theta: float = 10_000.0

    @model_validator(mode="after")
    def _heads_divide(self) -> Shape:
        if self.width % (2 * self.heads):
            raise ValueError(f"a width of {self.width} does not make {self.heads} heads of an even size")
        if self.heads % self.key_value_heads:
            raise ValueError(f"{self.heads} heads cannot share {self.key_value_heads} of keys and values evenly")
        return self

    @property
    def parameters(self) -> int:
        """Of the whole network."""
        shared = self.width // self.heads * self.key_value_heads
        layer = 2 * self.width * (self.width + shared) + 3 * self.width * self.feed_forward + 2 * self.width
        return self.vocabulary * self.width + self.layers * layer + self.width


class Text(Part):
    """What of the data package's task `text` is read."""

    without_kinds: tuple[str, ...] = ()
    """Kinds of sources: what a model that answers people should not have learned to say."""
    without: tuple[str, ...] = ()
    """Sources by name: those that the conversations have already."""


class Phase(Part):
    """A stretch of training with one mix."""

    tokens: Count
    """Read in it, rounded down to whole batches."""
    learned: Literal["all", "answers"]
    """Of conversations and generated tasks: every token, or the answers' alone. Of texts every token is learned."""
    shares: Mapping[Kind, Positive]
    """Of the rows, by kind."""


class Export(Part):
    """Weights as they are shipped, and what that may cost."""

    bits: Literal[4, 8]
    block_size: Literal[16, 32, 64, 128, 256]
    """Weights that share a scale."""
    accuracy_level: Annotated[int, Field(ge=0, le=4)]
    """Of MatMulNBits in ONNX Runtime; 4 multiplies in int8."""
    max_megabytes: Positive
    """Of the folder, in millions of bytes."""
    max_cost: Positive
    """Bits for a byte of held-out text that quantization may add."""
    prompts: Count = 400
    """Generated prompts that its few tasks are measured on, for each side of their split."""


class LmConfig(Part):
    """The whole recipe."""

    name: str
    seed: int
    shape: Shape
    text: Text = Text()
    generated: Count
    """Generated conversations; where a phase needs more rows they are read again."""
    phases: tuple[Phase, ...] = Field(min_length=1)
    length: Count
    """Tokens of a row."""
    batch_tokens: Count
    """Of one step."""
    optimizer: Optimizer
    machine: Machine = Machine()
    tokenizer_megabytes: Positive
    """Of text that the tokenizer is trained on, drawn evenly over the sources; conversations come on top."""
    validation_rows: Count
    """Rows of held-out text, and as many of held-out conversations, that losses are watched on."""
    checkpoint_every: Count
    log_every: Count
    export: Export

    @model_validator(mode="after")
    def _steps_fit(self) -> LmConfig:
        if self.length > self.shape.context:
            raise ValueError(f"rows of {self.length} tokens are longer than the context of {self.shape.context}")
        if not self.rows or self.batch_tokens % self.length:
            raise ValueError(f"a batch of {self.batch_tokens} tokens is not made of rows of {self.length}")
        if short := [phase.tokens for phase in self.phases if phase.tokens < self.batch_tokens]:
            raise ValueError(f"{short[0]} tokens of a phase are less than one batch of {self.batch_tokens}")
        if self.optimizer.warmup_steps >= self.steps:
            raise ValueError(f"{self.optimizer.warmup_steps} steps of warm-up leave none of {self.steps}")
        return self

    @property
    def rows(self) -> int:
        """Rows of one step."""
        return self.batch_tokens // self.length

    @property
    def steps(self) -> int:
        """Optimizer steps of all phases."""
        return sum(phase.tokens // self.batch_tokens for phase in self.phases)

    def phase_at(self, step: int) -> int:
        """The phase of a step. Raises IndexError beyond the last."""
        for index, phase in enumerate(self.phases):
            step -= phase.tokens // self.batch_tokens
            if step < 0:
                return index
        raise IndexError("beyond the last phase")

    def rate(self, step: int) -> float:
        """The learning rate of a step: a linear warm-up, then constant, then one linear fall to zero at the end."""
        share = trapezoid(step, self.steps, self.optimizer.warmup_steps, self.optimizer.decay_share)
        return self.optimizer.learning_rate * share

    def digest(self) -> str:
        """16 hex digits over everything that decides the weights, the hardware aside."""
        said = self.model_dump_json(exclude={"machine", "log_every", "checkpoint_every", "export"})
        return hashlib.sha256(said.encode()).hexdigest()[:16]


def load_config(preset: str, path: Path | None = None, changes: Sequence[str] = ()) -> LmConfig:
    """The configuration of a preset or of a file, as `read_recipe` reads it.

    Raises:
        LmConfigError: there is no such preset or file, or its values contradict each other.
    """
    return read_recipe(LmConfig, "penstock_tuning.lm", preset, path, changes, error=LmConfigError)
