"""The prompt side follows the alias: another tokenizer and template for the requests that come after."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.adapters import adapter
from tests.support.models import SHIPPED, tiny

from penstock.contracts.errors import ConfigurationError
from penstock.models.manifest import Source
from penstock.models.registry import Registry
from penstock_preprocess.promoted import PromotedModel


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(tmp_path / "registry", SHIPPED)
    registry.add(tiny(tmp_path / "small"), source=Source(kind="folder", location="x"))
    return registry


def test_the_promoted_model_is_read_after_the_poll_and_keeps_the_names_before_it(registry: Registry) -> None:
    clock = Clock()
    promoted = PromotedModel(registry, "champion", poll_s=1, monotonic=clock)
    embedded = promoted()
    assert embedded.names == ("penstock-lm", "champion")
    registry.promote("small")
    assert promoted() is embedded
    clock.now += 1
    small = promoted()
    assert small.names == ("small", "champion", "penstock-lm")
    manifest = registry.find("small").manifest
    assert (small.tokenizer.digest, small.template.digest) == (manifest.tokenizer, manifest.chat_template)
    assert small.context_tokens == manifest.context_length
    registry.rollback()
    clock.now += 1
    assert promoted().names == ("penstock-lm", "champion")


def test_a_name_stands_once_however_often_it_was_promoted(registry: Registry, tmp_path: Path) -> None:
    folder = tiny(tmp_path / "changed", context_length=128)
    other = registry.add(folder, source=Source(kind="folder", location="x"), name="small").entry
    for reference in (registry.find("builtin").reference, other.reference, "builtin", other.reference):
        registry.promote(reference)
    assert PromotedModel(registry, "champion")().names == ("small", "champion", "penstock-lm")
    assert PromotedModel(registry, "small")().names == ("small",)


def test_what_cannot_be_read_leaves_the_old_one(registry: Registry) -> None:
    clock = Clock()
    outcomes: list[str] = []
    promoted = PromotedModel(registry, "champion", count=outcomes.append, poll_s=1, monotonic=clock)
    before = promoted()
    entry = registry.promote("small")
    (entry.folder / "tokenizer.json").unlink()
    clock.now += 1
    assert promoted() is before
    clock.now += 1
    assert promoted() is before
    assert outcomes == ["loaded", "refused"]


def test_a_pinned_revision_has_its_own_name_alone(registry: Registry) -> None:
    reference = registry.find("small").reference
    assert PromotedModel(registry, reference)().names == ("small",)
    with pytest.raises(ConfigurationError, match="no model"):
        PromotedModel(registry, "canary")


def test_adapters_of_the_model_are_names_of_their_own_and_go_with_it(registry: Registry, tmp_path: Path) -> None:
    clock = Clock()
    promoted = PromotedModel(registry, "champion", poll_s=1, monotonic=clock)
    here = Source(kind="folder", location="x")
    tone = registry.add(adapter(tmp_path / "tone"), source=here, adapter_of="small").entry
    registry.promote("tone")
    clock.now += 1
    assert promoted().names == ("penstock-lm", "champion")
    registry.promote("small")
    clock.now += 1
    model = promoted()
    assert model.names == ("small", "champion", "penstock-lm", "tone")
    assert model.adapters == {
        "tone": {
            "adapter": tone.reference,
            "adapter-digest": tone.manifest.answers,
            "adapter-base": registry.find("small").manifest.answers,
        }
    }
    other = registry.add(adapter(tmp_path / "two" / "tone", seed=2), source=here, adapter_of="small").entry
    registry.promote("tone")
    clock.now += 1
    assert promoted().adapters["tone"]["adapter"] == other.reference
    registry.rollback()
    clock.now += 1
    assert promoted().names == ("penstock-lm", "champion")
