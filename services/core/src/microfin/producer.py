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

from microfin import wire
from microfin.kafka_client import connection_options
from microfin.settings import CommonSettings
from microfin.wire import Command

logger = structlog.get_logger(__name__)

Headers = Sequence[tuple[str, bytes]]

_RESTART_PAUSE = 0.5  # seconds between two attempts at a new producer
_METADATA_ATTEMPTS = 20
_METADATA_PAUSE = 0.1  # seconds

# Bytes. While a partition has no leader its commands gather in one batch, about 600 in this one;
# Kafka's own 16 KiB were full after 50. It is a quarter of the largest batch that the topic takes.
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

    A replaced producer forgets what its predecessor had under way: those sends end as
    `ProduceUnknown`, and whoever needs certainty sends the command again, with its id.
    """

    def __init__(self, settings: CommonSettings, client_id: str) -> None:
        self._settings = settings
        self._client_id = client_id
        self._producer: aiokafka.AIOKafkaProducer | None = None
        self._starter: asyncio.Task[None] | None = None
        self._closed = False
        self._known: set[int] = set()  # partitions only ever come

    @property
    def ready(self) -> bool:
        """Whether commands can be sent now."""
        return self._producer is not None

    async def start(self) -> None:
        """Connect; returns once connected, however long the brokers take."""
        self._replace()
        if self._starter is not None:
            await asyncio.shield(self._starter)

    async def stop(self) -> None:
        """Send what is still gathered, and close."""
        self._closed = True
        if self._starter is not None:
            self._starter.cancel()
        producer, self._producer = self._producer, None
        if producer is not None:
            with contextlib.suppress(KafkaError, TimeoutError):
                await asyncio.wait_for(producer.stop(), 5)

    async def send(self, partition: int, command: Command, headers: Headers = ()) -> Appended:
        """Append `command` to `partition` and return where it stands.

        Raises `ProduceRefused` where it is certainly not in the log, `ProduceUnknown` where
        nobody knows. Wait with a deadline of your own.
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
        except KafkaError as error:  # It was not even taken into a batch.
            self._give_up_after(producer, error)
            raise ProduceRefused(repr(error)) from error
        try:
            metadata = await delivery
        except KafkaError as error:
            self._give_up_after(producer, error)
            raise ProduceUnknown(repr(error)) from error
        return Appended(partition, metadata.offset, metadata.timestamp)

    async def _know(self, producer: aiokafka.AIOKafkaProducer, partition: int) -> None:
        """Wait until the client has heard of `partition`, which may have come a moment ago."""
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

    def _replace(self, old: aiokafka.AIOKafkaProducer | None = None) -> None:
        self._starter = asyncio.create_task(self._start_until_connected(old))

    async def _start_until_connected(self, old: aiokafka.AIOKafkaProducer | None) -> None:
        if old is not None:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(old.stop(), 1)
        while True:
            producer = aiokafka.AIOKafkaProducer(
                **connection_options(self._settings, self._client_id),
                enable_idempotence=True,
                acks="all",
                linger_ms=0,
                max_batch_size=_BATCH_SIZE,
                max_request_size=wire.SIZE_LIMIT * 64,
            )
            try:
                await producer.start()
            except (KafkaError, ProducerClosed, OSError) as error:
                logger.warning("Kafka is not reachable yet", error=repr(error))
                with contextlib.suppress(Exception):
                    await producer.stop()
                await asyncio.sleep(_RESTART_PAUSE)
            else:
                self._known = set()
                self._producer = producer
                return
