"""Recipes: one YAML file per preset, or one of the user's own, with single values replaced on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from penstock_tuning.errors import TuningError

PRESETS = ("cpu", "gpu")

Count = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Part(BaseModel):
    """A recipe or a part of one: nothing in it changes, nothing unknown is in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Machine(Part):
    """What the run uses of the hardware."""

    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["fp32", "bf16", "auto"] = "auto"
    """auto: bf16 where the processor multiplies in it, else fp32."""
    compiled: bool = False
    """torch.compile; on a CPU it needs a C++ compiler."""
    threads: Count | None = None
    """None: as many as there are cores."""


Recipe = TypeVar("Recipe", bound=Part)


def read_recipe(
    kind: type[Recipe],
    package: str,
    preset: str,
    path: Path | None,
    changes: Sequence[str],
    *,
    error: type[TuningError],
) -> Recipe:
    """The recipe of a preset or of a file.

    Args:
        kind: of the recipe.
        package: where `PRESET.yaml` lies.
        preset: one of `PRESETS`; unused where `path` is given.
        path: a YAML file with every field that has no default.
        changes: `key.key=value`, each a YAML value that replaces that of the file.
        error: what is raised where there is no such preset or file, or its values contradict each other.
    """
    if path is None and preset not in PRESETS:
        raise error(f"no preset {preset!r}: there are {', '.join(PRESETS)}")
    place = path or resources.files(package) / f"{preset}.yaml"
    try:
        data = yaml.safe_load(place.read_text("utf-8"))
        for change in changes:
            _change(data, change, error)
        return kind.model_validate(data)
    except (OSError, yaml.YAMLError) as problem:
        raise error(f"{place} cannot be read: {problem}") from problem
    except ValidationError as problem:
        first = problem.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "configuration"
        raise error(f"{place}: {where}: {first['msg']}") from problem


def _change(data: object, change: str, error: type[TuningError]) -> None:
    key, equals, value = change.partition("=")
    if not equals:
        raise error(f"{change!r} is not KEY=VALUE")
    *parents, last = key.split(".")
    for part in parents:
        data = data.get(part) if isinstance(data, dict) else None
    if not isinstance(data, dict):
        raise error(f"{key} is no setting of the configuration")
    data[last] = yaml.safe_load(value)


def trapezoid(step: int, total: int, warmup: int, decay_share: float) -> float:
    """The share of the full rate at a step: a linear warm-up, then 1, then a linear fall to zero over the last
    `decay_share` of all steps (Hägele et al., 2024, https://arxiv.org/abs/2405.18392).
    """
    if step < warmup:
        return (step + 1) / warmup
    falling = max(1, round(total * decay_share))
    return min(1.0, (total - step) / falling)
