"""onnxruntime-genai itself: the same answers as the engine of this package, and what it says where it cannot work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.support.generation import TINY, Sink, completed, event_of, job_of
from tests.support.models import SHIPPED, tiny
from tests.support.stack import wait_until

from penstock.contracts.errors import ConfigurationError, LimitExceeded
from penstock.contracts.events import GenerationParameters, OutputFormat, PromptPart
from penstock.models.manifest import Source
from penstock.models.registry import Registry
from penstock_inference.backend import GenerationRequest, Piece
from penstock_inference.genai.engine import GenaiEngine
from penstock_inference.genai.model import GenaiModel
from penstock_inference.local import LocalBackend
from penstock_inference.models import Models, load_local
from penstock_inference.opening import open_folder
from penstock_inference.runner import Limits
from penstock_inference.scheduler import Generation
from penstock_inference.stage import InferenceStage

WORDS = "the model and the runner take a prompt and give an answer which is then recorded as it came"
LIMITS = Limits(rows=4, context=200)


def _genai(**more: Any) -> LocalBackend:
    return open_folder(TINY, Limits(**{"rows": 4, "context": 200, **more}), engine="genai")


def _request(key: int, text: str = "the model", seed: int = 0, **parameters: Any) -> GenerationRequest:
    given = GenerationParameters(**{"model": "tiny", "max_tokens": 40, **parameters})
    return GenerationRequest(key, (PromptPart(kind="text", text=text),), given, seed)


def _mixed() -> list[GenerationRequest]:
    """Greedy and sampled requests of many lengths, with each parameter there is."""
    schema = json.dumps({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})
    more: list[dict[str, Any]] = [
        {},
        {"top_k": 20},
        {"min_p": 0.02},
        {"repetition_penalty": 1.2},
        {"frequency_penalty": 0.5, "presence_penalty": 0.5},
        {"logprobs": 2},
        {"n": 3},
        {"stop": ("e", "re")},
        {"output": OutputFormat(type="json_schema", json_schema=schema)},
    ]
    return [
        _request(
            key,
            " ".join(WORDS.split()[: 1 + key % 20]),
            seed=key // 2,
            max_tokens=1 + key * 7 % 50,
            temperature=(0.0, 0.8, 1.3)[key % 3],
            top_p=(1.0, 0.9)[key % 2],
            **more[key % len(more)],
        )
        for key in range(27)
    ]


def _answers(backend: LocalBackend, requests: list[GenerationRequest]) -> dict[int, tuple[str, Piece]]:
    texts = {request.key: "" for request in requests}
    ends: dict[int, Piece] = {}
    for request in requests:
        backend.add(request)
    while step := backend.step():
        for piece in step:
            texts[piece.key] += piece.text
            if piece.finish_reason is not None:
                ends[piece.key] = piece
    return {key: (text, ends[key]) for key, text in texts.items()}


def _plain(answers: dict[int, tuple[str, Piece]]) -> dict[int, Any]:
    return {
        key: (text, end.tokens, end.finish_reason, [(each.text, each.finish_reason) for each in end.others])
        for key, (text, end) in answers.items()
    }


def test_greedy_equals_the_reference_token_for_token() -> None:
    cases = json.loads((TINY / "greedy.json").read_text())
    model = GenaiModel(TINY, Limits(rows=4))
    engine = GenaiEngine(model, lambda _, logits: int(logits.argmax()), step_tokens=32)
    generations = [
        Generation(key, case["prompt_ids"], len(case["output_ids"]), model.eos_ids) for key, case in enumerate(cases)
    ]
    for generation in generations:
        engine.add(generation)
    while engine.step():
        pass
    assert [each.tokens for each in generations] == [case["output_ids"] for case in cases]


def test_every_parameter_gives_what_it_gives_with_our_engine() -> None:
    ours, theirs = _answers(LocalBackend.load(TINY, LIMITS), _mixed()), _answers(_genai(), _mixed())
    assert _plain(theirs) == _plain(ours)
    for key, (_, end) in ours.items():
        found = theirs[key][1].logprobs
        assert (found is None) == (end.logprobs is None)
        for our, their in zip(end.logprobs or (), found or (), strict=True):
            assert (their.token, their.logprob) == (our.token, pytest.approx(our.logprob, abs=1e-4))


def test_a_model_that_our_engine_refuses_is_served(tmp_path: Path) -> None:
    folder = tiny(tmp_path / "apart")
    path = folder / "genai_config.json"
    config = json.loads(path.read_text())
    config["search"]["past_present_share_buffer"] = False
    path.write_text(json.dumps(config))
    with pytest.raises(ConfigurationError, match="past_present_share_buffer"):
        open_folder(folder, LIMITS)
    requests = _mixed()[:9]
    assert _plain(_answers(open_folder(folder, LIMITS, engine="genai"), requests)) == _plain(
        _answers(LocalBackend.load(TINY, LIMITS), requests)
    )


def test_a_place_is_free_one_step_after_a_cancellation() -> None:
    backend = _genai(rows=1)
    backend.add(_request(1))
    backend.add(_request(2, max_tokens=2))
    assert [piece.key for piece in backend.step()] == [1]
    backend.cancel(1)
    assert [[piece.key for piece in backend.step()] for _ in range(3)] == [[2], [2], []]


def test_prompts_without_room_for_an_answer_are_refused() -> None:
    with pytest.raises(LimitExceeded) as refused:
        _genai(context=8).add(_request(1, "one two three four five six"))
    assert refused.value.code == "context_length_exceeded"


def test_a_deadline_ends_a_request_in_the_stage() -> None:
    stage = InferenceStage(_genai(), Sink(), release="1")
    late, good = job_of(event_of("late", deadline_ms=1)), job_of(event_of("good"))
    for job in (late, good):
        stage.start(job)
        job.wait()
    stage.close()
    assert getattr(late.outcome, "code", None) == "deadline_exceeded"
    assert completed(good).completion.usage.completion_tokens == 6
    assert stage.versions["engine"].startswith("onnxruntime-genai ")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(tmp_path / "registry", SHIPPED)
    for name, context in (("a", 128), ("b", 64)):
        registry.add(
            tiny(tmp_path / name, context_length=context), source=Source(kind="folder", location="x"), name=name
        )
    registry.promote("a")
    return registry


def test_a_promotion_is_taken_without_a_restart(registry: Registry) -> None:
    models = Models(registry, "champion", lambda entry: load_local(entry, Limits(rows=1), engine="genai"), poll_s=0.02)

    def answer() -> str:
        models.backend.add(_request(1, max_tokens=3))
        while True:
            for piece in models.backend.step():
                if piece.provenance is not None:
                    assert piece.provenance.versions["engine"].startswith("onnxruntime-genai ")
                    return piece.provenance.versions["model"]

    assert answer() == registry.find("a").manifest.answers
    registry.promote("b")
    wait_until(lambda: answer() == registry.find("b").manifest.answers, "the second model's answer")
    models.close()


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime_genai", None)
    with pytest.raises(ConfigurationError, match=r"PENSTOCK_INFERENCE_ENGINE.*penstock-inference\[genai\]"):
        _genai()


def test_a_model_that_the_library_refuses_is_named(tmp_path: Path) -> None:
    folder = tiny(tmp_path / "odd", type="no-such-architecture")
    with pytest.raises(ConfigurationError, match=r"PENSTOCK_MODEL_DIR.*cannot open"):
        open_folder(folder, LIMITS, engine="genai")


@pytest.mark.parametrize("missing", ["vocab_size", "context_length", "eos_token_id"])
def test_a_folder_that_does_not_say_its_sizes_is_refused(tmp_path: Path, missing: str) -> None:
    folder = tiny(tmp_path / "odd", **{missing: "?"})
    with pytest.raises(ConfigurationError, match=rf"PENSTOCK_MODEL_DIR.*{missing}"):
        open_folder(folder, LIMITS, engine="genai")


def test_memory_for_less_than_one_sequence_is_refused(tmp_path: Path) -> None:
    folder = tiny(tmp_path / "long", context_length=1 << 20)
    with pytest.raises(ConfigurationError, match=r"PENSTOCK_INFERENCE_MEMORY_MIB.*need 513"):
        open_folder(folder, Limits(memory_mib=4), engine="genai")


def test_telemetry_is_off_before_the_library_is_imported() -> None:
    script = """
import os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime_genai":
            print("at import:", os.environ.get("ORT_DISABLE_TELEMETRY"))
sys.meta_path.insert(0, Watch())
from pathlib import Path
from penstock_inference.genai.model import GenaiModel
from penstock_inference.runner import Limits
GenaiModel(Path(sys.argv[1]), Limits())
"""
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    command = [sys.executable, "-c", script, str(TINY)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["at import: 1"]
