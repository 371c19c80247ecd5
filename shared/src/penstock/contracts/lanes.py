"""The two lanes of the path, as topic names tell them: `llm.screened` and its sibling `llm.screened.bulk`.

Which topics have a sibling is said in `topics.toml`; who goes first is the runtime's to decide.
"""

from __future__ import annotations

from typing import Final, get_args

from penstock.contracts.events import Priority

LANES: Final[tuple[Priority, ...]] = get_args(Priority)
BULK_SUFFIX: Final = ".bulk"


def lane_of(topic: str) -> Priority:
    """The lane of a topic, with or without a prefix; a topic without lanes counts as interactive."""
    return "bulk" if topic.endswith(BULK_SUFFIX) else "interactive"


def base_of(topic: str) -> str:
    """The topic's name in the interactive lane."""
    return topic.removesuffix(BULK_SUFFIX)
