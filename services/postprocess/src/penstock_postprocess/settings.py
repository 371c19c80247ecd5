"""The settings of the postprocess service; shared ones are in `penstock.runtime.settings`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr

from penstock.runtime.settings import ServiceSettings


class Settings(ServiceSettings):
    """PENSTOCK_ variables of the postprocess service."""

    vault_keys: SecretStr = Field(
        description="Master keys of the vault, NAME:BASE64[,NAME:BASE64...], 32 bytes each; the first seals; make one "
        "with `penstock vault-key`."
    )
    postprocess_trim: Literal["sentence", "off"] = Field(
        default="sentence", description="Whether an answer cut by its token limit loses its half sentence."
    )
