"""Following an alias: the next model loaded beside the one that runs, and the old one kept where that fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from tests.support.adapters import adapter
from tests.support.generation import event_of
from tests.support.models import SHIPPED, tiny
from tests.support.stack import wait_until

from penstock.contracts.errors import ConfigurationError, Overloaded
from penstock.models.entries import Entry
from penstock.models.errors import NoSuchModel
from penstock.models.manifest import Source
from penstock.models.registry import Registry
from penstock_inference.backend import Backend, GenerationRequest, Prompts
from penstock_inference.models import Models, load_local
from penstock_inference.runner import Limits

OPEN = partial(load_local, limits=Limits(rows=1, context=64))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry", SHIPPED)


def add(registry: Registry, folder: Path, name: str | None = None) -> Entry:
    return registry.add(folder, source=Source(kind="folder", location="x"), name=name).entry


@contextmanager
def following(
    registry: Registry, load: Callable[[Entry], Backend] = OPEN, reference: str = "champion"
) -> Iterator[tuple[Models, list[str]]]:
    outcomes: list[str] = []
    models = Models(registry, reference, load, count=outcomes.append, poll_s=0.02)
    try:
        yield models, outcomes
    finally:
        models.close()


def prompts_of(entry: Entry) -> Prompts:
    return Prompts(entry.manifest.tokenizer, entry.manifest.chat_template)


def answer(models: Models, key: int, prompts: Prompts | None = None) -> str | None:
    """The model digest of an answer of three tokens."""
    event = event_of(text="a", max_tokens=3)
    models.backend.add(GenerationRequest(key, event.prompt, event.parameters, 0, prompts=prompts))
    for _ in range(50):
        for piece in models.backend.step():
            if piece.finish_reason is not None:
                assert piece.provenance is not None
                return piece.provenance.versions["model"]
    raise AssertionError("no end")


def test_a_promotion_and_a_rollback_are_taken_without_a_restart(registry: Registry, tmp_path: Path) -> None:
    first, second = add(registry, tiny(tmp_path / "a")), add(registry, tiny(tmp_path / "b", context_length=128))
    registry.promote(first.reference)
    with following(registry) as (models, outcomes):
        assert answer(models, 1) == first.manifest.answers
        registry.promote(second.reference)
        wait_until(lambda: len(outcomes) == 2, "the second model")
        wait_until(lambda: answer(models, 2) == second.manifest.answers, "its answers")
        registry.rollback()
        wait_until(lambda: answer(models, 3) == first.manifest.answers, "the first model's answers")
        assert outcomes == ["loaded"] * 3


def test_what_cannot_be_loaded_leaves_the_old_one_and_is_tried_at_the_next_change(
    registry: Registry, tmp_path: Path
) -> None:
    first, second = add(registry, tiny(tmp_path / "a")), add(registry, tiny(tmp_path / "b", context_length=128))
    registry.promote(first.reference)
    broken = True

    def load(entry: Entry) -> Backend:
        if broken and entry.reference == second.reference:
            raise ConfigurationError("no")
        return OPEN(entry)

    with following(registry, load) as (models, outcomes):
        registry.promote(second.reference)
        wait_until(lambda: outcomes == ["loaded", "refused"], "the refusal")
        assert answer(models, 1) == first.manifest.answers
        broken = False
        registry.promote(second.reference)
        wait_until(lambda: outcomes == ["loaded", "refused", "loaded"], "the second attempt")
        wait_until(lambda: answer(models, 2) == second.manifest.answers, "the second model's answers")


def test_a_file_that_changed_after_adding_is_not_served(registry: Registry, tmp_path: Path) -> None:
    entry = add(registry, tiny(tmp_path / "a"))
    registry.promote(entry.reference)
    config = entry.folder / "genai_config.json"
    config.chmod(0o644)
    config.write_text(config.read_text() + " ")
    with pytest.raises(ConfigurationError, match="penstock models verify"), following(registry):
        pass


def test_an_alias_that_points_nowhere_ends_the_start(registry: Registry) -> None:
    with pytest.raises(NoSuchModel), following(registry, reference="canary"):
        pass


def test_a_request_rendered_for_the_model_before_is_answered_by_it(registry: Registry, tmp_path: Path) -> None:
    entry = add(registry, tiny(tmp_path / "a"))
    registry.promote(entry.reference)
    embedded = registry.find("builtin")
    with following(registry) as (models, _):

        def answered() -> str | None:
            try:
                return answer(models, 1, prompts_of(embedded))
            except Overloaded as error:
                assert error.code == "model_loading"
                return None

        wait_until(lambda: answered() == embedded.manifest.answers, "the embedded model's answer")
        assert answer(models, 2, prompts_of(entry)) == entry.manifest.answers


def test_an_unreadable_registry_is_survived(registry: Registry, tmp_path: Path) -> None:
    entry = add(registry, tiny(tmp_path / "a"))
    registry.promote(entry.reference)
    with following(registry) as (models, outcomes):
        aliases = registry.root / "aliases.json"
        aliases.write_text("{")
        wait_until(lambda: "refused" in outcomes, "the refusal")
        assert answer(models, 1) == entry.manifest.answers
        aliases.unlink()
        wait_until(lambda: outcomes.count("loaded") == 2, "the embedded model")
        assert answer(models, 2) == registry.find("builtin").manifest.answers


def test_an_adapter_is_no_model_to_serve(registry: Registry, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "tone", SHIPPED)
    registry.add(folder, source=Source(kind="folder", location="x"), adapter_of="builtin")
    with (
        pytest.raises(ConfigurationError, match="is an adapter: PENSTOCK_MODEL names its base"),
        following(registry, reference="tone"),
    ):
        pass


def test_a_request_for_an_adapter_waits_for_its_base_where_another_was_promoted(
    registry: Registry, tmp_path: Path
) -> None:
    """Both bases have one tokenizer and one template, so that these alone would not tell."""
    here = Source(kind="folder", location="x")
    first, second = add(registry, tiny(tmp_path / "a")), add(registry, tiny(tmp_path / "b", context_length=128))
    tone = registry.add(adapter(tmp_path / "tone"), source=here, adapter_of="a").entry
    registry.promote(second.reference)
    with following(registry, partial(OPEN, registry=registry)) as (models, _):
        event = event_of(text="a", max_tokens=3)
        wanted = replace(prompts_of(first), model=first.manifest.answers)
        asked = GenerationRequest(1, event.prompt, event.parameters, 0, prompts=wanted, adapter=tone.reference)

        def taken() -> bool:
            try:
                models.backend.add(asked)
            except Overloaded:
                return False
            return True

        wait_until(taken, "the base to be loaded")
        pieces = [piece for _ in range(50) for piece in models.backend.step()]
        assert pieces[-1].provenance is not None
        assert pieces[-1].provenance.versions["model"] == first.manifest.answers
        assert answer(models, 2) == second.manifest.answers


def test_closing_ends_the_thread(registry: Registry) -> None:
    before = threading.active_count()
    with following(registry):
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
