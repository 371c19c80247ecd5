"""The front matter of a model card: licence, data sets, base models, evaluation results.

The keys are the hub's (https://huggingface.co/docs/hub/model-cards). A card is text by strangers: what does not have
the expected shape is left out, never an error, but for YAML that cannot be read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.models.errors import ModelRefused
from penstock.models.folders import CARDS
from penstock.models.manifest import UNKNOWN, Evaluation, Licence

_FENCE = "---"
_MOST_BYTES = 1_000_000
_MOST_LISTED = 100
_MOST_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Card:
    """What a card's front matter says."""

    licence: Licence = field(default_factory=Licence)
    base_models: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()


def read_card(folder: Path) -> Card:
    """The card of a model folder, an empty one where there is none; raises ModelRefused."""
    for name in CARDS:
        path = folder / name
        if path.is_file():
            with path.open(encoding="utf-8", errors="replace") as file:
                return parse(file.read(_MOST_BYTES), str(path))
    return Card()


def parse(text: str, place: str) -> Card:
    """The front matter of a card's text; `place` names it in an error."""
    front = _front_matter(text)
    if front is None:
        return Card()
    import yaml  # noqa: PLC0415  # an extra: services serve models and read no cards

    try:
        said = yaml.safe_load(front)
    except yaml.YAMLError:
        raise ModelRefused(f"{place}: its front matter is no YAML; correct it, or remove the card") from None
    if not isinstance(said, dict):
        return Card()
    return Card(
        licence=Licence(
            id=next(iter(_lines(said.get("license"))), UNKNOWN),
            name=next(iter(_lines(said.get("license_name"))), None),
            link=next(iter(_lines(said.get("license_link"))), None),
        ),
        base_models=_lines(said.get("base_model")),
        data=_lines(said.get("datasets")),
        evaluations=_evaluations(said.get("model-index")),
    )


def _front_matter(text: str) -> str | None:
    lines = text.lstrip("\ufeff").splitlines()
    if not lines or lines[0].rstrip() != _FENCE:
        return None
    for number, line in enumerate(lines[1:], start=1):
        if line.rstrip() == _FENCE:
            return "\n".join(lines[1:number])
    return None


def _lines(value: Any) -> tuple[str, ...]:
    """A string, or the strings of a list."""
    found = value if isinstance(value, list) else [value]
    return tuple(one[:_MOST_CHARACTERS] for one in found if isinstance(one, str) and one)[:_MOST_LISTED]


def _evaluations(index: Any) -> tuple[Evaluation, ...]:
    """The metrics of `model-index`; each model's results, each with a dataset and its metrics."""
    found = []
    for model in _objects(index):
        for result in _objects(model.get("results")):
            dataset = result.get("dataset")
            named = _lines(dataset.get("name")) if isinstance(dataset, dict) else ()
            for metric in _objects(result.get("metrics")):
                kind, value = _lines(metric.get("name") or metric.get("type")), metric.get("value")
                if named and kind and isinstance(value, int | float) and math.isfinite(value):
                    found.append(Evaluation(dataset=named[0], metric=kind[0], value=float(value)))
    return tuple(found[:_MOST_LISTED])


def _objects(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
