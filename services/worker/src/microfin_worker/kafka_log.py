"""The log on Kafka: one partition read by assignment, without a consumer group's rebalancing."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import aiokafka
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from microfin.kafka_client import connection_options
from microfin.producer import CommandProducer
from microfin.settings import WorkerSettings
from microfin.wire import Command
from microfin_worker.edges import OutOfRange, PartitionMissing, Record

LAG_GROUP = "microfin-workers"
"""The group under which offsets are noted for lag tools; nothing is ever read from it."""

_FETCH_WAIT = 500  # milliseconds
_CALL_TIMEOUT = 5.0  # seconds


class KafkaLog:
    """The commands topic as the worker of one partition sees it."""

    def __init__(self, settings: WorkerSettings, partition: int) -> None:
        name = f"microfin-worker-{partition}"
        self._settings = settings
        self._name = name
        self._place = aiokafka.TopicPartition(settings.topic, partition)
        self._producer = CommandProducer(settings, name)
        self._reader: aiokafka.AIOKafkaConsumer | None = None
        self.topic_partitions = 0
        """How many partitions the topic had at the last look, 0 before the first."""

    async def start(self) -> None:
        """Connect, however long the brokers take."""
        await self._producer.start()

    async def stop(self) -> None:
        """Close all connections."""
        await self._producer.stop()
        if self._reader is not None:
            with contextlib.suppress(KafkaError, TimeoutError):
                await asyncio.wait_for(self._reader.stop(), _CALL_TIMEOUT)

    async def bounds(self) -> tuple[int, int]:
        """Return the first offset that is kept and the one after the last."""
        place = self._place
        async with self._inspector() as inspector, asyncio.timeout(_CALL_TIMEOUT):
            await inspector.topics()  # asks the brokers, where our own memory could be old
            there = inspector.partitions_for_topic(place.topic) or set()
            self.topic_partitions = len(there)
            if place.partition not in there:
                raise PartitionMissing(f"{place.topic} has no partition {place.partition}")
            start = (await inspector.beginning_offsets([place]))[place]
            end = (await inspector.end_offsets([place]))[place]
        return start, end

    async def record_at(self, offset: int) -> Record | None:
        """Return the record at `offset`, or None where there is none."""
        async with self._inspector() as inspector:
            inspector.seek(self._place, offset)
            try:
                async with asyncio.timeout(_CALL_TIMEOUT):
                    found = await inspector.getone(self._place)
            except (TimeoutError, OffsetOutOfRangeError):
                return None
        return _record(found) if found.offset == offset else None

    async def seek(self, offset: int) -> None:
        """Let the next `fetch` begin at `offset`."""
        if self._reader is None:
            self._reader = await self._consumer(group=LAG_GROUP)
        self._reader.seek(self._place, offset)

    async def fetch(self, limit: int) -> Sequence[Record]:
        """Return the next records, at most `limit`; none if none come within half a second.

        Between two calls nothing is fetched: the client would take the first record that comes, and
        hold it alone while others gather on the broker.
        """
        reader = self._reader
        if reader is None:
            raise RuntimeError("seek comes before fetch")
        reader.resume(self._place)
        try:
            fetched = await reader.getmany(self._place, timeout_ms=_FETCH_WAIT, max_records=limit)
        except OffsetOutOfRangeError as error:
            raise OutOfRange(str(error)) from error
        finally:
            reader.pause(self._place)
        return [_record(record) for record in fetched.get(self._place, ())]

    async def reread(self, offset: int) -> Record | None:
        """Return the record at `offset` by the connection that fetches: one round trip."""
        reader = self._reader
        if reader is None:
            raise RuntimeError("seek comes before reread")
        following = await reader.position(self._place)
        reader.seek(self._place, offset)
        reader.resume(self._place)
        try:
            async with asyncio.timeout(_CALL_TIMEOUT):
                found = await reader.getone(self._place)
        except (TimeoutError, OffsetOutOfRangeError):
            return None
        finally:
            reader.pause(self._place)
            reader.seek(self._place, following)
        return _record(found) if found.offset == offset else None

    def end(self) -> int:
        """Return the offset after the last record as far as the fetches have told."""
        end = self._reader.highwater(self._place) if self._reader is not None else None
        return end or 0

    async def append(self, partition: int, command: Command) -> int:
        """Append to any partition; returns when all in-sync replicas have acknowledged."""
        async with asyncio.timeout(self._settings.database_timeout * 4):
            appended = await self._producer.send(partition, command)
        return appended.time

    async def note(self, next_offset: int) -> None:
        """Commit the group's offset for lag tools. Best effort."""
        if self._reader is None:
            return
        with contextlib.suppress(KafkaError, TimeoutError):
            async with asyncio.timeout(_CALL_TIMEOUT):
                await self._reader.commit({self._place: next_offset})

    @contextlib.asynccontextmanager
    async def _inspector(self) -> AsyncIterator[aiokafka.AIOKafkaConsumer]:
        """Give a consumer for one look, with no memory of earlier metadata or positions."""
        inspector = await self._consumer(group=None)
        try:
            yield inspector
        finally:
            with contextlib.suppress(KafkaError, TimeoutError):
                await asyncio.wait_for(inspector.stop(), _CALL_TIMEOUT)

    async def _consumer(self, group: str | None) -> aiokafka.AIOKafkaConsumer:
        consumer = aiokafka.AIOKafkaConsumer(
            **connection_options(self._settings, self._name),
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="none",
            fetch_max_wait_ms=_FETCH_WAIT,
            max_partition_fetch_bytes=4 * 1024 * 1024,
        )
        consumer.assign([self._place])
        try:
            async with asyncio.timeout(_CALL_TIMEOUT * 2):
                await consumer.start()
        except BaseException:
            with contextlib.suppress(Exception):
                await consumer.stop()
            raise
        return consumer


def _record(record: aiokafka.ConsumerRecord) -> Record:
    return Record(record.offset, record.timestamp, record.key, record.value)
