"""The requests of the evaluation, the same for the same number, and the two backends that answer them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tests.benchmarks.constrained.schemas import CASES, Case

from penstock.contracts.events import GenerationParameters, OutputFormat
from penstock.text.prompt_tokens import PromptTokenizer
from penstock_inference.backend import GenerationRequest
from penstock_inference.engine import Engine
from penstock_inference.layout import ModelLayout
from penstock_inference.local import LocalBackend
from penstock_inference.runner import Limits, OnnxRunner
from penstock_preprocess.model import PromptModel
from penstock_preprocess.template import Turn

MODEL = Path(__file__).parents[3] / "deploy" / "models" / "penstock-lm"
TEMPERATURES = (0.0, 0.7, 1.0, 1.5)
NOW_MS = 1_700_000_000_000


@dataclass(frozen=True)
class Answer:
    """What came of a request."""

    text: str
    finish_reason: str | None
    tokens: int


def output_of(case: Case) -> OutputFormat:
    """As a request asks for it."""
    return OutputFormat(type="json_schema", json_schema=json.dumps(case.schema))


def requests(count: int) -> Iterator[tuple[Case, GenerationRequest]]:
    """Case after case, with each question at each temperature in turn, and a seed of its own for each."""
    template = PromptModel.from_folder(MODEL).template
    for number in range(count):
        case = CASES[number % len(CASES)]
        turn = number // len(CASES)
        question = case.questions[turn % len(case.questions)]
        parameters = GenerationParameters(
            model=MODEL.name,
            max_tokens=case.max_tokens,
            temperature=TEMPERATURES[turn // len(case.questions) % len(TEMPERATURES)],
            output=output_of(case),
        )
        prompt = template.render([Turn("user", question)], now_ms=NOW_MS)
        yield case, GenerationRequest(number, prompt, parameters, seed=number)


def free(request: GenerationRequest, tokens: int) -> GenerationRequest:
    """The same request held to nothing but that number of tokens."""
    return replace(
        request, parameters=request.parameters.model_copy(update={"output": OutputFormat(), "max_tokens": tokens})
    )


def backend(*, rows: int, threads: int, ends: bool = True) -> LocalBackend:
    """The shipped model; without `ends` its answers go on to their last token. Prompts are read anew each time."""
    layout = ModelLayout.read(MODEL)
    limits = Limits(rows=rows, threads=threads, prefix_mib=0)
    runner = OnnxRunner(layout, limits)
    tokens = PromptTokenizer.from_folder(MODEL)
    # the first token of a prompt, which no answer goes on with
    eos_ids = layout.eos_ids if ends else frozenset({tokens.tokenizer.token_to_id("<|bos|>")})
    engine = partial(Engine, runner, step_tokens=limits.step_tokens, stall_s=limits.stall_s)
    return LocalBackend(runner, engine, tokens, eos_ids, {"model": layout.digest()})


def answer(backend: LocalBackend, work: Sequence[GenerationRequest]) -> tuple[dict[int, Answer], float, float]:
    """All requests, given at once: answers by key, and the seconds and seconds of processor time they took."""
    texts = {request.key: "" for request in work}
    found: dict[int, Answer] = {}
    began, used = time.perf_counter(), time.process_time()
    for request in work:
        backend.add(request)
    while pieces := backend.step():
        for piece in pieces:
            texts[piece.key] += piece.text
            if piece.finish_reason is not None:
                found[piece.key] = Answer(texts[piece.key], piece.finish_reason, piece.tokens)
    return found, time.perf_counter() - began, time.process_time() - used
