"""The settings of the inference service; shared ones are in `penstock.runtime.settings`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

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
    inference_spin_us: Annotated[int, Field(ge=0, le=10_000)] = Field(
        default=100,
        description="Microseconds that threads wait awake for their next part of a pass; 0: they sleep at once.",
    )
    inference_provider: Literal["cpu", "cuda"] = Field(
        default="cpu",
        description="What runs the model; `cuda` needs onnxruntime-gpu in place of onnxruntime, and a device.",
    )
    inference_memory_mib: Annotated[int, Field(ge=1)] = Field(
        default=1024,
        description="Most MiB for the key/value cache and logits; long requests wait where it has no room for them.",
    )
    inference_step_tokens: Annotated[int, Field(ge=32, le=65_536)] = Field(
        default=512, description="Most tokens in a round: one for each row, the rest of prompts."
    )
    inference_stall_ms: Annotated[float, Field(gt=0, le=60_000)] = Field(
        default=200.0, description="How long rows that generate may wait in a round for the prompts of others."
    )
    inference_cache_mib: Annotated[int, Field(ge=0)] = Field(
        default=64,
        description="Most MiB of answers kept for a tenant's requests that ask exactly the same again; 0 for none.",
    )
    inference_cache_entries: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        default=10_000, description="Most answers kept."
    )
    inference_cache_age_s: Annotated[float, Field(gt=0, le=604_800)] = Field(
        default=3_600.0, description="Longest that an answer is kept, however often it is asked for."
    )
    inference_cache_sampled: bool = Field(
        default=False,
        description="Keep and give out answers also where chance decides them: a temperature above 0 and no seed.",
    )
    inference_cache_semantic: bool = Field(
        default=False,
        description="Give out kept answers also where only the last message differs, and means the same.",
    )
    inference_cache_encoder: Annotated[str, StringConstraints(max_length=128)] = Field(
        default="", description="What says so: an encoder of the registry, NAME or NAME@REVISION."
    )
    inference_cache_similarity: Annotated[float, Field(ge=0.5, le=1)] = Field(
        default=0.95, description="Lowest cosine of two messages that counts as the same meaning."
    )
    inference_prefix_mib: Annotated[int, Field(ge=0)] = Field(
        default=64, description="Most MiB, besides, for beginnings of prompts that later ones may share; 0 for none."
    )
    inference_adapters: Annotated[int, Field(ge=0, le=64)] = Field(
        default=4, description="Most LoRA adapters in memory; requests for more wait until one is in no use. 0: none."
    )
    inference_adapter_rank: Annotated[int, Field(ge=1, le=1_024)] = Field(
        default=64, description="Most rank of an adapter; one above it is refused."
    )
