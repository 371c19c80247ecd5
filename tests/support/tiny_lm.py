"""A language model's recipe that takes seconds, and made-up text and conversations for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from penstock_tuning.data.example import Example
from penstock_tuning.lm.config import LmConfig, load_config
from penstock_tuning.lm.conversations import Conversation
from penstock_tuning.lm.prepare import Prepared, load_prepared, make, write_card

SETTINGS = (
    "shape={vocabulary: 480, width: 32, layers: 2, heads: 2, key_value_heads: 1, feed_forward: 48, context: 640}",
    "generated=60",
    "phases=[{tokens: 3072, learned: all, shares: {text: 0.6, conversations: 0.2, generated: 0.2}},"
    " {tokens: 2048, learned: answers, shares: {conversations: 1, generated: 1}}]",
    "length=32",
    "batch_tokens=256",
    "optimizer={learning_rate: 0.01, warmup_steps: 2, decay_share: 0.4}",
    "machine={precision: fp32, threads: 1}",
    "tokenizer_megabytes=1",
    "validation_rows=8",
    "checkpoint_every=6",
    "export={bits: 8, block_size: 32, accuracy_level: 4, max_megabytes: 20, max_cost: 0.5, prompts: 12}",
)
THINGS = ["house", "garden", "river", "mountain", "letter", "window", "bottle", "engine", "island", "carpet"]
MEASURED: dict[str, Any] = {
    "documents": [
        {"group": "novels", "language": "en", "text": "nobody in the whole town had ever seen such a bridge before"}
    ],
    "conversations": [{"group": "questions", "turns": [["user", "where is the key"], ["assistant", "in the old box"]]}],
    "carriers": ["where did you put the red letter"],
}


def config(*changes: str) -> LmConfig:
    """The recipe."""
    return load_config("cpu", changes=[*SETTINGS, *changes])


def texts(source: str = "made", count: int = 60) -> list[Example]:
    """Passages, of which the first holds eight words in a row of a held-out text."""
    copied = f"as they say nobody in the whole town had ever seen such a thing, {source}"
    return [Example(copied, source, "novel", "en"), *(_passage(n, source) for n in range(count))]


def talks(count: int = 120) -> list[Conversation]:
    """Questions and answers; the keys of a few are held out."""
    return [
        Conversation(
            "questions",
            "gsm8k",
            f"key:{n}",
            (("user", f"tell me of the {_thing(n)} number {n}"), ("assistant", f"the {_thing(n)} is {_thing(n + 1)}")),
        )
        for n in range(count)
    ]


def prepared(recipe: LmConfig, work: Path) -> Prepared:
    """What `prepare` would have left of them."""
    card = make(
        recipe,
        work,
        texts=texts(),
        held_out_texts=texts("apart", 20)[1:],
        talks=talks(),
        measured=MEASURED,
        progress=lambda _: None,
    )
    key = {"configuration": recipe.digest(), "data": "d"}
    write_card(work, card | {"key": key, "sources": {"novels_en": "a", "gsm8k": "b"}, "seconds": 1.0})
    return load_prepared(work)


def _thing(number: int) -> str:
    return THINGS[number * 7 % 10]


def _passage(number: int, source: str) -> Example:
    words = [f"{source} {_thing(number)} {_thing(step)} {number * step % 97}" for step in range(1, 40)]
    return Example(" ".join(words), source, "novel", "en")
