"""Settings and the composition root."""

from __future__ import annotations

import json
import threading
from itertools import count
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from tests.support.adapters import adapter
from tests.support.encoder import TINY_ENCODER
from tests.support.generation import completed, event_of, job_of
from tests.support.models import SHIPPED, tiny
from tests.support.stack import wait_until
from tests.support.targets import target

from penstock.contracts.errors import ConfigurationError, StageError
from penstock.contracts.events import PromptPart
from penstock.models.entries import Entry
from penstock.models.errors import NoSuchModel
from penstock.models.manifest import Source
from penstock.models.registry import Registry
from penstock.runtime.app import Resources
from penstock.runtime.kafka import Names
from penstock.runtime.settings import BadSettings, parse
from penstock_inference.app import build
from penstock_inference.backend import GenerationRequest
from penstock_inference.local import LocalBackend
from penstock_inference.runner import Limits
from penstock_inference.scheduler import GRID
from penstock_inference.settings import Settings

TINY = Path(__file__).parents[2] / "fixtures" / "tiny-lm"


def _settings(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(f"PENSTOCK_{name}", value)
    return parse(Settings)


def test_builds_the_stage_over_a_model_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _settings(monkeypatch, MODEL_DIR=str(TINY), INFERENCE_ROWS="2", INFERENCE_CONTEXT="64")
    resources = Resources(settings, Names(""), "inference")
    stage = build(settings, resources)
    resources.close()
    assert stage.name == "inference"
    assert set(stage.versions) == {"inference", "model"}


def test_tokens_of_prompts_are_counted_by_where_they_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _settings(monkeypatch, MODEL_DIR=str(TINY), INFERENCE_CACHE_MIB="0")
    resources = Resources(settings, Names(""), "inference")
    stage = build(settings, resources)
    jobs = [job_of(event_of(f"r{count}", text="the model and the runner " * 3, max_tokens=2)) for count in range(2)]
    for job in jobs:
        stage.start(job)
        job.wait()
    stage.close()
    resources.close()
    prompt = completed(jobs[0]).completion.usage.prompt_tokens
    exposed = generate_latest(resources.registry).decode()
    counts = {
        kind: float(
            exposed.split(f'penstock_prefix_tokens_total{{kind="{kind}",stage="inference"}} ')[1].split("\n")[0]
        )
        for kind in ("reused", "computed")
    }
    assert counts == {"reused": (prompt - 2) // GRID * GRID, "computed": 2 * prompt - (prompt - 2) // GRID * GRID}
    assert counts["reused"] > 0


def test_a_folder_without_a_model_is_refused_by_the_variables_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = _settings(monkeypatch, MODEL_DIR=str(tmp_path))
    with pytest.raises(ConfigurationError, match="PENSTOCK_MODEL_DIR"):
        build(settings, Resources(settings, Names(""), "inference"))


def test_builds_the_stage_over_servers_where_targets_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    targets = json.dumps({"targets": [target("main", max_in_flight=3, api_key_env="MAIN_KEY")]})
    monkeypatch.setenv("MAIN_KEY", "secret")
    settings = _settings(monkeypatch, INFERENCE_TARGETS=targets, INFERENCE_QUEUE="1")
    resources = Resources(settings, Names(""), "inference")
    stage = build(settings, resources)
    assert set(stage.versions) == {"inference", "targets"}
    assert stage.room() == 4
    assert b"penstock_target_in_flight" in generate_latest(resources.registry)
    stage.close()
    resources.close()


@pytest.mark.parametrize("engine", ["penstock", "genai"])
def test_a_folder_is_run_by_the_engine_that_is_set(monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    settings = _settings(monkeypatch, MODEL_DIR=str(TINY), INFERENCE_ENGINE=engine)
    resources = Resources(settings, Names(""), "inference")
    stage = build(settings, resources)
    made = []
    for request_id in ("r1", "r2"):
        job = job_of(event_of(request_id, max_tokens=2))
        stage.start(job)
        job.wait()
        made.append(completed(job).completion)
    stage.close()
    resources.close()
    prompt = made[0].usage.prompt_tokens
    assert f'kind="computed",stage="inference"}} {float(prompt)}' in generate_latest(resources.registry).decode()
    assert [each.cached for each in made] == [None, "exact"]
    assert made[0].text == made[1].text
    assert ("engine" in stage.versions) == (engine == "genai")


@pytest.mark.parametrize("engine", ["penstock", "genai"])
@pytest.mark.parametrize("among_servers", [False, True])
def test_adapters_are_served_by_our_engine_and_refused_by_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, engine: str, among_servers: bool
) -> None:
    registry = Registry(tmp_path / "registry", SHIPPED)
    here = Source(kind="folder", location="x")
    base = registry.add(tiny(tmp_path / "tiny"), source=here).entry
    tone = registry.add(adapter(tmp_path / "tone"), source=here, adapter_of="tiny").entry
    own = {"name": "own", "local": base.reference, "role": "fallback"}
    targets = {"INFERENCE_TARGETS": json.dumps({"targets": [target("closed"), own]})} if among_servers else {}
    settings = _settings(
        monkeypatch,
        MODELS_DIR=str(registry.root),
        MODEL=base.reference,
        INFERENCE_ENGINE=engine,
        **targets,
    )
    resources = Resources(settings, Names(""), "inference")
    stage = build(settings, resources)
    outcomes = []
    for number, named in enumerate(({"adapter": tone.reference}, {"adapter": tone.reference}, {})):
        event = event_of(f"r{number}", max_tokens=12)
        job = job_of(event.having(context=event.context.having(versions=named)))
        stage.start(job)
        job.wait()
        outcomes.append(job)
    stage.close()
    resources.close()
    plain = completed(outcomes[2])
    assert plain.context.versions["model"] == ("own:" if among_servers else "") + base.manifest.answers
    if engine == "genai":
        refused = [job.outcome for job in outcomes[:2]]
        assert [(each.code, each.field) for each in refused if isinstance(each, StageError)] == [
            ("unknown_adapter", "model")
        ] * 2
        return
    by_itself = LocalBackend.load(base.folder, Limits(), registry=registry)
    event = event_of(max_tokens=12)
    by_itself.add(GenerationRequest(1, event.prompt, event.parameters, 0, adapter=tone.reference))
    expected = ""
    while pieces := by_itself.step():
        expected += "".join(piece.text for piece in pieces)
    adapted = [completed(job).completion for job in outcomes[:2]]
    assert [each.text for each in adapted] == [expected] * 2
    assert [each.cached for each in adapted] == [None, "exact"]
    assert plain.completion.cached is None
    assert plain.completion.text != expected


@pytest.mark.parametrize("engine", [None, "genai"])
def test_a_local_target_follows_its_alias(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, engine: str | None) -> None:
    before = set(threading.enumerate())  # other tests' among them
    registry = Registry(tmp_path / "registry", SHIPPED)
    for name, context in (("a", 256), ("b", 128)):
        registry.add(
            tiny(tmp_path / name, context_length=context), source=Source(kind="folder", location="x"), name=name
        )
    registry.promote("a", alias="canary")
    own = {"name": "own", "local": "canary", "max_in_flight": 2} | ({"engine": engine} if engine else {})
    settings = _settings(
        monkeypatch,
        INFERENCE_TARGETS=json.dumps({"targets": [own]}),
        MODELS_DIR=str(tmp_path / "registry"),
        MODELS_POLL_MS="50",
    )
    resources = Resources(settings, Names(""), "inference")
    stage = build(settings, resources)
    assert stage.room() == 2 + settings.inference_queue
    numbers = count()

    def made_by() -> str:
        job = job_of(event_of(f"r{next(numbers)}", max_tokens=2))
        stage.start(job)
        job.wait()
        return completed(job).context.versions["model"]

    assert made_by() == f"own:{registry.find('a').manifest.answers}"
    registry.promote("b", alias="canary")
    wait_until(lambda: made_by() == f"own:{registry.find('b').manifest.answers}", "the second model's answer")
    stage.close()
    resources.close()
    began = set(threading.enumerate()) - before
    assert not [thread for thread in began if thread.name in ("models", "model own", "targets")]


def test_a_provider_that_the_engine_does_not_have_ends_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _settings(monkeypatch, MODEL_DIR=str(TINY), INFERENCE_ENGINE="genai", INFERENCE_PROVIDER="cuda")
    with pytest.raises(ConfigurationError, match="PENSTOCK_INFERENCE_PROVIDER"):
        build(settings, Resources(settings, Names(""), "inference"))


def test_a_local_target_that_is_not_there_ends_the_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    targets = json.dumps({"targets": [{"name": "own", "local": "nobody"}]})
    settings = _settings(monkeypatch, INFERENCE_TARGETS=targets, MODELS_DIR=str(tmp_path))
    with pytest.raises(NoSuchModel, match="nobody"):
        build(settings, Resources(settings, Names(""), "inference"))


def test_targets_that_cannot_work_are_refused_by_the_variables_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for targets in ('{"targets": []}', "nowhere.yaml", json.dumps({"targets": [target("a", api_key_env="NO_KEY")]})):
        settings = _settings(monkeypatch, INFERENCE_TARGETS=targets)
        with pytest.raises(ConfigurationError, match="PENSTOCK_INFERENCE_TARGETS"):
            build(settings, Resources(settings, Names(""), "inference"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("INFERENCE_ROWS", "0"),
        ("INFERENCE_ROWS", "many"),
        ("INFERENCE_CONTEXT", "1"),
        ("INFERENCE_THREADS", "0"),
        ("INFERENCE_MEMORY_MIB", "-1"),
        ("INFERENCE_STEP_TOKENS", "31"),
        ("INFERENCE_STALL_MS", "0"),
        ("INFERENCE_PREFIX_MIB", "-1"),
        ("INFERENCE_ADAPTERS", "-1"),
        ("INFERENCE_ADAPTER_RANK", "0"),
        ("INFERENCE_ROW", "4"),
        ("INFERENCE_ENGINE", "other"),
    ],
)
def test_bad_settings_are_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    with pytest.raises(BadSettings, match=f"PENSTOCK_{name}"):
        _settings(monkeypatch, **{name: value})


def test_a_step_too_short_for_its_rows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _settings(monkeypatch, MODEL_DIR=str(TINY), INFERENCE_ROWS="32", INFERENCE_STEP_TOKENS="48")
    with pytest.raises(ConfigurationError, match=r"PENSTOCK_INFERENCE_STEP_TOKENS.*PENSTOCK_INFERENCE_ROWS"):
        build(settings, Resources(settings, Names(""), "inference"))


def _semantic(monkeypatch: pytest.MonkeyPatch, registry: Path, **variables: str) -> Settings:
    given = {"INFERENCE_CACHE_SEMANTIC": "true", "MODELS_DIR": str(registry), "MODEL_DIR": str(TINY), **variables}
    return _settings(monkeypatch, **given)


def _add(registry: Path, folder: Path, name: str) -> Entry:
    source = Source(kind="folder", location="x")
    return Registry(registry, TINY).add(folder, source=source, name=name).entry


def test_meaning_needs_an_encoder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = _semantic(monkeypatch, tmp_path)
    with pytest.raises(ConfigurationError, match="PENSTOCK_INFERENCE_CACHE_ENCODER"):
        build(settings, Resources(settings, Names(""), "inference"))


def test_what_is_no_encoder_or_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _add(tmp_path, TINY, "answers")
    for name, says in (("answers", "is no encoder"), ("absent", "no model 'absent'")):
        settings = _semantic(monkeypatch, tmp_path, INFERENCE_CACHE_ENCODER=name)
        with pytest.raises(ConfigurationError, match=says):
            build(settings, Resources(settings, Names(""), "inference"))


def test_an_encoder_that_has_changed_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = _add(tmp_path, TINY_ENCODER, "small").folder / "config.json"
    path.chmod(0o644)
    path.write_text(path.read_text() + " ")
    settings = _semantic(monkeypatch, tmp_path, INFERENCE_CACHE_ENCODER="small")
    with pytest.raises(ConfigurationError, match="models verify"):
        build(settings, Resources(settings, Names(""), "inference"))


def test_the_same_meaning_is_answered_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _add(tmp_path, TINY_ENCODER, "small")
    settings = _semantic(monkeypatch, tmp_path, INFERENCE_CACHE_ENCODER="small")
    resources = Resources(settings, Names(""), "inference")
    stage = build(settings, resources)
    found = []
    for number, text in enumerate(("what is a river", "what is a stream", "what is a river")):
        part = PromptPart(kind="text", text=text, role="user", message=0)
        job = job_of(event_of(f"r{number}").having(prompt=(part,)))
        stage.start(job)
        job.wait()
        found.append(completed(job).completion)
    stage.close()
    resources.close()
    assert [each.cached for each in found] == [None, "semantic", "exact"]
    assert len({each.text for each in found}) == 1
