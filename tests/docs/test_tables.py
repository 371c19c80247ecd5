"""Tables in the documentation against the code they describe."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import get_args

import yaml
from prometheus_client import CollectorRegistry

from penstock.contracts.request import CompletionRequest
from penstock.contracts.results import RequestFinished, Status
from penstock.contracts.topics import load_topics
from penstock.runtime.metrics import BatchHistogram, StageMetrics
from penstock_inference.caching.meters import Meters as CacheMeters
from penstock_inference.targets.config import Config, Target
from penstock_inference.targets.meters import Meters

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SOURCES = [*(ROOT / "shared/src").rglob("*.py"), *(ROOT / "services").glob("*/src/**/*.py")]


def rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    text = (DOCS / page).read_text()
    section = text[text.index(f"{heading}\n") :].split("\n#")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def names(cell: str) -> set[str]:
    """What stands in back quotes in a cell."""
    return set(listed_in(cell))


def listed_in(cell: str) -> list[str]:
    """What stands in back quotes in a cell, in order."""
    return re.findall(r"`([^`]+)`", cell)


def test_settings() -> None:
    subprocess.run([sys.executable, str(DOCS / "settings_table.py"), "check"], check=True)


def codes() -> Iterator[str]:
    for path in SOURCES:
        if "/cli/" in str(path) or "/local/" in str(path) or "tuning" in str(path):
            continue
        text = path.read_text()
        yield from re.findall(
            r"(?:\bcode=|default_code(?:: ClassVar\[str\])? = |INVALID_[A-Z]+ = )\"([a-z0-9_]+)\"", text
        )


def test_every_error_code_is_listed() -> None:
    listed = {code for row in rows("guide.md", "### Error codes") for code in names(row[0])}
    # of a process, not of a request
    assert listed == set(codes()) - {"configuration", "kafka"}


def test_every_status_is_listed() -> None:
    assert {code for row in rows("guide.md", "### Statuses") for code in names(row[0])} == set(get_args(Status))


def test_every_request_field_is_listed() -> None:
    listed = {field for row in rows("guide.md", "## The request") for field in names(row[0])}
    assert listed == set(CompletionRequest.model_fields)


def test_every_result_field_is_described() -> None:
    text = (DOCS / "guide.md").read_text()
    section = text[text.index("## The result\n") : text.index("### Statuses")]
    assert {field for field in RequestFinished.model_fields if f"`{field}`" not in section} == set()


def test_topics_and_their_data_classes() -> None:
    listed = {name: row for row in rows("security.md", "## Which topic holds what") for name in listed_in(row[0])}
    assert list(listed) == [topic.name for topic in load_topics()]
    for topic in load_topics():
        _, clear, restricted, keeps = listed[topic.name]
        assert restricted == ("yes" if topic.restricted else "no"), topic.name
        assert clear.startswith("yes") <= topic.restricted, topic.name
        amount, unit = keeps.split()
        assert int(amount) * {"h": 1, "d": 24}[unit[0]] == topic.retention_hours, topic.name


def test_access() -> None:
    everyone = {"llm.results", "llm.dead-letters"}
    for party, reads, writes in rows("security.md", "## Access to topics"):
        written = {topic.name for topic in load_topics() if party in topic.written_by}
        if party not in ("upstream", "operator"):
            assert everyone <= written
            written -= everyone
        assert names(reads) == {topic.name for topic in load_topics() if party in topic.read_by}, party
        assert names(writes) == written, party


def test_every_metric_is_listed_with_its_labels() -> None:
    listed = {row[0].strip("`"): names(row[2]) for row in rows("operations.md", "## Metrics")}
    stage = StageMetrics("toy")
    there = {}
    for metric in vars(stage).values():
        if isinstance(metric, BatchHistogram):
            there.update({family.name: set(family.samples[0].labels) - {"stage", "le"} for family in metric.collect()})
        elif hasattr(metric, "_labelnames"):
            suffix = "_total" if metric._type == "counter" else ""
            there[f"{metric._name}{suffix}"] = set(metric._labelnames) - {"stage"}
    assert listed.pop("process_*") == set()
    assert listed == there


def test_every_metric_of_a_target_is_listed_with_its_labels() -> None:
    listed = {row[0].strip("`"): row[2] for row in rows("backends.md", "## Metrics")}
    after = (DOCS / "backends.md").read_text().split("*Target labels*:")[1]
    common = names(after.split(".")[0])
    there = {}
    for metric in vars(Meters(CollectorRegistry())).values():
        suffix = "_total" if metric._type == "counter" else ""
        there[f"{metric._name}{suffix}"] = set(metric._labelnames)
    found = {name: names(cell) | (common if "*target labels*" in cell else set()) for name, cell in listed.items()}
    assert found == there


def test_every_metric_of_kept_answers_is_listed_with_its_labels() -> None:
    listed = {row[0].strip("`"): names(row[2]) for row in rows("caching.md", "## Metrics")}
    meters = vars(CacheMeters(CollectorRegistry())).values()
    there = {f"{one._name}{'_total' if one._type == 'counter' else ''}": set(one._labelnames) for one in meters}
    assert listed == there


def test_the_example_of_targets_is_one() -> None:
    text = (DOCS / "backends.md").read_text()
    example = Config.model_validate(yaml.safe_load(text.split("```yaml\n")[1].split("```")[0]))
    assert {target.role for target in example.targets} == {"primary", "fallback", "canary", "shadow"}
    listed = {name for row in rows("backends.md", "## The file") for name in names(row[0])}
    assert listed == set(Target.model_fields)


def test_log_events_exist() -> None:
    source = "".join(path.read_text() for path in SOURCES)
    for row in rows("operations.md", "## Logs"):
        first, *more = re.findall(r"`([^`]+)`", row[0])
        for event in [first, *(f"{first.rpartition('.')[0]}{suffix}" for suffix in more)]:
            kind = event.rpartition(".")[2]
            assert f'"{event}"' in source or f'"{kind}"' in source, event


def variables(files: Iterable[Path], form: str = "%s") -> set[str]:
    """The environment variables that stand in files in some form."""
    pattern = re.compile(form % r"(PENSTOCK_[A-Z0-9_]*[A-Z0-9])")
    return {name for file in files for name in pattern.findall(file.read_text())}


def test_variables_exist() -> None:
    composed = [ROOT / "docker-compose.yml", ROOT / "deploy/container-lab/docker-compose.override.yml"]
    deployed = [
        *composed,
        ROOT / "Makefile",
        ROOT / "deploy/Dockerfile",
        ROOT / "deploy/env.sh",
        ROOT / "deploy/quotas.toml",
    ]
    read = variables([*SOURCES, *(ROOT / "tests").rglob("*.py")], '"%s"')
    known = variables([DOCS / "settings.md"], r"`%s`") | read | variables(composed, r"\$\{%s")
    assert read
    named = variables([ROOT / "README.md", *DOCS.rglob("*.md"), *deployed])
    assert named - known == set()


def test_attributions_are_whole() -> None:
    notice = (ROOT / "NOTICE").read_text()
    lm = (ROOT / "services/tuning/NOTICE-lm.md").read_text().splitlines()[2:]
    abuse = (ROOT / "services/safety/src/penstock_safety/models/abuse/NOTICE").read_text().splitlines()
    assert [line for line in [*lm, *abuse] if line not in notice] == []


def test_decisions_are_listed() -> None:
    listed = set(re.findall(r"\((\d{4}-[a-z-]+\.md)\)", (DOCS / "adr/README.md").read_text()))
    assert listed == {path.name for path in (DOCS / "adr").glob("[0-9]*.md")}
    for path in (DOCS / "adr").glob("[0-9]*.md"):
        text = path.read_text()
        assert all(f"**{part}.**" in text for part in ("Context", "Decision", "Consequences", "Alternatives")), path
        assert len(text.splitlines()) <= 60, path
