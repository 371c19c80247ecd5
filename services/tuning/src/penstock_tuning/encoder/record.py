"""The run record: what was made from what, by which configuration, on which machine, in how long."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from penstock_tuning.encoder.config import EncoderConfig

RECORD = "run.json"
_LIBRARIES = ("torch", "numpy", "tokenizers", "onnx", "onnxruntime")


def hardware() -> dict[str, Any]:
    """Processor, cores, memory and libraries of this machine."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: found for name in _LIBRARIES if (found := _version(name))},
    }


def run_record(
    config: EncoderConfig,
    card: Mapping[str, Any],
    *,
    seconds: Mapping[str, float],
    history: list[dict[str, float]],
    metrics: Mapping[str, float],
    machine: Mapping[str, Any],
) -> dict[str, Any]:
    """The record of a finished run.

    Args:
        config: the recipe.
        card: of the prepared data: its key, digests of the sources, tokens.
        seconds: of each stage; those of pretraining are added up over its pieces.
        history: losses by step.
        metrics: of the exported model.
        machine: `hardware()` and what the run used of it.
    """
    return {
        "name": config.name,
        "configuration": config.model_dump(mode="json"),
        "configuration_digest": config.digest(),
        "data": {
            "digest": card["key"]["data"],
            "sources": card["sources"],
            "train": card["train"],
            "validation": card["validation"],
        },
        "parameters": config.shape.parameters,
        "steps": config.steps,
        "tokens": config.tokens,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "tokens_per_second": round(config.tokens / seconds["pretraining"]) if seconds["pretraining"] else None,
        "metrics": dict(metrics),
        "history": history,
        "hardware": dict(machine),
    }


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    """The model's name where Linux says it, else what Python knows."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"
