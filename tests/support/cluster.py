"""Three brokers from the same jars as the one: each a controller too, killed and restarted by its process.

Every topic has three replicas, two of which must hold a record before it is acknowledged; so have the
offsets of groups and the state of transactions.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from tests.support.stack import wait_until

from penstock.local.kafka import LocalKafka, kafka_uuid
from penstock.local.ports import LOOPBACK, free_port

BROKERS = 3
MIN_INSYNC = 2


class Cluster:
    """Brokers 1 to 3. As a context manager it starts them and ends them; `folder` keeps data and logs."""

    def __init__(self, folder: Path | None = None) -> None:
        self._own = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="penstock-cluster-"))
        taken: set[int] = set()
        for _ in range(2 * BROKERS):
            taken.add(free_port(excluding=frozenset(taken)))
        ports = sorted(taken)
        self._ports, controllers = ports[:BROKERS], ports[BROKERS:]
        voters = ",".join(f"{node}@{LOOPBACK}:{port}" for node, port in enumerate(controllers, start=1))
        cluster_id = kafka_uuid()
        self._brokers = {
            node: LocalKafka(
                self.folder / f"broker-{node}",
                port,
                properties=_properties(node, port, controllers[node - 1], voters),
                cluster_id=cluster_id,
                start_limit_s=180,
            )
            for node, port in enumerate(self._ports, start=1)
        }

    @property
    def bootstrap(self) -> str:
        """All three, for the clients' `bootstrap.servers`."""
        return ",".join(f"{LOOPBACK}:{port}" for port in self._ports)

    def start(self) -> Cluster:
        """Bring all three up; the cluster is formed and answers."""
        try:
            self.restart(self._brokers)
            self.wait_whole()
        except BaseException:
            self.stop()
            raise
        return self

    def kill(self, *nodes: int) -> None:
        """SIGKILL."""
        for node in nodes:
            self._brokers[node].kill()

    def restart(self, nodes: Iterable[int]) -> None:
        """Start killed brokers where they were, all at once: two of them may need each other to answer."""
        nodes = list(nodes)
        with ThreadPoolExecutor(len(nodes)) as pool:
            for done in [pool.submit(self._brokers[node].start) for node in nodes]:
                done.result()

    def mend(self) -> None:
        """Start what was killed and not started again; nothing happens to a cluster that is whole."""
        dead = [node for node, broker in self._brokers.items() if not broker.running()]
        if dead:
            self.restart(dead)
            self.wait_whole()

    def pid(self, node: int) -> int:
        """The process of a broker."""
        return self._brokers[node].pid

    def leaders(self, topic: str) -> dict[int, int]:
        """Partition -> the broker that leads it."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        described = admin.list_topics(topic, timeout=60).topics[topic]
        return {number: partition.leader for number, partition in described.partitions.items()}

    def wait_whole(self, seconds: float = 240) -> None:
        """Wait until three brokers are known and every partition is in sync on all its replicas."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})

        def whole() -> bool:
            try:
                metadata = admin.list_topics(timeout=5)
            except KafkaException:
                return False  # the caller's limit bounds the waiting
            partitions = [part for topic in metadata.topics.values() for part in topic.partitions.values()]
            return len(metadata.brokers) == BROKERS and all(len(part.isrs) == BROKERS for part in partitions)

        wait_until(whole, "three brokers with every partition in sync", seconds)

    def stop(self) -> None:
        """End all three; their data goes with them, so nothing is worth an orderly end."""
        self.kill(*self._brokers)
        for broker in self._brokers.values():
            broker.stop()
        if self._own:
            shutil.rmtree(self.folder)

    def __enter__(self) -> Cluster:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _properties(node: int, port: int, controller_port: int, voters: str) -> dict[str, str]:
    replicated = ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic")
    in_sync = ("transaction.state.log", "share.coordinator.state.topic")
    return {
        "node.id": str(node),
        "controller.quorum.voters": voters,
        "listeners": f"PLAINTEXT://{LOOPBACK}:{port},CONTROLLER://{LOOPBACK}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{port}",
        "default.replication.factor": str(BROKERS),
        "min.insync.replicas": str(MIN_INSYNC),
        **{f"{name}.replication.factor": str(BROKERS) for name in replicated},
        **{f"{name}.min.isr": str(MIN_INSYNC) for name in in_sync},
        # one that is killed is missed soon
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
    }
