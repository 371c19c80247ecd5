"""A model folder as a backend, by the engine that is asked for."""

from __future__ import annotations

from pathlib import Path

from penstock.models.digests import folder_digest
from penstock.models.registry import Registry
from penstock.text.prompt_tokens import PromptTokenizer
from penstock_inference.backend import EngineName
from penstock_inference.engine import Choose
from penstock_inference.genai.engine import GenaiEngine
from penstock_inference.genai.model import LIBRARY, GenaiModel
from penstock_inference.local import Generates, LocalBackend
from penstock_inference.prefixes import Counted, count_nothing
from penstock_inference.runner import Limits


def open_folder(
    folder: Path,
    limits: Limits,
    counted: Counted = count_nothing,
    engine: EngineName = "penstock",
    registry: Registry | None = None,
) -> LocalBackend:
    """Raises ConfigurationError naming the setting at fault.

    `counted` is told of each prompt how many of its tokens were reused and how many computed; `registry` has the
    model's adapters, which genai leaves alone.
    """
    if engine == "penstock":
        return LocalBackend.load(folder, limits, counted, registry)
    tokens = PromptTokenizer.from_folder(folder)
    model = GenaiModel(folder, limits)

    def turns(choose: Choose) -> Generates:
        return GenaiEngine(model, choose, step_tokens=limits.step_tokens, stall_s=limits.stall_s, counted=counted)

    versions = {"model": folder_digest(folder), "engine": f"{LIBRARY} {model.version}"}
    return LocalBackend(model, turns, tokens, model.eos_ids, versions)
