"""A Hugging Face folder to one that is served, by onnxruntime-genai's builder in a process of its own.

The builder and torch are the extra `convert`, which no service installs. The process is offline: all it needs is in
the folder, and code that a model brings is not run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

from penstock.models.errors import ModelError
from penstock.models.folders import CARDS, ModelFolder

Precision = Literal["int4", "int8", "fp16", "bf16", "fp32"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
BUILDER = "onnxruntime_genai.models.builder"
_NEEDS = ("onnxruntime_genai", "onnx", "torch", "transformers")
_SHOWN_LINES = 5


def missing() -> list[str]:
    """The modules that conversion needs and that are not installed."""
    return [name for name in _NEEDS if find_spec(name) is None]


def convert(source: ModelFolder, target: Path, precision: str) -> str:
    """Write the converted model to a new folder; what made it, for the record. Raises ModelError."""
    absent = missing()
    if absent:
        raise ModelError(f"converting needs {', '.join(absent)}: install penstock[convert], or convert elsewhere")
    cache = target.with_name(f"{target.name}.cache")
    command = [sys.executable, "-m", BUILDER, "-i", str(source.path.resolve()), "-o", str(target)]
    command += ["-p", precision, "-e", "cpu", "-c", str(cache)]
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "ORT_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(command, env=os.environ | offline, capture_output=True, text=True, check=False)
    shutil.rmtree(cache, ignore_errors=True)
    if done.returncode:
        said = "\n".join(done.stderr.strip().splitlines()[-_SHOWN_LINES:])
        raise ModelError(f"{source.path} could not be converted; the end of what the builder says:\n{said}")
    for name in source.files:
        if name in CARDS or name.lower().startswith(("license", "licence", "notice", "use_policy")):
            shutil.copy(source.path / name, target / name)
    return f"onnxruntime-genai {_version()}, {precision}"


def _version() -> str:
    try:
        return version("onnxruntime-genai")
    except PackageNotFoundError:
        return "of unknown version"
