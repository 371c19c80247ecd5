"""The run record of heads, and where an encoder that they begin from lies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from tokenizers import Tokenizer

from penstock_tuning.encoder.config import EncoderConfig
from penstock_tuning.encoder.tokenizer import load_tokenizer
from penstock_tuning.heads.config import HeadsConfig
from penstock_tuning.heads.errors import EncoderMissingError
from penstock_tuning.training import record
from penstock_tuning.training.checkpoints import CHECKPOINT


@dataclass(frozen=True)
class Base:
    """What a run of heads begins from."""

    config: EncoderConfig
    tokenizer: Tokenizer
    digest: str
    """16 hex digits: of the tokenizer, and of the checkpoint where its weights are used."""
    record: Mapping[str, Any]


def find_encoder(model: Path, work: Path, *, pretrained: bool) -> Base:
    """The encoder of a finished folder, whose weights are in the work folder of its run.

    Raises:
        EncoderMissingError: one of them is not there, or they are not of one run.
    """
    try:
        made = json.loads((model / record.RECORD).read_text("utf-8"))
        config = EncoderConfig.model_validate(made["configuration"])
    except (OSError, ValueError, KeyError, ValidationError) as error:
        raise EncoderMissingError(
            f"no finished encoder in {model} ({type(error).__name__}): run `penstock tune encoder` to its end first"
        ) from error
    total = hashlib.sha256((model / "tokenizer.json").read_bytes())
    if pretrained:
        checkpoint = work / CHECKPOINT
        if not checkpoint.exists():
            raise EncoderMissingError(
                f"no {CHECKPOINT} in {work}: the weights that {model} was exported from; name its folder with "
                "--encoder-work"
            )
        with checkpoint.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return Base(config, load_tokenizer(model), total.hexdigest()[:16], made)


def run_record(
    config: HeadsConfig,
    base: Base,
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
        base: the encoder.
        card: of the prepared data.
        seconds: of each stage; those of training are added up over its pieces.
        history: losses by step.
        metrics: of the exported graph, on sources kept apart.
        machine: `hardware()` and what the run used of it.
    """
    common = record.run_record(
        config,
        {"digests": card["key"]["data"], "sources": card["sources"], "tasks": card["tasks"]},
        parameters=base.config.shape.parameters,
        tokens=config.steps * config.batch_tokens,
        learning="training",
        seconds=seconds,
        history=history,
        metrics=metrics,
        machine=machine,
    )
    encoder = {
        "name": base.config.name,
        "digest": base.digest,
        "configuration_digest": base.config.digest(),
        "pretrained": config.pretrained,
        "seconds": base.record["seconds"],
        "shape": base.config.shape.model_dump(),
    }
    return record.with_entry(common, "encoder", encoder, before="data")
