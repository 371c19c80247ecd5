"""From settings and a stage to a running process: the part of a composition root that all services share."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from functools import cached_property

import structlog
from confluent_kafka import KafkaException

from penstock import __version__
from penstock.contracts.errors import BackendTimeout, ConfigurationError
from penstock.contracts.topics import CONTROL
from penstock.runtime import access, kafka, logging, telemetry
from penstock.runtime.control import ControlReader
from penstock.runtime.health import Health, HealthServer
from penstock.runtime.intake import Lane
from penstock.runtime.kafka import Names
from penstock.runtime.ledger import Ledger
from penstock.runtime.metrics import StageMetrics
from penstock.runtime.processor import Boundary, Processor
from penstock.runtime.publisher import Fenced, Publisher, Stuck
from penstock.runtime.pump import pumping
from penstock.runtime.settings import EXIT_BAD_SETTINGS, ServiceSettings, UnorderedSettings
from penstock.runtime.stage import Stage, TokenSink, UnorderedStage
from penstock.runtime.state import StateStore
from penstock.runtime.tokens import KafkaTokens
from penstock.runtime.unordered import UnorderedWorker
from penstock.runtime.worker import Worker

_log = structlog.get_logger()

EXIT_STOPPED = 0
EXIT_FAILED = 1
BROKER_RETRY_S = 2.0
BROKER_ANSWER_S = 10.0


class Resources:
    """What a stage may ask for while it is built."""

    def __init__(self, settings: ServiceSettings, names: Names, service: str) -> None:
        self._settings = settings
        self._names = names
        self._service = service
        self.states: dict[str, StateStore] = {}

    def state(self, topic: str, *, transactional: bool = True) -> StateStore:
        """The table kept in a state topic (one of `penstock.contracts.topics`), written in transactions or not."""
        name = self._names.topic(topic)
        reader = f"{self._names.group(self._service)}-state"
        self.states[name] = StateStore(
            name,
            kafka.reader(self._settings, reader, committed=transactional),
            kafka.common(self._settings),
            self._settings.state_max_entries,
        )
        return self.states[name]

    @cached_property
    def _token_producer(self) -> KafkaTokens:
        return KafkaTokens(kafka.producer(self._settings, None), self._names)

    @property
    def tokens(self) -> TokenSink:
        """Where streamed text goes."""
        return self._token_producer

    @cached_property
    def control(self) -> ControlReader:
        """Follows the control topic, once it is started."""
        return ControlReader(
            self._names.topic(CONTROL),
            kafka.reader(self._settings, f"{self._names.group(self._service)}-control"),
            max_entries=self._settings.cancellations_max,
        )

    def close(self) -> None:
        """Deliver what is queued."""
        if "control" in self.__dict__:
            self.control.close()
        if "_token_producer" in self.__dict__:
            self._token_producer.close()


def serve(
    settings: ServiceSettings,
    *,
    name: str,
    consumes: Sequence[str],
    build: Callable[[Resources], Stage | UnorderedStage],
    ledger: str | None = None,
) -> int:
    """Run a stage until SIGTERM or SIGINT; returns the exit status.

    `ledger` is the state topic in which an unordered stage's calls are noted, None for no ledger.
    0 stopped as asked, 1 failed (a supervisor should start it again), 2 settings that cannot work.
    """
    logging.configure(name, settings.log_level, settings.log_format)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    try:
        provider = telemetry.configure(name, settings.instance)
        health, metrics = Health(), StageMetrics(name)
        server = HealthServer(settings.http_host, settings.http_port, health, metrics.exposition)
    except ConfigurationError as error:
        return _refused(error)
    server.start()
    _log.info("runtime.process.started", version=__version__, http_port=server.port, topics=list(consumes))
    names = Names(settings.topic_prefix)
    resources = Resources(settings, names, name)
    try:
        access.check(settings)
        stage = build(resources)
        status, clean = _run(
            settings,
            stage,
            consumes,
            ledger_topic=ledger,
            names=names,
            resources=resources,
            metrics=metrics,
            health=health,
            stopping=stopping,
        )
    except ConfigurationError as error:
        return _refused(error)
    resources.close()
    server.stop()
    provider.shutdown()
    _log.info("runtime.process.stopped", status=status, clean=clean)
    if not clean:
        # a batch, or a call into the client, still runs in its thread; what is not committed will be read again
        sys.stderr.flush()
        os._exit(status)
    return status


def _run(
    settings: ServiceSettings,
    stage: Stage | UnorderedStage,
    consumes: Sequence[str],
    *,
    ledger_topic: str | None,
    names: Names,
    resources: Resources,
    metrics: StageMetrics,
    health: Health,
    stopping: threading.Event,
) -> tuple[int, bool]:
    transactional_id = names.transactional_id(stage.name, settings.instance) if settings.exactly_once else None
    publisher = Publisher(kafka.producer(settings, transactional_id), names)
    ledger = _ledger(settings, names, resources, ledger_topic) if isinstance(stage, UnorderedStage) else None
    resources.control.changed = metrics.cancellations.labels(stage.name).set
    try:
        if not _connect(settings, publisher, resources, health, stopping):
            return EXIT_STOPPED, True
        topics = [names.topic(topic) for topic in consumes]
        worker: Worker | UnorderedWorker
        if isinstance(stage, UnorderedStage):
            if not isinstance(settings, UnorderedSettings):
                raise ConfigurationError(f"stage {stage.name} is unordered: its settings are no UnorderedSettings")
            worker = UnorderedWorker(
                lanes=[Lane("interactive", tuple(topics), names.group(stage.name))],
                stage=stage,
                settings=settings,
                boundary=Boundary(stage, names=names, cancellations=resources.control.cancellations),
                publisher=publisher,
                ledger=ledger,
                metrics=metrics,
                health=health,
                stopping=stopping,
            )
        else:
            worker = Worker(
                name=stage.name,
                topics=topics,
                settings=settings,
                processor=Processor(
                    stage,
                    settings,
                    names=names,
                    metrics=metrics,
                    stopping=stopping,
                    cancellations=resources.control.cancellations,
                ),
                publisher=publisher,
                states=resources.states,
                metrics=metrics,
                health=health,
                stopping=stopping,
            )
        health.why_not = "waiting for partitions"
        with pumping(stage.name, consumes, settings=settings, names=names, metrics=metrics, stopping=stopping):
            return EXIT_STOPPED, worker.run()
    except Stuck:
        _log.error("runtime.transaction.stuck", transactional_id=transactional_id)
        return EXIT_FAILED, False
    except Fenced as error:
        _log.error("runtime.process.fenced", reason=str(error), transactional_id=transactional_id)
    except BackendTimeout as error:
        _log.error("runtime.process.failed", code=error.code, reason=error.message)
    except KafkaException as error:
        cause = error.args[0]
        refused = cause.code() in access.NOT_AUTHORIZED
        advice = {"to_do": access.to_do(cause, settings.kafka_sasl_username)} if refused else {}
        _log.error("runtime.process.failed", code="kafka", reason=cause.name(), **advice)
    return EXIT_FAILED, True


def _ledger(settings: ServiceSettings, names: Names, resources: Resources, topic: str | None) -> Ledger | None:
    if topic is None or not isinstance(settings, UnorderedSettings) or not settings.calls_ledger:
        return None
    return Ledger(kafka.producer(settings, None), topic, resources.state(topic, transactional=False), names)


def _connect(
    settings: ServiceSettings, publisher: Publisher, resources: Resources, health: Health, stopping: threading.Event
) -> bool:
    """Reach the broker and restore state, waiting as long as it takes; False where told to stop meanwhile.

    Raises ConfigurationError where the broker does not let this process in, and KafkaException where an ACL refuses.
    """
    while not stopping.is_set():
        health.beat()
        health.why_not = "waiting for the broker"
        try:
            access.reach(settings, BROKER_ANSWER_S)
            publisher.start()
            health.why_not = "restoring state"
            resources.control.start()
            for state in resources.states.values():
                state.start()
                _log.info("runtime.state.restored", topic=state.topic, entries=len(state))
        except KafkaException as error:
            if error.args[0].code() in access.NOT_AUTHORIZED:
                raise
            _log.warning("runtime.broker.unreachable", error=error.args[0].name())
            stopping.wait(BROKER_RETRY_S)
        else:
            return True
    return False


def _refused(error: ConfigurationError) -> int:
    print(f"error: {error.message}", file=sys.stderr)  # noqa: T201  # a person reads this, not a collector
    return EXIT_BAD_SETTINGS
