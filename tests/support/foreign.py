"""A producer that writes header names that are not UTF-8, as clients in other languages can: `publish`.

Ours and the others for Python cannot, but for aiokafka without its C extensions, which calls the name's own
`encode`: `python -m tests.support.foreign BOOTSTRAP TOPIC PARTITION VALUE`, in a process of its own.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

from penstock.local.root import project_root


class _Bytes(str):
    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:  # str's signature
        return b"caf\xe9"


def publish(bootstrap: str, topic: str, value: bytes, partition: int = 0) -> None:
    """One record with such a header."""
    command = [sys.executable, "-m", "tests.support.foreign", bootstrap, topic, str(partition), value.decode()]
    environment = {**os.environ, "AIOKAFKA_NO_EXTENSIONS": "1"}
    subprocess.run(command, env=environment, cwd=project_root(), check=True, timeout=120)


async def _send(bootstrap: str, topic: str, partition: int, value: bytes) -> None:
    from aiokafka import AIOKafkaProducer  # reads its environment at import

    async with AIOKafkaProducer(bootstrap_servers=bootstrap.split(",")) as producer:
        await producer.send_and_wait(topic, value, partition=partition, headers=[(_Bytes("cafe"), b"1")])


if __name__ == "__main__":
    asyncio.run(_send(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4].encode()))
