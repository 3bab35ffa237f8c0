"""Appending commands to the log: idempotent, acknowledged by all in-sync replicas."""

import asyncio
import contextlib
from collections.abc import Sequence

import aiokafka
import msgspec
import structlog
from aiokafka.errors import (
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    ProducerClosed,
)
from aiokafka.protocol.metadata import MetadataRequest

from microfin.kafka.client import KAFKA, UNREACHABLE_AFTER, connection_options
from microfin.ledger import wire
from microfin.ledger.wire import Command
from microfin.process.deadline import within
from microfin.process.renewed_tls import tls_fault
from microfin.process.settings import CommonSettings
from microfin.process.silence import Silence
from microfin.process.ticks import tick

logger = structlog.get_logger(__name__)

Headers = Sequence[tuple[str, bytes]]

_RESTART_PAUSE = 0.5  # seconds between two attempts at a new producer
_METADATA_ATTEMPTS = 20
_METADATA_PAUSE = 0.1  # seconds
_PROBE_EVERY = 2.0  # seconds
_PROBE_AGAIN = 1.0  # seconds, while no broker answers
_PROBE_WITHIN = 5.0  # seconds

# Bytes. While a partition has no leader its commands collect in one batch, about 600 in one of this
# size; Kafka's default of 16 KiB is full after 50. It is a quarter of the topic's largest batch.
_BATCH_SIZE = 256 * 1024


class Appended(msgspec.Struct, frozen=True):
    """Where the broker put a command, and its append time in milliseconds since the Unix epoch."""

    partition: int
    offset: int
    time: int


class ProduceUnknown(Exception):
    """No acknowledgement came: the command may or may not be in the log."""


class ProduceRefused(Exception):
    """The command is certainly not in the log."""


class CommandProducer:
    """Sends commands to their partitions. Replaces its Kafka producer after a fatal error.

    It also replaces the producer if none of its known brokers has answered for ten seconds: a
    client never asks the configured servers again, and the brokers may have moved.

    A new producer does not continue the sends of the old one: those end as `ProduceUnknown`. A
    caller that needs certainty sends the command again, with the same id.
    """

    def __init__(self, settings: CommonSettings, client_id: str) -> None:
        self._settings = settings
        self._client_id = client_id
        self._producer: aiokafka.AIOKafkaProducer | None = None
        self._starter: asyncio.Task[None] | None = None
        self._prober: asyncio.Task[None] | None = None
        self._closed = False
        self._known: set[int] = set()  # partitions are only ever added
        self.silence = Silence("Kafka", _PROBE_EVERY)

    @property
    def ready(self) -> bool:
        """Whether commands can be sent now, as far as this process knows."""
        return self._producer is not None and not self.silence.long

    async def start(self) -> None:
        """Connect; returns when connected, however long the brokers take."""
        self._replace()
        self._prober = asyncio.create_task(self._probe_for_ever())
        if self._starter is not None:
            await asyncio.shield(self._starter)

    async def stop(self) -> None:
        """Send the commands of the last batches, and close."""
        self._closed = True
        for task in (self._starter, self._prober):
            if task is not None:
                task.cancel()
        producer, self._producer = self._producer, None
        if producer is not None:
            with contextlib.suppress(KafkaError, TimeoutError):
                await within(5, producer.stop())

    async def send(self, partition: int, command: Command, headers: Headers = ()) -> Appended:
        """Append `command` to `partition` and return its place in the log.

        Raises `ProduceRefused` if it is certainly not in the log, `ProduceUnknown` if nobody knows.
        There is no deadline here: the caller sets one.
        """
        value = wire.encode(command)
        if len(value) > wire.SIZE_LIMIT:
            raise ProduceRefused(f"The command has {len(value)} bytes, over {wire.SIZE_LIMIT}.")
        producer = self._producer
        if producer is None:
            raise ProduceRefused("There is no connection to Kafka at this moment.")
        try:
            await self._know(producer, partition)
            delivery = await producer.send(
                self._settings.topic,
                value,
                key=command.account.encode(),
                partition=partition,
                headers=list(headers),
            )
        except KafkaError as error:  # It did not even get into a batch.
            self._give_up_after(producer, error)
            raise ProduceRefused(repr(error)) from error
        try:
            metadata = await delivery
        except KafkaError as error:
            self._give_up_after(producer, error)
            raise ProduceUnknown(repr(error)) from error
        return Appended(partition, metadata.offset, metadata.timestamp)

    async def _know(self, producer: aiokafka.AIOKafkaProducer, partition: int) -> None:
        """Wait until the client knows `partition`, which may have been added a moment ago."""
        if partition in self._known:
            return
        topic = self._settings.topic
        for _ in range(_METADATA_ATTEMPTS):
            self._known = await producer.partitions_for(topic)
            if partition in self._known:
                return
            await producer.client.force_metadata_update()
            await asyncio.sleep(_METADATA_PAUSE)
        raise ProduceRefused(f"The topic {topic} has no partition {partition}.")

    def _give_up_after(self, producer: aiokafka.AIOKafkaProducer, error: KafkaError) -> None:
        """Replace the producer after an error that it does not survive.

        A command that is too large, or that found no room for as long as one partition stood
        still, says nothing about the others: they must not lose what they have under way.
        """
        survived = isinstance(error, MessageSizeTooLargeError | KafkaTimeoutError)
        if survived or getattr(error, "retriable", False):
            return
        if producer is not self._producer or self._closed:
            return
        logger.warning("replacing the Kafka producer", error=repr(error))
        self._producer = None
        self._replace(producer)

    async def _probe_for_ever(self) -> None:
        while True:
            await tick(_PROBE_AGAIN if self.silence.seconds() else _PROBE_EVERY)
            producer = self._producer
            if producer is None:
                continue
            self.silence.ask()
            if await _answers(producer):
                self.silence.answered()
                continue
            logger.warning("no Kafka broker answers", seconds=round(self.silence.seconds(), 1))
            if self.silence.seconds() > UNREACHABLE_AFTER and producer is self._producer:
                logger.warning("replacing the Kafka producer", error="no broker answers")
                self._producer = None
                self._replace(producer)

    def _replace(self, old: aiokafka.AIOKafkaProducer | None = None) -> None:
        self.silence.ask()
        self._starter = asyncio.create_task(self._start_until_connected(old))

    async def _start_until_connected(self, old: aiokafka.AIOKafkaProducer | None) -> None:
        if old is not None:
            with contextlib.suppress(Exception):
                await within(1, old.stop())
        while True:
            producer = None
            try:
                producer = self._new()  # raises OSError while a certificate's file is missing
                await producer.start()
                producer.client.add_topic(self._settings.topic)  # otherwise it asks for all topics
            except (KafkaError, ProducerClosed, OSError) as error:
                fault = tls_fault(KAFKA) or repr(error)
                logger.warning("Kafka is not reachable yet", error=fault)
                if producer is not None:
                    with contextlib.suppress(Exception):
                        await producer.stop()
                await asyncio.sleep(_RESTART_PAUSE)
            else:
                self._known = set()
                self.silence.answered()
                self._producer = producer
                return

    def _new(self) -> aiokafka.AIOKafkaProducer:
        return aiokafka.AIOKafkaProducer(
            **connection_options(self._settings, self._client_id),
            enable_idempotence=True,
            acks="all",
            linger_ms=0,
            max_batch_size=_BATCH_SIZE,
            max_request_size=wire.SIZE_LIMIT * 64,
        )


async def _answers(producer: aiokafka.AIOKafkaProducer) -> bool:
    """Return whether any broker that `producer` knows answers a request for metadata."""

    async def ask() -> bool:
        return bool(await producer.client.force_metadata_update())

    with contextlib.suppress(Exception):  # any error means that there was no answer
        if await within(_PROBE_WITHIN, ask()):
            return True
    with contextlib.suppress(TimeoutError):
        await within(_PROBE_WITHIN, _close_dead_connections(producer))
    return False


async def _close_dead_connections(producer: aiokafka.AIOKafkaProducer) -> None:
    """Ask each broker once more, by the call that closes a connection without an answer.

    The update of metadata uses a dead connection again and again, also when the broker is back.
    """
    client = producer.client
    nodes = [broker.nodeId for broker in client.cluster.brokers()]
    await asyncio.gather(
        *(client.send(node, MetadataRequest([])) for node in nodes), return_exceptions=True
    )
