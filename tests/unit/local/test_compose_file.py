"""What docker-compose.yml, the Dockerfile and the collector must hold, read as files."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from penstock.local import project_root
from penstock.local.broker import DEFAULT_IMAGE, container_environment

SERVICES = ("preprocess", "anonymize", "safety", "inference", "postprocess")
# a container differs from the local launcher in where it listens and stores, and in nothing else
DIFFERENT_IN_A_CONTAINER = {
    "KAFKA_CONTROLLER_QUORUM_VOTERS",
    "KAFKA_LISTENERS",
    "KAFKA_ADVERTISED_LISTENERS",
    "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP",
    "KAFKA_INTER_BROKER_LISTENER_NAME",
    "KAFKA_LOG_DIRS",
    "KAFKA_HEAP_OPTS",
}


@pytest.fixture(scope="module")
def root() -> Path:
    return project_root()


@pytest.fixture(scope="module")
def services(root: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((root / "docker-compose.yml").read_text(encoding="utf-8"))
    found: dict[str, Any] = document["services"]
    return found


def test_the_broker_has_the_settings_of_the_local_launcher(root: Path, services: dict[str, Any]) -> None:
    compose = {name: str(value) for name, value in services["kafka"]["environment"].items()}
    template = container_environment(root, 9092)
    shared = (compose.keys() | template.keys()) - DIFFERENT_IN_A_CONTAINER
    assert {name: compose.get(name) for name in shared} == {name: template.get(name) for name in shared}


def test_tests_and_compose_use_the_same_kafka_image(services: dict[str, Any]) -> None:
    assert services["kafka"]["image"] == f"${{PENSTOCK_KAFKA_IMAGE:-{DEFAULT_IMAGE}}}"


def test_every_port_is_published_on_loopback_alone(services: dict[str, Any]) -> None:
    published = [port for service in services.values() for port in service.get("ports", ())]
    assert len(published) >= 5
    assert [port for port in published if not port.startswith("127.0.0.1:")] == []


def test_the_vault_key_is_given_to_those_who_seal_and_open_alone(services: dict[str, Any]) -> None:
    holders = {name for name, service in services.items() if "PENSTOCK_VAULT_KEYS" in str(service)}
    assert holders == {"anonymize", "postprocess"}


def test_every_container_has_a_memory_limit(services: dict[str, Any]) -> None:
    assert [name for name, service in services.items() if not service.get("mem_limit")] == []


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_confined_and_starts_after_its_topics(services: dict[str, Any], name: str) -> None:
    service = services[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    assert service["depends_on"]["topics"] == {"condition": "service_completed_successfully"}
    assert service["build"]["args"] == {"SERVICE": name}


def test_every_image_has_a_version(services: dict[str, Any]) -> None:
    tags = [re.sub(r"^\$\{\w+:-(.*)\}$", r"\1", service["image"]).partition(":")[2] for service in services.values()]
    assert [tag for tag in tags if not re.search(r"\d+\.\d+", tag)] == []


def test_the_image_runs_as_a_user_without_rights_and_reports_nothing_home(root: Path) -> None:
    dockerfile = (root / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    final = dockerfile.rpartition("\nFROM ")[2]
    assert re.search(r"^USER penstock$", final, re.MULTILINE)
    assert "ORT_DISABLE_TELEMETRY=1" in final
    assert "HEALTHCHECK" in final
    assert "--mount" not in dockerfile
    assert "<<" not in dockerfile


def test_prometheus_scrapes_every_service(root: Path) -> None:
    config = yaml.safe_load((root / "deploy" / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    assert set(jobs["penstock"]["dns_sd_configs"][0]["names"]) == set(SERVICES)


def test_the_collector_uses_what_it_declares(root: Path) -> None:
    config = yaml.safe_load((root / "deploy" / "otel" / "collector.yaml").read_text(encoding="utf-8"))
    pipelines = config["service"]["pipelines"].values()
    for kind in ("receivers", "processors", "exporters"):
        assert {name for pipeline in pipelines for name in pipeline[kind]} == set(config[kind])
    assert all(pipeline["processors"][0] == "memory_limiter" for pipeline in pipelines)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_can_be_built_by_its_name(root: Path, name: str) -> None:
    project = tomllib.loads((root / "services" / name / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == f"penstock-{name}"
    assert f"penstock-{name}" in project["scripts"]
