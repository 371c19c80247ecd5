"""The search finds a value in each form, and nothing where there is none."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest
from tests.canary.data import KINDS, Canaries
from tests.canary.search import Search

VALUES = [Canaries(7).value(kind) for kind in KINDS for _ in range(3)]


@pytest.fixture(scope="module")
def search() -> Search:
    return Search(VALUES)


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("before", ["", "a", "ab", '{"x": "'])
def test_each_form_is_found(search: Search, value: str, before: str) -> None:
    inside = f"{before}{value}, and more"
    assert search.find(inside) == {value}
    assert search.find(inside.upper()) == {value}
    assert search.find(inside.encode()) == {value}
    assert search.find(json.dumps({"text": inside})) == {value}
    assert search.find(quote(inside, safe="")) == {value}
    assert search.find(base64.b64encode(inside.encode())) == {value}
    assert search.find(base64.urlsafe_b64encode(inside.encode())) == {value}
    assert search.find(inside.encode().hex()) == {value}


@pytest.mark.parametrize("value", VALUES)
def test_it_is_found_without_separators(search: Search, value: str) -> None:
    bare = "".join(char for char in value if char.isalnum())
    assert search.find(f"id={bare};") == {value}


def test_nothing_is_found_in_what_looks_alike(search: Search) -> None:
    other = [Canaries(8).value(kind) for kind in KINDS]
    assert search.find(" ".join(other) + " 0.123456789 1795258123456 <EMAIL_ADDRESS_1>") == set()


def test_values_are_made_once_and_the_same_for_a_seed() -> None:
    requests = Canaries(1).requests(60)
    canaries = [canary for request in requests for canary in request.canaries]
    assert len(canaries) == len(set(canaries)) > 150
    assert [request.publishing for request in Canaries(1).requests(60)] == [request.publishing for request in requests]
    for request in requests:
        sent = (request.publishing.value or b"").decode() + str(request.publishing.headers)
        assert all(canary in sent for canary in request.canaries)
