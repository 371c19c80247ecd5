"""The settings of services that serve a model, and where it comes from: the registry, or one folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints

from penstock.models.registry import EMBEDDED, Registry
from penstock.models.watch import Watch


class ServedModel(BaseModel):
    """Settings that preprocess and inference have in common; given to both alike."""

    model: Annotated[str, StringConstraints(min_length=1, max_length=128)] = Field(
        default="champion", description="What is served of the registry: an alias, which is followed, or NAME@REVISION."
    )
    models_dir: Path = Field(
        default=Path(".penstock/models"),
        description="The registry's folder; nothing need be there, the embedded model serves then.",
    )
    models_poll_ms: Annotated[int, Field(ge=50, le=60_000)] = Field(
        default=1_000, description="How often to look whether the alias points elsewhere."
    )
    model_dir: Path | None = Field(
        default=None,
        description="Serve this folder instead, in the layout of the onnxruntime-genai builder; no alias is followed.",
    )

    @property
    def registry(self) -> Registry:
        """The registry with the embedded model."""
        return Registry(self.models_dir, EMBEDDED)

    @property
    def watch(self) -> Watch:
        """The alias."""
        return Watch(self.registry, self.model)
