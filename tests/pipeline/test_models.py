"""A promoted model of another tokenizer and template: both services take it over, and back."""

from __future__ import annotations

import json
import time
from itertools import count
from pathlib import Path

from pydantic import SecretStr
from tests.support.adapters import adapter
from tests.support.kafka import Publishing
from tests.support.models import SHIPPED, tiny
from tests.support.pipeline import Pipeline
from tests.support.stack import wait_until

from penstock.contracts import topics
from penstock.contracts.results import RequestFinished
from penstock.models.entries import Entry
from penstock.models.manifest import Source
from penstock.models.registry import Registry
from penstock.vault import new_key


def test_tokenizer_template_and_weights_change_together(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry", SHIPPED)
    small = registry.add(tiny(tmp_path / "small"), source=Source(kind="folder", location="x")).entry
    pipeline = Pipeline(models_dir=registry.root, models_poll_ms=50, vault_keys=SecretStr(new_key("test")))
    numbers = count()

    def send(model: str | None = None) -> RequestFinished | None:
        body = {"prompt": "hello", "max_tokens": 4, "request_id": f"r{next(numbers)}", "model": model}
        journey = pipeline.run(Publishing(json.dumps(body).encode()), now_ms=time.time_ns() // 1_000_000)
        # without one the request was put off: its model is being loaded
        return journey.result if journey.outputs[topics.RESULTS] else None

    def made_by(entry: Entry, model: str | None = None) -> bool:
        result = send(model)
        manifest = entry.manifest
        expected = (manifest.answers, manifest.tokenizer, manifest.chat_template)
        if (
            result is None
            or tuple(result.versions[name] for name in ("model", "tokenizer", "chat-template")) != expected
        ):
            return False
        assert (result.status, result.model) == ("completed", model or manifest.name)
        return True

    embedded = registry.find("builtin")
    assert made_by(embedded)
    registry.promote("small")
    wait_until(lambda: made_by(small), "answers of the promoted model")
    wait_until(lambda: made_by(small, "penstock-lm"), "answers for those who name the model before")
    wait_until(lambda: made_by(small, "champion"), "answers for those who name the alias")
    registry.rollback()
    wait_until(lambda: made_by(embedded), "answers of the model before")


def test_an_adapter_is_asked_for_by_its_name_and_told_of_in_the_result(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry", SHIPPED)
    here = Source(kind="folder", location="x")
    base = registry.find("builtin")
    folder = adapter(tmp_path / "tone", SHIPPED, rank=8, size=0.1)
    tone = registry.add(folder, source=here, adapter_of="builtin").entry
    registry.promote("tone")
    pipeline = Pipeline(models_dir=registry.root, models_poll_ms=50, vault_keys=SecretStr(new_key("test")))

    def ask(number: int, model: str | None) -> RequestFinished:
        body = {"prompt": "What is a river?", "max_tokens": 8, "request_id": f"r{number}", "model": model}
        return pipeline.run(Publishing(json.dumps(body).encode()), now_ms=time.time_ns() // 1_000_000).result

    plain, adapted, unknown = ask(1, None), ask(2, "tone"), ask(3, "tune")
    assert (plain.status, adapted.status, adapted.model) == ("completed", "completed", "tone")
    assert plain.choices != adapted.choices
    digests = {"adapter": tone.reference, "adapter-digest": tone.manifest.answers}
    assert digests.items() <= adapted.versions.items()
    assert adapted.versions["model"] == adapted.versions["adapter-base"] == base.manifest.answers
    assert not digests.keys() & plain.versions.keys()
    assert unknown.error is not None
    assert (unknown.status, unknown.error.code, unknown.error.limit) == (
        "failed",
        "unknown_model",
        "penstock-lm, champion, tone",
    )
