"""Perplexity of the language model on text that it was not trained on, group by group and over all tokens."""

from __future__ import annotations

from pathlib import Path

from penstock_tuning.evaluate.errors import ModelFolderError
from penstock_tuning.lm.evaluate import bits_per_byte, held_out_sequences, together
from penstock_tuning.lm.held_out import held_out_texts
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
        SourceMissingError: a set is missing from the data folder.
    """
    if missing := [name for name in _NEEDED if not (folder / name).exists()]:
        raise ModelFolderError(f"{folder} is no exported language model: {', '.join(missing)} missing")
    tokenizer = load_tokenizer(folder)
    kept = held_out_texts(data, work)
    found = bits_per_byte(OnnxModel(folder), None, tokenizer, held_out_sequences(kept, tokenizer))
    return {**found, ALL: together(found)}
