"""Perplexity of the language model on text that it was not trained on, group by group and over all tokens."""

from __future__ import annotations

import math
from pathlib import Path

from penstock_tuning.evaluate.errors import ModelFolderError
from penstock_tuning.lm.config import LmConfig
from penstock_tuning.lm.conversations import conversations
from penstock_tuning.lm.corpus import documents
from penstock_tuning.lm.evaluate import bits_per_byte, held_out_sequences
from penstock_tuning.lm.prepare import save_held_out
from penstock_tuning.lm.runtime import OnnxModel, load_tokenizer

ALL = "all"
_NEEDED = ("model.onnx", "genai_config.json", "tokenizer.json")


def perplexity(folder: Path, data: Path, work: Path) -> dict[str, dict[str, float]]:
    """Perplexity of a token, bits per byte, tokens and bytes by group, and of all groups together under `all`.

    Args:
        folder: the exported language model.
        data: the data folder; the held-out part of its text is read once and kept in `work`.
        work: where it is kept.

    Raises:
        ModelFolderError: the folder is no language model.
        OSError: a set is missing from the data folder.
    """
    if missing := [name for name in _NEEDED if not (folder / name).exists()]:
        raise ModelFolderError(f"{folder} is no exported language model: {', '.join(missing)} missing")
    config = LmConfig()
    if not (work / "held_out.json").exists():
        save_held_out(list(documents(data, config)), list(conversations(data)), work, config)
    tokenizer = load_tokenizer(folder)
    found = bits_per_byte(OnnxModel(folder), None, tokenizer, held_out_sequences(work, tokenizer, config))
    tokens, size = (sum(row[name] for row in found.values()) for name in ("tokens", "bytes"))
    nats = sum(row["tokens"] * math.log(row["perplexity"]) for row in found.values())
    together = {
        "perplexity": math.exp(nats / tokens),
        "bits_per_byte": nats / math.log(2) / size,
        "tokens": tokens,
        "bytes": size,
    }
    return {**found, ALL: together}
