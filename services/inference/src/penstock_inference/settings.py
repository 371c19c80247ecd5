"""The settings of the inference service; shared ones are in `penstock.runtime.settings`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from penstock.runtime.settings import UnorderedSettings


class Settings(UnorderedSettings):
    """PENSTOCK_ variables of the inference service."""

    model_dir: Path = Field(
        default=Path("deploy/models/penstock-lm"),
        description="Folder of the language model, in the layout of the onnxruntime-genai builder.",
    )
    inference_targets: str = Field(
        default="",
        description="Servers that generate in place of the local model: a YAML or JSON file, or JSON; see backends.md.",
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
        default=1024, description="Most MiB for the key/value cache and logits, checked at start."
    )
