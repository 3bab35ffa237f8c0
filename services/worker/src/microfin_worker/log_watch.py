"""Watching the log's end over a separate connection, because a reader may fail without an error.

A reader that the brokers refuse, or whose brokers have all moved, fetches nothing and raises
nothing. That the log's end has advanced distinguishes it from a log without new records.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

import aiokafka
import structlog

from microfin.process.deadline import within
from microfin.process.silence import Silence
from microfin_worker.ports import Clock

logger = structlog.get_logger(__name__)

EVERY: Final = 1.0
"""Seconds between two requests."""

_WITHIN: Final = 5.0  # seconds
_COUNT_EVERY: Final = 5  # requests, until the topic's partitions are counted again


class LogWatch:
    """Asks the broker every second where a partition ends."""

    def __init__(
        self,
        topic_partition: aiokafka.TopicPartition,
        connect: Callable[[], Awaitable[aiokafka.AIOKafkaConsumer]],
        clock: Clock,
        silence: Silence,
    ) -> None:
        self._topic_partition = topic_partition
        self._connect = connect
        self._clock = clock
        self._silence = silence
        self._inspector: aiokafka.AIOKafkaConsumer | None = None
        self._task: asyncio.Task[None] | None = None
        self.end = 0
        """The offset after the last record, as the broker last reported it; 0 before."""
        self.topic_partitions = 0
        """How many partitions the topic had when the broker was last asked; 0 before."""
        self._until_count = 0

    def start(self) -> None:
        """Begin to ask the broker."""
        self._task = asyncio.create_task(self._ask_for_ever())

    async def stop(self) -> None:
        """Stop asking, and disconnect."""
        if self._task is not None:
            self._task.cancel()
        await self._disconnect()

    async def _ask_for_ever(self) -> None:
        while True:
            self._silence.ask()
            try:
                self.end = await within(_WITHIN, self._ask(), "Kafka")
            except Exception as error:  # noqa: BLE001 - after any error there is no answer
                logger.warning("the log's broker does not answer", error=repr(error))
                await self._disconnect()
            else:
                self._silence.answered()
            await self._clock.tick(EVERY)

    async def _ask(self) -> int:
        """Ask over the existing connection, or over a new one to the configured servers."""
        if self._inspector is None:
            self._inspector = await self._connect()
        if self._until_count == 0:
            await self._count_partitions(self._inspector)
        self._until_count = (self._until_count or _COUNT_EVERY) - 1
        ends = await self._inspector.end_offsets([self._topic_partition])
        end: int = ends[self._topic_partition]
        return end

    async def _count_partitions(self, inspector: aiokafka.AIOKafkaConsumer) -> None:
        await inspector.topics()  # asks the brokers, because the client's metadata could be old
        partitions = inspector.partitions_for_topic(self._topic_partition.topic) or set()
        self.topic_partitions = len(partitions)

    async def _disconnect(self) -> None:
        inspector, self._inspector = self._inspector, None
        if inspector is not None:
            with contextlib.suppress(Exception):
                await within(_WITHIN, inspector.stop())
