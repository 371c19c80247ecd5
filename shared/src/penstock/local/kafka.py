"""Apache Kafka from its published jars: one broker on loopback, without a container engine.

A broker is started as a process of its own that may outlive the caller, answers a real metadata
request before `start` returns, and is ended by process id. First use fetches the jars, formats a
data folder and records a class-data archive; later starts copy and reuse them (about 1.5 s).
Leaves topics to `penstock topics apply` and clusters of several brokers to others.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path
from string import Template
from types import MappingProxyType
from typing import Literal, Self

from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from penstock.local.errors import LocalStackError, StartError
from penstock.local.jars import Java, digest_of, find_java, make_once, resolve_jars
from penstock.local.ports import LOOPBACK, accepts, free_port
from penstock.local.process import ProcessIdentity, kill, log_tail, start_detached, stop
from penstock.local.root import project_root
from penstock.local.server import LocalServer, wait_ready

Profile = Literal["fixture", "full"]

# SerialGC starts fastest and takes the least memory; C1 alone suits short lives, not throughput runs
_JVM: dict[Profile, tuple[str, ...]] = {
    "fixture": ("-Xms64m", "-Xmx512m", "-XX:TieredStopAtLevel=1"),
    "full": ("-Xms256m", "-Xmx1g"),
}
_JVM_ALWAYS = ("-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError", "-Djava.net.preferIPv4Stack=true")
_PORT_TRIES = 3


class LocalKafka(LocalServer):
    """One local broker, its own controller; its folder keeps the records between starts.

    `profile` "fixture" compiles lightly for short lives, "full" is for throughput. `properties` are broker
    settings that win over the template's; `cluster_id` is the one to belong to, else a fresh one.
    """

    what = "Kafka broker"
    stem = "broker"

    def __init__(
        self,
        data_dir: Path | None = None,
        port: int = 0,
        *,
        profile: Profile = "fixture",
        jvm_options: tuple[str, ...] = (),
        properties: Mapping[str, str] | None = None,
        cluster_id: str | None = None,
        start_limit_s: float = 180.0,
        root: Path | None = None,
    ) -> None:
        super().__init__(data_dir, port, start_limit_s=start_limit_s, root=root)
        self._profile: Profile = profile
        self._jvm_options = jvm_options
        self._properties = dict(properties or {})
        self._cluster_id = cluster_id or kafka_uuid()

    @classmethod
    def _at(cls, folder: Path, port: int) -> Self:
        return cls(folder, port)

    @property
    def bootstrap_servers(self) -> str:
        """`host:port` for the clients' `bootstrap.servers`."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def data_dir(self) -> Path:
        """Where the records, the rendered configuration and the log are."""
        return self.folder

    def _launch(self) -> None:
        parts = _Parts(self._root or project_root(), find_java())
        prepared = parts.prepared()
        if not (self.folder / "log" / "meta.properties").exists():
            self._format(parts, prepared)
        for attempt in range(1, _PORT_TRIES + 1):
            if self._port is None:
                self._port = free_port()
            try:
                self._launch_on_port(parts, prepared / "classes.jsa")
                return
            except StartError as error:
                # another process took the port between the choice and the bind
                lost_race = "Address already in use" in str(error) and not self._wanted_port
                if not lost_race or attempt == _PORT_TRIES:
                    raise
                self.kill()
                self._port = None

    def _format(self, parts: _Parts, prepared: Path) -> None:
        """Make the data folder before the first start."""
        names = {"cluster.id": self._cluster_id, "directory.id": kafka_uuid()}
        if "node.id" in self._properties:
            names["node.id"] = self._properties["node.id"]
        _copy_formatted(prepared / "formatted", self.folder / "log", names)

    def _render(self, parts: _Parts) -> Path:
        """Write the configuration for this folder and port."""
        return parts.render(self.folder, self.port, self._properties)

    def _answers(self) -> bool:
        """Whether the broker serves metadata."""
        return metadata_answers(self.bootstrap_servers)

    def _launch_on_port(self, parts: _Parts, classes: Path) -> None:
        config = self._render(parts)
        options = (*_JVM[self._profile], *self._jvm_options, f"-XX:SharedArchiveFile={classes}")
        command = parts.command(options, "kafka.Kafka", str(config))
        identity = start_detached(command, log_file=self.log_file, cwd=self.folder)
        self._started(identity)
        wait_ready(self.what, identity, self._answers, self.log_file, self._start_limit_s)


def wait_for_metadata(identity: ProcessIdentity, port: int, log_file: Path, limit_s: float) -> None:
    """Wait until the broker on this port answers a metadata request naming itself; errors as `wait_ready`."""
    wait_ready(LocalKafka.what, identity, lambda: metadata_answers(f"{LOOPBACK}:{port}"), log_file, limit_s)


def metadata_answers(
    bootstrap_servers: str, timeout_s: float = 2.0, options: Mapping[str, str] = MappingProxyType({})
) -> bool:
    """True when a broker at one of these addresses answers a metadata request that names a broker.

    `options` are the client's further ones, such as TLS and SASL.
    """
    # a client that is refused backs off for a second: knock first
    if not any(accepts(*_host_port(address), timeout_s=timeout_s) for address in bootstrap_servers.split(",")):
        return False
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0, **options})
    try:
        return bool(admin.list_topics(timeout=timeout_s).brokers)
    except KafkaException:
        return False  # it listens and is not ready: the caller bounds the waiting


def _host_port(address: str) -> tuple[str, int]:
    host, _, port = address.strip().rpartition(":")
    if not host or not port.isdigit():
        raise LocalStackError(f"a bootstrap address must read host:port, not {address!r}")
    return host, int(port)


class _Parts:
    """What a broker is made of: the project's files, the jars and the Java runtime."""

    def __init__(self, root: Path, java: Java) -> None:
        deploy = root / "deploy" / "kafka"
        self._java = java
        self._template = (deploy / "server.properties.template").read_text(encoding="utf-8")
        self._logging = deploy / "log4j2.properties"
        self._jars = resolve_jars(deploy / "pom.xml", name="kafka", version_property="kafka.version")

    def command(self, options: tuple[str, ...], main: str, *arguments: str) -> list[str]:
        # the class-data archive is good for exactly this class path: the order must be the same each time
        class_path = ":".join(sorted(str(jar) for jar in self._jars.glob("*.jar")))
        logging = f"-Dlog4j2.configurationFile={self._logging}"
        return [self._java.program, *_JVM_ALWAYS, *options, logging, "-cp", class_path, main, *arguments]

    def render(self, data_dir: Path, port: int, properties: Mapping[str, str] | None = None) -> Path:
        """Write the configuration and its port into the data folder; of a setting given twice the last one counts."""
        if "," in str(data_dir):
            raise LocalStackError(f"the data folder {data_dir} has a comma, which Kafka reads as two folders")
        data_dir.mkdir(parents=True, exist_ok=True)
        config = data_dir / "server.properties"
        config.write_text(
            Template(self._template).substitute(
                port=port,
                controller_port=free_port(excluding=frozenset({port})),
                log_dir=data_dir / "log",
            )
            + "".join(f"{name}={value}\n" for name, value in (properties or {}).items()),
            encoding="utf-8",
        )
        (data_dir / "broker.json").write_text(json.dumps({"port": port}) + "\n", encoding="utf-8")
        return config

    def prepared(self) -> Path:
        """The folder with a formatted data folder and the class-data archive, made at first use."""
        key = digest_of(self._java.digest, self._template)
        return make_once(self._jars.with_name(f"{self._jars.name}-{key}"), self._prepare)

    def format(self, config: Path, *arguments: str) -> None:
        """Format the data folder that a configuration names; `arguments` are the format tool's further ones."""
        given = ("format", "-t", kafka_uuid(), "-c", str(config), *arguments)
        command = self.command(("-XX:TieredStopAtLevel=1",), "kafka.tools.StorageTool", *given)
        formatted = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        if formatted.returncode != 0:
            raise StartError(f"the Kafka data folder could not be formatted:\n{formatted.stdout}{formatted.stderr}")

    def _prepare(self, folder: Path) -> None:
        self.format(self.render(folder / "scratch", free_port()))
        shutil.copytree(folder / "scratch" / "log", folder / "formatted")
        self._archive_classes(folder / "scratch", folder / "classes.jsa")
        shutil.rmtree(folder / "scratch")

    def _archive_classes(self, data_dir: Path, archive: Path) -> None:
        """Run a broker once through a transaction and a consumer group, and keep the classes it loaded."""
        port = int(json.loads((data_dir / "broker.json").read_text(encoding="utf-8"))["port"])
        log_file = data_dir / "broker.log"
        options = (*_JVM["fixture"], f"-XX:ArchiveClassesAtExit={archive}")
        command = self.command(options, "kafka.Kafka", str(data_dir / "server.properties"))
        identity = start_detached(command, log_file=log_file, cwd=data_dir)
        try:
            wait_for_metadata(identity, port, log_file, 60.0)
            _exercise(f"{LOOPBACK}:{port}")
        except BaseException:
            kill(identity)
            raise
        stop(identity, grace_s=60.0)
        if not archive.is_file():
            raise StartError(f"Java wrote no class-data archive; the end of its log:\n{log_tail(log_file)}")


def _copy_formatted(source: Path, target: Path, names: Mapping[str, str]) -> None:
    """Copy a formatted folder and give the copy ids of its own."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    if partial.exists():
        shutil.rmtree(partial)
    shutil.copytree(source, partial)
    meta = partial / "meta.properties"
    lines = []
    for line in meta.read_text(encoding="utf-8").splitlines():
        name = line.partition("=")[0]
        lines.append(f"{name}={names[name]}" if name in names else line)
    meta.write_text("\n".join(lines) + "\n", encoding="utf-8")
    partial.rename(target)


def kafka_uuid() -> str:
    """A fresh id as Kafka writes them."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):  # which the format tool would read as an option
            return text


def _exercise(bootstrap_servers: str) -> None:
    """One transaction and one read_committed group, so that their classes are in the archive."""
    topic = "warm-up"
    common: dict[str, str | int | float | bool] = {"bootstrap.servers": bootstrap_servers, "log_level": 0}
    admin = AdminClient(common)
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(20)
    producer = Producer({**common, "transactional.id": "warm-up"})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic, b"warm-up")
    producer.commit_transaction(30)
    for protocol in ("classic", "consumer"):
        consumer = Consumer(
            {**common, "group.id": f"warm-up-{protocol}", "group.protocol": protocol,
             "auto.offset.reset": "earliest", "isolation.level": "read_committed"}
        )  # fmt: skip
        try:
            consumer.subscribe([topic])
            message = consumer.poll(30)
            if message is None or message.error():
                raise StartError("the broker that records the class-data archive did not deliver a record")
            consumer.commit(message=message, asynchronous=False)
        finally:
            consumer.close()
