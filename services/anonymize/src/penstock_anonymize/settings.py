"""The settings of anonymize."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field, SecretStr, StringConstraints, field_validator

from penstock.runtime.settings import ServiceSettings
from penstock_anonymize.detector import DEFAULT_THRESHOLD

NO_MODEL: Final = "none"


class Settings(ServiceSettings):
    """Shared settings and those of anonymize; each is the variable PENSTOCK_<FIELD> in capitals."""

    vault_keys: SecretStr = Field(
        description="Master keys of the vault, NAME:BASE64 of 32 bytes[,NAME2:...], the first seals; "
        "make one with `penstock vault-key`."
    )
    anonymize_score_threshold: Annotated[float, Field(gt=0, le=1)] = Field(
        default=DEFAULT_THRESHOLD, description="Findings less sure than this are left in the text."
    )
    anonymize_entities: tuple[Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{0,63}$")], ...] = Field(
        default=(), description="Entity types to look for, a JSON array; all where empty."
    )
    anonymize_names_model: Path | None = Field(
        default=None,
        description="Folder of heads that finds names, places, organisations, addresses and dates of birth; `none` "
        "leaves them in the text.",
    )
    anonymize_names_threshold: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="Probability from which a word is taken for one; the folder's own where absent."
    )
    anonymize_threads: Annotated[int, Field(ge=1, le=64)] = Field(
        default=1, description="Threads of that model within one call."
    )
    anonymize_max_part_characters: Annotated[int, Field(ge=1_000, le=16_777_216)] = Field(
        default=1_048_576, description="Longest message, in characters."
    )
    anonymize_max_entities: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=2_000, description="Most different pieces of personal data in one conversation."
    )

    @field_validator("anonymize_names_model", mode="before")
    @classmethod
    def _none_is_none(cls, value: Any) -> Any:
        return None if isinstance(value, str) and value.strip().lower() in ("", NO_MODEL) else value
