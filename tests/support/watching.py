"""Watching processes from outside and, where they are Python's, from inside: what they connect to and write at home.

From outside: every TCP and UDP socket that they hold, as often as `EVERY_S`, whatever opened it. From inside: see
`tests.support.watched.sitecustomize`.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.background import Background

EVERY_S = 0.25
_TABLES = ("tcp", "tcp6", "udp", "udp6")
_SOCKET = re.compile(r"socket:\[(\d+)\]")
_WRITES = 0o3
"""The bits of a descriptor's flags that say it may be written."""
_LOCAL_NAMES = frozenset({"localhost", "None", ""})


class Address(NamedTuple):
    """An IP address, IPv4 where it is one in IPv6's clothes, and a port."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        return ipaddress.ip_address(self.host).is_loopback


class Endpoint(NamedTuple):
    """A socket of TCP or UDP; `remote` is None where it listens or sends to no one in particular."""

    kind: str
    local: Address
    remote: Address | None

    def within(self, ports: Iterable[int]) -> bool:
        """Whether it stays on loopback and one of its ends is one of these ports."""
        ends = [self.local] if self.remote is None else [self.local, self.remote]
        return all(end.loopback for end in ends) and not {end.port for end in ends}.isdisjoint(ports)


def sockets(table: str, kind: str) -> Iterator[tuple[int, Endpoint]]:
    """Inode and endpoint of each line of a table of /proc/net; those that no process holds any more left out."""
    for line in table.splitlines()[1:]:
        fields = line.split()
        inode = int(fields[9])
        if inode:
            remote = _address(fields[2])
            yield inode, Endpoint(kind, _address(fields[1]), remote if remote.port else None)


def _address(text: str) -> Address:
    digits, _, port = text.partition(":")
    # words of 32 bits in the machine's order, which is little-endian wherever this runs
    packed = b"".join(bytes.fromhex(digits[at : at + 8])[::-1] for at in range(0, len(digits), 8))
    host = ipaddress.ip_address(packed)
    if isinstance(host, ipaddress.IPv6Address) and host.ipv4_mapped is not None:
        host = host.ipv4_mapped
    return Address(str(host), int(port, 16))


@dataclass(frozen=True)
class Inside:
    """What Python processes are given, and what they noted."""

    log: Path
    home: Path
    """Their home folder."""
    allowed: tuple[Path, ...] = ()
    """Where they may write although it lies below the user's own home folder."""

    @property
    def environment(self) -> dict[str, str]:
        """What makes a Python process take notes."""
        return {
            "PYTHONPATH": str(Path(__file__).parent / "watched"),
            "WATCH_LOG": str(self.log),
            "HOME": str(self.home),
        }

    def notes(self) -> list[dict[str, Any]]:
        """Everything noted so far."""
        return [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()]

    def strays(self, ports: Iterable[int]) -> list[str]:
        """What was noted and should not be, and what lies in the home folder."""
        known = set(ports)
        found = {
            f"{note['program']}: {note['what']} {note['detail']}"
            for note in self.notes()
            if not self._harmless(note, known)
        }
        return sorted(found) + sorted(f"in the home folder: {path}" for path in self.home.rglob("*"))

    def _harmless(self, note: Mapping[str, Any], ports: set[int]) -> bool:
        match note["what"], note["detail"]:
            case "connect", [str(host), int(port)]:
                return _is_local(host) and port in ports
            case "lookup", str(host):
                return _is_local(host)
            case "write", str(path):
                return any(Path(path).is_relative_to(folder) for folder in self.allowed)
        return False


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in _LOCAL_NAMES


class Watch(Background):
    """Looks at processes from a thread of its own while the context lasts.

    `processes` says which, with a name for each; `ports` which ports they are configured with, all of them together
    as long as they are watched; `allowed` where they may write although it lies below the home folder.
    """

    def __init__(
        self,
        processes: Callable[[], Mapping[int, str]],
        ports: Callable[[], Iterable[int]],
        *,
        allowed: Iterable[Path] = (),
    ) -> None:
        super().__init__("watch")
        self._processes = processes
        self._ports = ports
        self._home = f"{Path.home()}/"
        self._allowed = tuple(f"{path}/" for path in allowed)
        self._began = time.monotonic()
        self.ports: set[int] = set()
        self.seen: dict[str, set[Endpoint]] = {}
        """Process -> its sockets."""
        self.written: set[str] = set()
        """Files below the home folder that were held open for writing, each with its process."""

    @property
    def seconds(self) -> float:
        """How long it has watched; raises what ended it."""
        self._check()
        return time.monotonic() - self._began

    def strays(self) -> list[str]:
        """Sockets that lead elsewhere, and files that should not be."""
        ports = self.ports
        sockets = {f"{name}: {one}" for name, held in self.seen.items() for one in held if not one.within(ports)}
        return sorted(sockets | self.written)

    def _run(self) -> None:
        self._began = time.monotonic()
        while not self._ending.wait(EVERY_S):
            self.look()

    def look(self) -> None:
        """Once."""
        self.ports.update(self._ports())
        processes = self._processes()
        # the tables first: who holds a socket at that moment still holds it, or has just closed it
        tables = {
            inode: endpoint
            for name in _TABLES
            for inode, endpoint in sockets(Path("/proc/net", name).read_text(encoding="ascii"), name.rstrip("6"))
        }
        for pid, name in processes.items():
            held = self.seen.setdefault(name, set())
            for descriptor, target in _descriptors(pid):
                socket = _SOCKET.fullmatch(target)
                if socket is not None and int(socket[1]) in tables:
                    held.add(tables[int(socket[1])])
                elif target.startswith(self._home) and not target.startswith(self._allowed) and _writes(descriptor):
                    self.written.add(f"{name}: {target}")


def _descriptors(pid: int) -> Iterator[tuple[Path, str]]:
    """A process's descriptors, in /proc, and what they are open on; none where it has ended."""
    try:
        found = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return
    for descriptor in found:
        try:
            yield descriptor, os.readlink(descriptor)  # noqa: PTH115  # the text itself: it may name no path
        except OSError:
            continue  # closed meanwhile


def _writes(descriptor: Path) -> bool:
    try:
        facts = descriptor.parents[1].joinpath("fdinfo", descriptor.name).read_text(encoding="ascii")
    except OSError:
        return False
    flags = next(line.split()[1] for line in facts.splitlines() if line.startswith("flags:"))
    return bool(int(flags, 8) & _WRITES)
