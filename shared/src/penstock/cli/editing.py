"""Editing the body of a dead letter before it is sent again. The letter itself stays as it is."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path

from pydantic import ValidationError

from penstock.cli.errors import CommandError
from penstock.contracts.events import Event
from penstock.contracts.lanes import base_of
from penstock.contracts.request import CompletionRequest
from penstock.contracts.results import DeadLetter
from penstock.contracts.topics import EVENTS


def edit(body: bytes) -> bytes:
    """What the operator's editor makes of it; raises CommandError where there is no editor, or it fails."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not editor:
        raise CommandError("--edit needs an editor: set EDITOR, e.g. EDITOR=vi. Nothing was sent")
    # readable by the operator alone, and gone afterwards: bodies hold personal data
    with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
        path = Path(folder) / "body.json"
        path.write_bytes(body)
        try:
            status = subprocess.run([*shlex.split(editor), str(path)], check=False).returncode
        except OSError as error:
            raise CommandError(f"the editor could not be started ({error.strerror}). Nothing was sent") from None
        if status != 0:
            raise CommandError(f"the editor ended with status {status}. Nothing was sent")
        return path.read_bytes()


def problem(edited: bytes, original: bytes, topic: str, known: DeadLetter) -> str | None:
    """Why the edited body cannot go to the topic, None where it can: a sentence without its values."""
    if edited == original:
        return "nothing was changed"
    kind: type[CompletionRequest | Event] = EVENTS.get(base_of(topic), CompletionRequest)
    try:
        body = kind.model_validate_json(edited)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        return f"{where}: not a {kind.schema_ref()} ({first['type']})"
    named, tenant = (
        (body.context.request_id, body.context.tenant) if isinstance(body, Event) else (body.request_id, known.tenant)
    )
    if named not in (None, known.request_id):
        return "it names another request id: keep it, or publish a new request"
    if tenant != known.tenant:
        return "it names another tenant: publish a new request for that"
    return None
