"""`penstock.runtime.quotas`: reading a declaration, and comparing brokers with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.contracts.errors import ConfigurationError
from penstock.local import project_root
from penstock.runtime import acl
from penstock.runtime.quotas import NAMES, Row, compare, plan, read, users


def written(folder: Path, text: str) -> Path:
    file = folder / "quotas.toml"
    file.write_text(text)
    return file


def test_a_party_has_what_its_table_says_and_no_more(tmp_path: Path) -> None:
    file = written(tmp_path, "[upstream]\nproducer_byte_rate = 1_000\nrequest_percentage = 12.5\n[safety]\n")
    assert plan(read(file), "eu-") == {
        "eu-safety": {},
        "eu-upstream": {"producer_byte_rate": 1000, "request_percentage": 12.5},
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[safty]\n", "safty: input should be 'upstream'"),
        ("[safety]\nproducer_rate = 1\n", "safety.producer_rate: extra inputs are not permitted"),
        ("[safety]\nproducer_byte_rate = 0\n", "safety.producer_byte_rate: input should be greater than 0"),
        ("[safety]\nproducer_byte_rate = 1.5\n", "safety.producer_byte_rate: input should be a valid integer"),
        ("[safety]\nrequest_percentage = inf\n", "safety.request_percentage: input should be a finite number"),
        ("safety = 1\n", "safety: input should be a valid dictionary"),
        ("[safety", "is not TOML"),
    ],
)
def test_a_declaration_that_cannot_be_is_refused_and_says_where(tmp_path: Path, text: str, said: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(ConfigurationError) as refused:
        read(file)
    assert said in str(refused.value)
    assert str(file) in str(refused.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"absent\.toml cannot be read: No such file"):
        read(tmp_path / "absent.toml")


def test_the_file_that_comes_along_limits_every_party_in_every_way() -> None:
    declared = plan(read(project_root() / "deploy" / "quotas.toml"))
    assert sorted(declared) == sorted(users())
    assert {tuple(quotas) for quotas in declared.values()} == {NAMES}


def test_what_differs_is_told_from_what_does_not() -> None:
    wanted = {"a": {"producer_byte_rate": 1.0, "consumer_byte_rate": 2.0}, "b": {}}
    there = {
        "a": {"producer_byte_rate": 1.0, "request_percentage": 5.0},
        "b": {"consumer_byte_rate": 3.0, "controller_mutation_rate": 1.0},
        "somebody": {"consumer_byte_rate": 4.0},
    }
    rows = compare(wanted, there, ["a", "b", "c"])
    assert rows == [
        Row("a", "producer_byte_rate", 1.0, 1.0),
        Row("a", "consumer_byte_rate", 2.0, None),
        Row("a", "request_percentage", None, 5.0),
        Row("b", "consumer_byte_rate", None, 3.0),
    ]
    assert [row.ok for row in rows] == [True, False, False, False]


def test_every_party_has_a_user() -> None:
    assert [f"User:{user}" for user in users()] == [acl.principal_of(party) for party in acl.PARTIES]
