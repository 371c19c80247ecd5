"""A small model folder and a stage over it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.memory import MemoryState
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from penstock.runtime.stage import Inbound, Record
from penstock_preprocess.language import LanguageDetector
from penstock_preprocess.model import PromptModel
from penstock_preprocess.rates import Rate, Rates
from penstock_preprocess.settings import LANGUAGES
from penstock_preprocess.stage import Defaults, PreprocessStage

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny-lm"
    folder.mkdir()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|end|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["user assistant system the"], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(CHATML)
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": {"content": "<|end|>"}, "eos_token": None}))
    (folder / "genai_config.json").write_text(json.dumps({"model": {"context_length": 256}}))
    return folder


@pytest.fixture(scope="session")
def model(model_dir: Path) -> PromptModel:
    return PromptModel.from_folder(model_dir)


@pytest.fixture(scope="session")
def languages() -> LanguageDetector:
    return LanguageDetector(LANGUAGES, 0.5)


@pytest.fixture
def seen() -> MemoryState:
    return MemoryState()


@pytest.fixture
def rates() -> Rates:
    return Rates(Rate(), {"slow": Rate(requests=1)}, burst_s=1)


@pytest.fixture
def stage(model: PromptModel, languages: LanguageDetector, seen: MemoryState, rates: Rates) -> PreprocessStage:
    defaults = Defaults(
        models=("tiny-lm", "alias"),
        max_body_bytes=1_048_576,
        max_tokens=64,
        tenant="default",
        interactive_ms=900_000,
        bulk_ms=86_400_000,
    )
    return PreprocessStage(
        model=lambda: model, languages=languages, seen=seen, defaults=defaults, rates=rates, release="0.1.0"
    )


@pytest.fixture
def inbound() -> Callable[..., Inbound]:
    """Builds an Inbound: `inbound(body, offset=..., key=..., headers={...})`; a body that is no bytes becomes JSON."""

    def build(
        body: Any,
        *,
        offset: int = 7,
        key: bytes | None = None,
        headers: dict[str, str | bytes] | None = None,
        now_ms: int = 1_000_000,
        topic: str = "llm.requests",
    ) -> Inbound:
        value = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        raw = tuple((k, v.encode() if isinstance(v, str) else v) for k, v in (headers or {}).items())
        record = Record(
            topic=topic, partition=3, offset=offset, timestamp_ms=999_000, key=key, value=value, headers=raw
        )
        return Inbound(record=record, now_ms=now_ms)

    return build
