"""The shipped tokenizer: exact round trips, one id for each placeholder, and a template any sandbox renders."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from penstock_tuning.data.example import LANGUAGES
from penstock_tuning.lm.runtime import prompt_ids, render
from penstock_tuning.lm.tokenizer import (
    CHAT_TEMPLATE,
    encode_conversation,
    placeholder_tokens,
    save_tokenizer,
    train_tokenizer,
)
from penstock_tuning.lm.vocabulary import SPECIAL_TOKENS

MODEL = Path(__file__).parents[3] / "deploy" / "models" / "penstock-lm"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(MODEL / "tokenizer.json"))


def random_text(source: random.Random) -> str:
    """Any code points but surrogates, which are not text."""
    points = []
    for _ in range(source.randint(0, 60)):
        top = source.choice((0x7F, 0x24F, 0xFFFF, 0x10FFFF))
        point = source.randint(0, top)
        points.append(point if not 0xD800 <= point <= 0xDFFF else 0x20)
    return "".join(map(chr, points))


def test_any_unicode_text_round_trips(tokenizer: Tokenizer) -> None:
    source = random.Random(3)
    texts = [random_text(source) for _ in range(3000)]
    texts += [
        "",
        " ",
        "\n\n  x\r\n",
        "e\u0301 \u00e9",
        "👩‍👩‍👧 \u202e\u0000",
        "Straße, ça, niño, perché, ação",
        "12345",
    ]
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_every_placeholder_is_one_token_and_survives_decoding(tokenizer: Tokenizer) -> None:
    assert len(placeholder_tokens()) == 108
    for text in placeholder_tokens():
        ids = tokenizer.encode(f"a {text}, b", add_special_tokens=False).ids
        assert tokenizer.token_to_id(text) in ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == f"a {text}, b"


def test_special_tokens_have_the_ids_of_the_model(tokenizer: Tokenizer) -> None:
    assert [tokenizer.token_to_id(text) for text in SPECIAL_TOKENS] == list(range(len(SPECIAL_TOKENS)))
    config = json.loads((MODEL / "genai_config.json").read_text(encoding="utf-8"))["model"]
    assert (config["pad_token_id"], config["bos_token_id"], config["eos_token_id"]) == (0, 1, 2)
    assert config["vocab_size"] >= tokenizer.get_vocab_size()


def test_the_template_renders_in_a_plain_sandbox() -> None:
    environment = ImmutableSandboxedEnvironment()
    template = environment.from_string((MODEL / "chat_template.jinja").read_text(encoding="utf-8"))
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello <PERSON_1>"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "Bye"},
    ]
    assert template.render(messages=messages, add_generation_prompt=True) == (
        "<|bos|><|system|>\nBe brief.<|end|>\n<|user|>\nHello <PERSON_1><|end|>\n"
        "<|assistant|>\nHi<|end|>\n<|user|>\nBye<|end|>\n<|assistant|>\n"
    )
    assert template.render(messages=messages[:1]) == "<|bos|><|system|>\nBe brief.<|end|>\n"


def test_the_configuration_carries_the_same_template() -> None:
    config = json.loads((MODEL / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config["chat_template"] == CHAT_TEMPLATE == (MODEL / "chat_template.jinja").read_text(encoding="utf-8")


def test_training_and_prompting_encode_a_conversation_alike(tokenizer: Tokenizer) -> None:
    turns = [
        ("system", "Answer briefly."),
        ("user", "\n\nMy mail is <EMAIL_ADDRESS_1> "),
        ("assistant", "Noted.\n"),
    ]
    ids, learn = encode_conversation(tokenizer, turns)
    whole = tokenizer.encode(render(MODEL, turns, prompt=False), add_special_tokens=False).ids
    assert ids == whole
    opened = prompt_ids(tokenizer, MODEL, turns[:-1])
    assert ids[: len(opened)] == opened
    learned = [token for token, keep in zip(ids, learn, strict=True) if keep]
    assert tokenizer.decode(learned, skip_special_tokens=False) == "Noted.\n<|end|>"
    assert learn.index(True) == len(opened)


@pytest.mark.parametrize("size", [500, 700])
def test_a_freshly_trained_tokenizer_round_trips_and_has_the_asked_size(size: int, tmp_path: Path) -> None:
    words = [f"{language} river apple été niño Straße {n}" for language in LANGUAGES for n in range(50)]
    source = random.Random(1)
    words += ["".join(source.choices("abcdefghij", k=6)) for _ in range(2000)]
    made = train_tokenizer(words, size)
    assert made.get_vocab_size() == size
    save_tokenizer(made, tmp_path, 64)
    loaded = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    text = "Ünïcode 漢字 <PERSON_1>"
    assert loaded.decode(loaded.encode(text, add_special_tokens=False).ids) == text
