"""`penstock.contracts.errors`: what the runtime relies on in every error."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from penstock.contracts import errors
from penstock.contracts.errors import BackendTimeout, Expired, InvalidRequest, PenstockError, RequestError
from penstock.contracts.events import RequestContext, Source


def tree(root: type[PenstockError]) -> Iterator[type[PenstockError]]:
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


def test_the_tree_drawn_in_the_module_is_the_tree_there_is() -> None:
    assert errors.__doc__ is not None
    drawn = set(re.findall(r"^[ │├└─]*([A-Z][A-Za-z]+) {2,}", errors.__doc__, re.MULTILINE))
    drawn |= set(re.findall(r"[├└]── ([A-Z][A-Za-z]+) ", errors.__doc__))
    assert drawn == {error.__name__ for error in tree(PenstockError) if error.__module__ == errors.__name__}


def test_only_what_may_yet_succeed_is_retriable() -> None:
    retriable = {error.__name__ for error in tree(PenstockError) if error.retriable}
    assert {"RetriableError", "BackendUnavailable", "BackendTimeout"} <= retriable
    assert not any(error.retriable for error in tree(RequestError))


@pytest.mark.parametrize(
    ("error", "code"),
    [(Expired("late"), "deadline_exceeded"), (InvalidRequest("bad", code="invalid_json"), "invalid_json")],
)
def test_code_is_the_class_default_or_the_given_one(error: PenstockError, code: str) -> None:
    assert error.code == code


def test_an_error_may_say_which_request_it_is_about() -> None:
    context = RequestContext(
        request_id="r1", conversation_id="c1", submitted_ms=0, source=Source(topic="t", partition=0, offset=0)
    )
    error = BackendTimeout("slow").about(context)
    assert isinstance(error, BackendTimeout)
    assert error.context is context
    assert PenstockError("x").context is None
