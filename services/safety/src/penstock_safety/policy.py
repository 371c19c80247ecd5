"""The safety policy: which labels, from which score on, are flagged, redacted or blocked, for which tenant.

Strict: an unknown key, label, detector or action is refused when the file is read, with a sentence naming the key. A
label that a listed detector can report must have an entry, so that nothing is let through by omission; an empty list
allows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from penstock.contracts.base import shape
from penstock.contracts.errors import ConfigurationError
from penstock.contracts.events import Action, Direction
from penstock_safety.detector import Detector, digest_of

DIRECTIONS: Final[tuple[Direction, ...]] = ("prompt", "response")
SEVERITY: Final[Mapping[Action, int]] = {"allow": 0, "flag": 1, "redact": 2, "block": 3}
SETTING: Final = "PENSTOCK_SAFETY_POLICY"
DEFAULT: Final = "default"
BUILT_IN: Final = {DEFAULT: "default_policy.yaml", "heads": "heads_policy.yaml"}
"""The policies that come with the service, by the names that the setting takes."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Step(_Strict):
    """From `at_least` on, `action`."""

    at_least: Annotated[float, Field(ge=0, le=1)]
    action: Action


Ladder = tuple[Step, ...]
Labels = dict[str, Ladder]


def _ladders(value: Any) -> Any:
    """YAML gives lists; strict tuples want tuples."""
    if not isinstance(value, dict):
        return value
    return {label: tuple(steps) if isinstance(steps, list) else steps for label, steps in value.items()}


class Rules(_Strict):
    """What happens to a label's findings in a prompt and in a response."""

    prompt: Labels
    response: Labels

    @field_validator("prompt", "response", mode="before")
    @classmethod
    def _as_tuples(cls, value: Any) -> Any:
        return _ladders(value)


class Overrides(_Strict):
    """A tenant's own ladders; each replaces the general one of its label whole."""

    prompt: Labels = {}
    response: Labels = {}

    @field_validator("prompt", "response", mode="before")
    @classmethod
    def _as_tuples(cls, value: Any) -> Any:
        return _ladders(value)


class Tenant(_Strict):
    """What one tenant has of its own."""

    rules: Overrides


class Policy(_Strict):
    """A whole policy file."""

    version: Annotated[str, Field(min_length=1, max_length=64)]
    detectors: tuple[str, ...] = Field(min_length=1)
    rules: Rules
    tenants: dict[str, Tenant] = {}

    @field_validator("detectors", mode="before")
    @classmethod
    def _as_tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @property
    def digest(self) -> str:
        """Of what the policy says, whatever the file's layout."""
        return digest_of((self.model_dump_json(),))

    def action(self, *, tenant: str, direction: Direction, label: str, score: float) -> Action:
        """The most severe action whose threshold the score reaches."""
        ladder = self._ladder(tenant, direction, label)
        reached: list[Action] = [step.action for step in ladder if score >= step.at_least]
        return max(reached, key=SEVERITY.__getitem__, default="allow")

    def _ladder(self, tenant: str, direction: Direction, label: str) -> Ladder:
        own = self.tenants.get(tenant)
        if own is not None:
            ladder: Ladder | None = getattr(own.rules, direction).get(label)
            if ladder is not None:
                return ladder
        general: Ladder = getattr(self.rules, direction)[label]
        return general

    def check(self, registered: Mapping[str, Detector]) -> None:
        """Raises ConfigurationError unless detectors and labels fit each other both ways."""
        for index, name in enumerate(self.detectors):
            if name not in registered:
                raise _refused(f"detectors.{index}", f"there is no detector {name!r}; there are {_listed(registered)}")
            if name in self.detectors[:index]:
                raise _refused(f"detectors.{index}", f"detector {name!r} is listed twice")
        labels = {label for name in self.detectors for label in registered[name].labels}
        for direction in DIRECTIONS:
            general: Labels = getattr(self.rules, direction)
            key = f"rules.{direction}"
            for label in general:
                if label not in labels:
                    raise _refused(f"{key}.{label}", f"no listed detector reports it; they report {_listed(labels)}")
            for label in sorted(labels - general.keys()):
                raise _refused(key, f"label {label!r} of a listed detector has no entry; add one, [] allows it")
            for tenant, own in self.tenants.items():
                for label in getattr(own.rules, direction):
                    if label not in labels:
                        raise _refused(
                            f"tenants.{tenant}.{key}.{label}",
                            f"no listed detector reports it; they report {_listed(labels)}",
                        )


def load(path: Path | None = None) -> Policy:
    """Reads a policy file, or a built-in one by its name, the default one where there is no path.

    Raises ConfigurationError naming the key.
    """
    name = DEFAULT if path is None else str(path)
    source = resources.files("penstock_safety").joinpath(BUILT_IN[name]) if name in BUILT_IN else Path(name)
    try:
        text = source.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{SETTING}: the policy file {path} cannot be read ({type(error).__name__})", field=SETTING
        ) from error
    return parse(text)


def parse(text: str) -> Policy:
    """A policy from YAML text. Raises ConfigurationError naming the key."""
    try:
        raw = yaml.load(text, Loader=_UniqueKeys)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise ConfigurationError(f"{SETTING}: the policy is not valid YAML{place}: {problem}", field=SETTING) from error
    if not isinstance(raw, dict):
        raise _refused("(top)", f"expected a mapping with version, detectors and rules, got {shape(raw)}")
    try:
        return Policy.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise _refused(key, first["msg"][0].lower() + first["msg"][1:]) from error


class _UniqueKeys(yaml.SafeLoader):
    """A label given twice would silently keep the last ladder only."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _refused(key: str, why: str) -> ConfigurationError:
    return ConfigurationError(f"{SETTING}: policy key {key}: {why}", field=SETTING)


def _listed(names: Mapping[str, object] | Sequence[str] | set[str]) -> str:
    return ", ".join(sorted(names))
