"""Settings of the safety service: `PENSTOCK_` and the field's name in capitals."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from penstock.heads import SHIPPED as HEADS
from penstock.runtime.settings import ServiceSettings
from penstock_safety.classifier import SHIPPED


class Settings(ServiceSettings):
    """What the safety service adds to the shared settings."""

    safety_policy: Path | None = Field(
        default=None,
        description="Policy file (YAML), or `default` or `heads`, the built-in ones; the first where absent.",
    )
    safety_abuse_model: Path = Field(
        default=SHIPPED, description="Folder with the abusive-language model.onnx and its config.json."
    )
    safety_heads_model: Path = Field(
        default=HEADS, description="Folder of heads for the detector of that name; read where the policy lists it."
    )
    safety_window_chars: Annotated[int, Field(ge=256, le=1_000_000)] = Field(
        default=8_000, description="Characters of one window of long text."
    )
    safety_window_overlap_chars: Annotated[int, Field(ge=64, le=500_000)] = Field(
        default=1_000, description="Characters that neighbouring windows share; at most half a window."
    )
    safety_stream_hold_chars: Annotated[int, Field(ge=64, le=100_000)] = Field(
        default=400,
        description="Characters of a streamed sentence without an end after which it goes on up to a word's end.",
    )
    safety_batch_chars: Annotated[int, Field(ge=1_024, le=67_108_864)] = Field(
        default=262_144, description="Most characters of several requests that the detectors see in one call."
    )
    safety_timeout_s: Annotated[float, Field(gt=0, le=600)] = Field(
        default=30.0, description="Longest one call of all detectors; later, its requests wait and are tried again."
    )
    safety_threads: Annotated[int, Field(ge=1, le=64)] = Field(
        default=1, description="Threads of a model within one call."
    )

    @field_validator("safety_window_overlap_chars")
    @classmethod
    def _overlap_fits(cls, value: int, info: ValidationInfo) -> int:
        size = info.data.get("safety_window_chars")
        if size is not None and value * 2 > size:
            raise ValueError(f"{value} is more than half of PENSTOCK_SAFETY_WINDOW_CHARS, which is {size}")
        return value
