"""The settings of the inference service; shared ones are in `penstock.runtime.settings`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from penstock.runtime.served_model import ServedModel
from penstock.runtime.settings import UnorderedSettings
from penstock_inference.backend import EngineName


class Settings(ServedModel, UnorderedSettings):
    """PENSTOCK_ variables of the inference service."""

    inference_linger_s: Annotated[float, Field(ge=10, le=86_400)] = Field(
        default=60.0,
        description="How long a replaced model stays loaded for prompts of a tokenizer or chat template of its own.",
    )
    inference_targets: str = Field(
        default="",
        description="Servers and local models that share the work: a YAML or JSON file, or JSON; see backends.md.",
    )
    inference_engine: EngineName = Field(
        default="penstock",
        description="What runs local models: `penstock`, or `genai`: onnxruntime-genai, of the extra of that name.",
    )
    inference_rows: Annotated[int, Field(ge=1, le=256)] = Field(
        default=8, description="Most requests that generate together."
    )
    inference_queue: Annotated[int, Field(ge=0, le=1_024)] = Field(
        default=2, description="Most requests that wait in the stage for a free row; the others wait in Kafka."
    )
    inference_context: Annotated[int, Field(ge=2)] | None = Field(
        default=None, description="Most tokens of prompt and answer together; the model's own limit where absent."
    )
    inference_threads: Annotated[int, Field(ge=1, le=256)] = Field(
        default=1, description="Threads of a forward pass; as many as cores slows a shared machine down badly."
    )
    inference_memory_mib: Annotated[int, Field(ge=1)] = Field(
        default=1024,
        description="Most MiB for the key/value cache and logits; long requests wait where it has no room for them.",
    )
    inference_step_tokens: Annotated[int, Field(ge=32, le=65_536)] = Field(
        default=512, description="Most tokens in a round: one for each row, the rest of prompts."
    )
    inference_stall_ms: Annotated[float, Field(gt=0, le=60_000)] = Field(
        default=50.0, description="How long rows that generate may wait in a round for the prompts of others."
    )
    inference_prefix_mib: Annotated[int, Field(ge=0)] = Field(
        default=64, description="Most MiB, besides, for beginnings of prompts that later ones may share; 0 for none."
    )
