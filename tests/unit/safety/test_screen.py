"""Screening fails closed: a detector that raises, lies or hangs gives an error, never an empty answer."""

import threading
from collections.abc import Callable, Iterator, Sequence

import pytest

from penstock.contracts.errors import BackendTimeout, BackendUnavailable
from penstock_safety.detector import Finding
from penstock_safety.screen import Screener
from penstock_safety.windows import WindowSettings

WINDOWS = WindowSettings(size=100, overlap=20)
Answer = Callable[[Sequence[str]], Sequence[Sequence[Finding]]]


class Scripted:
    """A detector that answers as the test says and remembers what it was asked."""

    digest = "sha256:0"
    labels = frozenset({"bad"})

    def __init__(self, answer: Answer, name: str = "scripted") -> None:
        self.name = name
        self.asked: list[list[str]] = []
        self._answer = answer

    def detect(self, windows: Sequence[str]) -> Sequence[Sequence[Finding]]:
        self.asked.append(list(windows))
        return self._answer(windows)


def finds(word: str, label: str = "bad") -> Answer:
    def answer(windows: Sequence[str]) -> list[list[Finding]]:
        return [
            [Finding(label, 0.9, w.index(word), w.index(word) + len(word), "scripted")] if word in w else []
            for w in windows
        ]

    return answer


def fails_on(word: str) -> Answer:
    def answer(windows: Sequence[str]) -> list[list[Finding]]:
        if any(word in window for window in windows):
            raise RuntimeError(f"cannot take {windows}")
        return [[] for _ in windows]

    return answer


@pytest.fixture
def make() -> Iterator[Callable[..., Screener]]:
    made: list[Screener] = []

    def build(*detectors: Scripted, timeout: float = 10.0, batch_chars: int = 10_000) -> Screener:
        made.append(Screener(detectors, WINDOWS, timeout, batch_chars))
        return made[-1]

    yield build
    for screener in made:
        screener.close()


def test_findings_of_all_detectors_come_back_with_offsets_in_their_text(make: Callable[..., Screener]) -> None:
    screener = make(Scripted(finds("xx")), Scripted(finds("yy"), "other"))
    long = "a" * 150 + "xx" + "a" * 150 + "yy"
    found = screener.screen(["clean", long])
    assert found[0] == []
    assert sorted((f.start, f.end) for f in found[1]) == [(150, 152), (302, 304)]


def test_all_windows_of_all_texts_reach_a_detector_in_one_call(make: Callable[..., Screener]) -> None:
    detector = Scripted(finds("xx"))
    make(detector).screen(["a" * 250, "b" * 90, ""])
    assert [len(windows) for windows in detector.asked] == [4]


def test_a_detector_that_raises_makes_a_retriable_error_without_the_text(make: Callable[..., Screener]) -> None:
    with pytest.raises(BackendUnavailable) as caught:
        make(Scripted(fails_on("secret words"))).screen(["my secret words"])
    assert caught.value.retriable
    assert caught.value.field == "scripted"
    assert "secret words" not in caught.value.message
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    "answer",
    [
        lambda windows: [],
        lambda windows: [[]] * (len(windows) + 1),
        lambda windows: [[Finding("unheard of", 0.9, 0, 1, "scripted")] for _ in windows],
        lambda windows: [[Finding("bad", 0.9, 0, 10_000, "scripted")] for _ in windows],
        lambda windows: None,
    ],
    ids=["too few", "too many", "foreign label", "span outside", "nothing"],
)
def test_a_detector_that_answers_wrongly_makes_an_error(make: Callable[..., Screener], answer: Answer) -> None:
    with pytest.raises(BackendUnavailable):
        make(Scripted(answer)).screen(["text"])


def test_a_detector_that_hangs_makes_a_time_out_and_so_does_all_that_follows(make: Callable[..., Screener]) -> None:
    released = threading.Event()

    def hangs(windows: Sequence[str]) -> list[list[Finding]]:
        released.wait(30)
        return [[] for _ in windows]

    screener = make(Scripted(hangs), timeout=0.2)
    try:
        for _ in range(2):
            with pytest.raises(BackendTimeout) as caught:
                screener.screen(["text"])
            assert caught.value.retriable
    finally:
        released.set()


def test_only_the_group_at_fault_gets_the_error(make: Callable[..., Screener]) -> None:
    screener = make(Scripted(fails_on("poison")), Scripted(finds("xx"), "other"))
    good, bad, empty = screener.screen_each([["a xx", "b"], ["poison"], []])
    assert isinstance(good, list)
    assert [len(found) for found in good] == [1, 0]
    assert isinstance(bad, BackendUnavailable)
    assert empty == []


def test_groups_share_calls_up_to_the_batch_limit(make: Callable[..., Screener]) -> None:
    detector = Scripted(finds("xx"))
    answers = make(detector, batch_chars=100).screen_each([["a" * 60], ["b" * 30], ["c" * 30, "d xx"], ["e" * 90]])
    assert [len(windows) for windows in detector.asked] == [2, 2, 1]
    assert [isinstance(answer, list) for answer in answers] == [True] * 4
    third = answers[2]
    assert isinstance(third, list)
    assert [len(found) for found in third] == [0, 1]
