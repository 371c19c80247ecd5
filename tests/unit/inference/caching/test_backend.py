"""A backend in front of another: what is answered from what was kept, what is not, and what leaves as what."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.caching import Bench, Telling, text_of
from tests.support.generation import Scripted, Sink, completed, event_of, job_of
from tests.support.targets import request_of

from penstock.contracts.errors import InvalidRequest
from penstock.contracts.events import Alternative, OutputFormat
from penstock_inference.backend import Piece, Provenance, RequestFault
from penstock_inference.caching.backend import CachingBackend
from penstock_inference.generating import Generating

JSON = OutputFormat(type="json_object")


def test_the_same_again_is_answered_without_the_backend() -> None:
    bench = Bench(Telling("an ", "answer", prompt_tokens=4, others=(Alternative(text="b", finish_reason="length"),)))
    first, second = bench.ask(), bench.ask()
    assert bench.asked == 1
    (whole,) = second
    assert text_of(first) == whole.text == "an answer"
    assert [piece.cached for piece in first] == [None, None]
    assert whole.cached == "exact"
    assert whole.prompt_tokens == 4
    for name in ("tokens", "finish_reason", "prompt_tokens", "others", "provenance", "logprobs"):
        assert getattr(whole, name) == getattr(first[-1], name), name
    assert (bench.counted("exact"), bench.counted("miss"), bench.counted("bypass")) == (1, 1, 0)


def test_the_prompts_tokens_are_the_backends_count_where_the_end_does_not_correct_it() -> None:
    bench = Bench()
    bench.ask()
    assert bench.backend.add(request_of(50, "one two")) == 9


@pytest.mark.parametrize(
    "other", [{"text": "one three"}, {"tenant": "globex"}, {"max_tokens": 63}, {"seed": 1}, {"stop": ("x",)}]
)
def test_what_differs_is_generated(other: dict[str, Any]) -> None:
    bench = Bench()
    bench.ask(tenant="acme") if "tenant" in other else bench.ask()
    assert [piece.cached for piece in bench.ask(**other)] == [None, None]
    assert bench.asked == 2


def test_another_model_over_the_same_answers_has_its_own() -> None:
    bench = Bench()
    bench.ask()
    other = CachingBackend(Telling("else"), bench.cache, lambda: "m2")
    other.add(request_of(1, "one two"))
    assert text_of(other.step() or ()) == "else"


@pytest.mark.parametrize("given", [{"cache": False}, {"temperature": 0.7}])
def test_who_opts_out_or_leaves_it_to_chance_is_not_served_and_not_kept(given: dict[str, Any]) -> None:
    bench = Bench()
    bench.ask(**given)
    bench.ask(**given)
    assert (bench.asked, len(bench.answers), bench.counted("bypass")) == (2, 0, 2)
    if given == {"cache": False}:
        bench.ask()
        bench.ask(**given)
        assert bench.asked == 4


def test_answers_of_chance_are_kept_where_the_setting_says_so() -> None:
    bench = Bench(sampled=True)
    bench.ask(temperature=0.7)
    assert bench.ask(temperature=0.7)[0].cached == "exact"
    bench.ask(temperature=0.7, cache=False)
    assert bench.asked == 2


def test_a_stream_is_cut_into_pieces_that_never_split_a_placeholder() -> None:
    said = "word " * 12 + "ask <EMAIL_ADDRESS_1> or <PERSON_12> " + "word " * 20 + "<"
    bench = Bench(Telling(said))
    bench.ask()
    pieces = bench.ask(stream=True)
    assert bench.asked == 1
    assert text_of(pieces) == said
    assert len(pieces) > 2
    assert all(piece.cached == "exact" for piece in pieces)
    assert [piece.finish_reason for piece in pieces] == [None] * (len(pieces) - 1) + ["stop"]
    for name in ("<EMAIL_ADDRESS_1>", "<PERSON_12>"):
        assert any(name in piece.text for piece in pieces)


def test_an_empty_answer_is_one_too() -> None:
    bench = Bench(Telling(""))
    bench.ask()
    (piece,) = bench.ask(stream=True)
    assert (piece.text, piece.finish_reason, piece.cached) == ("", "stop", "exact")


def test_an_answer_that_begins_anew_is_kept_as_its_last_telling() -> None:
    bench = Bench()

    def step() -> list[Piece]:
        (key,) = bench.behind.running
        bench.behind.running.clear()
        return [Piece(key, "void", 1), Piece(key, "new ", 1, anew=True), Piece(key, "one", 2, "stop")]

    bench.behind.step = step
    bench.ask()
    assert text_of(bench.ask()) == "new one"


def test_what_the_server_was_called_comes_along() -> None:
    made = Provenance("openai", "gpt", "host", {"model": "main:gpt"})
    bench = Bench(Telling("a", provenance=made))
    bench.ask()
    assert bench.ask()[-1].provenance == made


@pytest.mark.parametrize(("said", "kept"), [('{"a": 1}', 1), ('{"a": ', 0), ("[" * 100_000, 0)])
def test_what_should_be_json_and_is_none_is_not_kept(said: str, kept: int) -> None:
    bench = Bench(Telling(said))
    bench.ask(output=JSON)
    assert len(bench.answers) == kept


def test_an_unfinished_or_failed_answer_is_not_kept() -> None:
    bench = Bench()
    bench.backend.add(request_of(1))
    bench.backend.cancel(1)
    bench.behind.fault = RequestFault(2, InvalidRequest("no"))
    bench.backend.add(request_of(2))
    with pytest.raises(RequestFault):
        bench.backend.step()
    bench.backend.clear()
    assert (len(bench.answers), bench.behind.running) == (0, [])


def test_a_hit_outlives_the_failure_of_another_request() -> None:
    bench = Bench()
    bench.ask("kept")
    bench.backend.add(request_of(10, "new"))
    bench.backend.add(request_of(11, "kept"))
    bench.behind.fault = RequestFault(10, InvalidRequest("no"))
    assert [piece.key for piece in bench.backend.step() or ()] == [11]
    bench.backend.add(request_of(12, "kept"))
    with pytest.raises(RequestFault):
        bench.backend.step()
    bench.backend.cancel(10)
    assert [piece.key for piece in bench.backend.step() or ()] == [12]


def test_hits_do_not_keep_the_backend_from_its_turn() -> None:
    bench = Bench()
    bench.ask("kept")
    bench.backend.add(request_of(10, "new"))
    for key in range(20, 30):
        bench.backend.add(request_of(key, "kept"))
        if 10 in {piece.key for piece in bench.backend.step() or ()}:
            break
    else:
        pytest.fail("the new request was never stepped")


def test_a_hit_that_is_given_up_says_nothing() -> None:
    bench = Bench()
    bench.ask()
    bench.backend.add(request_of(10, "one two"))
    bench.backend.cancel(10)
    assert bench.backend.step() == []


def test_a_key_that_runs_is_refused() -> None:
    bench = Bench()
    bench.backend.add(request_of(1))
    with pytest.raises(ValueError, match="key 1"):
        bench.backend.add(request_of(1))


def test_an_idle_backend_is_idle_and_a_waiting_one_waits() -> None:
    bench = Bench()
    assert bench.backend.step() == []
    bench.backend.add(request_of(1))
    bench.behind.step = lambda: None
    assert bench.backend.step() is None


def test_what_is_kept_shows_in_the_metrics() -> None:
    bench = Bench(entries=1)
    bench.ask("a")
    bench.ask("b")
    assert bench.registry.get_sample_value("penstock_answers_kept", {"stage": "inference"}) == 1
    found = bench.registry.get_sample_value("penstock_answers_kept_bytes", {"stage": "inference"})
    assert found == bench.answers.bytes > 0


def test_the_rest_is_the_backends() -> None:
    bench = Bench()
    assert (bench.backend.rows, bench.backend.versions) == (2, {"model": "told"})
    bench.backend.wake()
    bench.backend.close()
    assert bench.behind.closed


def test_generating_tells_of_a_kept_answer_and_not_of_a_first_token() -> None:
    sink = Sink()
    generating = Generating(Bench(Scripted()).backend, sink, lambda: 0.0)
    jobs = []
    for number in range(2):
        jobs.append(job_of(event_of(f"r{number}", stream=True)))
        generating.begin(jobs[-1], 0.0)
        while len(generating):
            generating.step()
    one, other = (completed(job).completion for job in jobs)
    assert (one.cached, other.cached) == (None, "exact")
    assert other.having(cached=None) == one
    assert [job.firsts for job in jobs] == [1, 0]
    streams = [sink.of(f"r{number}") for number in range(2)]
    assert [("".join(piece.text for piece in told), told[-1].finish_reason) for told in streams] == [
        (one.text, one.finish_reason)
    ] * 2
