"""Editing a letter's body: what the editor saves, and what may not be sent."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from penstock.cli.editing import edit, problem
from penstock.cli.errors import CommandError
from penstock.contracts.events import GenerationParameters, RequestContext, RequestPreprocessed, Source
from penstock.contracts.results import DeadLetter, ErrorDetail

SOURCE = Source(topic="llm.requests", partition=0, offset=3)
KNOWN = DeadLetter(
    request_id="r-1",
    tenant="acme",
    stage="preprocess",
    error=ErrorDetail(code="unknown_model", message="m", stage="preprocess"),
    attempts=1,
    source=SOURCE,
    original_timestamp_ms=1,
    failed_ms=2,
)
BODY = b'{"prompt": "hello", "model": "gpt-99"}'


def event(request_id: str = "r-1", tenant: str = "acme", max_tokens: int = 1) -> bytes:
    context = RequestContext(request_id=request_id, conversation_id="c", tenant=tenant, submitted_ms=1, source=SOURCE)
    parameters = GenerationParameters(model="m", max_tokens=max_tokens)
    return RequestPreprocessed(context=context, prompt=(), parameters=parameters).encode()


@pytest.mark.parametrize(
    ("edited", "topic", "said"),
    [
        (b'{"prompt": "hello"}', "llm.requests", None),
        (b'{"prompt": "hello", "request_id": "r-1"}', "llm.requests", None),
        (BODY, "llm.requests", "nothing was changed"),
        (b'{"prompt": 7}', "llm.requests", "prompt: not a penstock.completion-request/1"),
        (b"\xff", "llm.requests", "not a penstock.completion-request/1"),
        (b'{"prompt": "hello", "request_id": "r-2"}', "llm.requests", "another request id"),
        (event(max_tokens=2), "llm.preprocessed", None),
        (event(request_id="r-2"), "llm.preprocessed", "another request id"),
        (event(tenant="other"), "llm.preprocessed", "another tenant"),
        (b"{}", "llm.preprocessed", "not a penstock.request-preprocessed/1"),
    ],
)
def test_what_is_sent_follows_the_schema_and_is_the_same_request(edited: bytes, topic: str, said: str | None) -> None:
    found = problem(edited, BODY, topic, KNOWN)
    if said is None:
        assert found is None
    else:
        assert said in (found or "")


def test_a_problem_quotes_no_value() -> None:
    secret = json.dumps({"prompt": {"erika@example.org": 1}}).encode()
    assert "erika" not in (problem(secret, BODY, "llm.requests", KNOWN) or "erika")


def test_the_editor_gets_a_file_of_the_operators_own_that_is_gone_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "editor.py"
    script.write_text(
        "import pathlib, sys\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "assert path.parent.stat().st_mode & 0o077 == 0\n"
        f"pathlib.Path({str(tmp_path / 'seen')!r}).write_text(str(path))\n"
        "path.write_bytes(path.read_bytes().replace(b'gpt-99', b'm'))\n"
    )
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", f"{sys.executable} {script}")
    assert edit(BODY) == b'{"prompt": "hello", "model": "m"}'
    assert not Path((tmp_path / "seen").read_text()).exists()


@pytest.mark.parametrize(("editor", "said"), [("", "EDITOR"), ("false", "status 1"), ("/no/such/editor", "started")])
def test_without_an_editor_nothing_is_sent(editor: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", editor)
    with pytest.raises(CommandError, match=said):
        edit(BODY)
