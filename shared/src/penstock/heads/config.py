"""What `config.json` of a folder says of its heads, under `heads`. Knows no graph."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from penstock.contracts.errors import ConfigurationError
from penstock.heads.windows import FRAME_TOKENS

VERSION: Final = 1
NONE: Final = "O"
"""The class of a token that is no personal data."""

Probability = Annotated[float, Field(ge=0, le=1)]
Labels = Annotated[tuple[str, ...], Field(min_length=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True)


class Thresholds(_Section):
    """From which probability on a label is flagged, and from which it is surer."""

    flag: Probability
    block: Probability = 1.0

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.flag > self.block:
            raise ValueError("flag is above block")
        return self


class TextHead(_Section):
    """Probabilities of whole texts: `safety` and `entailment`."""

    labels: Labels
    thresholds: dict[str, Thresholds] = {}


class TokenMarks(_Section):
    """Probabilities of tokens: `safety_tokens`, with one threshold for all labels."""

    labels: Labels
    threshold: Probability = 0.5


class Classes(_Section):
    """One class for each token: `pii`; the first class is none."""

    labels: Annotated[tuple[str, ...], Field(min_length=2)]
    thresholds: dict[str, Probability] = {}

    @model_validator(mode="after")
    def _begins_with_none(self) -> Self:
        if self.labels[0] != NONE:
            raise ValueError(f"the first label is not {NONE}")
        return self


class Similarity(_Section):
    """The embedding."""

    dimensions: Annotated[int, Field(ge=1)]


class HeadsConfig(_Section):
    """The whole of it. A head that was not trained is absent; thresholds are there in a finished folder."""

    version: Literal[1]
    window_tokens: Annotated[int, Field(ge=8)]
    overlap_tokens: Annotated[int, Field(ge=0)]
    model_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    safety: TextHead | None = None
    safety_tokens: TokenMarks | None = None
    pii: Classes | None = None
    entailment: TextHead | None = None
    similarity: Similarity | None = None

    @model_validator(mode="after")
    def _windows_advance(self) -> Self:
        if self.overlap_tokens >= self.window_tokens - FRAME_TOKENS:
            raise ValueError("overlap_tokens leaves windows nothing of their own")
        return self


def parse(config: dict[str, Any], what: str) -> HeadsConfig:
    """From the object of `config.json`; raises ConfigurationError beginning with `what`."""
    said = config.get("heads")
    if said is None:
        raise ConfigurationError(
            f"{what} cannot be used: there is no `heads` in config.json; it is another kind of model"
        )
    try:
        return HeadsConfig.model_validate(said)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        key = ".".join(str(part) for part in ("heads", *first["loc"]))
        raise ConfigurationError(f"{what} cannot be used: {key} of config.json: {first['msg']}") from error


def without_thresholds(config: HeadsConfig, head: Literal["safety", "pii", "entailment"]) -> list[str]:
    """The labels of a head that have none; all of it where the head is absent."""
    section = getattr(config, head)
    if section is None:
        return [head]
    return [label for label in section.labels if label != NONE and label not in section.thresholds]
