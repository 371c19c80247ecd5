"""Two servers that stand in for others of the OpenAI API."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support.chat_server import ChatServer


@pytest.fixture
def one() -> Iterator[ChatServer]:
    with ChatServer("one") as server:
        yield server


@pytest.fixture
def two() -> Iterator[ChatServer]:
    with ChatServer("two") as server:
        yield server
