"""Java, Maven and the cache of what they make: resolved jars, keyed by the pom that names them.

Everything is built in a temporary folder under a file lock and renamed into place, so parallel
starts resolve once and a start that was interrupted leaves nothing half made. Once the jars are
cached, neither Maven nor a network is needed. Leaves running the jars to the launchers.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from penstock.local.errors import MissingToolError, ResolveError

INSTALL_HINT = "on Debian or Ubuntu: apt-get install openjdk-17-jre-headless maven"
_MINIMUM_JAVA = 17
_MAVEN_LIMIT_S = 600.0
_LOCK_LIMIT_S = 900.0


@dataclass(frozen=True)
class Java:
    """A Java runtime: the program and a digest of its exact version."""

    program: str
    digest: str


def cache_dir() -> Path:
    """`PENSTOCK_CACHE` if set, else `penstock` in the user's cache folder."""
    configured = os.environ.get("PENSTOCK_CACHE")
    if configured:
        return Path(configured).expanduser().resolve()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "penstock"


def find_java() -> Java:
    """The runtime in JAVA_HOME, else on PATH; raises MissingToolError below version 17."""
    home = os.environ.get("JAVA_HOME")
    candidate = str(Path(home, "bin", "java")) if home else "java"
    program = shutil.which(candidate)
    if program is None:
        where = f"at {candidate} (JAVA_HOME)" if home else "on PATH"
        raise MissingToolError(f"no Java runtime {where}; JDK {_MINIMUM_JAVA} or newer is needed. {INSTALL_HINT}")
    answer = subprocess.run([program, "-version"], capture_output=True, text=True, check=False, timeout=30).stderr
    found = re.search(r'version "(\d+)', answer)
    if found is None:
        raise MissingToolError(f"{program} -version did not tell a version. {INSTALL_HINT}")
    if int(found[1]) < _MINIMUM_JAVA:
        raise MissingToolError(f"{program} is Java {found[1]}; {_MINIMUM_JAVA} or newer is needed. {INSTALL_HINT}")
    return Java(program, digest_of(answer))


def digest_of(*texts: str) -> str:
    """A short key of some texts, for names in the cache."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


def pom_version(pom: Path, name: str) -> str:
    """The value of the property `name` in a pom."""
    namespace = {"m": "http://maven.apache.org/POM/4.0.0"}
    tree = ElementTree.parse(pom)
    value = tree.findtext(f"m:properties/m:{name}", namespaces=namespace)
    if not value:
        raise ResolveError(f"{pom} has no property {name}")
    return value


def resolve_jars(pom: Path, *, name: str, version_property: str) -> Path:
    """The folder with the jars that a pom names, resolved by Maven at first use.

    The folder is `<cache>/<name>-<version>-<digest of the pom>`. Raises MissingToolError without
    Maven and ResolveError with the end of Maven's output when it fails.
    """
    version = pom_version(pom, version_property)
    target = cache_dir() / f"{name}-{version}-{digest_of(pom.read_text(encoding='utf-8'))}"

    def copy_jars(folder: Path) -> None:
        maven = shutil.which("mvn")
        if maven is None:
            raise MissingToolError(f"no Maven (mvn) on PATH to fetch {name} {version}. {INSTALL_HINT}")
        _run_maven([maven, "-B", "-q", "-ntp", "-C", "-f", str(pom), "dependency:copy-dependencies",
                    "-DincludeScope=runtime", f"-DoutputDirectory={folder}"], f"{name} {version}")  # fmt: skip
        if not any(folder.glob("*.jar")):
            raise ResolveError(f"Maven ended well but delivered no jar of {name} {version}")

    return make_once(target, copy_jars)


def make_once(target: Path, build: Callable[[Path], None]) -> Path:
    """Return `target`, letting `build` fill it first where it does not exist; one builder at a time."""
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.parent / f".{target.name}.lock"):
        if target.is_dir():
            return target
        partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            build(partial)
            partial.chmod(0o755)
            partial.rename(target)
        finally:
            if partial.exists():
                shutil.rmtree(partial)
    return target


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    deadline = time.monotonic() + _LOCK_LIMIT_S
    with path.open("a", encoding="utf-8") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise ResolveError(
                        f"another process has held {path} for {_LOCK_LIMIT_S:.0f} s; end it and try again"
                    ) from error
                time.sleep(0.1)
        yield  # the lock goes with the file handle, also when this process is killed


def _run_maven(command: list[str], what: str) -> None:
    try:
        finished = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=_MAVEN_LIMIT_S
        )
    except subprocess.TimeoutExpired as error:
        raise ResolveError(f"Maven did not fetch {what} within {_MAVEN_LIMIT_S:.0f} s") from error
    if finished.returncode != 0:
        output = (finished.stdout + finished.stderr).strip().splitlines()
        raise ResolveError(f"Maven could not fetch {what}:\n" + "\n".join(output[-12:]))
