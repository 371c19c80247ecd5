"""The byte-level BPE tokenizer and the chat template.

Any UTF-8 text round-trips exactly: there is no normalizer and every byte is in the alphabet. Digits are single
tokens, and the typed placeholders (`<EMAIL_ADDRESS_1>`) are ordinary added tokens, so that quoting one is
copying one id and decoding gives its literal text. Rendering a conversation is left to any Jinja sandbox.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from penstock_tuning.lm.vocabulary import PLACEHOLDER_MAX_INDEX, PLACEHOLDER_TYPES, SPECIAL_TOKENS

CHAT_TEMPLATE = (
    "{{ '<|bos|>' }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ '<|assistant|>' }}"
    "{% elif message['role'] in ['system', 'developer'] %}{{ '<|system|>' }}"
    "{% else %}{{ '<|user|>' }}{% endif %}"
    "{{ '\\n' + message['content'] + '<|end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
# Splits words, punctuation and white space apart and digits one by one (the expression of the Qwen2 family).
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

Turn = tuple[str, str]


def placeholder_tokens() -> list[str]:
    """Return every placeholder that has a token of its own."""
    return [f"<{kind}_{n}>" for kind in PLACEHOLDER_TYPES for n in range(1, PLACEHOLDER_MAX_INDEX + 1)]


def special_id(tokenizer: Tokenizer, text: str) -> int:
    """Id of a special token.

    Raises:
        KeyError: the tokenizer lacks it.
    """
    number: int | None = tokenizer.token_to_id(text)
    if number is None:
        raise KeyError(text)
    return number


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train the BPE merges; `vocab_size` counts special and placeholder tokens too."""
    placeholders = placeholder_tokens()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(placeholders),
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        max_token_length=24,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in placeholders])
    return tokenizer


def encode_conversation(tokenizer: Tokenizer, turns: Sequence[Turn]) -> tuple[list[int], list[bool]]:
    """Encode turns as the chat template renders them; the mask marks what the model must learn to say."""
    ids: list[int] = [special_id(tokenizer, "<|bos|>")]
    learn: list[bool] = [False]
    end = special_id(tokenizer, "<|end|>")
    newline: list[int] = tokenizer.encode("\n", add_special_tokens=False).ids
    for role, text in turns:
        # Head and tail are encoded with the text, because a leading or trailing newline may merge with it.
        body: list[int] = tokenizer.encode("\n" + text, add_special_tokens=False).ids
        mine = role == "assistant"
        ids += [special_id(tokenizer, f"<|{role}|>"), *body, end, *newline]
        first = 1 if body[:1] == newline else 0
        learn += [False] + [mine and i >= first for i in range(len(body))] + [mine] + [False] * len(newline)
    return ids, learn


def save_tokenizer(tokenizer: Tokenizer, folder: Path, context: int) -> None:
    """Write tokenizer.json, its configuration, the special-token map and the chat template."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"bos_token": "<|bos|>", "eos_token": "<|end|>", "pad_token": "<|pad|>"}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
        "add_bos_token": False,
        "add_eos_token": False,
        "additional_special_tokens": ["<|system|>", "<|user|>", "<|assistant|>"],
        "chat_template": CHAT_TEMPLATE,
        **special,
    }
    _write_json(folder / "tokenizer_config.json", config)
    _write_json(
        folder / "special_tokens_map.json",
        {**special, "additional_special_tokens": config["additional_special_tokens"]},
    )
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
