"""What the samples are to end in, and comparing that with what they did."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from penstock.cli.errors import CommandError
from penstock.cli.sent import Sent
from penstock.contracts.results import RequestFinished, Status


class Expected(BaseModel):
    """What one sample may end in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    statuses: Annotated[tuple[Status, ...], Field(min_length=1)]
    code: str | None = None
    """Of the error, where there must be one."""
    redacts: tuple[str, ...] = ()
    """Entity types that must be among those replaced."""


class Expectations(BaseModel):
    """`expectations.json`: by line number for lines without an id of their own, else by request id."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    duplicates: Annotated[int, Field(ge=0)] = 0
    """Lines that repeat an id of the file: they get no result of their own."""
    requests: dict[str, Expected]
    lines: dict[int, Expected]

    @property
    def results(self) -> int:
        """How many terminal results there must be."""
        return len(self.requests) + len(self.lines)


def load(path: Path) -> Expectations:
    """The expectations in a file; raises CommandError."""
    try:
        return Expectations.model_validate_json(path.read_bytes())
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise CommandError(f"{path} is no file of expectations: {place}: {first['msg']}") from None


def compare(expectations: Expectations, sent: Sent, run: str) -> list[str]:
    """A sentence for each thing that is not as expected; empty where all is."""
    wrong = []
    for request_id, line in sent.line_of.items():
        name = request_id.removesuffix(f"-{run}")
        expected = expectations.requests.get(name) or expectations.lines.get(line)
        result = sent.results.get(request_id)
        if expected is None:
            wrong.append(f"line {line} ({request_id}) has no expectation")
        elif result is not None:
            wrong += [f"{request_id}: {how}" for how in differences(expected, result)]
    known = set(sent.line_of.values())
    wrong += [f"line {line} was expected and not sent" for line in expectations.lines if line not in known]
    names = {request_id.removesuffix(f"-{run}") for request_id in sent.line_of}
    wrong += [f"{name} was expected and not sent" for name in expectations.requests if name not in names]
    if sent.duplicates != expectations.duplicates:
        wrong.append(f"{sent.duplicates} repeated ids, expected {expectations.duplicates}")
    return wrong


def differences(expected: Expected, result: RequestFinished) -> list[str]:
    """How a result differs from what was expected of it."""
    found = []
    if result.status not in expected.statuses:
        found.append(f"status {result.status}, expected {' or '.join(expected.statuses)}")
    code = result.error.code if result.error is not None else None
    if expected.code is not None and code != expected.code:
        found.append(f"error code {code}, expected {expected.code}")
    unseen = [entity for entity in expected.redacts if entity not in result.redactions]
    if unseen:
        found.append(f"did not redact {', '.join(unseen)}")
    return found
