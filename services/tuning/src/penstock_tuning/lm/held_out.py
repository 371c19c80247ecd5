"""The held-out part of the public texts and conversations: what every language model is measured on.

It is the same whatever a model was trained on, so that perplexities can be compared; training leaves out what shares
a run of eight words with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from penstock_tuning.data.errors import SourceMissingError
from penstock_tuning.lm.conversations import Conversation, conversations
from penstock_tuning.lm.corpus import documents, held_out, is_held_out

FILE = "held_out.json"
_MAX_CARRIER_WORDS = 24
_CARRIERS = 2000


def carriers_of(talks: Sequence[Conversation]) -> list[str]:
    """Short user turns of the public conversations, to put placeholders into."""
    found = []
    for talk in talks:
        for role, text in talk.turns:
            line = text.split("\n")[0]
            if role == "user" and 3 <= len(line.split()) <= _MAX_CARRIER_WORDS and "<" not in line:
                found.append(line)
    return found


@contextmanager
def sets_of(data: Path) -> Iterator[None]:
    """While public sets are read: say which one is not there.

    Raises:
        SourceMissingError: a file was not found.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise SourceMissingError(
            f"{error.filename} is not there: `penstock tune data verify` says what {data} lacks"
        ) from error


def held_out_texts(data: Path, work: Path) -> dict[str, Any]:
    """The held-out texts, from the work folder or read from the data folder and kept there.

    Returns:
        `documents`, each with `group`, `language` and `text`; `conversations`, each with `group` and `turns` (pairs of
        role and text); `carriers`, sentences to put placeholders into.

    Raises:
        SourceMissingError: a set is not in the data folder.
    """
    path = work / FILE
    if not path.exists():
        with sets_of(data):
            docs = [one for one in documents(data) if held_out(one)]
            talks = [one for one in conversations(data) if is_held_out(one.key)]
        kept = {
            "documents": [{"group": one.group, "language": one.language, "text": one.text} for one in docs],
            "conversations": [{"group": one.group, "turns": one.turns} for one in talks],
            "carriers": list(islice(carriers_of(talks), _CARRIERS)),
        }
        work.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(kept, ensure_ascii=False), encoding="utf-8")
        partial.replace(path)
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
