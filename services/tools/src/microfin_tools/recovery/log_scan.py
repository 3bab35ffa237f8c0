"""Reading the part of a partition's log that will be replayed, before the replay."""

from collections.abc import Callable, Collection
from typing import Final

import aiokafka
import msgspec
from aiokafka import TopicPartition

from microfin.kafka.client import connection_options
from microfin.ledger import wire
from microfin.process.settings import CommonSettings

_AT_A_TIME: Final = 5_000
_WAIT: Final = 1_000  # milliseconds

Say = Callable[[str], None]


class LogRecord(msgspec.Struct, frozen=True, gc=False):
    """A record of the log. `time` is the broker's, in milliseconds since the Unix epoch."""

    offset: int
    time: int
    key: bytes | None
    value: bytes | None


class Noticed(msgspec.Struct):
    """The findings of a scan: the first record of a later routing, the first of a newer wire
    version (offset and version), and which of the wanted operations it met."""

    records: int = 0
    later: LogRecord | None = None
    later_generation: int = 0
    newer: tuple[int, int] | None = None
    operations: set[str] = msgspec.field(default_factory=set)


class LogScan:
    """Reads ranges of the commands topic. Use it as a context."""

    def __init__(self, settings: CommonSettings, say: Say) -> None:
        self._settings = settings
        self._say = say
        self._consumer: aiokafka.AIOKafkaConsumer | None = None

    async def __aenter__(self) -> "LogScan":
        """Open nothing yet: the first read connects."""
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Disconnect."""
        if self._consumer is not None:
            await self._consumer.stop()

    async def record_at(self, partition: int, offset: int) -> LogRecord | None:
        """Return the record at `offset`, which the log must keep, or None if there is none."""
        consumer, place = await self._at(partition, offset)
        fetched = await consumer.getmany(place, timeout_ms=_WAIT * 5, max_records=1)
        records = fetched.get(place, [])
        if not records or records[0].offset != offset:
            return None
        found = records[0]
        return LogRecord(found.offset, found.timestamp, found.key, found.value)

    async def scan(
        self, partition: int, start: int, end: int, generation: int, wanted: Collection[str]
    ) -> Noticed:
        """Read offsets `start` to `end` of `partition` and return the findings.

        Stops at the first record whose routing is later than `generation`.
        """
        noticed = Noticed()
        if start >= end:
            return noticed
        consumer, place = await self._at(partition, start)
        while await consumer.position(place) < end:
            fetched = await consumer.getmany(place, timeout_ms=_WAIT, max_records=_AT_A_TIME)
            for record in fetched.get(place, []):
                if record.offset >= end:
                    break
                noticed.records += 1
                _notice(noticed, record, generation, wanted)
                if noticed.later is not None:
                    return noticed
            self._say(f"partition {partition}: read {noticed.records} of {end - start} records")
        return noticed

    async def _at(
        self, partition: int, offset: int
    ) -> tuple[aiokafka.AIOKafkaConsumer, TopicPartition]:
        """Return a consumer that will read `partition`, beginning at `offset`."""
        if self._consumer is None:
            self._consumer = aiokafka.AIOKafkaConsumer(
                **connection_options(self._settings, "microfin-recover"),
                enable_auto_commit=False,
                auto_offset_reset="none",
                max_partition_fetch_bytes=4 * 1024 * 1024,
            )
            await self._consumer.start()
        place = TopicPartition(self._settings.topic, partition)
        self._consumer.assign([place])
        self._consumer.seek(place, offset)
        return self._consumer, place


def _notice(
    noticed: Noticed, record: aiokafka.ConsumerRecord, generation: int, wanted: Collection[str]
) -> None:
    glance = wire.glance(record.value)
    if glance is None:
        return  # the workers will quarantine it, as before
    if glance.v > wire.VERSION and noticed.newer is None:
        noticed.newer = (record.offset, glance.v)
    if glance.generation > generation and _would_stop(record):
        noticed.later = LogRecord(record.offset, record.timestamp, record.key, record.value)
        noticed.later_generation = glance.generation
    if glance.operation in wanted:
        noticed.operations.add(glance.operation)


def _would_stop(record: aiokafka.ConsumerRecord) -> bool:
    """Return whether a worker reads the record as a command: garbage may name any routing."""
    try:
        wire.decode(record.key, record.value)
    except wire.Undecodable:
        return False
    except wire.NewerVersion:
        return True
    return True
