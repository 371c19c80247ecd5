"""Java, Maven and the cache, with stand-in programs on PATH."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from penstock.local import MissingToolError, ResolveError
from penstock.local.jars import cache_dir, find_java, make_once, pom_version, resolve_jars

POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <properties><thing.version>1.2.3</thing.version></properties>
</project>"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH but the shell's own programs; the cache is empty."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "sh").symlink_to("/bin/sh")
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "cache"))
    return folder


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)


@pytest.fixture
def pom(tmp_path: Path) -> Path:
    path = tmp_path / "pom.xml"
    path.write_text(POM, encoding="utf-8")
    return path


def test_without_java_the_error_says_how_to_install_it(programs: Path) -> None:
    with pytest.raises(MissingToolError, match=r"JDK 17.*apt-get install openjdk-17-jre-headless maven"):
        find_java()


def test_an_old_java_is_refused_with_its_version(programs: Path) -> None:
    program(programs, "java", """echo 'openjdk version "11.0.2" 2019-01-15' >&2""")
    with pytest.raises(MissingToolError, match=r"is Java 11; 17 or newer"):
        find_java()


def test_java_home_wins_over_path_and_versions_have_their_own_digest(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(programs, "java", """echo 'openjdk version "17.0.1" 2021-10-19' >&2""")
    on_path = find_java()
    home = tmp_path / "jdk"
    (home / "bin").mkdir(parents=True)
    program(home / "bin", "java", """echo 'openjdk version "21.0.2" 2024-01-16' >&2""")
    monkeypatch.setenv("JAVA_HOME", str(home))
    chosen = find_java()
    assert chosen.program == str(home / "bin" / "java")
    assert chosen.digest != on_path.digest


def test_without_maven_the_error_says_how_to_install_it(programs: Path, pom: Path) -> None:
    with pytest.raises(MissingToolError, match=r"Maven \(mvn\).*thing 1\.2\.3.*apt-get install"):
        resolve_jars(pom, name="thing", version_property="thing.version")


def test_the_end_of_mavens_output_is_in_the_error(programs: Path, pom: Path, tmp_path: Path) -> None:
    program(programs, "mvn", "echo 'no route to the repository'; exit 1")
    with pytest.raises(ResolveError, match="no route to the repository"):
        resolve_jars(pom, name="thing", version_property="thing.version")
    assert [path for path in (tmp_path / "cache").iterdir() if path.is_dir()] == []


def test_a_maven_that_delivers_nothing_is_an_error(programs: Path, pom: Path) -> None:
    program(programs, "mvn", "exit 0")
    with pytest.raises(ResolveError, match="no jar of thing"):
        resolve_jars(pom, name="thing", version_property="thing.version")


def test_jars_are_fetched_once_and_again_when_the_pom_changes(programs: Path, pom: Path, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    program(
        programs,
        "mvn",
        f"""echo called >> {calls}
for word in "$@"; do case "$word" in -DoutputDirectory=*) echo > "${{word#*=}}/thing.jar";; esac; done""",
    )
    first = resolve_jars(pom, name="thing", version_property="thing.version")
    assert resolve_jars(pom, name="thing", version_property="thing.version") == first
    assert (first / "thing.jar").is_file()
    assert first.name.startswith("thing-1.2.3-")
    pom.write_text(POM.replace("</project>", "<!-- another exclusion --></project>"), encoding="utf-8")
    assert resolve_jars(pom, name="thing", version_property="thing.version") != first
    assert calls.read_text(encoding="utf-8").splitlines() == ["called", "called"]


def test_a_pom_without_the_property_is_an_error(pom: Path) -> None:
    with pytest.raises(ResolveError, match=r"no property other\.version"):
        pom_version(pom, "other.version")


def test_parallel_builders_build_once(tmp_path: Path) -> None:
    target, built, seen = tmp_path / "cache" / "thing", [], []

    def build(folder: Path) -> None:
        built.append(folder)
        time.sleep(0.2)
        (folder / "whole").touch()

    def use() -> None:
        seen.append((make_once(target, build) / "whole").is_file())

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert seen == [True] * 4


def test_a_build_that_fails_leaves_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    target = tmp_path / "cache" / "thing"

    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise ValueError("interrupted")

    with pytest.raises(ValueError, match="interrupted"):
        make_once(target, fail)
    assert [path for path in target.parent.iterdir() if path.is_dir()] == []
    assert make_once(target, lambda folder: (folder / "whole").touch()).is_dir()


def test_the_cache_is_where_the_variables_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PENSTOCK_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "penstock"
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "other"))
    assert cache_dir() == tmp_path / "other"
