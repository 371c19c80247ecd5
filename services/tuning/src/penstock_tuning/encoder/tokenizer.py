"""The encoder's tokenizer: byte-level BPE with offsets into the original text, in code points.

There is no normalizer, and every byte is in the alphabet: no character is unknown, and spans found in tokens are spans
of the text as it was sent. Digits stand alone, so that numbers of personal data are read digit by digit; a run of
spaces, as in code, is one piece.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

PAD, UNKNOWN, START, SEPARATOR, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
SPECIAL = (PAD, UNKNOWN, START, SEPARATOR, MASK)
"""Ids 0 to 4."""

_SPLIT = r" ?\p{L}+\p{M}*|\p{N}| ?[^\s\p{L}\p{N}]+|[\r\n]+|\s+(?!\S)|\s+"
_LONGEST = 20


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Train the merges; `vocabulary` counts special tokens too. The same texts in the same order give the same file."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        max_token_length=_LONGEST,
        min_frequency=2,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # Offsets are those of the characters, not of the space before them: a span starts where its word does.
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=True),
            processors.TemplateProcessing(
                single=f"{START} $A {SEPARATOR}",
                pair=f"{START} $A {SEPARATOR} $B {SEPARATOR}",
                special_tokens=[(token, SPECIAL.index(token)) for token in (START, SEPARATOR)],
            ),
        ]
    )
    return tokenizer


def starts_word(tokenizer: Tokenizer) -> NDArray[np.bool_]:
    """`[vocabulary]`: whether a token begins a word; one that goes on with letters, or with bytes of one, does not."""
    begins = np.ones(tokenizer.get_vocab_size(), np.bool_)
    for token, index in tokenizer.get_vocab().items():
        begins[index] = index < len(SPECIAL) or token[0] not in _OF_WORDS
    return begins


def _byte_characters() -> dict[int, str]:
    """How byte-level BPE writes each byte (GPT-2's table, https://github.com/openai/gpt-2/blob/master/src/encoder.py)."""
    table = {byte: chr(byte) for byte in (*range(33, 127), *range(161, 173), *range(174, 256))}
    hidden = [byte for byte in range(256) if byte not in table]
    return table | {byte: chr(256 + position) for position, byte in enumerate(hidden)}


# Letters, and the bytes of letters beyond ASCII.
_OF_WORDS = frozenset(shown for byte, shown in _byte_characters().items() if byte >= 128 or chr(byte).isalpha())


def save_tokenizer(tokenizer: Tokenizer, folder: Path, context: int) -> None:
    """Write tokenizer.json, its configuration and the special-token map, as transformers reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {
        "pad_token": PAD, "unk_token": UNKNOWN, "cls_token": START, "sep_token": SEPARATOR, "mask_token": MASK,
    }  # fmt: skip
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
        **special,
    }
    for name, value in (("tokenizer_config.json", config), ("special_tokens_map.json", special)):
        (folder / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a folder, without padding or truncation.

    A special token that stands in a text is read as its characters: no text can close its own frame.
    """
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True
    return tokenizer
