"""From settings and a stage to a running process: the part of a composition root that all services share."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

import structlog
from confluent_kafka import KafkaException
from prometheus_client import CollectorRegistry

from penstock import __version__
from penstock.contracts.errors import BackendTimeout, ConfigurationError
from penstock.contracts.events import Priority
from penstock.contracts.topics import CONTROL, in_lane, siblings
from penstock.runtime import access, kafka, lanes, logging, telemetry
from penstock.runtime.control import ControlReader
from penstock.runtime.detour import Detour
from penstock.runtime.ends import End
from penstock.runtime.gate import Gate
from penstock.runtime.health import Health, HealthServer, JoinedHealth
from penstock.runtime.intake import Lane
from penstock.runtime.kafka import Names
from penstock.runtime.ledger import Ledger
from penstock.runtime.metrics import StageMetrics
from penstock.runtime.processor import Boundary, Processor, claims_of
from penstock.runtime.publisher import Fenced, Publisher, Stuck
from penstock.runtime.pump import pumping
from penstock.runtime.relay import Relaying, relaying
from penstock.runtime.settings import EXIT_BAD_SETTINGS, ServiceSettings, UnorderedSettings, hasty, lanes_of
from penstock.runtime.stage import Stage, TokenSink, UnorderedStage
from penstock.runtime.state import StateStore
from penstock.runtime.tallies import Tallies
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

    def __init__(
        self, settings: ServiceSettings, names: Names, service: str, metrics: StageMetrics | None = None
    ) -> None:
        self._metrics = metrics or StageMetrics(service)
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
            self._settings.state_max_entries,
        )
        return self.states[name]

    @cached_property
    def _token_producer(self) -> KafkaTokens:
        return KafkaTokens(kafka.producer(self._settings, None), self._names)

    def tallies(self, topic: str) -> Tallies:
        """Amounts that all instances of the service add up in a state topic."""
        kept = self.state(topic, transactional=False)
        config = kafka.producer(self._settings, None)
        return Tallies(config, topic, kept, names=self._names, instance=self._settings.instance)

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

    @property
    def registry(self) -> CollectorRegistry:
        """Where a stage registers metrics of its own."""
        return self._metrics.registry

    def count_model(self, outcome: str) -> None:
        """Count a model revision that was `loaded` or `refused`."""
        self._metrics.model_loads.labels(self._service, outcome).inc()

    def close(self, *, stores: bool = True) -> None:
        """Deliver what is queued; leave the broker, where no lane uses the stores any more."""
        if "control" in self.__dict__:
            self.control.close()
        if stores:
            for state in self.states.values():
                state.close()
        if "_token_producer" in self.__dict__:
            self._token_producer.close()


def serve(
    settings: ServiceSettings,
    *,
    name: str,
    consumes: Sequence[str],
    build: Callable[[Resources], Stage | UnorderedStage],
    ledger: str | None = None,
    finished: str | None = None,
    streams: Callable[[Resources], Relaying[Any]] | None = None,
) -> int:
    """Run a stage until SIGTERM or SIGINT; returns the exit status.

    `ledger` is the state topic in which an unordered stage's calls are noted, None for no ledger. `finished` is
    that in which the last service notes which requests have their result, where the interactive lane is delivered at
    least once; None for any other service. `streams` makes what a service does to streamed pieces, beside its stage.
    0 stopped as asked, 1 failed (a supervisor should start it again), 2 settings that cannot work.
    """
    logging.configure(name, settings.log_level, settings.log_format)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    try:
        provider = telemetry.configure(name, settings.instance)
        healths, metrics = {lane: Health() for lane in lanes_of(settings)}, StageMetrics(name)
        health = JoinedHealth(healths)
        server = HealthServer(settings.http_host, settings.http_port, health, metrics.exposition)
    except ConfigurationError as error:
        return _refused(error)
    server.start()
    _log.info("runtime.process.started", version=__version__, http_port=server.port, topics=list(consumes))
    names = Names(settings.topic_prefix)
    resources = Resources(settings, names, name, metrics)
    try:
        access.check(settings)
        stage = build(resources)
        relayed = None if streams is None else streams(resources)
        last = finished is not None
        table = resources.state(finished) if finished is not None and hasty(settings, "interactive") else None
        _spare_the_collector(batches=not isinstance(stage, UnorderedStage))
        status, clean = _run(
            settings,
            stage,
            consumes,
            ledger_topic=ledger,
            last=last,
            finished=table,
            streams=relayed,
            names=names,
            resources=resources,
            metrics=metrics,
            healths=healths,
            stopping=stopping,
        )
    except ConfigurationError as error:
        return _refused(error)
    resources.close(stores=clean)
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
    last: bool,
    finished: StateStore | None,
    streams: Relaying[Any] | None,
    names: Names,
    resources: Resources,
    metrics: StageMetrics,
    healths: dict[Priority, Health],
    stopping: threading.Event,
) -> tuple[int, bool]:
    """Run the stage in its lanes; the exit status, and whether nothing was left running."""
    unordered = isinstance(stage, UnorderedStage)
    served = tuple(healths)
    if unordered:
        for lane in served[1:]:  # one loop, one producer and one health for all its lanes
            del healths[lane]
    ids = {lane: names.transactional_id(stage.name, settings.instance, lane) for lane in healths}
    book = _ledger(settings, names, resources, ledger_topic) if unordered else None
    detour = Detour(names) if hasty(settings, "interactive") and not last else None
    # a call may cost money, and what it brought is sent on once: its transaction is short beside it
    fast = {lane for lane in healths if hasty(settings, lane) and not (last or unordered)}
    resources.control.changed = metrics.cancellations.labels(stage.name).set

    def publisher(lane: Priority) -> Publisher:
        transactional_id = ids[lane] if settings.exactly_once and lane not in fast else None
        linger_ms = 0 if hasty(settings, lane) else kafka.LINGER_MS
        return Publisher(kafka.producer(settings, transactional_id, linger_ms=linger_ms), names)

    try:
        publishers = {lane: lanes.yielding(lane, settings.lane_bulk_nice, partial(publisher, lane)) for lane in healths}
        if not _connect(settings, list(publishers.values()), resources, list(healths.values()), stopping):
            return EXIT_STOPPED, True
    except (Fenced, BackendTimeout, KafkaException) as error:
        return _failed(error, ", ".join(ids.values()), settings)
    gate = None
    if len(healths) > 1:
        sys.setswitchinterval(lanes.SWITCH_INTERVAL_S)
        gate = Gate(
            share=settings.lane_bulk_share,
            quiet_s=settings.lane_quiet_ms / 1000,
            slice_s=settings.lane_slice_ms / 1000,
            stopping=stopping,
        )

    def read(lane: Priority) -> tuple[str, ...]:
        return tuple(names.topic(in_lane(topic, lane)) for topic in consumes)

    def processor(stage: Stage, lane: Priority) -> Processor:
        cancellations = resources.control.cancellations
        if last:
            return End(
                stage,
                settings,
                finished=finished if hasty(settings, lane) else None,
                names=names,
                metrics=metrics,
                stopping=stopping,
                cancellations=cancellations,
            )
        return Processor(
            stage,
            settings,
            names=names,
            metrics=metrics,
            stopping=stopping,
            cancellations=cancellations,
            detour=detour,
        )

    def worker(lane: Priority) -> Worker | UnorderedWorker:
        if isinstance(stage, UnorderedStage):
            if not isinstance(settings, UnorderedSettings):
                raise ConfigurationError(f"stage {stage.name} is unordered: its settings are no UnorderedSettings")
            return UnorderedWorker(
                lanes=[Lane(one, read(one), names.group(stage.name, one)) for one in served],
                stage=stage,
                settings=settings,
                boundary=Boundary(
                    stage,
                    names=names,
                    cancellations=resources.control.cancellations,
                    claims=claims_of(stage.name, settings, metrics, stopping),
                    detour=detour,
                ),
                publisher=publishers[lane],
                ledger=book,
                metrics=metrics,
                health=healths[lane],
                stopping=stopping,
            )
        return Worker(
            name=stage.name,
            topics=list(read(lane)),
            settings=settings,
            processor=processor(stage, lane),
            publisher=publishers[lane],
            states=resources.states,
            metrics=metrics,
            health=healths[lane],
            stopping=stopping,
            lane=lane,
            gate=gate,
        )

    inputs = [name for topic in consumes for name in siblings(topic)]
    try:
        with (
            pumping(stage.name, inputs, settings=settings, names=names, metrics=metrics, stopping=stopping),
            relaying(stage.name, streams, settings=settings, names=names, metrics=metrics, stopping=stopping),
        ):
            nice = settings.lane_bulk_nice
            runs = {lane: lanes.yielding(lane, nice, partial(worker, lane)).run for lane in healths}
            ended = lanes.run(runs, stopping, nice)
    except (Fenced, Stuck, BackendTimeout, KafkaException) as error:
        return _failed(error, ", ".join(ids.values()), settings)
    status, clean = EXIT_STOPPED, True
    for lane, end in ended.items():
        if end.error is None:
            clean = clean and end.clean
            continue
        failed, left_clean = _failed(end.error, ids[lane], settings)
        status, clean = max(status, failed), clean and left_clean
    return status, clean


def _ledger(settings: ServiceSettings, names: Names, resources: Resources, topic: str | None) -> Ledger | None:
    if topic is None or not isinstance(settings, UnorderedSettings) or not settings.calls_ledger:
        return None
    return Ledger(kafka.producer(settings, None), topic, resources.state(topic, transactional=False), names)


def _failed(error: BaseException, transactional_id: str, settings: ServiceSettings) -> tuple[int, bool]:
    """Log why a lane ended; raises what is neither the broker's nor the client's doing."""
    match error:
        case Stuck():
            _log.error("runtime.transaction.stuck", transactional_id=transactional_id)
            return EXIT_FAILED, False
        case Fenced():
            _log.error("runtime.process.fenced", reason=str(error), transactional_id=transactional_id)
        case BackendTimeout():
            _log.error("runtime.process.failed", code=error.code, reason=error.message)
        case KafkaException():
            cause = error.args[0]
            refused = cause.code() in access.NOT_AUTHORIZED
            advice = {"to_do": access.to_do(cause, settings.kafka_sasl_username)} if refused else {}
            _log.error("runtime.process.failed", code="kafka", reason=cause.name(), **advice)
        case _:
            raise error
    return EXIT_FAILED, True


def _connect(
    settings: ServiceSettings,
    publishers: Sequence[Publisher],
    resources: Resources,
    healths: Sequence[Health],
    stopping: threading.Event,
) -> bool:
    """Reach the broker and restore state, waiting as long as it takes; False where told to stop meanwhile.

    Raises ConfigurationError where the broker does not let this process in, and KafkaException where an ACL refuses.
    """

    def waiting_for(what: str) -> None:
        for health in healths:
            health.beat()
            health.why_not = what

    idle = list(publishers)
    while not stopping.is_set():
        waiting_for("waiting for the broker")
        try:
            access.reach(settings, BROKER_ANSWER_S)
            while idle:
                idle[0].start()
                idle.pop(0)
            waiting_for("restoring state")
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
            waiting_for("waiting for partitions")
            return True
    return False


def _spare_the_collector(*, batches: bool) -> None:
    """What was made so far stays; events are trees, freed without the collector, which need not look into batches.

    Slow calls are few, and what libraries leave behind of each is not to gather for an hour.
    """
    gc.freeze()
    if batches:
        gc.set_threshold(500_000, 20, 100)


def _refused(error: ConfigurationError) -> int:
    print(f"error: {error.message}", file=sys.stderr)  # noqa: T201  # a person reads this, not a collector
    return EXIT_BAD_SETTINGS
