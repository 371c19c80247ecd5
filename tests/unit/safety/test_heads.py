"""The heads' detector: a label each, anchored scores, places; read only where a policy names it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.heads import FAKE_HEADS, changed

from penstock.contracts.errors import BackendUnavailable, ConfigurationError
from penstock.contracts.events import GenerationParameters, StreamOpening, TokensGenerated
from penstock.runtime.streams import StreamOf
from penstock_safety import policy as policies
from penstock_safety.app import build, build_streams
from penstock_safety.detector import Finding
from penstock_safety.heads import HeadsDetector
from penstock_safety.scale import BLOCK_SCORE, FLAG_SCORE, scaled
from penstock_safety.screen import Screener
from penstock_safety.settings import Settings
from penstock_safety.windows import WindowSettings

FILLER = "please tell me about the river in the garden. "


@pytest.fixture(scope="module")
def detector() -> HeadsDetector:
    return HeadsDetector(FAKE_HEADS)


def places(text: str, findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.label, text[finding.start : finding.end]) for finding in findings]


def test_each_label_is_found_where_its_tokens_are(detector: HeadsDetector) -> None:
    text = "Ignore that, you idiot. " + FILLER * 2 + "Ignore it."
    (found,) = detector.detect([text])
    assert places(text, found) == [("injection", "Ignore"), ("injection", "Ignore"), ("toxicity", "idiot")]
    assert all(finding.score > BLOCK_SCORE and finding.detector == "heads" for finding in found)


def test_places_near_each_other_are_one(detector: HeadsDetector) -> None:
    text = "ignore the river and ignore the garden"
    assert places(text, detector.detect([text])[0]) == [("injection", "ignore the river and ignore")]


def test_a_label_that_no_token_reaches_has_the_whole_window(tmp_path: Path) -> None:
    strict = HeadsDetector(changed(tmp_path / "strict", lambda said: said["safety_tokens"].update(threshold=1.0)))
    text = "  please ignore it"
    assert places(text, strict.detect([text])[0]) == [("injection", "please ignore it")]


def test_ordinary_text_and_no_text_have_no_findings(detector: HeadsDetector) -> None:
    assert detector.detect([FILLER * 30, "", " \n", "\ud800"]) == [[], [], [], []]


def test_long_texts_are_screened_to_their_end(detector: HeadsDetector) -> None:
    text = "😀" + FILLER * 900 + "poison"
    (found,) = Screener([detector], WindowSettings(), 60.0).screen([text])
    assert places(text, found) == [("harmful", "poison")]


def test_a_batch_gives_what_each_text_gives_alone(detector: HeadsDetector) -> None:
    texts = ["ignore", "vermin " + FILLER * 9, "", "pretend"]
    other = HeadsDetector(FAKE_HEADS)
    assert detector.detect(texts) == [other.detect([text])[0] for text in texts]


def test_the_scale_is_anchored_at_both_thresholds() -> None:
    assert [scaled(p, 0.2, 0.6) for p in (0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)] == [
        *(0.0, 0.25, FLAG_SCORE, 0.65, BLOCK_SCORE, 0.9, 1.0)
    ]
    assert [scaled(p, 1.0, 1.0) for p in (0.5, 1.0)] == [0.25, 1.0]
    assert scaled(0.7, 0.7, 0.7) == BLOCK_SCORE, "equal thresholds: the higher"


def test_the_folders_thresholds_decide_the_score(tmp_path: Path) -> None:
    def near(said: dict[str, dict[str, dict[str, dict[str, float]]]]) -> None:
        said["safety"]["thresholds"]["injection"] = {"flag": 0.9975, "block": 0.9999}

    (finding,) = HeadsDetector(changed(tmp_path / "near", near)).detect(["ignore"])[0]
    assert FLAG_SCORE < finding.score < FLAG_SCORE + 0.01
    assert HeadsDetector(tmp_path / "near").digest != HeadsDetector(FAKE_HEADS).digest


def test_it_fails_closed_and_quotes_nothing(detector: HeadsDetector, monkeypatch: pytest.MonkeyPatch) -> None:
    other = HeadsDetector(FAKE_HEADS)
    screener = Screener([other], WindowSettings(), 10.0)

    def broken(texts: list[str]) -> None:
        raise RuntimeError(texts[0])

    monkeypatch.setattr(other._heads, "screen", broken)
    with pytest.raises(BackendUnavailable, match="detector heads failed on 1 windows") as caught:
        screener.screen(["ignore"])
    assert "ignore" not in str(caught.value)
    monkeypatch.undo()
    assert len(screener.screen(["ignore"])[0]) == 1, "a failure is not kept"


HEADS_POLICY = Settings(safety_policy=Path("heads"), safety_heads_model=FAKE_HEADS)


def test_the_folder_is_read_only_where_the_policy_lists_the_detector(tmp_path: Path) -> None:
    build(Settings(safety_heads_model=tmp_path))
    with pytest.raises(ConfigurationError, match=r"^PENSTOCK_SAFETY_HEADS_MODEL: .*config\.json"):
        build(Settings(safety_policy=Path("heads"), safety_heads_model=tmp_path))


def test_the_policy_of_that_name_says_what_happens_to_every_label(detector: HeadsDetector) -> None:
    policy = policies.load(Path("heads"))
    assert detector.labels <= policy.rules.prompt.keys() & policy.rules.response.keys()
    assert policies.load() == policies.load(Path("default")) != policy
    assert build(HEADS_POLICY).versions["detectors"] != build(Settings()).versions["detectors"]


def test_streams_are_screened_by_it_too(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    built_in = Path(policies.__file__).with_name(policies.BUILT_IN["heads"]).read_text("utf-8")
    file.write_text(
        built_in.replace("toxicity: [{at_least: 0.5, action: flag", "toxicity: [{at_least: 0.5, action: block")
    )
    relaying = build_streams(Settings(safety_policy=file, safety_heads_model=FAKE_HEADS))
    whose = StreamOf(request_id="r", conversation_id="c", tenant="acme")
    stream = relaying.begin(whose, StreamOpening(parameters=GenerationParameters(model="m", max_tokens=5)))
    said = [
        told
        for number, text in enumerate(["The river is in the garden. ", "You idiot. "])
        for told in stream.push(TokensGenerated(request_id="r", index=0, sequence=number, text=text))
    ]
    assert [(told.text, told.state) for told in said] == [("The river is in the garden. ", None), ("", "blocked")]
