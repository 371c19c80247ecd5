"""The policy: what it decides, and every way in which a file is refused with the key that is wrong."""

from pathlib import Path

import pytest

from penstock.contracts.errors import ConfigurationError
from penstock_safety.detector import Detector
from penstock_safety.policy import Policy, load, parse
from penstock_safety.rules.invisible import InvisibleText
from penstock_safety.rules.secrets import Secrets

DETECTORS: dict[str, Detector] = {"secrets": Secrets(), "invisible_text": InvisibleText()}
GOOD = """
version: "7"
detectors: [secrets]
rules:
  prompt:
    secret: [{at_least: 0.5, action: flag}, {at_least: 0.9, action: block}, {at_least: 0.7, action: redact}]
  response:
    secret: []
tenants:
  acme:
    rules:
      prompt:
        secret: [{at_least: 0.99, action: flag}]
"""


def action(policy: Policy, score: float, tenant: str = "default", direction: str = "prompt") -> str:
    return policy.action(tenant=tenant, direction=direction, label="secret", score=score)  # type: ignore[arg-type]  # a test literal


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (0.0, "allow"),
        (0.499, "allow"),
        (0.5, "flag"),
        (0.7, "redact"),
        (0.899, "redact"),
        (0.9, "block"),
        (1.0, "block"),
    ],
)
def test_the_most_severe_step_reached_holds_in_any_order(score: float, expected: str) -> None:
    assert action(parse(GOOD), score) == expected


def test_a_tenants_ladder_replaces_the_general_one_and_only_there() -> None:
    policy = parse(GOOD)
    assert action(policy, 0.95, tenant="acme") == "allow"
    assert action(policy, 0.95, tenant="other") == "block"
    assert action(policy, 0.95, tenant="acme", direction="response") == "allow"


def test_a_good_policy_fits_its_detectors() -> None:
    parse(GOOD).check(DETECTORS)


def test_the_digest_follows_the_meaning_and_not_the_layout() -> None:
    assert parse(GOOD).digest == parse("# a comment\n" + GOOD).digest
    assert parse(GOOD).digest != parse(GOOD.replace("0.99", "0.98")).digest


@pytest.mark.parametrize(
    ("before", "after", "key"),
    [
        ('version: "7"', "version: 7", "version"),
        ('version: "7"', "versoin: '7'", "version"),
        ("at_least: 0.5", "at_least: 1.5", "rules.prompt.secret.0.at_least"),
        ("at_least: 0.5", "at_least: '0.5'", "rules.prompt.secret.0.at_least"),
        ("at_least: 0.5", "at_most: 0.5", "rules.prompt.secret.0.at_least"),
        ("action: block", "action: explode", "rules.prompt.secret.1.action"),
        ("  response:\n    secret: []\n", "", "rules.response"),
        ("secret: []", "secret: 3", "rules.response.secret"),
        ("detectors: [secrets]", "detectors: []", "detectors"),
        ("detectors: [secrets]", "detectors: secrets", "detectors"),
        ("tenants:", "tenats:", "tenats"),
        (
            "        secret: [{at_least: 0.99",
            "        secret: [{at_least: -1",
            "tenants.acme.rules.prompt.secret.0.at_least",
        ),
    ],
)
def test_a_bad_file_is_refused_naming_the_key(before: str, after: str, key: str) -> None:
    assert before in GOOD
    with pytest.raises(ConfigurationError) as caught:
        parse(GOOD.replace(before, after, 1))
    assert f"policy key {key}:" in caught.value.message
    assert caught.value.message.startswith("PENSTOCK_SAFETY_POLICY")


@pytest.mark.parametrize(
    ("before", "after", "part"),
    [
        ("detectors: [secrets]", "detectors: [secrets, magic]", "there is no detector 'magic'"),
        ("detectors: [secrets]", "detectors: [secrets, secrets]", "listed twice"),
        (
            "detectors: [secrets]",
            "detectors: [secrets, invisible_text]",
            "label 'invisible_text' of a listed detector has no entry",
        ),
        ("    secret: []", "    secret: []\n    abuse: []", "rules.response.abuse: no listed detector reports it"),
        ("        secret: [{at_least: 0.99", "        abuse: [{at_least: 0.99", "tenants.acme.rules.prompt.abuse"),
    ],
)
def test_a_policy_that_does_not_fit_the_detectors_is_refused(before: str, after: str, part: str) -> None:
    with pytest.raises(ConfigurationError, match="PENSTOCK_SAFETY_POLICY") as caught:
        parse(GOOD.replace(before, after, 1)).check(DETECTORS)
    assert part in caught.value.message


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "expected a mapping"),
        ("- a\n- b", "got an array of 2 items"),
        ("version: [", "not valid YAML"),
        ("version: '1'\nversion: '2'", "'version' is given twice"),
        ("version: !!python/object:os.system x", "not valid YAML"),
    ],
)
def test_what_is_no_policy_at_all_is_refused(text: str, part: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(text)
    assert part in caught.value.message


def test_a_file_is_read_and_a_missing_one_is_named(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(GOOD)
    assert load(file) == parse(GOOD)
    with pytest.raises(ConfigurationError, match=r"absent\.yaml"):
        load(tmp_path / "absent.yaml")
