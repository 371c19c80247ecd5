"""Several models behind one backend: which one takes a request, and when one is let go."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from tests.support.generation import Clock, Scripted, event_of

from penstock.contracts.errors import Overloaded, StageError
from penstock_inference.backend import GenerationRequest, Prompts, RequestFault
from penstock_inference.switching import Loaded, SwitchingBackend

OURS, THEIRS = Prompts("t1", "c1"), Prompts("t2", "c2")


class Named(Scripted):
    def __init__(self, name: str, faults: Mapping[str, Exception] | None = None) -> None:
        super().__init__(faults=faults)
        self.versions = {"model": name}


def loaded(name: str, prompts: Prompts = OURS, **given: Mapping[str, Exception]) -> Loaded:
    return Loaded(name, Named(name, **given), prompts)


def request(key: int, prompts: Prompts | None = OURS, tokens: int = 3, text: str = "x") -> GenerationRequest:
    event = event_of(text=text, max_tokens=tokens)
    return GenerationRequest(key, event.prompt, event.parameters, 0, prompts=prompts)


def run(backend: SwitchingBackend) -> dict[int, str]:
    """Steps until nothing is left; key -> the model that answered."""
    finished = {}
    for _ in range(100):
        for piece in backend.step():
            if piece.finish_reason is not None:
                assert piece.provenance is not None
                assert (piece.provenance.provider, piece.tokens) == ("penstock", 3)
                assert piece.provenance.versions == {"model": piece.provenance.model}
                finished[piece.key] = piece.provenance.model
    return finished


def test_new_requests_go_to_the_promoted_model_and_those_under_way_end_where_they_began() -> None:
    backend = SwitchingBackend(loaded("old"))
    backend.add(request(1))
    backend.step()
    backend.take(loaded("new"), promoted=True)
    backend.add(request(2))
    backend.add(request(3, prompts=None))
    assert backend.retire() == []
    assert run(backend) == {1: "old", 2: "new", 3: "new"}
    assert backend.retire() == ["old"]
    assert backend.retire() == []


def test_models_take_turns() -> None:
    old, new = loaded("old"), loaded("new")
    backend = SwitchingBackend(old)
    backend.add(request(1, tokens=9))
    backend.take(new, promoted=True)
    backend.add(request(2, tokens=9))
    keys = [piece.key for _ in range(6) for piece in backend.step()]
    assert sorted(keys) == [1, 1, 1, 2, 2, 2]


def test_a_model_without_requests_is_never_stepped() -> None:
    backend = SwitchingBackend(loaded("old"))
    assert backend.step() == ()
    backend.add(request(1, tokens=4))
    backend.take(loaded("new"), promoted=True)
    assert [len(backend.step()) for _ in range(5)] == [1, 1, 1, 1, 0]


def test_a_prompt_of_another_tokenizer_waits_for_a_model_that_has_it() -> None:
    asked: list[int] = []
    backend = SwitchingBackend(loaded("ours"), ask=lambda: asked.append(1))
    with pytest.raises(Overloaded) as put_off:
        backend.add(request(1, THEIRS))
    assert (put_off.value.code, asked, backend.wanted()) == ("model_loading", [1], [THEIRS])
    backend.take(loaded("theirs", THEIRS), promoted=False)
    assert backend.wanted() == []
    backend.add(request(1, THEIRS))
    backend.add(request(2))
    assert run(backend) == {1: "theirs", 2: "ours"}


def test_a_prompt_of_no_known_model_is_refused_and_one_of_the_same_tokens_is_not() -> None:
    backend = SwitchingBackend(loaded("ours"))
    same_tokens = Prompts("t1", "other")
    for prompts in (THEIRS, same_tokens):
        with pytest.raises(Overloaded):
            backend.add(request(1, prompts))
        backend.unknown(prompts)
    with pytest.raises(StageError) as refused:
        backend.add(request(1, THEIRS))
    assert refused.value.code == "model_gone"
    backend.add(request(2, same_tokens))
    assert run(backend) == {2: "ours"}
    backend.take(loaded("new"), promoted=True)
    with pytest.raises(Overloaded):  # a promotion may have brought what was missing
        backend.add(request(3, THEIRS))


def test_a_model_of_other_prompts_lingers_after_its_last_request() -> None:
    clock = Clock()
    backend = SwitchingBackend(loaded("ours"), linger_s=60, monotonic=clock)
    backend.take(loaded("theirs", THEIRS), promoted=True)
    clock.now += 59
    backend.add(request(1, OURS))
    clock.now += 100
    assert backend.retire() == []
    assert run(backend) == {1: "ours"}
    clock.now += 59
    assert backend.retire() == []
    clock.now += 1
    assert backend.retire() == ["ours"]


def test_cancelling_clearing_and_refusing_leave_nothing_behind() -> None:
    old, new = loaded("old"), loaded("new")
    backend = SwitchingBackend(old)
    backend.add(request(1))
    backend.add(request(2))
    backend.cancel(1)
    backend.cancel(99)
    backend.take(new, promoted=True)
    backend.add(request(3))
    assert (old.keys, new.keys) == ({2}, {3})
    backend.clear()
    assert (old.keys, new.keys, backend.step()) == (set(), set(), ())
    assert isinstance(old.backend, Scripted)
    assert old.backend.running == {}

    def refuse(_: GenerationRequest) -> int:
        raise ValueError

    new.backend.add = refuse  # type: ignore[method-assign]  # a prompt that does not fit
    with pytest.raises(ValueError):
        backend.add(request(4))
    assert new.keys == set()
    assert backend.retire() == ["old"]


def test_a_fault_of_one_model_leaves_the_other_alone() -> None:
    error = RuntimeError("bad")
    error.__cause__ = ValueError("prompt")
    backend = SwitchingBackend(loaded("old", faults={"bad": error}))
    backend.add(request(1, text="bad"))
    backend.take(loaded("new"), promoted=True)
    backend.add(request(2))
    faults = []
    finished: dict[int, int] = {}
    for _ in range(10):
        try:
            finished |= {piece.key: piece.tokens for piece in backend.step() if piece.finish_reason}
        except RequestFault as fault:
            faults.append(fault.key)
            backend.cancel(fault.key)
    assert (faults, finished) == ([1], {2: 3})


def test_closing_ends_the_models_and_whoever_loads() -> None:
    ended: list[str] = []

    class Closing(Named):
        def close(self) -> None:
            ended.append(self.versions["model"])

    backend = SwitchingBackend(Loaded("old", Closing("old"), OURS), ended=lambda: ended.append("loader"))
    backend.take(Loaded("new", Closing("new"), OURS), promoted=True)
    backend.wake()
    backend.close()
    assert ended == ["loader", "old", "new"]


def test_a_request_for_an_adapter_goes_to_the_model_that_the_adapter_belongs_to() -> None:
    old, new = (Loaded(name, Named(name), Prompts("t1", "c1", name)) for name in ("old", "new"))
    backend = SwitchingBackend(old)
    backend.add(request(1, Prompts("t1", "c1", "old")))
    backend.take(new, promoted=True)
    backend.add(request(2, Prompts("t1", "c1", "old")))
    backend.add(request(3, Prompts("t1", "c1", "new")))
    backend.add(request(4))
    assert run(backend) == {1: "old", 2: "old", 3: "new", 4: "new"}
    assert backend.retire() == ["old"]
    with pytest.raises(Overloaded) as put_off:
        backend.add(request(5, Prompts("t1", "c1", "old")))
    assert (put_off.value.code, backend.wanted()) == ("model_loading", [Prompts("t1", "c1", "old")])
    backend.take(Loaded("old", Named("old"), Prompts("t1", "c1", "old")), promoted=False)
    assert backend.wanted() == []
    assert backend.retire() == []
    backend.add(request(5, Prompts("t1", "c1", "old")))
    assert run(backend) == {5: "old"}


def test_an_adapter_whose_model_is_gone_is_refused_not_answered_by_another() -> None:
    backend = SwitchingBackend(Loaded("ours", Named("ours"), Prompts("t1", "c1", "ours")))
    wanted = Prompts("t1", "c1", "gone")
    backend.unknown(wanted)
    with pytest.raises(StageError) as refused:
        backend.add(request(1, wanted))
    assert refused.value.code == "adapter_of_another_model"
