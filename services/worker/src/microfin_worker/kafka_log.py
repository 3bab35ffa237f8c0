"""The log on Kafka: one partition read by assignment, without a consumer group's rebalancing."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import aiokafka
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from microfin.kafka.client import connection_options
from microfin.kafka.producer import CommandProducer
from microfin.ledger.wire import Command
from microfin.process.clock import SystemClock
from microfin.process.deadline import within
from microfin.process.settings import WorkerSettings
from microfin_worker.edges import OutOfRange, PartitionMissing, Record
from microfin_worker.log_watch import LogWatch

LAG_GROUP = "microfin-workers"
"""The group under which offsets are noted for lag tools; nothing is ever read from it."""

_FETCH_WAIT = 500  # milliseconds
_CALL_TIMEOUT = 5.0  # seconds
_LONGEST_SILENCE = 5.0  # seconds for which a reader may fetch nothing of what is there


class ReaderSilent(ConnectionError):
    """The broker has records that the reader does not fetch."""


class KafkaLog:
    """The commands topic as the worker of one partition sees it."""

    def __init__(self, settings: WorkerSettings, partition: int) -> None:
        name = f"microfin-worker-{partition}"
        self._settings = settings
        self._name = name
        self._place = aiokafka.TopicPartition(settings.topic, partition)
        self._producer = CommandProducer(settings, name)
        self._reader: aiokafka.AIOKafkaConsumer | None = None
        self._clock = SystemClock()
        self._watch = LogWatch(self._place, self._unassigned, self._clock)
        self._following = 0  # the offset after the last record that was fetched
        self._silent_since: float | None = None
        self._noting: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self.topic_partitions = 0
        """How many partitions the topic had at the last look, 0 before the first."""

    async def start(self) -> None:
        """Connect, however long the brokers take."""
        self._watch.start()
        await self._producer.start()

    async def stop(self) -> None:
        """Close all connections."""
        await asyncio.gather(self._producer.stop(), self._watch.stop())
        if self._reader is not None:
            await _end(self._reader)

    def unanswered(self) -> float:
        """Return for how many seconds the broker has not told where the log ends."""
        return self._watch.unanswered()

    async def bounds(self) -> tuple[int, int]:
        """Return the first offset that is kept and the one after the last."""
        async with self._inspector() as inspector:
            return await within(_CALL_TIMEOUT, self._bounds_by(inspector), "Kafka")

    async def _bounds_by(self, inspector: aiokafka.AIOKafkaConsumer) -> tuple[int, int]:
        place = self._place
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
        self._following, self._silent_since = offset, None

    async def fetch(self, limit: int) -> Sequence[Record]:
        """Return the next records, at most `limit`; none if none come within half a second.

        Raises `ReaderSilent` where it has long fetched nothing of what the broker says is there;
        the next `seek` then makes a new reader, from the configured servers.

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
        records = [_record(record) for record in fetched.get(self._place, ())]
        if records:
            self._following, self._silent_since = records[-1].offset + 1, None
        else:
            self._suspect(reader)
        return records

    def _suspect(self, reader: aiokafka.AIOKafkaConsumer) -> None:
        """Give the reader up where it has been silent for too long about what is there."""
        now = self._clock.monotonic()
        if self._watch.end <= self._following:
            self._silent_since = None
        elif self._silent_since is None:
            self._silent_since = now
        elif now - self._silent_since > _LONGEST_SILENCE:
            self._reader = None
            ending = asyncio.create_task(_end(reader))
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)
            raise ReaderSilent(
                f"Kafka's log ends at {self._watch.end}, and nothing comes from {self._following}"
            )

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
        """Return the offset after the last record, as far as the broker or a fetch has told."""
        end = self._reader.highwater(self._place) if self._reader is not None else None
        return max(end or 0, self._watch.end)

    async def append(self, partition: int, command: Command) -> int:
        """Append to any partition; returns when all in-sync replicas have acknowledged."""
        async with asyncio.timeout(self._settings.database_timeout * 4):
            appended = await self._producer.send(partition, command)
        return appended.time

    async def note(self, next_offset: int) -> None:
        """Commit the group's offset for lag tools. Best effort.

        The client tries for ever while no broker answers, and cannot always be told to stop.
        """
        reader = self._reader
        if reader is None or (self._noting is not None and not self._noting.done()):
            return
        self._noting = asyncio.create_task(_commit(reader, {self._place: next_offset}))
        await asyncio.wait({self._noting}, timeout=_CALL_TIMEOUT)

    @contextlib.asynccontextmanager
    async def _inspector(self) -> AsyncIterator[aiokafka.AIOKafkaConsumer]:
        """Give a consumer for one look, with no memory of earlier metadata or positions."""
        inspector = await self._consumer(group=None)
        try:
            yield inspector
        finally:
            await _end(inspector)

    async def _consumer(self, group: str | None) -> aiokafka.AIOKafkaConsumer:
        """Return a new consumer that is assigned this partition."""
        return await self._started(group, assigned=True)

    async def _unassigned(self) -> aiokafka.AIOKafkaConsumer:
        """Return a new consumer that fetches nothing."""
        return await self._started(None, assigned=False)

    async def _started(self, group: str | None, *, assigned: bool) -> aiokafka.AIOKafkaConsumer:
        consumer = aiokafka.AIOKafkaConsumer(
            **connection_options(self._settings, self._name),
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="none",
            fetch_max_wait_ms=_FETCH_WAIT,
            max_partition_fetch_bytes=4 * 1024 * 1024,
        )
        if assigned:
            consumer.assign([self._place])
        try:
            await within(_CALL_TIMEOUT * 2, consumer.start(), "Kafka")
        except BaseException:
            await _end(consumer)
            raise
        return consumer


async def _commit(
    consumer: aiokafka.AIOKafkaConsumer, offsets: dict[aiokafka.TopicPartition, int]
) -> None:
    with contextlib.suppress(KafkaError, TimeoutError):
        await consumer.commit(offsets)


async def _end(consumer: aiokafka.AIOKafkaConsumer) -> None:
    with contextlib.suppress(Exception):
        await within(_CALL_TIMEOUT, consumer.stop())


def _record(record: aiokafka.ConsumerRecord) -> Record:
    return Record(record.offset, record.timestamp, record.key, record.value)
