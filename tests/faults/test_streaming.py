"""A reader of `llm.tokens` that drops repeats by request and sequence has each answer whole, whatever crashed."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from tests.faults.overloading import Offer, Service, Shape
from tests.support.kafka import Follower
from tests.support.stack import wait_until

from penstock.contracts.events import CompletionGenerated, TokensGenerated
from penstock.contracts.topics import COMPLETIONS, TOKENS

pytestmark = [pytest.mark.broker, pytest.mark.faults, pytest.mark.timeout(300)]
ANSWERS = 12
SHAPE = Shape(prompt_words=20, max_tokens=150)


class Reader:
    """The pieces of all streams: the first of each sequence counts."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower
        self.pieces: dict[str, dict[int, TokensGenerated]] = {}
        self.repeats = 0
        self.changed: list[TokensGenerated] = []

    def read(self) -> None:
        for message in self._follower.poll():
            piece = TokensGenerated.model_validate_json(message.value())
            known = self.pieces.setdefault(piece.request_id, {}).setdefault(piece.sequence, piece)
            self.repeats += known is not piece
            if known != piece:
                self.changed.append(piece)

    def ended(self) -> int:
        return sum(any(piece.finish_reason for piece in stream.values()) for stream in self.pieces.values())

    def open(self) -> list[str]:
        """The streams without an end, and what has come of each."""
        return [
            f"{request_id}: pieces {sorted(stream)}"
            for request_id, stream in self.pieces.items()
            if not any(piece.finish_reason for piece in stream.values())
        ]

    def text(self, request_id: str) -> str:
        stream = self.pieces[request_id]
        assert sorted(stream) == list(range(len(stream))), "a piece is missing"
        return "".join(stream[sequence].text for sequence in sorted(stream))


@pytest.mark.parametrize("moment", ["streams under way", "a stream has ended"])
def test_streams_go_on_after_a_crash_and_repeats_are_told_by_their_sequence(
    bootstrap: str, tmp_path: Path, moment: str
) -> None:
    prefix = f"s{uuid.uuid4().hex[:10]}."
    with Service(bootstrap, prefix, tmp_path) as service, Follower(bootstrap, prefix, [TOKENS]) as follower:
        reader = Reader(follower)
        offer = Offer(bootstrap, prefix, SHAPE, stream=True)
        offer.send(ANSWERS, patient=True)
        offer.flush()

        def reached() -> bool:
            reader.read()
            if moment == "a stream has ended":  # when its answer may count as given, and others are about to end
                return reader.ended() > 0
            return sum(len(stream) > 5 for stream in reader.pieces.values()) >= 3

        wait_until(reached, moment)
        assert reader.ended() < ANSWERS
        service.kill()
        service.launch()

        def whole() -> bool:
            reader.read()
            return reader.ended() == ANSWERS

        wait_until(whole, "all streams to end", 180, tails=lambda: f"{reader.open()}\n{service.tail()}")
        with Follower(bootstrap, prefix, [COMPLETIONS]) as completed:
            found: list[CompletionGenerated] = []

            def all_completed() -> bool:
                found.extend(CompletionGenerated.model_validate_json(one.value()) for one in completed.poll())
                return len(found) >= ANSWERS

            wait_until(all_completed, "all completions", 60)
    assert reader.repeats > 0, "nothing was under way when the process was killed"
    assert reader.changed == []
    assert {one.context.request_id: one.completion.text for one in found} == {
        request_id: reader.text(request_id) for request_id in reader.pieces
    }
