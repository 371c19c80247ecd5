"""Finding the folder with the deploy files."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.local import ProjectRootError, project_root


def test_walks_up_to_the_folder_with_the_deploy_files(tmp_path: Path) -> None:
    (tmp_path / "deploy" / "kafka").mkdir(parents=True)
    (tmp_path / "deploy" / "kafka" / "pom.xml").touch()
    (tmp_path / "docker-compose.yml").touch()
    inner = tmp_path / "services" / "one"
    inner.mkdir(parents=True)
    assert project_root(inner) == tmp_path


def test_from_elsewhere_the_checkout_of_the_package_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert (project_root() / "deploy" / "kafka" / "server.properties.template").is_file()


def test_outside_a_checkout_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ProjectRootError, match="KAFKA_BOOTSTRAP_SERVERS") as caught:
        project_root(tmp_path)
    assert str(tmp_path) in str(caught.value)
