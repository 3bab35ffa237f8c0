"""The log in Kafka: one partition, read by assignment, without rebalancing in a group."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Sequence

import aiokafka
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from microfin.kafka.client import connection_options
from microfin.kafka.producer import CommandProducer
from microfin.ledger.wire import Command
from microfin.process.clock import SystemClock
from microfin.process.deadline import within
from microfin.process.settings import WorkerSettings
from microfin.process.silence import Silence
from microfin_worker import log_watch
from microfin_worker.log_watch import LogWatch
from microfin_worker.ports import OutOfRange, PartitionMissing, Record

LAG_GROUP = "microfin-workers"
"""The group under which offsets are committed for lag tools; the worker never reads them."""

_FETCH_WAIT = 1000  # milliseconds; half of the time that a client gives a request

# Milliseconds after which the client looks for something to fetch without a signal. All that this
# worker does is a signal, and a look wakes an idle worker up; aiokafka looks five times a second.
_CLIENT_LOOKS = 5_000

_NOTE_AGAIN = 60.0  # seconds after which an offset is noted again that has not changed
_CALL_TIMEOUT = 5.0  # seconds
_LONGEST_SILENCE = 5.0  # seconds for which a reader may fetch nothing though there are records


class ReaderSilent(ConnectionError):
    """The broker has records, and the reader does not fetch them."""


class KafkaLog:
    """The commands topic as the worker of one partition sees it."""

    def __init__(self, settings: WorkerSettings, partition: int) -> None:
        name = f"microfin-worker-{partition}"
        self._settings = settings
        self._name = name
        self._topic_partition = aiokafka.TopicPartition(settings.topic, partition)
        self._producer = CommandProducer(settings, name)
        self._reader: aiokafka.AIOKafkaConsumer | None = None
        self._clock = SystemClock()
        self.silence = Silence("Kafka", log_watch.UNASKED)
        self._watch = LogWatch(
            self._topic_partition,
            self._connect_unassigned,
            self._clock,
            self.silence,
            self._reader_answered,
        )
        self._polled: int | None = None  # when the reader's last fetch was answered, as it says
        self._answered = -math.inf  # the same, by the monotonic clock
        self._noted = (-1, -math.inf)  # the offset that was noted last, and when
        self._fetching: asyncio.Timeout | None = None
        self._next_offset = 0  # the offset after the last record that was fetched
        self._silent_since: float | None = None
        self._commit_task: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def topic_partitions(self) -> int:
        """How many partitions the topic had when the brokers were last asked; 0 before."""
        return self._watch.topic_partitions

    async def start(self) -> None:
        """Connect; wait for the brokers without a limit."""
        self._watch.start()
        await self._producer.start()

    async def stop(self) -> None:
        """Close all connections."""
        await asyncio.gather(self._producer.stop(), self._watch.stop())
        if self._reader is not None:
            await _close(self._reader)

    async def bounds(self) -> tuple[int, int]:
        """Return the first offset that the log holds, and the one after the last."""
        async with self._inspector() as inspector:
            return await within(_CALL_TIMEOUT, self._bounds_by(inspector), "Kafka")

    async def _bounds_by(self, inspector: aiokafka.AIOKafkaConsumer) -> tuple[int, int]:
        topic_partition = self._topic_partition
        await inspector.topics()  # asks the brokers, because the client's metadata could be old
        partitions = inspector.partitions_for_topic(topic_partition.topic) or set()
        if topic_partition.partition not in partitions:
            raise PartitionMissing(
                f"{topic_partition.topic} has no partition {topic_partition.partition}"
            )
        start = (await inspector.beginning_offsets([topic_partition]))[topic_partition]
        end = (await inspector.end_offsets([topic_partition]))[topic_partition]
        return start, end

    async def record_at(self, offset: int) -> Record | None:
        """Return the record at `offset`, or None if there is none."""
        async with self._inspector() as inspector:
            inspector.seek(self._topic_partition, offset)
            try:
                async with asyncio.timeout(_CALL_TIMEOUT):
                    found = await inspector.getone(self._topic_partition)
            except OffsetOutOfRangeError:
                return None
            except TimeoutError:
                if inspector.last_poll_timestamp(self._topic_partition) is None:
                    raise TimeoutError("Kafka did not answer a fetch") from None
                return None  # it answered that there is nothing
        return _record(found) if found.offset == offset else None

    async def seek(self, offset: int) -> None:
        """Let the next `fetch` begin at `offset`."""
        if self._reader is None:
            self._reader = await self._connect_assigned(group=LAG_GROUP)
        self._reader.seek(self._topic_partition, offset)
        self._next_offset, self._silent_since = offset, None

    async def fetch(self, limit: int) -> Sequence[Record]:
        """Return the next records, at most `limit`; none if none arrive within a second.

        Raises `ReaderSilent` if the broker has had records for long and none were fetched. Then the
        next `seek` makes a new reader, which connects to the configured servers.

        Nothing is fetched between two calls. Otherwise the client would fetch the first record that
        arrives, and hold this one alone while others collect at the broker.
        """
        reader = self._reader
        if reader is None:
            raise RuntimeError("seek comes before fetch")
        reader.resume(self._topic_partition)
        fetched: dict[aiokafka.TopicPartition, list[aiokafka.ConsumerRecord]] = {}
        until_ended = self._fetching = asyncio.timeout(None)
        try:
            async with until_ended:
                fetched = await reader.getmany(
                    self._topic_partition, timeout_ms=_FETCH_WAIT, max_records=limit
                )
        except TimeoutError:
            if not until_ended.expired():
                raise
        except OffsetOutOfRangeError as error:
            raise OutOfRange(str(error)) from error
        finally:
            self._fetching = None
            reader.pause(self._topic_partition)
        self.silence.answered(self._reader_answered())
        records = [_record(record) for record in fetched.get(self._topic_partition, ())]
        if records:
            self._next_offset, self._silent_since = records[-1].offset + 1, None
        else:
            self._discard_if_silent(reader)
        return records

    def end_fetch(self) -> None:
        """Let the fetch under way return at once, for who has no more use for it."""
        fetching, self._fetching = self._fetching, None
        if fetching is not None:
            fetching.reschedule(asyncio.get_running_loop().time())

    def _reader_answered(self) -> float:
        """Return when (monotonic) the last fetch was answered, if only by "there is nothing".

        The client gives the moment by the wall clock, which may be set: it is believed once.
        """
        reader = self._reader
        polled = reader.last_poll_timestamp(self._topic_partition) if reader is not None else None
        if polled is not None and polled != self._polled:
            ago = min(max((self._clock.now() - polled) / 1000, 0.0), log_watch.EVERY)
            self._polled, self._answered = polled, self._clock.monotonic() - ago
        return self._answered

    def _discard_if_silent(self, reader: aiokafka.AIOKafkaConsumer) -> None:
        """Discard the reader if it has fetched nothing for too long though there are records."""
        now = self._clock.monotonic()
        if self._watch.end <= self._next_offset:
            self._silent_since = None
        elif self._silent_since is None:  # nobody may have asked for a while
            self._silent_since = max(self._reader_answered(), now - log_watch.UNASKED)
        elif now - self._silent_since > _LONGEST_SILENCE:
            self._reader = None
            closing = asyncio.create_task(_close(reader))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
            end, next_offset = self._watch.end, self._next_offset
            raise ReaderSilent(
                f"Kafka's log ends at {end}, but the reader is silent at {next_offset}"
            )

    async def reread(self, offset: int) -> Record | None:
        """Return the record at `offset` over the connection that fetches: in one round trip."""
        reader = self._reader
        if reader is None:
            raise RuntimeError("seek comes before reread")
        position = await reader.position(self._topic_partition)
        reader.seek(self._topic_partition, offset)
        reader.resume(self._topic_partition)
        try:
            async with asyncio.timeout(_CALL_TIMEOUT):
                found = await reader.getone(self._topic_partition)
        except (TimeoutError, OffsetOutOfRangeError):
            return None
        finally:
            reader.pause(self._topic_partition)
            reader.seek(self._topic_partition, position)
        return _record(found) if found.offset == offset else None

    def end(self) -> int:
        """Return the offset after the last record, as far as the broker or a fetch has shown."""
        end = self._reader.highwater(self._topic_partition) if self._reader is not None else None
        return max(end or 0, self._watch.end)

    async def append(self, partition: int, command: Command) -> int:
        """Append to any partition; return when all in-sync replicas have acknowledged."""
        async with asyncio.timeout(self._settings.database_timeout * 4):
            appended = await self._producer.send(partition, command)
        return appended.time

    async def note(self, next_offset: int) -> None:
        """Commit the group's offset for lag tools, if it has changed or is old. Best effort.

        The client tries for ever while no broker answers, and cannot always be cancelled.
        """
        reader = self._reader
        if reader is None or (self._commit_task is not None and not self._commit_task.done()):
            return
        offset, moment = self._noted
        if next_offset == offset and self._clock.monotonic() - moment < _NOTE_AGAIN:
            return
        self._commit_task = asyncio.create_task(self._commit(reader, next_offset))
        await asyncio.wait({self._commit_task}, timeout=_CALL_TIMEOUT)

    async def _commit(self, reader: aiokafka.AIOKafkaConsumer, next_offset: int) -> None:
        with contextlib.suppress(KafkaError, TimeoutError):
            await reader.commit({self._topic_partition: next_offset})
            self._noted = next_offset, self._clock.monotonic()

    @contextlib.asynccontextmanager
    async def _inspector(self) -> AsyncIterator[aiokafka.AIOKafkaConsumer]:
        """Provide a consumer for one check, without metadata or positions from before."""
        inspector = await self._connect_assigned(group=None)
        try:
            yield inspector
        finally:
            await _close(inspector)

    async def _connect_assigned(self, group: str | None) -> aiokafka.AIOKafkaConsumer:
        """Return a new consumer that is assigned this partition."""
        return await self._connect(group, assigned=True)

    async def _connect_unassigned(self) -> aiokafka.AIOKafkaConsumer:
        """Return a new consumer that fetches nothing."""
        return await self._connect(None, assigned=False)

    async def _connect(self, group: str | None, *, assigned: bool) -> aiokafka.AIOKafkaConsumer:
        consumer = aiokafka.AIOKafkaConsumer(
            **connection_options(self._settings, self._name),
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="none",
            fetch_max_wait_ms=_FETCH_WAIT,
            consumer_timeout_ms=_CLIENT_LOOKS,
            max_partition_fetch_bytes=4 * 1024 * 1024,
        )
        if assigned:
            consumer.assign([self._topic_partition])
        try:
            await within(_CALL_TIMEOUT * 2, consumer.start(), "Kafka")
        except BaseException:
            await _close(consumer)
            raise
        return consumer


async def _close(consumer: aiokafka.AIOKafkaConsumer) -> None:
    with contextlib.suppress(Exception):
        await within(_CALL_TIMEOUT, consumer.stop())


def _record(record: aiokafka.ConsumerRecord) -> Record:
    return Record(record.offset, record.timestamp, record.key, record.value)
