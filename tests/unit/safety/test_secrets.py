"""Credentials: each known form, its look-alikes that are none, and the span. All keys here are made up."""

import pytest

from penstock_safety.rules.secrets import Secrets, entropy

SECRETS = Secrets()
BODY = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7\n" * 12

# Put together at run time, so that scanners of this repository find no key in it.
KEYS = {
    "aws": "AKIA" + "Q3EGRZJ7WLPX2MTN",
    "github": "ghp_" + "x7Kd92LmQpZr4VbN8cTyWf3HsJ6gAeUo1iXE",
    "github fine-grained": "github_pat_" + "11ABCDEFG0aBcDeFgHiJkL_mNoPqRsTuVwXyZ0123456789abcd",
    "gitlab": "glpat-" + "x9Yk2LmQpZr4VbN8cTyW",
    "slack": "xoxb-" + "293847561029-384756102938-Kd92LmQpZr4VbN8cTyWf3HsJ",
    "google": "AIza" + "SyB7Kd92LmQpZr4VbN8cTyWf3HsJ6gAeUo1",
    "stripe": "sk_live_" + "51Kd92LmQpZr4VbN8cTyWf3Hs",
    "openai": "sk-proj-" + "Kd92LmQpZr4VbN8cTyWf3HsJ6gAeUo1iXE5q",
    "anthropic": "sk-ant-" + "api03-Kd92LmQpZr4VbN8cTyWf3HsJ6gAeUo",
    "hugging face": "hf_" + "Kd92LmQpZrVbNcTyWfHsJgAeUoiXEqRtYp",
    "jwt": "eyJ" + "hbGciOiJIUzI1NiJ9.eyJzdWIiOiI0MiJ9.Kd92LmQpZr4VbN8cTyWf3HsJ6gAeUo1",
    "sendgrid": "SG." + "Kd92LmQpZr4VbN8cTyWf3H.sJ6gAeUo1iXE5qKd92LmQpZr4VbN8cTyWf3HsJ6gAeU",
}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS.keys())
def test_a_key_of_a_known_form_is_found_with_its_exact_span(key: str) -> None:
    text = f"please use {key} for the call"
    found = SECRETS.detect([text])[0]
    assert [text[f.start : f.end] for f in found if f.score >= 0.85] == [key]


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ('db_password = "tR7!mQ2x#Lp9"', "tR7!mQ2x#Lp9"),
        ("API_KEY: 9f8a7c6b5d4e3f2a1b0c9d8e7f6a5b4c", "9f8a7c6b5d4e3f2a1b0c9d8e7f6a5b4c"),
        ("my.service.client_secret=>Zx81Qw72Er63Ty54", "Zx81Qw72Er63Ty54"),
        ("postgres://app:tR7mQ2xLp9@db.internal/main", None),
        ("Authorization: Bearer Kd92LmQpZr4VbN8cTyWf3HsJ6gAeUo1iXE", None),
    ],
)
def test_assigned_values_and_credentials_in_use(text: str, secret: str | None) -> None:
    found = SECRETS.detect([text])[0]
    assert found
    if secret is not None:
        assert secret in [text[f.start : f.end] for f in found]


@pytest.mark.parametrize(
    "text",
    [
        "What is the difference between a token and a secret?",
        'api_key = "YOUR_API_KEY_HERE1"',
        "password = os.environ['DB_PASSWORD_2']",
        "token: ${SECRET_TOKEN_1}",
        "password: correcthorse",
        "the key is 2024-11-21",
        "commit 9f8a7c6b5d4e3f2a1b0c9d8e7f6a5b4c3d2e1f0a",
        "AKIA is the prefix of access keys",
        "postgres://user:password@localhost/db",
        "sk-learn-is-a-library-for-machine-learning",
        "risk-" + "a" * 40,
        "key = lookup(table1, column2)",
    ],
)
def test_text_about_credentials_is_left_alone(text: str) -> None:
    assert SECRETS.detect([text]) == [[]]


def test_a_private_key_block_is_covered_whole() -> None:
    block = f"-----BEGIN RSA PRIVATE KEY-----\n{BODY}-----END RSA PRIVATE KEY-----"
    text = f"here it is:\n{block}\nthanks"
    found = SECRETS.detect([text])[0]
    assert min(f.start for f in found) == text.index(block)
    assert max(f.end for f in found) == text.index(block) + len(block)


def test_the_end_of_a_private_key_is_covered_where_its_beginning_is_in_another_window() -> None:
    text = f"{BODY}-----END PRIVATE KEY-----\nand more"
    (found,) = SECRETS.detect([text])[0]
    assert (found.start, text[: found.end]) == (0, f"{BODY}-----END PRIVATE KEY-----")


def test_entropy_is_shannons() -> None:
    assert entropy("") == 0.0
    assert entropy("aaaa") == 0.0
    assert entropy("abcd") == pytest.approx(2.0)
