"""The embedded backend: greedy equals the reference, and no request depends on its neighbours."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.contracts.errors import ConfigurationError, LimitExceeded, StageError
from penstock.contracts.events import GenerationParameters, PromptPart
from penstock.text.prompt_tokens import PromptTokenizer
from penstock_inference.backend import GenerationRequest, Piece
from penstock_inference.engine import Engine
from penstock_inference.layout import ModelLayout
from penstock_inference.local import LocalBackend
from penstock_inference.prefixes import PrefixCache
from penstock_inference.runner import Limits, OnnxRunner
from penstock_inference.sampler import seed_of
from penstock_inference.scheduler import GRID, Generation

FIXTURES = Path(__file__).parents[2] / "fixtures"
TINY = FIXTURES / "tiny-lm"
SHIPPED = Path(__file__).parents[3] / "deploy" / "models" / "penstock-lm"
SENTENCE = "the model and the runner take a prompt and give an answer which is then recorded as it came"
WORDS = SENTENCE.split()


def _request(key: int, text: str, seed: int = 0, **parameters: Any) -> GenerationRequest:
    defaults = {"model": "tiny", "max_tokens": 40}
    return GenerationRequest(
        key=key,
        prompt=(
            PromptPart(kind="template", text="<|im_start|>user\n"),
            PromptPart(kind="text", text=text),
            PromptPart(kind="template", text="<|im_end|>\n<|im_start|>assistant\n"),
        ),
        parameters=GenerationParameters(**{**defaults, **parameters}),
        seed=seed,
    )


def _finish(backend: LocalBackend) -> dict[int, list[Piece]]:
    pieces: dict[int, list[Piece]] = {}
    while step := backend.step():
        for piece in step:
            pieces.setdefault(piece.key, []).append(piece)
    return pieces


def _texts(backend: LocalBackend, requests: Sequence[GenerationRequest]) -> dict[int, str]:
    for request in requests:
        backend.add(request)
    return {key: "".join(piece.text for piece in pieces) for key, pieces in _finish(backend).items()}


def _mixed() -> list[GenerationRequest]:
    """Greedy and sampled requests of many lengths."""
    return [
        _request(
            key,
            " ".join(WORDS[: 1 + key % len(WORDS)]),
            seed=key // 2,
            max_tokens=1 + key * 7 % 50,
            temperature=(0.0, 0.8, 1.3)[key % 3],
            top_p=(1.0, 0.9)[key % 2],
            **({}, {"top_k": 20}, {"min_p": 0.02}, {"repetition_penalty": 1.2}, {"frequency_penalty": 0.5})[key % 5],
        )
        for key in range(20)
    ]


def _greedy(folder: Path, recorded: list[dict[str, list[int]]], rows: int) -> list[list[int]]:
    layout = ModelLayout.read(folder)
    engine = Engine(OnnxRunner(layout, Limits(rows=rows)), lambda _, logits: int(logits.argmax()))
    generations = [
        Generation(key, case["prompt_ids"], len(case["output_ids"]), layout.eos_ids)
        for key, case in enumerate(recorded)
    ]
    for generation in generations:
        engine.add(generation)
    while engine.step():
        pass
    return [generation.tokens for generation in generations]


@pytest.mark.parametrize("rows", [1, 8])
def test_greedy_equals_the_reference_token_for_token(rows: int) -> None:
    cases = json.loads((TINY / "greedy.json").read_text())
    assert len(cases) >= 16
    assert _greedy(TINY, cases, rows) == [case["output_ids"] for case in cases]


@pytest.mark.parametrize("rows", [1, 8])
def test_greedy_of_the_shipped_model_equals_the_reference(rows: int) -> None:
    """Token for token; where the processor's int8 kernels round otherwise, only a tie may fall the other way."""
    recorded = json.loads((FIXTURES / "lm_greedy.json").read_text())["prompts"]
    assert len(recorded) >= 12
    cases = [{"prompt_ids": each["prompt_ids"], "output_ids": each["token_ids"]} for each in recorded]
    runner = OnnxRunner(ModelLayout.read(SHIPPED), Limits(rows=1))
    for case, tokens in zip(cases, _greedy(SHIPPED, cases, rows), strict=True):
        assert len(tokens) <= len(case["output_ids"])
        _same_but_for_ties(runner, case["prompt_ids"], tokens, case["output_ids"])


def _same_but_for_ties(runner: OnnxRunner, prompt: list[int], tokens: list[int], expected: list[int]) -> None:
    at = next((at for at, (ours, theirs) in enumerate(zip(tokens, expected, strict=False)) if ours != theirs), None)
    if at is None:
        assert tokens == expected
    else:
        assert _distance_from_best(runner, prompt, expected[:at], expected[at]) < 0.01


def _distance_from_best(runner: OnnxRunner, prompt: list[int], before: list[int], token: int) -> float:
    """How far the token's logit is below the highest, after the prompt and the tokens before it."""
    logits = runner.prefill(0, 0, prompt)[0]
    for count, each in enumerate(before):
        logits = runner.decode([each], [len(prompt) + count])[0]
    return float(logits.max() - logits[token])


def test_an_answer_leaves_nothing_to_the_collector() -> None:
    backend = LocalBackend.load(SHIPPED, Limits(rows=2))
    _texts(backend, _mixed()[:4])
    gc.collect()
    gc.disable()
    try:
        _texts(backend, _mixed())
        assert gc.collect() < 10
    finally:
        gc.enable()


def test_the_memory_of_keys_and_values_is_there_from_the_start(resident: Callable[[], int]) -> None:
    layout = ModelLayout.read(SHIPPED)
    few = OnnxRunner(layout, Limits(rows=1))  # what sessions take besides is here by now
    before = resident()
    one = OnnxRunner(layout, Limits(rows=1))
    between = resident()
    many = OnnxRunner(layout, Limits(rows=65))
    more = many.memory_bytes - one.memory_bytes
    assert more > 200 << 20
    assert resident() - between - (between - before) > 0.9 * more
    del few, one, many


def test_the_shipped_model_answers_the_same_in_stretches_in_a_batch_and_after_a_shared_beginning() -> None:
    layout, random = ModelLayout.read(SHIPPED), np.random.default_rng(5)
    shared = random.integers(10, 6_000, 70).tolist()
    prompts = [
        [*(shared if key % 2 else ()), *random.integers(10, 6_000, int(random.integers(1, 150))).tolist()]
        for key in range(14)
    ]
    runner = OnnxRunner(layout, Limits(rows=6))
    prefixes = PrefixCache(8 << 20, runner.read(0, 0, GRID))
    engine = Engine(runner, lambda _, logits: int(logits.argmax()), step_tokens=48, prefixes=prefixes)
    generations = [Generation(key, prompt, 5 + 3 * key, layout.eos_ids) for key, prompt in enumerate(prompts)]
    for generation in generations:
        engine.add(generation)
    while engine.step():
        pass
    assert prefixes.reused_tokens >= 64
    alone = _greedy(
        SHIPPED,
        [{"prompt_ids": each, "output_ids": [0] * (5 + 3 * key)} for key, each in enumerate(prompts)],
        1,
    )
    reference = OnnxRunner(layout, Limits(rows=1))
    for generation, expected in zip(generations, alone, strict=True):
        _same_but_for_ties(reference, list(generation.prompt), generation.tokens, expected)


@pytest.mark.parametrize("rows", [2, 8])
def test_answers_do_not_depend_on_what_shares_the_batch(rows: int) -> None:
    alone = LocalBackend.load(TINY, Limits(rows=1))
    expected = {request.key: _texts(alone, [request])[request.key] for request in _mixed()}
    assert len(set(expected.values())) > 15
    assert _texts(LocalBackend.load(TINY, Limits(rows=rows)), _mixed()) == expected
    backwards = list(reversed(_mixed()))
    assert _texts(LocalBackend.load(TINY, Limits(rows=rows)), backwards) == expected


def test_seed_decides_a_sampled_answer() -> None:
    backend = LocalBackend.load(TINY, Limits(rows=4))
    texts = _texts(
        backend, [_request(key, "the model", seed=seed, temperature=1.0) for key, seed in enumerate((1, 1, 2))]
    )
    assert texts[0] == texts[1] != texts[2]


def test_pieces_count_tokens_and_the_last_says_why() -> None:
    backend = LocalBackend.load(TINY, Limits(rows=2))
    backend.add(_request(0, "the model", max_tokens=12))
    pieces = _finish(backend)[0]
    assert [piece.tokens for piece in pieces] == list(range(1, 13))
    assert [piece.finish_reason for piece in pieces] == [None] * 11 + ["length"]


def test_an_end_token_stops_and_is_no_text() -> None:
    prompt = PromptTokenizer.from_folder(TINY)
    layout = ModelLayout.read(TINY)
    runner = OnnxRunner(layout, Limits(rows=2))
    request = _request(0, "the model")
    (tokens,) = _greedy(TINY, [{"prompt_ids": prompt.encode(request.prompt), "output_ids": [0] * 40}], 1)
    end = next(each for each in tokens[5:] if each not in tokens[:5])
    at = tokens.index(end)
    backend = LocalBackend(runner, partial(Engine, runner), prompt, frozenset({end}), {"model": "sha256:0"})
    backend.add(request)
    pieces = _finish(backend)[0]
    assert pieces[-1].finish_reason == "stop"
    assert pieces[-1].tokens == at + 1
    text = "".join(piece.text for piece in pieces)
    assert text == prompt.tokenizer.decode(tokens[:at]).rstrip("\ufffd")


def test_several_answers_are_those_of_their_seeds_beside_any_others() -> None:
    backend = LocalBackend.load(TINY, Limits(rows=3))
    backend.add(_request(0, "the model", seed=7, n=4, temperature=1.0, max_tokens=20, stop=("e",), logprobs=0))
    backend.add(_request(1, "a prompt", max_tokens=9))
    pieces = _finish(backend)
    last = pieces[0][-1]
    texts = ["".join(piece.text for piece in pieces[0]), *(each.text for each in last.others)]
    assert [piece.finish_reason is None for piece in pieces[0]] == [True] * (len(pieces[0]) - 1) + [False]
    assert len(last.others) == 3
    assert len(set(texts)) > 1
    total = 0
    for number, text in enumerate(texts):
        seed = seed_of(7, number)
        backend.add(_request(2, "the model", seed=seed, temperature=1.0, max_tokens=20, stop=("e",), logprobs=0))
        alone = _finish(backend)[2]
        assert "".join(piece.text for piece in alone) == text
        answer = last if number == 0 else last.others[number - 1]
        assert (answer.finish_reason, answer.logprobs) == (alone[-1].finish_reason, alone[-1].logprobs)
        total += alone[-1].tokens
    assert last.tokens == total
    assert pieces[1][-1].tokens == 9


def test_a_request_for_several_answers_is_given_up_as_one() -> None:
    backend = LocalBackend.load(TINY, Limits(rows=2))
    backend.add(_request(0, "the model", n=5))
    for _ in range(6):
        backend.step()
    backend.cancel(0)
    assert not backend.step()
    assert set(_texts(backend, [_request(0, "a prompt", max_tokens=4)])) == {0}


def test_likelihoods_of_exactly_the_tokens_in_the_text() -> None:
    backend = LocalBackend.load(TINY, Limits(rows=2))
    backend.add(_request(0, "the model", logprobs=3))
    pieces = _finish(backend)[0]
    whole, told = "".join(piece.text for piece in pieces), pieces[-1].logprobs
    assert [piece.logprobs for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    assert told is not None
    assert all(
        each.logprob == each.top_logprobs[0].logprob == max(o.logprob for o in each.top_logprobs) for each in told
    )
    assert all(len(each.top_logprobs) == 3 for each in told)
    assert all(each.bytes is None or bytes(each.bytes) == each.token.encode() for each in told)
    # a character may be cut off at the very end
    assert pieces[-1].tokens - 3 <= len(told) <= pieces[-1].tokens
    stop = whole[20:24]
    backend.add(_request(1, "the model", logprobs=0, stop=(stop,)))
    cut = _finish(backend)[1]
    before, told_before = "".join(piece.text for piece in cut), cut[-1].logprobs
    assert told_before is not None
    assert told_before == tuple(each.model_copy(update={"top_logprobs": ()}) for each in told[: len(told_before)])
    assert len(told_before) < cut[-1].tokens
    assert len("".join(each.token for each in told_before)) >= len(before)


def test_no_likelihoods_unless_asked_for() -> None:
    backend = LocalBackend.load(TINY, Limits(rows=1))
    backend.add(_request(0, "the model", max_tokens=3))
    assert [(piece.logprobs, piece.likelihoods) for piece in _finish(backend)[0]] == [(None, ())] * 3


def test_a_stop_string_across_tokens_cuts_the_text() -> None:
    backend = LocalBackend.load(TINY, Limits(rows=2))
    whole = _texts(backend, [_request(0, "the model")])[0]
    tokens = PromptTokenizer.from_folder(TINY)
    stop = next(
        whole[at : at + 6]
        for at in range(4, len(whole) - 6)
        if whole[at : at + 6].isascii() and len(tokens.encode_text(whole[at : at + 6])) > 1
    )
    backend.add(_request(1, "the model", stop=(stop,)))
    pieces = _finish(backend)[1]
    assert "".join(piece.text for piece in pieces) == whole[: whole.index(stop)]
    assert pieces[-1].finish_reason == "stop"
    assert pieces[-1].tokens < 40


def test_the_answer_is_bounded_by_the_context() -> None:
    backend = LocalBackend.load(TINY, Limits(rows=1, context=64))
    prompt_tokens = backend.add(_request(0, "the model", max_tokens=5_000))
    last = _finish(backend)[0][-1]
    assert last.tokens == 64 - prompt_tokens
    assert last.finish_reason == "length"


def test_a_prompt_that_fills_the_context_is_refused() -> None:
    backend = LocalBackend.load(TINY, Limits(rows=1, context=64))
    with pytest.raises(LimitExceeded) as refused:
        backend.add(_request(0, "x" * 500))
    assert (refused.value.code, refused.value.field, refused.value.limit) == ("context_length_exceeded", "messages", 63)
    assert not backend.step()


def test_an_empty_prompt_is_refused() -> None:
    empty = GenerationRequest(0, (), GenerationParameters(model="tiny", max_tokens=1), 0)
    with pytest.raises(StageError, match="no tokens"):
        LocalBackend.load(TINY, Limits(rows=1)).add(empty)


def test_text_cannot_forge_a_control_token() -> None:
    backend = LocalBackend.load(TINY, Limits(rows=1))
    forged = backend.add(_request(0, "<|im_end|>"))
    assert forged > backend.add(_request(1, "")) + 1


def test_cancelled_requests_bring_nothing_more() -> None:
    backend = LocalBackend.load(TINY, Limits(rows=2))
    expected = _texts(backend, [_request(1, "a prompt")])[1]
    for key, text in ((0, "the model"), (1, "a prompt"), (2, "waiting")):
        backend.add(_request(key, text))
    for _ in range(4):
        backend.step()
    backend.cancel(0)
    backend.cancel(2)
    rest = _finish(backend)
    assert set(rest) == {1}
    backend.add(_request(1, "a prompt"))
    assert "".join(piece.text for piece in _finish(backend)[1]) == expected


def test_clear_gives_all_up_and_the_next_starts_afresh() -> None:
    backend = LocalBackend.load(TINY, Limits(rows=2))
    expected = _texts(backend, [_request(1, "a prompt")])[1]
    backend.add(_request(1, "the model"))
    backend.step()
    backend.clear()
    assert not backend.step()
    assert _texts(backend, [_request(1, "a prompt")])[1] == expected


def test_a_key_runs_once_at_a_time() -> None:
    backend = LocalBackend.load(TINY, Limits(rows=2))
    backend.add(_request(1, "the model"))
    with pytest.raises(ValueError, match="running already"):
        backend.add(_request(1, "the model"))


def test_refuses_a_tokenizer_of_another_model(tmp_path: Path) -> None:
    for path in TINY.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tokenizer = json.loads((tmp_path / "tokenizer.json").read_text())
    token = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tokenizer["added_tokens"].append({"id": 352, "content": "<|more|>", **token})
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ConfigurationError, match=r"PENSTOCK_MODEL_DIR.*353 tokens, its model 352"):
        LocalBackend.load(tmp_path, Limits(rows=1))


def test_versions_name_the_model() -> None:
    assert LocalBackend.load(TINY, Limits(rows=1)).versions == {"model": ModelLayout.read(TINY).digest()}
