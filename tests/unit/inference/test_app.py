"""Settings and the composition root."""

from __future__ import annotations

import json
import threading
from itertools import count
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from tests.support.generation import completed, event_of, job_of
from tests.support.models import SHIPPED, tiny
from tests.support.stack import wait_until
from tests.support.targets import target

from penstock.contracts.errors import ConfigurationError
from penstock.models.errors import NoSuchModel
from penstock.models.manifest import Source
from penstock.models.registry import Registry
from penstock.runtime.app import Resources
from penstock.runtime.kafka import Names
from penstock.runtime.settings import BadSettings, parse
from penstock_inference.app import build
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
    settings = _settings(monkeypatch, MODEL_DIR=str(TINY))
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
    job = job_of(event_of(max_tokens=2))
    stage.start(job)
    job.wait()
    stage.close()
    resources.close()
    prompt = completed(job).completion.usage.prompt_tokens
    assert f'kind="computed",stage="inference"}} {float(prompt)}' in generate_latest(resources.registry).decode()
    assert ("engine" in stage.versions) == (engine == "genai")


@pytest.mark.parametrize("engine", [None, "genai"])
def test_a_local_target_follows_its_alias(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, engine: str | None) -> None:
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
    assert not [thread for thread in threading.enumerate() if thread.name in ("models", "model own", "targets")]


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
