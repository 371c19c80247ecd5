"""Compiles the phrase rules of `phrases.toml`, where their notation is explained."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources

_GAP = r"\W{1,4}"
_SKIP = r"(?:\w{1,20}\W{1,4}){0,N}"
# Without gaps "up to N words" would be ambiguous and its time exponential: skip characters of any kind instead.
_GAP_SQUEEZED = r"\W{0,4}"
_SKIP_SQUEEZED = r"(?s:.{0,N0}?)"


@dataclass(frozen=True, slots=True)
class Phrase:
    """One rule. `squeezed` matches text whose spelled-out words were joined, so its gaps may be empty."""

    name: str
    score: float
    pattern: re.Pattern[str]
    squeezed: re.Pattern[str]


@cache
def source() -> str:
    """The rules as written: what their digest is made of."""
    return resources.files(__package__).joinpath("phrases.toml").read_text("utf-8")


@cache
def phrases() -> tuple[Phrase, ...]:
    """All rules, compiled."""
    table = tomllib.loads(source())
    words = {name: "|".join(listed) for name, listed in table["words"].items()}
    found = []
    for rule in table["rule"]:
        template = re.sub(r"<(\w+)>", lambda match: words[match.group(1)], "|".join(rule["any"]))
        # A rule that begins with a mark has no word border before it.
        border = r"\b" if template[0] != "!" else ""
        found.append(
            Phrase(
                rule["name"],
                float(rule["score"]),
                _compile(template, border, _GAP, _SKIP),
                _compile(template, "", _GAP_SQUEEZED, _SKIP_SQUEEZED),
            )
        )
    return tuple(found)


def _compile(template: str, border: str, gap: str, skip: str) -> re.Pattern[str]:
    expanded = re.sub(r"~(\d+)", lambda match: skip.replace("N", match.group(1)), template)
    return re.compile(f"{border}(?:{expanded.replace(' ', gap)})")
