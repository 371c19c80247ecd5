"""Loopback ports: finding free ones and telling whether one is taken."""

from __future__ import annotations

import errno
import random
import socket

from penstock.local.errors import PortInUseError

LOOPBACK = "127.0.0.1"
# Below the range from which kernels take the source ports of outgoing connections: a broker
# that is restarted on its port would otherwise find it taken now and then.
_FIRST, _LAST = 20_000, 32_000


def port_is_free(port: int) -> bool:
    """True when a server could listen on this loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def accepts(host: str, port: int, timeout_s: float = 0.2) -> bool:
    """True when something accepts TCP connections there."""
    try:
        with socket.create_connection((host, port), timeout=timeout_s):
            return True
    except OSError:
        return False


def free_port(*, excluding: frozenset[int] = frozenset()) -> int:
    """A loopback port that was free a moment ago; another process may still take it first."""
    for _ in range(200):
        port = random.randint(_FIRST, _LAST)
        if port not in excluding and port_is_free(port):
            return port
    raise PortInUseError(f"no free port found between {_FIRST} and {_LAST} in 200 tries")


def require_free(port: int, what: str) -> None:
    """Raise PortInUseError, naming `what` wants it, when the port is taken."""
    if not port_is_free(port):
        raise PortInUseError(
            f"port {port} on {LOOPBACK}, asked for {what}, is in use by another process; "
            "choose another port, or 0 for any free one"
        )
