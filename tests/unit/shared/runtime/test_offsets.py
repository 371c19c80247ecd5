"""`penstock.runtime.offsets`: which errors of a group's offsets are waited out, for how long, and which are told.

And what the metadata beside them is taken for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from structlog.testing import CapturingLogger

from penstock.runtime import offsets
from penstock.runtime.progress import encode


@dataclass
class Answered:
    """A partition as the client returns it; one's error cannot be set on the client's own class."""

    partition: int
    offset: int = 7
    metadata: str = ""
    error: KafkaError | None = None


class Scripted:
    """A consumer with these answers, the last one for ever; an error as an answer is raised."""

    def __init__(self, *answers: KafkaError | list[Answered]) -> None:
        self._answers = list(answers)
        self.asked = 0

    def committed(self, partitions: list[TopicPartition], timeout: float) -> list[Answered]:
        self.asked += 1
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, KafkaError):
            raise KafkaException(answer)
        return answer


class Clock:
    """Time passes while something waits, and a second with each look."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        self.now += 1
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds


PARTS = [TopicPartition("a", 0), TopicPartition("a", 1)]
FOUND = [Answered(0), Answered(1, 9, "1:9:AQ==")]
GONE = KafkaError(KafkaError._TRANSPORT)
REFUSED = KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED)
UNSTABLE = KafkaError(KafkaError.UNSTABLE_OFFSET_COMMIT)


def committed(consumer: Scripted) -> Sequence[Any]:
    clock = Clock()
    return offsets.committed(consumer, PARTS, monotonic=clock.monotonic, pause=clock.pause)


def test_offsets_and_their_metadata_come_as_the_broker_tells_them() -> None:
    consumer = Scripted(FOUND)
    assert committed(consumer) == FOUND
    assert consumer.asked == 1


def test_nobody_is_asked_about_no_partitions() -> None:
    consumer = Scripted(REFUSED)
    assert offsets.ask(consumer, []) == []
    assert consumer.asked == 0


@pytest.mark.parametrize(
    "code", [KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError.NOT_COORDINATOR, KafkaError._WAIT_COORD]
)
def test_a_broker_that_is_away_is_asked_again(code: int) -> None:
    consumer = Scripted(KafkaError(code), KafkaError(code), FOUND)
    assert committed(consumer) == FOUND
    assert consumer.asked == 3


def test_a_transaction_that_is_open_on_one_partition_is_waited_for() -> None:
    # the call succeeds where the client has given up: only the partition says that its offset is not to be used
    consumer = Scripted([Answered(0), Answered(1, -1001, error=UNSTABLE)], FOUND)
    assert committed(consumer) == FOUND
    assert consumer.asked == 2


@pytest.mark.parametrize("error", [REFUSED, KafkaError(KafkaError._TRANSPORT, "beyond repair", fatal=True)])
def test_what_does_not_pass_is_raised_at_once(error: KafkaError) -> None:
    for consumer in (Scripted(error), Scripted([Answered(0), Answered(1, error=error)])):
        with pytest.raises(KafkaException) as raised:
            committed(consumer)
        assert raised.value.args[0] is error
        assert consumer.asked == 1


def test_of_several_partitions_the_one_that_does_not_pass_is_told() -> None:
    consumer = Scripted([Answered(0, error=UNSTABLE), Answered(1, error=REFUSED)])
    with pytest.raises(KafkaException) as raised:
        committed(consumer)
    assert raised.value.args[0] is REFUSED
    assert consumer.asked == 1


@pytest.mark.parametrize("answer", [GONE, [Answered(0), Answered(1, error=UNSTABLE)]])
def test_there_is_a_limit_to_the_wait(answer: Any) -> None:
    consumer, clock = Scripted(answer), Clock()
    began = clock.now
    with pytest.raises(KafkaException):
        offsets.committed(consumer, PARTS, monotonic=clock.monotonic, pause=clock.pause)
    assert offsets.LIMIT_S < clock.now - began < offsets.LIMIT_S + 5
    assert consumer.asked > 10


@pytest.mark.parametrize(("answer", "told"), [(GONE, 0), ([Answered(0), Answered(1, error=UNSTABLE)], 1)])
def test_a_transaction_that_stays_undecided_is_told_with_the_way_out(
    answer: Any, told: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = CapturingLogger()
    monkeypatch.setattr(offsets, "_log", log)
    with pytest.raises(KafkaException):
        committed(Scripted(answer))
    assert [call.kwargs["to_do"] for call in log.calls] == [offsets.HANGING] * told


def test_metadata_says_what_is_finished_beyond_its_offset() -> None:
    assert offsets.ahead(TopicPartition("a", 0, 7, encode(7, {9, 12}))) == {9, 12}
    assert offsets.ahead(TopicPartition("a", 0, 7)) == frozenset()
    assert offsets.ahead(TopicPartition("a", 0, -1001)) == frozenset()


@pytest.mark.parametrize("metadata", ["set by hand", encode(6, {9}), "1:7:?"])
def test_metadata_of_others_is_logged_and_counts_for_nothing(metadata: str, monkeypatch: pytest.MonkeyPatch) -> None:
    log = CapturingLogger()
    monkeypatch.setattr(offsets, "_log", log)
    assert offsets.ahead(TopicPartition("a", 3, 7, metadata)) == frozenset()
    (call,) = log.calls
    assert (call.method_name, call.args) == ("warning", ("runtime.progress.refused",))
    assert (call.kwargs["topic"], call.kwargs["partition"]) == ("a", 3)
