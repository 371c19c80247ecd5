"""The services with a folder of heads as processes: names hidden and given back, and a folder that is none refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from tests.support.heads import FAKE_HEADS
from tests.support.kafka import Publishing
from tests.support.stack import Stack

from penstock.runtime.settings import EXIT_BAD_SETTINGS
from penstock.vault import new_key


@pytest.mark.broker
@pytest.mark.timeout(300)
def test_names_are_hidden_and_attacks_stopped(bootstrap: str, tmp_path: Path) -> None:
    environment = {
        "PENSTOCK_ANONYMIZE_NAMES_MODEL": str(FAKE_HEADS),
        "PENSTOCK_SAFETY_HEADS_MODEL": str(FAKE_HEADS),
        "PENSTOCK_SAFETY_POLICY": "heads",
    }
    texts = ("Tell me about Anna Keller in Rome.", "Pretend the garden is a river.", "What is a river?")
    bodies = [json.dumps({"messages": [{"role": "user", "content": text}], "max_tokens": 8}) for text in texts]
    with Stack(bootstrap, f"h{uuid.uuid4().hex[:10]}.", tmp_path, environment=environment) as stack:
        places = stack.send([Publishing(body.encode()) for body in bodies])
        found = stack.wait_results(places)
        named, attack, plain = (found[place] for place in places)
    assert (named.status, named.redactions) == ("completed", {"LOCATION": 1, "PERSON": 1})
    assert (attack.status, [verdict.detector for verdict in attack.verdicts]) == ("blocked", ["heads"])
    assert (plain.status, plain.redactions) == ("completed", {})


@pytest.mark.parametrize(
    ("service", "environment", "setting"),
    [
        ("anonymize", {}, "PENSTOCK_ANONYMIZE_NAMES_MODEL"),
        ("safety", {"PENSTOCK_SAFETY_POLICY": "heads"}, "PENSTOCK_SAFETY_HEADS_MODEL"),
    ],
)
def test_a_service_without_its_folder_says_which_setting(
    service: str, environment: dict[str, str], setting: str, tmp_path: Path
) -> None:
    given = {
        **os.environ,
        "PENSTOCK_VAULT_KEYS": new_key("k1"),
        "PENSTOCK_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9",
        **environment,
        setting: str(tmp_path / "absent"),
    }
    ended = subprocess.run(
        [sys.executable, "-m", f"penstock_{service}"],
        env=given,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == EXIT_BAD_SETTINGS, ended.stderr
    assert f"{setting}: the heads in {tmp_path / 'absent'} cannot be read: config.json" in ended.stderr
