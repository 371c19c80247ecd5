"""What a revision says of itself, written beside its files when it is added and never changed.

The revision is a digest over all of it but where and when it came from: the same files with the same facts are
the same revision, and a fact that changes makes another one.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from penstock.contracts.base import Contract

MANIFEST_FILE = "manifest.json"
NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
REVISION_DIGITS = 12
UNKNOWN = "unknown"

Name = Annotated[str, StringConstraints(pattern=f"^{NAME_PATTERN}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Line = Annotated[str, StringConstraints(min_length=1, max_length=500)]
Format = Literal["onnx-genai", "safetensors", "onnx-encoder", "lora"]
"""What the onnxruntime-genai builder writes, which is served; a Hugging Face folder, which is converted first; an
encoder's graph in the Hugging Face layout, which makes vectors of texts; an adapter, which is served with the model
it was made for."""


class ModelFile(Contract):
    """One file of a revision; `path` is its name in the revision's folder."""

    path: Annotated[str, StringConstraints(pattern=r"^[^/\\\x00-\x1f]{1,255}$")]
    bytes: Annotated[int, Field(ge=0)]
    sha256: Sha256


class Licence(Contract):
    """On which terms a model may be used."""

    id: Line = UNKNOWN
    """SPDX identifier where there is one, or the hub's, such as `llama3.1`; `unknown` where nothing says."""
    name: Line | None = None
    link: Line | None = None
    restrictions: tuple[Line, ...] = ()
    """What it forbids or demands of those who use the model; empty where it restricts no use."""


class Evaluation(Contract):
    """One measured figure."""

    dataset: Line
    metric: Line
    value: float


class Source(Contract):
    """Where a revision came from."""

    kind: Literal["folder", "hub", "builtin"]
    location: str
    """The folder, or ORG/NAME on the hub."""
    revision: str | None = None
    """On the hub: the commit."""
    converted_by: str | None = None
    """What made the ONNX files of it, where they were made here."""


class Adapter(Contract):
    """Of an adapter: what it belongs to, and how it changes it."""

    base: Line
    """NAME@REVISION of the model when it was added."""
    base_answers: Line
    """That model's `answers`: where they are the same, so is all that the adapter depends on."""
    rank: Annotated[int, Field(ge=1)]
    scale: float
    """What the product of its two matrices is multiplied by: alpha / rank, or alpha / sqrt(rank)."""
    targets: tuple[Line, ...]
    """The last parts of the names of the modules that it changes, e.g. `q_proj`."""


class Manifest(Contract):
    """A revision's facts and files."""

    version: Literal[1] = 1
    name: Name
    format: Format
    architecture: Line
    context_length: Annotated[int, Field(ge=2)]
    """Most tokens of prompt and answer together."""
    quantization: Line
    """Of the weights: `int4`, `int8`, `fp16`, `bf16`, `fp32`, or several joined by `+`."""
    tokenizer: Line | None = None
    """Short digest of `tokenizer.json`, the same as in `versions` of a result; None where there is none."""
    chat_template: Line | None = None
    """Likewise of the chat template."""
    answers: Line | None = None
    """Of a format that is served: the short digest that a result's `versions.model` names."""
    vectors: Line | None = None
    """Of an encoder: the short digest of what makes its vectors."""
    adapter: Adapter | None = None
    licence: Licence = Licence()
    base_models: tuple[Line, ...] = ()
    """What it was trained from."""
    evaluations: tuple[Evaluation, ...] = ()
    prompts: tuple[Line, ...] = ()
    """Prompt templates that were made for it, as NAME@VERSION."""
    data: tuple[Line, ...] = ()
    """Data sets that it was trained or tuned on."""
    files: tuple[ModelFile, ...]
    source: Source
    added_ms: int

    @property
    def revision(self) -> str:
        """The first digits of a digest over everything but `source` and `added_ms`."""
        said = self.model_dump(mode="json", exclude={"source", "added_ms"}, exclude_defaults=True)
        text = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:REVISION_DIGITS]

    @property
    def reference(self) -> str:
        """NAME@REVISION."""
        return f"{self.name}@{self.revision}"

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(file.bytes for file in self.files)

    @property
    def same_prompts(self) -> tuple[str | None, str | None]:
        """What prompts are made with: revisions that have it in common can take each other's requests over."""
        return self.tokenizer, self.chat_template
