"""The machine of a run, for its record, and what the run uses of it."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from penstock_tuning.training.recipe import Machine

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


def has_bf16() -> bool:
    """Whether the processor has instructions for products in bf16. Needs torch."""
    import torch

    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def uses_bf16(machine: Machine) -> bool:
    """Whether matrices are multiplied in bf16; on a CPU `auto` asks whether it has instructions for that."""
    if machine.precision == "auto":
        return machine.device == "cuda" or has_bf16()
    return machine.precision == "bf16"


def used(machine: Machine) -> dict[str, Any]:
    """Device, precision and threads of a run on this machine, to stand beside `hardware()`. Needs torch."""
    import torch

    gpu = {"gpu": torch.cuda.get_device_name()} if machine.device == "cuda" else {}
    precision = "bf16" if uses_bf16(machine) else "fp32"
    return {"device": machine.device, "precision": precision, "threads": torch.get_num_threads(), **gpu}


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
