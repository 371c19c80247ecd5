"""Kept answers by meaning: what must be equal, what must be near, and who waits for an embedding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
from tests.support.caching import Bench, Telling, text_of
from tests.support.encoder import TINY_ENCODER
from tests.support.generation import Sink, completed, event_of, job_of
from tests.support.stack import wait_until
from tests.support.targets import request_of

from penstock.contracts.errors import InvalidRequest
from penstock.contracts.events import PromptPart
from penstock.embeddings.background import Background
from penstock.embeddings.encoder import Embeddings, Encoder
from penstock_inference.backend import GenerationRequest, Piece, RequestFault
from penstock_inference.caching.keys import question_of
from penstock_inference.caching.semantic import Semantic, Vectors
from penstock_inference.generating import Generating

RIVER, STREAM, RESET = "what is a river", "What is a stream", "How do I reset my password?"


class Fails:
    def embed(self, texts: Sequence[str]) -> Embeddings:
        raise RuntimeError("no vectors")


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = bench_of(Background(Encoder(TINY_ENCODER, truncates=False)))
    yield bench
    bench.backend.close()


def bench_of(background: Background, entries: int = 100, behind: Telling | None = None) -> Bench:
    return Bench(behind, entries=entries, semantic=Semantic(background, similarity=0.95, digest="sha256:e"))


def cached(pieces: Sequence[Piece]) -> str | None:
    (kind,) = {piece.cached for piece in pieces}
    return kind


def test_the_same_meaning_is_answered_from_what_is_kept(bench: Bench) -> None:
    first = bench.ask(RIVER)
    assert (cached(first), cached(bench.ask(STREAM)), cached(bench.ask(RIVER))) == (None, "semantic", "exact")
    assert cached(bench.ask(RESET)) is None
    assert bench.asked == 2
    assert [bench.counted(kind) for kind in ("exact", "semantic", "miss")] == [1, 1, 2]


def test_a_hit_by_meaning_has_the_kept_text_and_its_own_count_of_prompt_tokens(bench: Bench) -> None:
    first, second = bench.ask(RIVER), bench.ask(STREAM)
    assert text_of(second) == text_of(first)
    assert second[-1].prompt_tokens == 10
    assert second[-1].tokens == first[-1].tokens


def test_a_generated_answers_prompt_tokens_are_those_that_the_backend_counted(bench: Bench) -> None:
    assert bench.backend.add(request_of(50, RIVER)) == 10
    assert bench.pieces(50)[-1].prompt_tokens == 9


def test_the_encoder_is_among_the_versions(bench: Bench) -> None:
    assert bench.backend.versions == {"model": "told", "encoder": "sha256:e"}


@pytest.mark.parametrize(
    ("text", "given"),
    [
        (STREAM, {"tenant": "globex"}),
        (STREAM, {"max_tokens": 63}),
        (STREAM, {"seed": 1}),
        (STREAM, {"cache": False}),
        ("what is a stream 2", {}),
        ("what is not a stream", {}),
        ("what is a <PERSON_1> stream", {}),
        ("what is a Long stream", {}),
    ],
)
def test_the_rest_must_be_equal(bench: Bench, text: str, given: dict[str, object]) -> None:
    bench.ask(RIVER)
    assert cached(bench.ask(text, **given)) is None


def parts(*said: tuple[str, str]) -> tuple[PromptPart, ...]:
    return tuple(
        PromptPart(kind="text", text=text, role=role, message=number) for number, (role, text) in enumerate(said)
    )


def test_only_the_last_message_may_differ() -> None:
    request = replace(request_of(), prompt=parts(("system", "Be brief."), ("user", RIVER)))
    question = question_of(request, "m")
    assert question is not None
    assert question.text == RIVER

    def rest(*said: tuple[str, str]) -> bytes | None:
        other = question_of(replace(request, prompt=parts(*said)), "m")
        return None if other is None else other.rest

    assert rest(("system", "Be brief."), ("user", STREAM)) == question.rest
    assert rest(("system", "Be long."), ("user", STREAM)) != question.rest
    assert rest(("user", "Be brief."), ("user", STREAM)) != question.rest
    assert question_of(request, "n") != question
    assert rest(("user", RIVER), ("assistant", "Water.")) is None
    assert rest(("system", RIVER)) is None
    assert question_of(replace(request, prompt=()), "m") is None


def test_a_speakers_name_is_part_of_the_rest() -> None:
    name = PromptPart(kind="text", text="anna", role="user", message=0, field="name")
    prompt = parts(("user", RIVER))
    found = [
        question_of(replace(request_of(), prompt=(each, *prompt)), "m") for each in (name, name.having(text="bob"))
    ]
    assert found[0] is not None
    assert found[1] is not None
    assert found[0].text == found[1].text == RIVER
    assert found[0].rest != found[1].rest


def test_a_message_beyond_the_encoders_limit_is_none_of_anothers_meaning(bench: Bench) -> None:
    long = "river " * 30
    bench.ask(long)
    assert cached(bench.ask(long + "stream")) is None
    assert cached(bench.ask(long)) == "exact"


def test_what_is_no_longer_kept_is_no_longer_found() -> None:
    bench = bench_of(Background(Encoder(TINY_ENCODER)), entries=1)
    bench.ask(RIVER)
    bench.ask(RESET)
    assert cached(bench.ask(STREAM)) is None
    assert bench.cache.semantic is not None
    assert len(bench.cache.semantic) == len(bench.answers) == 1
    bench.backend.close()


def test_without_an_embedding_a_request_is_generated() -> None:
    bench = bench_of(Background(Fails()))
    assert cached(bench.ask(RIVER)) is None
    assert cached(bench.ask(STREAM)) is None
    assert cached(bench.ask(RIVER)) == "exact"
    bench.backend.close()


def test_what_the_backend_refuses_is_that_requests_fault(bench: Bench) -> None:
    class Refusing(Telling):
        def add(self, request: GenerationRequest) -> int:
            raise InvalidRequest("no")

    other = bench_of(Background(Encoder(TINY_ENCODER)), behind=Refusing())
    other.backend.add(request_of(1, RIVER))
    with pytest.raises(RequestFault) as raised:
        other.pieces(1)
    assert raised.value.key == 1
    assert isinstance(raised.value.cause, InvalidRequest)
    assert other.backend.step() == []
    other.backend.close()


def test_a_request_given_up_while_it_is_embedded_is_not_generated(bench: Bench) -> None:
    bench.backend.add(request_of(50, RIVER))
    with pytest.raises(ValueError, match="key 50"):
        bench.backend.add(request_of(50, RIVER))
    bench.backend.cancel(50)
    bench.backend.add(request_of(51, RIVER))
    bench.backend.clear()
    bench.ask(STREAM)
    assert [request.key for request in bench.behind.asked] == [1]


def test_a_waiting_request_is_waited_for_and_not_taken_for_idleness(bench: Bench) -> None:
    generating = Generating(bench.backend, Sink(), lambda: 0.0)
    jobs = []
    for number, text in enumerate((RIVER, STREAM)):
        event = event_of(f"r{number}")
        jobs.append(job_of(event.having(prompt=parts(("user", text)))))
        generating.begin(jobs[-1], 0.0)

        def ended() -> bool:
            generating.step()
            return not len(generating)

        wait_until(ended, "the answer")
    assert [completed(job).completion.cached for job in jobs] == [None, "semantic"]


def test_vectors_find_the_nearest_through_additions_and_removals() -> None:
    random = np.random.default_rng(1)
    rows = random.normal(size=(40, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    vectors = Vectors(8)
    for number, row in enumerate(rows):
        vectors.add(bytes([number]), row)
    gone = {0, 7, 39, 20, 38}
    for number in gone:
        vectors.remove(bytes([number]))
    left = [number for number in range(40) if number not in gone]
    assert len(vectors) == len(left)
    for probe in random.normal(size=(50, 8)).astype(np.float32):
        key, cosine = vectors.nearest(probe)
        best = max(left, key=lambda number: float(rows[number] @ probe))
        assert key == bytes([best])
        assert cosine == pytest.approx(float(rows[best] @ probe))
