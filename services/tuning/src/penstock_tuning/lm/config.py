"""The recipe of the embedded language model: every hyperparameter in one frozen dataclass.

The defaults are the recipe of the shipped model. Where the data lies is not part of the recipe: see `data_root`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from penstock_tuning.lm.errors import DataFolderMissingError

PLACEHOLDER_TYPES: tuple[str, ...] = (
    "EMAIL_ADDRESS",
    "PHONE_NUMBER",
    "CREDIT_CARD",
    "IBAN_CODE",
    "IP_ADDRESS",
    "URL",
    "US_SSN",
    "PERSON",
    "LOCATION",
    "ORGANIZATION",
    "DATE_TIME",
    "CRYPTO",
)
PLACEHOLDER_MAX_INDEX = 9
SPECIAL_TOKENS: tuple[str, ...] = ("<|pad|>", "<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
LANGUAGES: tuple[str, ...] = ("en", "de", "fr", "es", "it", "pt")


@dataclass(frozen=True)
class LmConfig:
    """Model shape, data mix, optimiser schedule and export settings."""

    seed: int = 7
    # tokenizer and model
    vocab_size: int = 6144
    hidden_size: int = 256
    intermediate_size: int = 640
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    context: int = 1024
    rope_theta: float = 10_000.0
    # data mix, bytes of text at most for one source and language
    docs_bytes: int = 450_000
    tldr_bytes: int = 200_000
    english_novel_bytes: int = 1_300_000
    other_novel_bytes: int = 250_000
    law_bytes: int = 300_000
    held_out_percent: int = 3
    pretrain_generated: int = 40_000
    tune_generated: int = 75_000
    tune_public_percent: int = 35
    polish_generated: int = 36_000
    polish_public_percent: int = 5
    # training
    train_length: int = 512
    batch_rows: int = 8
    pretrain_steps: int = 450
    tune_steps: int = 1000
    decay_steps: int = 250
    polish_steps: int = 250
    warmup_steps: int = 40
    learning_rate: float = 3e-3
    tune_learning_rate: float = 2.5e-3
    polish_learning_rate: float = 1.5e-3
    final_lr_fraction: float = 0.02
    weight_decay: float = 0.05
    clip_norm: float = 1.0
    threads: int = 2
    checkpoint_every: int = 50
    # export
    quant_block_size: int = 32
    quant_accuracy_level: int = 4
    max_folder_bytes: int = 20_000_000


def data_root() -> Path:
    """Return the folder of the training sets: `PENSTOCK_DATA`, else `../shared/data`.

    Raises:
        DataFolderMissingError: the folder is absent; the message says what to set.
    """
    root = Path(os.environ.get("PENSTOCK_DATA", "../shared/data"))
    if not (root / "text").is_dir():
        raise DataFolderMissingError(
            f"no training data at {root}: set PENSTOCK_DATA to the folder that holds text/ and benign/"
        )
    return root
